//! Bodies in both directions: reference-counted pieces that are passed on and never copied.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    ops::Range,
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
use memchr::memmem::Finder;

use crate::wire::{
    body::request::RequestBody, client::dial::root_cause, client::h2::Stream, client::pool::Pool,
    http1::exchange::Exchange, timers::alarm::Alarm,
};

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

/// A client's request body as it arrives, bounded in size and pauses.
pub struct Intake {
    body: RequestBody,
    idle: Duration,
    limit: u64,
    received: Arc<AtomicU64>,
}

impl Intake {
    /// At most `limit` bytes, with pauses of at most `idle`.
    pub fn new(body: RequestBody, limit: u64, idle: Duration) -> Self {
        Self {
            body,
            idle,
            limit,
            received: Arc::default(),
        }
    }

    /// Whether nothing (more) will come.
    pub fn is_end(&self) -> bool {
        self.body.is_end()
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The count of received bytes, for whoever outlives the body.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// The next piece, or `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(in crate::wire) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let piece = ready!(self.body.poll_data(cx, self.idle));
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
    source: Source,
    idle: Duration,
    /// What was read ahead; it comes first.
    ahead: VecDeque<Bytes>,
    /// How reading ahead ended, where it did not at the body's end.
    broke: Option<BodyError>,
}

enum Source {
    /// An exchange of HTTP/1.1; gone once its end has been read.
    Exchange(Option<(Exchange, Arc<Pool>)>),
    /// A stream of HTTP/2.
    Stream {
        incoming: Incoming,
        alarm: Alarm,
        /// Given back when it is dropped.
        stream: Option<Stream>,
    },
}

impl Relay {
    pub(in crate::wire) fn exchange(exchange: Exchange, pool: Arc<Pool>, idle: Duration) -> Self {
        let mut relay = Self {
            source: Source::Exchange(Some((exchange, pool))),
            idle,
            ahead: VecDeque::new(),
            broke: None,
        };
        relay.release_at_end();
        relay
    }

    pub(in crate::wire) fn stream(incoming: Incoming, stream: Stream, idle: Duration) -> Self {
        let mut relay = Self {
            source: Source::Stream {
                incoming,
                alarm: Alarm::default(),
                stream: Some(stream),
            },
            idle,
            ahead: VecDeque::new(),
            broke: None,
        };
        relay.release_at_end();
        relay
    }

    fn release_at_end(&mut self) {
        match &mut self.source {
            Source::Exchange(running) => {
                if running.as_ref().is_some_and(|(exchange, _)| exchange.is_end())
                    && let Some((exchange, pool)) = running.take()
                    && let Some(connection) = exchange.into_reusable()
                {
                    pool.put_back(connection);
                }
            }
            Source::Stream { incoming, stream, .. } => {
                if incoming.is_end_stream() {
                    *stream = None;
                }
            }
        }
    }

    /// Reads one more piece, ahead of whoever reads the body: they get it all the same. `None` where no more will come.
    ///
    /// # Errors
    /// Where the body breaks off; whoever reads it hears of that as well, behind the pieces that came.
    pub async fn read_ahead(&mut self) -> Option<Result<Bytes, BodyError>> {
        if let Some(error) = &self.broke {
            return Some(Err(error.clone()));
        }
        let piece = poll_fn(|cx| self.poll_source(cx)).await;
        match &piece {
            Some(Ok(piece)) => self.ahead.push_back(piece.clone()),
            Some(Err(error)) => self.broke = Some(error.clone()),
            None => {}
        }
        piece
    }

    /// Whether it is known already that it breaks off.
    pub fn is_broken(&self) -> bool {
        self.broke.is_some()
    }

    /// How much has been read ahead and not yet been taken, in bytes.
    pub fn ahead(&self) -> usize {
        self.ahead.iter().map(Bytes::len).sum()
    }

