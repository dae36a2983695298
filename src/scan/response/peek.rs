//! What an event is, read off the beginning of its data.

use memchr::memchr2;

use super::reader::Terminal;

/// What an event is about, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `response.created`.
    Created,
    /// `response.output_item.done`.
    ItemDone,
    /// The response is over.
    Terminal(Terminal),
    /// `error`.
    Error,
    /// Any other.
    Other,
}

impl Kind {
    /// The longest `type` that matters.
    const LONGEST: usize = b"response.output_item.done".len();

    /// The kind that `type` names.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"response.created" => Self::Created,
            b"response.output_item.done" => Self::ItemDone,
            b"response.completed" => Self::Terminal(Terminal::Completed),
            b"response.failed" => Self::Terminal(Terminal::Failed),
            b"response.incomplete" => Self::Terminal(Terminal::Incomplete),
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }

    /// Whether the event holds the response, and so its id.
    pub fn has_response(self) -> bool {
        match self {
            Self::Created => true,
            Self::Terminal(how) => how != Terminal::Done,
            Self::ItemDone | Self::Error | Self::Other => false,
        }
    }

    /// Whether the event tells of a failure.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Terminal(Terminal::Failed))
    }
}

/// What the beginning of an event's data tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Glance {
    Kind(Kind),
    /// Too little to tell.
    More,
    /// It does not begin with its type: all of it has to be read.
    Unclear,
}

impl Glance {
    /// How far a glance goes.
    pub const LENGTH: usize = 64;

    /// Reads the type off data that begins with it, as OpenAI's does; clients go by it and not by the `event` field.
    pub fn at(data: &[u8]) -> Self {
        if data.starts_with(b"[DONE]") {
            return Self::Kind(Kind::Terminal(Terminal::Done));
        }
        let mut rest = data;
        for expected in [b"{".as_slice(), b"\"type\"", b":", b"\""] {
            rest = rest.trim_ascii_start();
            match rest.strip_prefix(expected) {
                Some(after) => rest = after,
                None if expected.starts_with(rest) || b"[DONE]".starts_with(data) => return Self::More,
                None => return Self::Unclear,
            }
        }
        let name = rest.get(..Kind::LONGEST + 1).unwrap_or(rest);
        match memchr2(b'"', b'\\', name) {
            Some(end) if name.get(end) == Some(&b'"') => Self::Kind(Kind::of(name.get(..end).unwrap_or_default())),
            Some(_) => Self::Unclear,
            None if name.len() > Kind::LONGEST => Self::Kind(Kind::Other),
            None => Self::More,
        }
    }
}
