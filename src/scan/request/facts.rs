//! The facts of a request body.

use std::{fmt, ops::Range};

use crate::{
    body_path::BodyTexts,
    ids::{ContentDigest, EncryptedContent, ObjectId},
    media::MediaTally,
};

/// The facts of a request body that decide its route.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `model`, or `None` if it is absent or `null`.
    pub model: Option<String>,
    /// The bytes of the decompressed body that hold the value of `model` as written, with its quotes. Replacing them by
    /// another JSON string changes this value and nothing else.
    pub model_at: Option<Range<u64>>,
    /// `stream`, or `None` if it is not a boolean.
    pub stream: Option<bool>,
    /// `store`, or `None` if it is not a boolean.
    pub store: Option<bool>,
    /// `background`, or `None` if it is not a boolean.
    pub background: Option<bool>,
    /// The texts at the configured paths, which may name the session.
    pub texts: BodyTexts,
    /// The beginning of the conversation, which all requests of the conversation share; `None` if the body has no
    /// conversation.
    pub content: Option<ContentDigest>,
    /// The objects that the body names, in the order in which they stand.
    pub named: Vec<NamedObject>,
    /// The `encrypted_content` of items of `input` in the order in which they stand: the last
    /// [`RequestFacts::MAX_ENCRYPTED`] that are strings. A key that is written with escapes does not count.
    pub encrypted: Vec<EncryptedContent>,
    /// The images, recordings and files that the body contains in base64.
    pub media: MediaTally,
    /// The members of the root that have another type than the API defines. A form has none, because its fields are texts.
    pub mistyped: MistypedFields,
}

/// A member of the root whose type is checked. `null` counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypedField {
    /// `previous_response_id`, a string.
    PreviousResponseId,
    /// `conversation`, a string or an object with a string `id`.
    Conversation,
    /// `prompt_cache_key`, a string.
    PromptCacheKey,
}

/// A set of fields that have values of another type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MistypedFields(u8);

impl MistypedFields {
    /// Adds `field`.
    pub fn add(&mut self, field: TypedField) {
        self.0 |= 1 << field as u8;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `field` is one of them.
    pub fn contains(self, field: TypedField) -> bool {
        self.0 >> field as u8 & 1 == 1
    }
}

impl RequestFacts {
    /// The maximum number of encrypted contents that are kept.
    pub const MAX_ENCRYPTED: usize = 8;
    /// The maximum number of named objects that are kept. If the names decide access, a body with more is refused.
    pub const MAX_NAMED: usize = 4096;
}

/// Prints the model, and only the lengths of everything else that the caller chooses.
impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts")
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("store", &self.store)
            .field("background", &self.background)
            .field("texts", &self.texts)
            .field("content", &self.content)
            .field("named", &self.named)
            .field("encrypted", &self.encrypted)
            .field("media", &self.media)
            .field("mistyped", &self.mistyped)
            .finish_non_exhaustive()
    }
}

/// An object of an upstream that a request body names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamedObject {
    /// How the body refers to the object.
    pub kind: ReferenceKind,
    /// The identity of the object.
    pub id: ObjectId,
}

/// How a request body refers to an object. If the objects of a request have different owners, the request goes to the owner
/// of the kind that comes first here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// `previous_response_id`
    PreviousResponse,
    /// `conversation`
    Conversation,
    /// A container of a tool.
    Container,
    /// A vector store of a tool.
    VectorStore,
    /// A file.
    File,
    /// An output item of an earlier response, or an object of another kind.
    Item,
    /// A response that the prompt is compared with, for diagnostics only.
    ComparedResponse,
}
