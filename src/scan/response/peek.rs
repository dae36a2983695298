//! Finds the type of an event at the beginning of its data, so that most events need not be scanned.

use memchr::memchr2;

use super::terminal::Terminal;

/// The type of an event, as far as the reader distinguishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// `response.created`.
    Created,
    /// `response.queued` or `response.in_progress`.
    Progress,
    /// `message_start` of the Messages API.
    MessageStart,
    /// An event that says nothing about the progress of the response: `codex.rate_limits`, `response.metadata`, `keepalive`;
    /// and `ping` and `content_block_start` of the Messages API, which carry no content.
    Notice,
    /// `message_delta` of the Messages API, which contains the usage.
    MessageDelta,
    /// `response.output_item.added`.
    ItemAdded,
    /// `response.output_item.done`.
    ItemDone,
    /// An event that ends the response.
    Terminal(Terminal),
    /// `error`.
    Error,
    /// Any other type.
    Other,
}

impl EventKind {
    /// The length in bytes of the longest type that is distinguished.
    const MAX_NAME: usize = b"response.output_item.added".len();

    /// The kind of the event with this `type`.
    pub fn from_type(name: &[u8]) -> Self {
        match name {
            b"response.created" => Self::Created,
            b"response.queued" | b"response.in_progress" => Self::Progress,
            b"message_start" => Self::MessageStart,
            b"codex.rate_limits" | b"response.metadata" | b"keepalive" | b"ping" | b"content_block_start" => {
                Self::Notice
            }
            b"message_delta" => Self::MessageDelta,
            b"response.output_item.added" => Self::ItemAdded,
            b"response.output_item.done" => Self::ItemDone,
            b"response.completed" => Self::Terminal(Terminal::Completed),
            b"response.failed" => Self::Terminal(Terminal::Failed),
            b"response.incomplete" => Self::Terminal(Terminal::Incomplete),
            b"message_stop" => Self::Terminal(Terminal::Stopped),
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }

    /// Whether the event contains the response object, and so its id.
    pub fn has_response(self) -> bool {
        match self {
            Self::Created => true,
            Self::Terminal(how) => !matches!(how, Terminal::Done | Terminal::Stopped),
            Self::Progress
            | Self::MessageStart
            | Self::MessageDelta
            | Self::Notice
            | Self::ItemAdded
            | Self::ItemDone
            | Self::Error
            | Self::Other => false,
        }
    }

    /// Whether the event contains an item of the output.
    pub fn has_item(self) -> bool {
        matches!(self, Self::ItemAdded | Self::ItemDone)
    }

    /// Whether the event belongs to a stream that ends with a terminal event.
    pub fn needs_end(self) -> bool {
        matches!(
            self,
            Self::Created | Self::Progress | Self::MessageStart | Self::ItemAdded | Self::ItemDone
        )
    }
}

/// The type of an event, as far as the beginning of its data contains it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peek {
    /// The data begins with its type.
    Kind(EventKind),
    /// The data is too short to tell.
    NeedMore,
    /// The data does not begin with its type, so all of it must be scanned.
    Unclear,
}

impl Peek {
    /// The maximum number of bytes that [`Peek::at`] looks at.
    pub const LENGTH: usize = 64;

    /// Reads the type of an event if its data begins with `{"type":"…"`, as the events of OpenAI do. Clients go by this
    /// type and ignore the SSE field `event`.
    pub fn at(data: &[u8]) -> Self {
        if data.starts_with(b"[DONE]") {
            return Self::Kind(EventKind::Terminal(Terminal::Done));
        }
        let mut rest = data;
        for expected in [b"{".as_slice(), b"\"type\"", b":", b"\""] {
            rest = rest.trim_ascii_start();
            match rest.strip_prefix(expected) {
                Some(after) => rest = after,
                None if expected.starts_with(rest) || b"[DONE]".starts_with(data) => return Self::NeedMore,
                None => return Self::Unclear,
            }
        }
        let name = rest.get(..EventKind::MAX_NAME + 1).unwrap_or(rest);
        match memchr2(b'"', b'\\', name) {
            Some(end) if name[end] == b'"' => Self::Kind(EventKind::from_type(&name[..end])),
            Some(_) => Self::Unclear,
            None if name.len() > EventKind::MAX_NAME => Self::Kind(EventKind::Other),
            None => Self::NeedMore,
        }
    }
}
