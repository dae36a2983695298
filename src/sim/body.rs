//! Response bodies. They are sent at the account's pace, with the faults that a script demands.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::act::{Act, After, Close, Point};
use super::chat::CompletionChunks;
use super::events::{ResponseEvents, StreamEvent};
use super::messages::MessageEvents;
use super::recorder::{Ending, RequestGuard};
use super::transport::ConnectionBreaker;

/// The source of a body's pieces.
pub(super) enum BodySource {
    /// One piece with a known length; `None` after it was taken.
    Whole(Option<Bytes>),
    /// Several pieces, sent chunked.
    Pieces(VecDeque<Bytes>),
    /// The events of a response.
    Events(Box<ResponseEvents>),
    /// The chunks of a chat completion.
    Chunks(Box<CompletionChunks>),
    /// The events of a message.
    Messages(Box<MessageEvents>),
}

impl BodySource {
    fn next(&mut self) -> Option<StreamEvent> {
        match self {
            Self::Whole(whole) => whole.take().map(|bytes| StreamEvent { bytes, terminal: true }),
            Self::Pieces(pieces) => {
                let bytes = pieces.pop_front()?;
                Some(StreamEvent {
                    bytes,
                    terminal: pieces.is_empty(),
                })
            }
            Self::Events(events) => events.next(),
            Self::Chunks(chunks) => chunks.next(),
            Self::Messages(events) => events.next(),
        }
    }
}

/// The body of every response of the account.
pub(super) struct PacedBody {
    source: BodySource,
    /// The rest of the current piece, which is being split.
    rest: Bytes,
    /// Whether a client needs no further event after `rest`.
    rest_is_terminal: bool,
    /// The time between two pieces.
    pace: Duration,
    /// The timer of the current pause between two pieces.
    pause: Option<Pin<Box<Sleep>>>,
    /// The number of events after which the body waits, and the timer that it waits for.
    hold: Option<(usize, Pin<Box<Sleep>>)>,
    /// The maximum size in bytes of a piece that is sent.
    split: Option<usize>,
    /// The position at which the connection is cut, and the manner.
    cut: Option<(Point, Close)>,
    /// The position at which the body stops.
    stall: Option<Point>,
    /// Whether the connection is closed after the body.
    closes_at_end: bool,
    /// Whether the body has reached a fault and sends no more.
    is_stopped: bool,
    /// The number of events that have been sent.
    events: usize,
    /// The number of bytes that have been sent.
    bytes: usize,
    breaker: Arc<ConnectionBreaker>,
    guard: RequestGuard,
}

impl PacedBody {
    /// Creates a body from the pieces of `source`, `pace` apart, with the faults of `act`.
    pub(super) fn new(
        source: BodySource,
        pace: Duration,
        act: &Act,
        breaker: Arc<ConnectionBreaker>,
        guard: RequestGuard,
    ) -> Self {
        Self {
            source,
            rest: Bytes::new(),
            rest_is_terminal: false,
            pace,
            pause: None,
            hold: None,
            split: act.split,
            cut: act.cut,
            stall: act.stall,
            closes_at_end: act.after == After::Silent,
            is_stopped: false,
            events: 0,
            bytes: 0,
            breaker,
            guard,
        }
    }

    /// Sends no more than the first `events` events before `delay` has passed.
    pub(super) fn held(mut self, events: usize, delay: Duration) -> Self {
        self.hold = Some((events, Box::pin(sleep(delay))));
        self
    }

    fn reached(&self, point: Point) -> bool {
        match point {
            Point::Events(events) => self.rest.is_empty() && self.events >= events,
            Point::Bytes(bytes) => self.bytes >= bytes,
        }
    }

    /// Returns the number of bytes that may be sent before the next position where a fault happens.
    fn bytes_until_fault(&self) -> usize {
        let left = |point: Point| match point {
            Point::Bytes(bytes) => bytes.saturating_sub(self.bytes),
            Point::Events(_) => usize::MAX,
        };
        let split = self.split.map_or(usize::MAX, |split| split.max(1));
        let cut = self.cut.map_or(usize::MAX, |(at, _)| left(at));
        let stall = self.stall.map_or(usize::MAX, left);
        split.min(cut).min(stall)
    }

