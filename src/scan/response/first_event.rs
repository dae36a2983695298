//! The first event of a stream, which decides whether the request can be sent to another upstream.

use std::fmt;

/// The first event of a stream, as far as it is known.
///
/// Until the first event has been forwarded, the request can be sent to another upstream without the client noticing.
/// Comments, and events without data, do not count as events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FirstEvent<'a> {
    /// The first event is not known yet.
    Pending,
    /// The first event is not a failure. This is known as soon as its type is known. It also stands for an event whose data
    /// is longer than [`FirstEvent::MAX_DATA`], and for a body that is not an event stream.
    Other,
    /// The first event is `response.failed`, `error`, or `{"error":{…}}` of a chat completion. The event is complete, and
    /// this is its data.
    Failure(&'a [u8]),
}

/// Prints only the length of the data.
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
    /// The maximum number of bytes of data that are kept.
    pub const MAX_DATA: usize = 16 << 10;
}

/// Keeps the data of the first event as long as the event may be a failure.
pub(super) enum FirstEventBuffer {
    /// The data so far of an event that may be a failure.
    Pending(Vec<u8>),
    /// The first event is not a failure.
    Other,
    /// The data of a failure.
    Failure(Vec<u8>),
}

/// Whether an event is a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EventOutcome {
    Failure,
    Other,
}

impl Default for FirstEventBuffer {
    fn default() -> Self {
        Self::Pending(Vec::new())
    }
}

impl FirstEventBuffer {
    /// The first event, as far as it is known.
    pub fn get(&self) -> FirstEvent<'_> {
        match self {
            Self::Pending(_) => FirstEvent::Pending,
            Self::Other => FirstEvent::Other,
            Self::Failure(data) => FirstEvent::Failure(data),
        }
    }

    /// Whether the first event has not ended and may be a failure.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending(_))
    }

    /// Appends a piece of data to a pending event. `outcome` is known as soon as the type of the event is known.
    pub fn push(&mut self, outcome: Option<EventOutcome>, data: &[u8]) {
        let Self::Pending(held) = self else { return };
        if outcome != Some(EventOutcome::Other) && held.len() + data.len() <= FirstEvent::MAX_DATA {
            held.extend_from_slice(data);
        } else {
            *self = Self::Other;
        }
    }

    /// Ends a pending event.
    pub fn end(&mut self, outcome: EventOutcome) {
        if let Self::Pending(held) = self {
            *self = match outcome {
                EventOutcome::Failure => Self::Failure(std::mem::take(held)),
                EventOutcome::Other => Self::Other,
            };
        }
    }
}
