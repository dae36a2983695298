//! The containers of a response that lead to its facts, and the members that are read in each.

use super::usage::TokenKind;

/// An object or array that is being read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ScopeKind {
    /// The root object.
    #[default]
    Root,
    /// `response` of an event.
    Response,
    /// `item` of an event.
    Item,
    /// The array `output`, and the items in it.
    Output,
    /// An object whose `id` names an object of the account: `conversation`, or `file` of an upload.
    Named,
    /// The array `result_files` of a fine-tuning job, which contains ids.
    ResultFiles,
    /// An object that contains a `usage`: `message` of a Messages stream, or `x_groq`.
    UsageHolder,
    /// `usage`.
    Usage,
    /// The details of the input in `usage`.
    InputDetails,
    /// The details of the output in `usage`.
    OutputDetails,
    /// The tokens that were written to the cache, by their lifetime.
    CacheWrites,
    /// The array `choices`, and the choices in it.
    Choices,
    /// The delta of a choice.
    Delta,
}

/// A member that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseSlot {
    Type,
    /// The `id` of the root object.
    Id,
    /// The `id` of the object `response`.
    ResponseId,
    /// The `id` of an item of the output.
    ItemId,
    /// The id of another object of the account.
    ObjectName,
    Error,
    Status,
    Background,
    Store,
    /// `data`, which is an array in a list.
    Data,
    /// The member opens this scope. If its value is an id instead, that id names an object.
    Conversation,
    /// The member opens this scope.
    Scope(ScopeKind),
    /// A member of a choice or of its delta that has content unless its value is empty.
    Content,
    Count(TokenKind),
    /// A count, or an object with the parts of that count.
    CacheWrites,
}

impl ScopeKind {
    /// The number of levels from the container to the members that are read in it. An array of objects has two.
    const fn member_levels(self) -> u32 {
        match self {
            Self::Output | Self::Choices => 2,
            Self::Root
            | Self::Response
            | Self::Item
            | Self::Named
            | Self::ResultFiles
            | Self::UsageHolder
            | Self::Usage
            | Self::InputDetails
            | Self::OutputDetails
            | Self::CacheWrites
            | Self::Delta => 1,
        }
    }

    /// The number of levels from the container to the deepest values that are visited.
    const fn visited_levels(self) -> u32 {
        match self {
            // A member of the delta has content if it is a container with something in it.
            Self::Delta => 2,
            _ => self.member_levels(),
        }
    }

    /// Whether the container is an array.
    pub const fn is_array(self) -> bool {
        matches!(self, Self::Output | Self::Choices | Self::ResultFiles)
    }

    /// Whether the members of the container may include encrypted content.
    const fn has_encrypted(self) -> bool {
        matches!(self, Self::Item | Self::Output)
    }

    /// The member called `name`, if it is read.
    fn slot(self, name: &[u8]) -> Option<ResponseSlot> {
        use ResponseSlot::{CacheWrites, Content, Count, ItemId, ObjectName, Scope};
        Some(match self {
            Self::Root => match name {
                b"type" => ResponseSlot::Type,
                b"id" => ResponseSlot::Id,
                b"error" => ResponseSlot::Error,
                b"item" => Scope(Self::Item),
                b"response" => Scope(Self::Response),
                b"choices" => Scope(Self::Choices),
                b"message" | b"x_groq" => Scope(Self::UsageHolder),
                b"output_file_id" | b"error_file_id" | b"vector_store_id" => ObjectName,
                b"file" => Scope(Self::Named),
                b"result_files" => Scope(Self::ResultFiles),
                b"data" => ResponseSlot::Data,
                _ => return response_slot(name),
            },
            Self::Response => match name {
                b"id" => ResponseSlot::ResponseId,
                _ => return response_slot(name),
            },
            Self::Item | Self::Output => match name {
                b"id" => ItemId,
                b"container_id" => ObjectName,
                _ => return None,
            },
            Self::Named if name == b"id" => ObjectName,
            Self::UsageHolder if name == b"usage" => Scope(Self::Usage),
            Self::Usage => match name {
                b"input_tokens_details" | b"prompt_tokens_details" => Scope(Self::InputDetails),
                b"output_tokens_details" | b"completion_tokens_details" => Scope(Self::OutputDetails),
                b"input_tokens" => Count(TokenKind::Input),
                b"prompt_tokens" => Count(TokenKind::Prompt),
                b"output_tokens" | b"completion_tokens" => Count(TokenKind::Output),
                b"cached_tokens" | b"prompt_cache_hit_tokens" => Count(TokenKind::CacheRead),
                b"prompt_cache_miss_tokens" => Count(TokenKind::CacheMiss),
                b"cache_read_input_tokens" => Count(TokenKind::MessagesRead),
                b"cache_creation_input_tokens" => Count(TokenKind::MessagesWrite),
                b"cache_write_tokens" => CacheWrites,
                b"reasoning_tokens" => Count(TokenKind::Reasoning),
                _ => return None,
            },
            Self::InputDetails => match name {
                b"cached_tokens" => Count(TokenKind::CacheRead),
                b"cache_creation_tokens" => Count(TokenKind::CacheWrite),
                b"cache_write_tokens" => CacheWrites,
                b"cache_write_tokens_details" => Scope(Self::CacheWrites),
                b"ttl_30m_tokens" | b"ttl_12h_tokens" => Count(TokenKind::CacheWriteShare),
                _ => return None,
            },
            Self::OutputDetails if name == b"reasoning_tokens" => Count(TokenKind::Reasoning),
            Self::CacheWrites if name.starts_with(b"ttl_") && name.ends_with(b"_tokens") => {
                Count(TokenKind::CacheWriteShare)
            }
            Self::Choices => match name {
                // Some upstreams write `message` instead of `delta`.
                b"delta" | b"message" => Scope(Self::Delta),
                // `text` belongs to the older completions.
                b"finish_reason" | b"text" => Content,
                b"usage" => Scope(Self::Usage),
                _ => return None,
            },
            Self::Delta if name != b"role" => Content,
            Self::Named
            | Self::ResultFiles
            | Self::UsageHolder
            | Self::OutputDetails
            | Self::CacheWrites
            | Self::Delta => return None,
        })
    }
}

