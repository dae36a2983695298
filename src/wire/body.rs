//! Bodies in both directions: reference-counted pieces that are passed on and never copied.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::lease::Lease;

/// How a body is delimited: kept towards the upstream as the client chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a body ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More than `limit` bytes arrived.
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// Nothing arrived for this long.
    Idle(Duration),
    /// The sender went away, or its framing broke.
    Broken(String),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body is over {limit} bytes"),
            Self::Idle(limit) => write!(f, "no piece of the body arrived for {} ms", limit.as_millis()),
            Self::Broken(why) => write!(f, "the body broke off: {why}"),
        }
    }
}

impl std::error::Error for BodyError {}

/// Data of a hyper body under an idle limit. Trailers are dropped: nothing behind Steadfast may act on fields that
/// came after everything was decided (RFC 9110 section 6.5.1).
struct Paced {
    incoming: Incoming,
    limit: Duration,
    /// Since when the sender is being waited for.
    waiting: Option<Instant>,
    /// Armed at the first wait and then left to fire: a piece that arrives costs no timer operation.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn new(incoming: Incoming, limit: Duration) -> Self {
        Self {
            incoming,
            limit,
            waiting: None,
            alarm: None,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return self.poll_alarm(cx).map(|error| Some(Err(error))),
                Poll::Ready(frame) => {
                    self.waiting = None;
                    match frame {
                        None => return Poll::Ready(None),
                        Some(Err(error)) => {
                            return Poll::Ready(Some(Err(BodyError::Broken(super::dial::root_cause(&error)))));
                        }
                        Some(Ok(frame)) => {
                            if let Ok(data) = frame.into_data() {
                                return Poll::Ready(Some(Ok(data)));
                            }
                        }
                    }
                }
            }
        }
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let deadline = since + self.limit;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(BodyError::Idle(self.limit));
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

/// A client's request body as it arrives, bounded in size and pauses.
pub struct Intake {
    paced: Paced,
    limit: u64,
    received: Arc<AtomicU64>,
}

impl Intake {
    /// At most `limit` bytes, with pauses of at most `idle`.
    pub fn new(incoming: Incoming, limit: u64, idle: Duration) -> Self {
        Self {
            paced: Paced::new(incoming, idle),
            limit,
            received: Arc::default(),
        }
    }

    /// Whether nothing (more) will come.
    pub fn is_end(&self) -> bool {
        self.paced.incoming.is_end_stream()
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The count of received bytes, for whoever outlives the body.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// Throws the next piece away, over the limit or not. `false` at the end.
    pub async fn discard(&mut self) -> bool {
        matches!(std::future::poll_fn(|cx| self.paced.poll_data(cx)).await, Some(Ok(_)))
    }

    /// The next piece, or `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let piece = ready!(self.paced.poll_data(cx));
        if let Some(Ok(piece)) = &piece {
            let length = piece.len() as u64;
            let received = self
                .received
                .fetch_add(length, Ordering::Relaxed)
                .saturating_add(length);
            if received > self.limit {
                return Poll::Ready(Some(Err(BodyError::TooLarge { limit: self.limit })));
            }
        }
        Poll::Ready(piece)
    }
}

/// A response body on its way from an upstream. Its connection returns to the pool at the end, and closes when the
/// body is dropped before.
pub struct Relay {
    paced: Paced,
    lease: Option<Lease>,
}

impl Relay {
    pub(super) fn new(incoming: Incoming, idle: Duration, lease: Lease) -> Self {
        let mut relay = Self {
            paced: Paced::new(incoming, idle),
            lease: Some(lease),
        };
        relay.release_at_end();
        relay
    }

    fn release_at_end(&mut self) {
        if self.paced.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.release();
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = ready!(self.paced.poll_data(cx));
        match &piece {
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.release();
                }
            }
            Some(Ok(_)) => self.release_at_end(),
            // The connection is of no use any more.
            Some(Err(_)) => drop(self.lease.take()),
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.paced.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.paced.incoming.size_hint()
    }
}