    fn is_drained(&self) -> bool {
        self.rest.is_empty() && matches!(self.source, BodySource::Whole(None))
    }

    /// Fetches the next piece once it is due. Returns false at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if let Some((events, timer)) = &mut self.hold
            && self.events >= *events
        {
            ready!(timer.as_mut().poll(cx));
            self.hold = None;
        }
        let Some(event) = self.source.next() else {
            return Poll::Ready(false);
        };
        self.events += 1;
        self.rest = event.bytes;
        self.rest_is_terminal = event.terminal;
        if !self.pace.is_zero() && !event.terminal {
            self.pause = Some(Box::pin(sleep(self.pace)));
        }
        Poll::Ready(true)
    }

    fn emit(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.bytes_until_fault().min(self.rest.len()));
        self.bytes += piece.len();
        if self.rest.is_empty() && self.rest_is_terminal {
            self.guard.end(Ending::Complete);
        }
        // Hyper does not poll a body of known length again after its last byte.
        if self.closes_at_end && self.is_drained() {
            self.breaker.arm(Close::Fin);
        }
        piece
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.is_stopped {
            return Poll::Pending;
        }
        if let Some((at, how)) = this.cut
            && this.reached(at)
        {
            this.is_stopped = true;
            this.guard.end(Ending::Cut);
            this.breaker.arm(how);
            return Poll::Pending;
        }
        if this.stall.is_some_and(|at| this.reached(at)) {
            this.is_stopped = true;
            return Poll::Pending;
        }
        if this.rest.is_empty() && !ready!(this.poll_next(cx)) {
            this.guard.end(Ending::Complete);
            if this.closes_at_end {
                this.breaker.arm(Close::Fin);
            }
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(this.emit()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_drained() && !self.is_stopped
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            BodySource::Whole(None) => SizeHint::with_exact(self.rest.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::super::head::RecordedHead;
    use super::super::recorder::{Recording, RequestRecorder};
    use super::*;
    use crate::tick::Clock;

    /// Returns all pieces that are sent before the body ends (true) or stops (false).
    fn drain(pieces: &[Vec<u8>], act: &Act) -> (Vec<Bytes>, bool, Ending) {
        let recorder = Arc::new(RequestRecorder::new(Clock::start(), Recording::WholeRequests));
        let head = RecordedHead {
            method: Method::GET,
            target: "/".to_owned(),
            headers: HeaderMap::new(),
            connection: 1,
            nth: 1,
        };
        let guard = recorder.begin(&head);
        let source = BodySource::Pieces(pieces.iter().cloned().map(Bytes::from).collect());
        let mut body = PacedBody::new(source, Duration::ZERO, act, Arc::default(), guard);
        let mut out = Vec::new();
        let ended = loop {
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(frame)) => out.push(frame.unwrap().into_data().unwrap()),
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        (out, ended, recorder.recorded()[0].ending)
    }

    proptest! {
        #[test]
        fn the_body_is_a_prefix_of_its_pieces_in_every_split(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..8),
            split in prop::option::of(1usize..50),
            cut in prop::option::of((any::<bool>(), 0usize..120)),
        ) {
            let point = |(events, n): (bool, usize)| if events { Point::Events(n % 10) } else { Point::Bytes(n) };
            let cut = cut.map(point);
            let act = Act { split, cut: cut.map(|at| (at, Close::Fin)), ..Act::default() };
            let whole = pieces.concat();
            let (length, expected_end) = match cut {
                None => (whole.len(), true),
                Some(Point::Bytes(n)) => (whole.len().min(n), n > whole.len()),
                Some(Point::Events(n)) => (pieces.iter().take(n).map(Vec::len).sum(), n > pieces.len()),
            };
            let (out, ended, ending) = drain(&pieces, &act);
            prop_assert_eq!(out.concat(), whole.get(..length).unwrap());
            prop_assert_eq!(ended, expected_end);
            prop_assert_eq!(ending == Ending::Complete, length == whole.len());
            prop_assert!(split.is_none_or(|split| out.iter().all(|piece| piece.len() <= split)));
        }
    }
}
