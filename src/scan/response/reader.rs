//! What is learnt from a response while it streams by: its id, the encrypted content in it, whether it began with a failure,
//! and whether it has come to its end.

use std::fmt;

use super::{events::Events, outline::Outline, usage::Usage};
use crate::{ids::EncryptedContent, scan::json::scanner::Scanner};

/// How many encrypted contents wait to be taken; more of them are not learnt.
pub(super) const MAX_ENCRYPTED: usize = 64;

/// How an event stream said that the response is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// `response.completed`.
    Completed,
    /// `response.failed`.
    Failed,
    /// `response.incomplete`.
    Incomplete,
    /// `[DONE]`, which ends a stream of chat completions.
    Done,
}

/// What the first event of a stream is: the last moment at which a request can be sent elsewhere unseen. Comments and
/// fields without data are no events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FirstEvent<'a> {
    /// Not known yet.
    Pending,
    /// No failure, which is known as soon as its type is; also one whose data is longer than [`FirstEvent::MAX_DATA`], and
    /// the beginning of a body that is no event stream.
    Other,
    /// `response.failed`, `error`, or a chat completion's `{"error":{…}}`, whole: its data.
    Failure(&'a [u8]),
}

/// The length only of what an upstream says.
impl fmt::Debug for FirstEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::Other => f.write_str("Other"),
            Self::Failure(data) => write!(f, "Failure({} bytes)", data.len()),
        }
    }
}

impl FirstEvent<'_> {
    /// How much of the first event's data is kept, in bytes.
    pub const MAX_DATA: usize = 16 << 10;
}

/// Reads a response body as it streams by, and copies none of it but the id, and a first event that may be a failure.
///
/// What is not JSON, or not an event stream, teaches nothing and harms nothing: it is the client's to judge.
///
/// ```
/// use steadfast::scan::{ResponseReader, Terminal};
///
/// let mut reader = ResponseReader::events();
/// reader.feed(b"data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n");
/// assert_eq!(reader.response_id(), Some("resp_1"));
/// reader.feed(b"data: {\"type\":\"response.completed\",\"response\":{}}\n");
/// assert!(!reader.is_terminal());
/// reader.feed(b"\n");
/// assert_eq!(reader.terminal(), Some(Terminal::Completed));
/// ```
pub struct ResponseReader(Mode);

enum Mode {
    Events(Box<Events>),
    Json {
        scanner: Box<Scanner<Outline>>,
        to_end: bool,
    },
    /// A JSON body of which nothing more is wanted, or no more can be had.
    Read {
        id: Option<String>,
        encrypted: Vec<EncryptedContent>,
        usage: Option<Usage>,
        is_whole: bool,
    },
}

impl ResponseReader {
    /// The longest id that is learnt, in bytes as written.
    pub const MAX_ID: usize = 256;

    /// A reader of a `text/event-stream`: the id is `response.id` of the first event that tells one, among
    /// `response.created` and those that end a response.
    pub fn events() -> Self {
        Self(Mode::Events(Box::default()))
    }

    /// A reader of a JSON body: the id is the top-level `id`. It has no terminal event, and is read as far as the id, the
    /// items of `output`, and `usage`.
    pub fn json() -> Self {
        Self::json_mode(false)
    }

    /// The same, read to the end to tell whether the body [is whole](Self::is_whole).
    pub fn json_to_end() -> Self {
        Self::json_mode(true)
    }

    fn json_mode(to_end: bool) -> Self {
        let scanner = Box::new(Outline::scanner());
        Self(Mode::Json { scanner, to_end })
    }

    /// Whether it reads an event stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Mode::Events(_))
    }

    /// Reads the next piece of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            Mode::Events(events) => events.feed(chunk),
            Mode::Json { scanner, to_end } => {
                let is_broken = scanner.feed(chunk).is_err();
                let outline = scanner.reader_mut();
                if is_broken || !*to_end && outline.id.is_some() && outline.has_output && outline.has_usage {
                    self.0 = Mode::Read {
                        id: outline.id.take(),
                        encrypted: std::mem::take(&mut outline.encrypted),
                        usage: outline.usage.usage(),
                        is_whole: false,
                    };
                }
            }
            Mode::Read { .. } => {}
        }
    }

    /// The body has ended: reads what was left of a JSON body, which is read in blocks.
    pub fn finish(&mut self) {
        if let Mode::Json { scanner, .. } = &mut self.0 {
            let mut rest = std::mem::replace(&mut **scanner, Outline::scanner());
            let mut encrypted = std::mem::take(&mut rest.reader_mut().encrypted);
            let outline = rest.finish().ok();
            let is_whole = outline.is_some();
            let outline = outline.unwrap_or_default();
            encrypted.extend(outline.encrypted);
            let id = outline.id;
            self.0 = Mode::Read {
                id,
                encrypted,
                usage: outline.usage.usage(),
                is_whole,
            };
        }
    }

    /// The response's id, once it is known.
    pub fn response_id(&self) -> Option<&str> {
        match &self.0 {
            Mode::Events(events) => events.id.as_deref(),
            Mode::Json { scanner, .. } => scanner.reader().id.as_deref(),
            Mode::Read { id, .. } => id.as_deref(),
        }
    }

    /// The encrypted content of the response's items that has been read and not been taken yet, at most 64 of it. It comes
    /// from `response.output_item.done`, or where there was none from the event that ends the response; from the items of
    /// a JSON body's `output`, so from compactions too.
    pub fn take_encrypted(&mut self) -> Vec<EncryptedContent> {
        std::mem::take(match &mut self.0 {
            Mode::Events(events) => &mut events.encrypted,
            Mode::Json { scanner, .. } => &mut scanner.reader_mut().encrypted,
            Mode::Read { encrypted, .. } => encrypted,
        })
    }

    /// What the response has used, once that is known: from the event that ends a response, or the last chunk of a chat
    /// completion that says so; from a JSON body's `usage`.
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            Mode::Events(events) => events.usage,
            Mode::Json { scanner, .. } => scanner.reader().usage.usage(),
            Mode::Read { usage, .. } => *usage,
        }
    }

    /// What the first event is.
    pub fn first_event(&self) -> FirstEvent<'_> {
        match &self.0 {
            Mode::Events(events) => events.first(),
            Mode::Json { .. } | Mode::Read { .. } => FirstEvent::Other,
        }
    }

    /// Whether what has been read is all there is by its own account: behind a terminal event, or behind the end of a JSON
    /// body's root, where it was read so far ([`ResponseReader::json_to_end`], then [`ResponseReader::finish`]). Tells a whole body from a cut one where framing does not.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Mode::Events(_) => self.is_terminal(),
            Mode::Json { .. } => false,
            Mode::Read { is_whole, .. } => *is_whole,
        }
    }

    /// Whether an event that ends the response has been seen whole, so that a client that leaves now has missed nothing.
    pub fn is_terminal(&self) -> bool {
        self.terminal().is_some()
    }

    /// How the response ended, once an event that says so has been seen whole.
    pub fn terminal(&self) -> Option<Terminal> {
        match &self.0 {
            Mode::Events(events) => events.terminal,
            Mode::Json { .. } | Mode::Read { .. } => None,
        }
    }
}