/// The member of a response object called `name`, if it is read.
fn response_slot(name: &[u8]) -> Option<ResponseSlot> {
    Some(match name {
        b"output" => ResponseSlot::Scope(ScopeKind::Output),
        b"usage" => ResponseSlot::Scope(ScopeKind::Usage),
        b"status" => ResponseSlot::Status,
        b"background" => ResponseSlot::Background,
        b"store" => ResponseSlot::Store,
        b"conversation" => ResponseSlot::Conversation,
        _ => return None,
    })
}

/// A container that is being read, and its depth: the root object has depth 0.
#[derive(Clone, Copy, Default)]
struct OpenScope {
    kind: ScopeKind,
    depth: u8,
}

/// The open containers that are read. The root object is always open.
#[derive(Clone, Copy, Default)]
pub(super) struct Scopes {
    /// The containers around the innermost one.
    outer: [OpenScope; Self::MAX_OUTER],
    outer_len: u8,
    innermost: OpenScope,
}

impl Scopes {
    /// The largest number of containers around one: the details of the writes, of the input, of the usage, of a choice,
    /// have four.
    const MAX_OUTER: usize = 4;

    /// The innermost container.
    #[inline(always)]
    pub fn kind(&self) -> ScopeKind {
        self.innermost.kind
    }

    /// The depth of the deepest values that are visited.
    #[inline(always)]
    pub fn max_depth(&self) -> u32 {
        u32::from(self.innermost.depth) + self.innermost.kind.visited_levels()
    }

    /// The depth of the members that may be encrypted content, or 0 if there are none.
    #[inline(always)]
    pub fn encrypted_depth(&self) -> u32 {
        match self.innermost.kind.has_encrypted() {
            true => self.member_depth(),
            false => 0,
        }
    }

    /// The depth of the members that are read.
    #[inline(always)]
    pub fn member_depth(&self) -> u32 {
        u32::from(self.innermost.depth) + self.innermost.kind.member_levels()
    }

    /// The member called `name` at `depth`, if it is read.
    #[inline]
    pub fn slot(&self, depth: u32, name: &[u8]) -> Option<ResponseSlot> {
        (depth == self.member_depth()).then(|| self.innermost.kind.slot(name))?
    }

    /// A container of this kind begins at `depth`.
    pub fn open(&mut self, kind: ScopeKind, depth: u32) {
        let place = self.outer.get_mut(usize::from(self.outer_len));
        *place.expect("the containers that are read are nested at most four deep") = self.innermost;
        self.outer_len += 1;
        let depth = u8::try_from(depth).expect("containers that are read lie less than ten levels deep");
        self.innermost = OpenScope { kind, depth };
    }

    /// A value at `depth` has ended. It is the innermost container if that has this depth.
    #[inline]
    pub fn close(&mut self, depth: u32) {
        if u32::from(self.innermost.depth) == depth && depth > 0 {
            self.outer_len -= 1;
            self.innermost = self.outer[usize::from(self.outer_len)];
        }
    }
}