    /// Puts asterisks over each of `secrets` in what has been read ahead; every length stays as it is.
    pub fn mask(&mut self, secrets: &[Finder<'_>]) {
        let mut text = Vec::with_capacity(self.ahead());
        for piece in &self.ahead {
            text.extend_from_slice(piece);
        }
        let found = |secret: &Finder<'_>| {
            let length = secret.needle().len();
            let starts: Vec<usize> = secret.find_iter(&text).collect();
            starts.into_iter().map(move |start| start..start + length)
        };
        let found: Vec<Range<usize>> = secrets.iter().flat_map(found).collect();
        if found.is_empty() {
            return;
        }
        for range in found {
            if let Some(secret) = text.get_mut(range) {
                secret.fill(b'*');
            }
        }
        let mut text = Bytes::from(text);
        for piece in &mut self.ahead {
            *piece = text.split_to(piece.len());
        }
    }

    /// The next piece from the upstream.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let piece = ready!(match &mut self.source {
            Source::Exchange(None) => Poll::Ready(None),
            Source::Exchange(Some((exchange, _))) => exchange.poll_data(cx, self.idle),
            Source::Stream { incoming, alarm, .. } => poll_stream(incoming, alarm, cx, self.idle),
        });
        match &piece {
            None | Some(Ok(_)) => self.release_at_end(),
            Some(Err(_)) => self.give_up(),
        }
        Poll::Ready(piece)
    }

    /// The next piece, those that were read ahead first.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(piece) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        match self.broke.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => self.poll_source(cx),
        }
    }

    /// The connection is of no use any more.
    fn give_up(&mut self) {
        match &mut self.source {
            Source::Exchange(running) => *running = None,
            Source::Stream { stream, .. } => *stream = None,
        }
    }
}

/// Data only: nothing behind Steadfast may act on trailers, which came after everything was decided (RFC 9110 section
/// 6.5.1).
pub(in crate::wire) fn poll_stream(
    incoming: &mut Incoming,
    alarm: &mut Alarm,
    cx: &mut Context<'_>,
    idle: Duration,
) -> Poll<Option<Result<Bytes, BodyError>>> {
    loop {
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            ready!(alarm.poll(cx, idle));
            return Poll::Ready(Some(Err(BodyError::Idle(idle))));
        };
        alarm.reset();
        match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(root_cause(&error))))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = ready!(self.poll_data(cx));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.ahead.is_empty() && self.broke.is_none();
        is_read
            && match &self.source {
                Source::Exchange(running) => running.as_ref().is_none_or(|(exchange, _)| exchange.is_end()),
                Source::Stream { incoming, .. } => incoming.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.source {
            Source::Exchange(running) => running
                .as_ref()
                .map_or(Some(0), |(exchange, _)| exchange.exact_length()),
            Source::Stream { incoming, .. } => incoming.size_hint().exact(),
        };
        // What breaks off has the length that its head names, or none.
        let ahead = self.ahead() as u64;
        match left {
            Some(left) if self.broke.is_none() => SizeHint::with_exact(left + ahead),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ahead(text: &str, size: usize) -> Relay {
        Relay {
            source: Source::Exchange(None),
            idle: Duration::ZERO,
            ahead: text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect(),
            broke: None,
        }
    }

    proptest! {
        #[test]
        fn secrets_are_masked_across_pieces(text in "(secret|other|[a-z]{1,3}){0,9}", size in 1..9_usize) {
            let mut relay = ahead(&text, size);
            let lengths: Vec<usize> = relay.ahead.iter().map(Bytes::len).collect();
            relay.mask(&[Finder::new("secret"), Finder::new("other")]);
            let masked: Vec<u8> = relay.ahead.iter().flatten().copied().collect();
            let expected = text.replace("secret", "******").replace("other", "*****");
            prop_assert_eq!(masked, expected.as_bytes());
            prop_assert_eq!(relay.ahead.iter().map(Bytes::len).collect::<Vec<_>>(), lengths);
        }
    }
}
