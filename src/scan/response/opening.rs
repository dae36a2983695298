//! The opening of a stream, which decides whether the request can be sent to another upstream, and the events that
//! report a failure.

use std::fmt;

use super::{peek::EventKind, terminal::Terminal};

/// The opening of a stream: the events before its first output.
///
/// As long as no output has been passed on, the request can be sent to another upstream without the client noticing. The
/// events of the opening only say that the response has been accepted or is being made: `response.created`,
/// `response.queued`, `response.in_progress`, `response.metadata`, `codex.rate_limits`, `keepalive`; in a Messages stream
/// `message_start`, `ping` and `content_block_start`; in a stream of chat completions the chunks without content. Comments,
/// and events without data, do not count as events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The stream has brought no output yet and has not ended. It may have brought an `error` event, see
    /// [`ResponseReader::failure`](super::reader::ResponseReader::failure).
    Pending,
    /// The stream has brought output, or has ended without a failure. This is known as soon as the type of an event is
    /// known. It also stands for a body that is not an event stream.
    Output,
    /// The stream has failed before any output: with `response.failed`, or with `{"error":{…}}` of a chat completion.
    Failed,
}

/// The events in which a stream reports its failure. Each is the data of a whole event. It is empty if a late event is
/// longer than [`StreamFailure::MAX_LATE`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StreamFailure<'a> {
    /// The data of an `error` event. In a Responses stream, `response.failed` often follows, and has the better facts.
    pub error: Option<&'a [u8]>,
    /// The data of the event that ended the stream: `response.failed`, or `{"error":{…}}` of a chat completion.
    pub last: Option<&'a [u8]>,
}

impl StreamFailure<'_> {
    /// The maximum number of bytes that are kept of a failure after the opening. In the opening there is no maximum,
    /// because the caller limits the number of bytes that it reads ahead.
    pub const MAX_LATE: usize = 256 << 10;
}

/// Prints only the length of the data.
impl fmt::Debug for StreamFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |data: Option<&[u8]>| data.map(<[u8]>::len);
        f.debug_struct("StreamFailure")
            .field("error_bytes", &length(self.error))
            .field("last_bytes", &length(self.last))
            .finish()
    }
}

/// The part that an event plays in the opening of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventRole {
    /// The event belongs to the opening.
    Lifecycle,
    /// The event is output, or its meaning is unknown.
    Output,
    /// The event ends the response without a failure.
    End,
    /// The event reports a failure.
    Failure,
}

impl EventRole {
    /// The role of an event of this kind.
    pub fn of_kind(kind: EventKind) -> Self {
        match kind {
            EventKind::Created | EventKind::Progress | EventKind::MessageStart | EventKind::Notice => Self::Lifecycle,
            EventKind::MessageDelta | EventKind::ItemAdded | EventKind::ItemDone | EventKind::Other => Self::Output,
            EventKind::Error | EventKind::Terminal(Terminal::Failed) => Self::Failure,
            EventKind::Terminal(_) => Self::End,
        }
    }
}

/// Follows the opening of a stream, and keeps the events that report a failure.
pub(super) struct OpeningTracker {
    opening: Opening,
    /// The data so far of an event that may be a failure.
    held: Vec<u8>,
    /// Whether the current event is too long to be held.
    is_overlong: bool,
    /// The failures so far. They are boxed, because few streams have one.
    failures: Option<Box<FailureEvents>>,
}

/// The data of the failures of a stream.
#[derive(Default)]
struct FailureEvents {
    error: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
}

impl Default for OpeningTracker {
    fn default() -> Self {
        Self {
            opening: Opening::Pending,
            held: Vec::new(),
            is_overlong: false,
            failures: None,
        }
    }
}

impl OpeningTracker {
    /// The capacity in bytes up to which the buffer is kept for the next event.
    const MAX_KEPT: usize = 16 << 10;

    /// The opening, as far as it is known.
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// Ends a pending opening: the stream is passed on.
    pub fn end_opening(&mut self) {
        if self.opening == Opening::Pending {
            self.opening = Opening::Output;
        }
    }

    /// The failures so far.
    pub fn failure(&self) -> Option<StreamFailure<'_>> {
        let failures = self.failures.as_deref()?;
        Some(StreamFailure {
            error: failures.error.as_deref(),
            last: failures.last.as_deref(),
        })
    }

    /// Reads a piece of the data of an event. `role` is known as soon as the type of the event is known.
    pub fn push(&mut self, role: Option<EventRole>, data: &[u8]) {
        match role {
            None | Some(EventRole::Failure) => self.hold(data),
            Some(EventRole::Lifecycle | EventRole::End) => self.discard(),
            Some(EventRole::Output) => {
                self.discard();
                self.record_output();
            }
        }
    }

    /// Ends an event.
    pub fn end_event(&mut self, role: EventRole, kind: Option<EventKind>) {
        match role {
            EventRole::Failure => self.record_failure(kind),
            EventRole::Lifecycle => self.discard(),
            EventRole::Output => {
                self.discard();
                self.record_output();
            }
            EventRole::End => {
                self.discard();
                // `[DONE]` also follows an error.
                let has_failed = kind == Some(EventKind::Terminal(Terminal::Done)) && self.failures.is_some();
                if self.opening == Opening::Pending {
                    self.opening = if has_failed { Opening::Failed } else { Opening::Output };
                }
            }
        }
    }

    fn hold(&mut self, data: &[u8]) {
        let is_late = self.opening != Opening::Pending;
        if is_late && self.held.len() + data.len() > StreamFailure::MAX_LATE {
            self.discard();
            self.is_overlong = true;
        } else if !self.is_overlong {
            self.held.extend_from_slice(data);
        }
    }

    /// Drops the data that is held.
    #[inline]
    fn discard(&mut self) {
        if self.held.capacity() > Self::MAX_KEPT {
            self.held = Vec::new();
        }
        self.held.clear();
        self.is_overlong = false;
    }

    /// Notes that the stream goes on. An `error` event before it has not ended the response.
    #[inline]
    fn record_output(&mut self) {
        self.end_opening();
        if self.failures.as_ref().is_some_and(|failures| failures.last.is_none()) {
            self.failures = None;
        }
    }

    #[cold]
    fn record_failure(&mut self, kind: Option<EventKind>) {
        let data = std::mem::take(&mut self.held);
        self.is_overlong = false;
        let failures = self.failures.get_or_insert_default();
        if kind == Some(EventKind::Error) {
            failures.error.get_or_insert(data);
            return;
        }
        failures.last.get_or_insert(data);
        if self.opening == Opening::Pending {
            self.opening = Opening::Failed;
        }
    }
}
