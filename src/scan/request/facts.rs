//! The facts of a request body.

use std::{fmt, ops::Range};

use crate::ids::EncryptedContent;

/// The facts of a request body that decide its route.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `model`, or `None` if it is absent or `null`.
    pub model: Option<String>,
    /// The bytes of the decompressed body that hold the value of `model` as written, with its quotes. Replacing them by
    /// another JSON string changes this value and nothing else.
    pub model_at: Option<Range<u64>>,
    /// `prompt_cache_key`, or `None` if it is not a string.
    pub prompt_cache_key: Option<String>,
    /// `stream`, or `None` if it is not a boolean.
    pub stream: Option<bool>,
    /// `previous_response_id`, or `None` if it is not a string.
    pub previous_response_id: Option<String>,
    /// `client_metadata.session_id`, or `None` if it is not a string.
    pub session_id: Option<String>,
    /// The beginning of the conversation, which all requests of the conversation share.
    pub content: ConversationPrefix,
    /// The `encrypted_content` of items of `input` in the order in which they stand: the last
    /// [`RequestFacts::MAX_ENCRYPTED`] that are strings. A key that is written with escapes does not count.
    pub encrypted: Vec<EncryptedContent>,
}

impl RequestFacts {
    /// The maximum number of encrypted contents that are kept.
    pub const MAX_ENCRYPTED: usize = 8;
}

/// Prints the model, and only the lengths of everything else that the caller chooses.
impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |text: &Option<String>| text.as_ref().map(String::len);
        f.debug_struct("RequestFacts")
            .field("model", &self.model)
            .field("prompt_cache_key", &length(&self.prompt_cache_key))
            .field("stream", &self.stream)
            .field("previous_response_id", &length(&self.previous_response_id))
            .field("session_id", &length(&self.session_id))
            .field("content", &self.content)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

/// The beginning of a conversation, as raw JSON.
///
/// The requests of a conversation repeat its history, so they have the same prefix. Different conversations mostly have
/// different prefixes.
///
/// The prefix is at most 4 KiB of `instructions` and at most 4 KiB of `input`. If `input` is an array, the prefix ends
/// after the first item whose `role` is `user`. So the first turn and the later turns, which append items, have the same
/// prefix.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConversationPrefix {
    pub(super) instructions: Vec<u8>,
    pub(super) input: Vec<u8>,
}

impl ConversationPrefix {
    /// The maximum length of each of the two parts in bytes.
    pub(super) const MAX_PART: usize = 4096;

    /// The beginning of `instructions` as raw JSON. It is empty if the field is absent or `null`.
    pub fn instructions(&self) -> &[u8] {
        &self.instructions
    }

    /// The beginning of `input` as raw JSON. It is empty if the field is absent or `null`.
    pub fn input(&self) -> &[u8] {
        &self.input
    }
}

/// Prints only the lengths: the text of a conversation must not get into a log.
impl fmt::Debug for ConversationPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instructions, input) = (self.instructions.len(), self.input.len());
        write!(f, "ConversationPrefix({instructions} + {input} bytes)")
    }
}
