//! A response body on its way from an upstream to the client.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::wire::{
    body::{
        framing::BodyError,
        h2_data::{H2Content, H2Data},
    },
    client::{h2::H2Stream, idle::IdleConnections},
    http1::exchange::Http1Exchange,
};

/// A response body on its way from an upstream.
///
/// At the end of the body, its connection returns to the pool. When the body is dropped before its end, the connection is
/// closed, or over HTTP/2 the stream is reset.
pub struct Relay {
    source: RelaySource,
    /// The maximum pause between two pieces.
    idle: Duration,
    /// The pieces that were read ahead. They are delivered first.
    ahead: VecDeque<Bytes>,
    /// The error that ended the reading ahead. It is delivered after the pieces.
    read_ahead_error: Option<BodyError>,
    /// Decodes the body; `None` if the body is passed on as the upstream sends it. It is not applied to `ahead`.
    decoder: Option<Box<Decoder>>,
}

/// The decoder of a body. It is boxed twice, so that a body without one is not larger than necessary.
struct Decoder(Box<dyn PieceDecoder>);

/// Decodes a body piece by piece.
pub trait PieceDecoder: Send + Sync {
    /// Adds a piece of the encoded body. [`Self::next_piece`] has returned `None` since the last one, except at the
    /// beginning of the body.
    fn push(&mut self, encoded: Bytes);

    /// Returns the next decoded piece, which is not empty; `None` if another encoded piece is necessary.
    ///
    /// # Errors
    /// Says why the body cannot be decoded.
    fn next_piece(&mut self) -> Result<Option<Bytes>, String>;

    /// Ends the body, and returns the last decoded pieces one by one.
    ///
    /// # Errors
    /// If the encoded body is incomplete.
    fn finish(&mut self) -> Result<Option<Bytes>, String>;
}

enum RelaySource {
    /// An HTTP/1.1 exchange, and the idle connections to which its connection returns. `None` once the end of the body
    /// has been read.
    Http1(Option<(Http1Exchange, Arc<IdleConnections>)>),
    /// A stream of an HTTP/2 connection.
    Http2 {
        data: H2Data,
        content: H2Content,
        /// Frees the stream's place on its connection when it is dropped.
        stream: Option<H2Stream>,
    },
}

impl Relay {
    /// The response body of `exchange`. Its connection returns to `idle_connections` at the end of the body.
    pub(in crate::wire) fn from_http1(
        exchange: Http1Exchange,
        idle_connections: Arc<IdleConnections>,
        idle: Duration,
    ) -> Self {
        Self::new(RelaySource::Http1(Some((exchange, idle_connections))), idle)
    }

    /// The response body `incoming` on `stream`.
    pub(in crate::wire) fn from_http2(
        incoming: Incoming,
        content: H2Content,
        stream: H2Stream,
        idle: Duration,
    ) -> Self {
        let source = RelaySource::Http2 {
            data: H2Data::new(incoming),
            content,
            stream: Some(stream),
        };
        Self::new(source, idle)
    }

    fn new(source: RelaySource, idle: Duration) -> Self {
        let mut relay = Self {
            source,
            idle,
            ahead: VecDeque::new(),
            read_ahead_error: None,
            decoder: None,
        };
        relay.release_at_end();
        relay
    }

    /// Releases the connection if the end of the body has been read.
    fn release_at_end(&mut self) {
        match &mut self.source {
            RelaySource::Http1(running) => {
                if let Some((exchange, idle_connections)) = running.take_if(|(exchange, _)| exchange.is_end())
                    && let Some(connection) = exchange.into_reusable()
                {
                    idle_connections.put(connection);
                }
            }
            RelaySource::Http2 { data, stream, .. } => {
                if data.is_end() {
                    *stream = None;
                }
            }
        }
    }

    /// Reads one more piece ahead of the client, which still receives it. Returns `None` at the end of the body.
    ///
    /// # Errors
    /// If the body ends early. The client receives the same error after the pieces that were read ahead.
    pub async fn read_ahead(&mut self) -> Option<Result<Bytes, BodyError>> {
        if let Some(error) = &self.read_ahead_error {
            return Some(Err(error.clone()));
        }
        let piece = poll_fn(|cx| self.poll_source(cx)).await;
        match &piece {
            Some(Ok(piece)) => self.ahead.push_back(piece.clone()),
            Some(Err(error)) => self.read_ahead_error = Some(error.clone()),
            None => {}
        }
        piece
    }

    /// Whether reading ahead has found that the body ends early.
    pub fn is_broken(&self) -> bool {
        self.read_ahead_error.is_some()
    }

    /// The number of bytes that were read ahead and that the client has not received yet.
    pub fn read_ahead_bytes(&self) -> usize {
        self.ahead.iter().map(Bytes::len).sum()
    }

    /// Passes the body through `decoder` from its beginning. The client has not received any of it.
    pub fn decode(&mut self, mut decoder: Box<dyn PieceDecoder>) {
        for piece in self.ahead.drain(..) {
            decoder.push(piece);
        }
        self.decoder = Some(Box::new(Decoder(decoder)));
    }

    /// Whether the body passes through a decoder that has not ended yet.
    pub fn is_decoded(&self) -> bool {
        self.decoder.is_some()
    }

    /// Drops the body, and with it the connection. The client receives an empty body.
    pub fn empty(&mut self) {
        self.drop_connection();
        *self = Self::new(RelaySource::Http1(None), self.idle);
    }

    /// Returns the next piece from the upstream, decoded.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        while let Some(decoder) = &mut self.decoder {
            match decoder.0.next_piece() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) => {}
                Err(why) => return Poll::Ready(Some(Err(self.fail_to_decode(why)))),
            }
            let piece = ready!(self.poll_encoded(cx));
            let Some(decoder) = &mut self.decoder else { break };
            match piece {
                Some(Ok(piece)) => decoder.0.push(piece),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => match decoder.0.finish() {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                    Ok(None) => {
                        self.decoder = None;
                        return Poll::Ready(None);
                    }
                    Err(why) => return Poll::Ready(Some(Err(self.fail_to_decode(why)))),
                },
            }
        }
        self.poll_encoded(cx)
    }

    fn fail_to_decode(&mut self, why: String) -> BodyError {
        self.drop_connection();
        self.decoder = None;
        BodyError::Broken(why)
    }

    /// Reads the next piece from the upstream, as the upstream has sent it.
    fn poll_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let piece = ready!(match &mut self.source {
            RelaySource::Http1(None) => Poll::Ready(None),
            RelaySource::Http1(Some((exchange, _))) => exchange.poll_data(cx, self.idle),
            RelaySource::Http2 { data, content, .. } => data.poll_next(*content, cx, self.idle),
        });
        match &piece {
            None | Some(Ok(_)) => self.release_at_end(),
            Some(Err(_)) => self.drop_connection(),
        }
        Poll::Ready(piece)
    }

    /// Returns the next piece: first the pieces that were read ahead, then the rest from the upstream.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(piece) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        match self.read_ahead_error.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => self.poll_source(cx),
        }
    }

    /// Closes the connection, or frees the stream, because nothing can follow on it.
    fn drop_connection(&mut self) {
        match &mut self.source {
            RelaySource::Http1(running) => *running = None,
            RelaySource::Http2 { stream, .. } => *stream = None,
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
        let is_read_ahead_delivered =
            self.ahead.is_empty() && self.read_ahead_error.is_none() && self.decoder.is_none();
        is_read_ahead_delivered
            && match &self.source {
                RelaySource::Http1(running) => running.as_ref().is_none_or(|(exchange, _)| exchange.is_end()),
                RelaySource::Http2 { data, .. } => data.is_end(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.source {
            RelaySource::Http1(running) => running
                .as_ref()
                .map_or(Some(0), |(exchange, _)| exchange.exact_length()),
            RelaySource::Http2 { data, .. } => data.exact_length(),
        };
        // A body that ends early keeps the length that its head names. So its length is not known here.
        let ahead = self.read_ahead_bytes() as u64;
        match left {
            Some(left) if self.read_ahead_error.is_none() && self.decoder.is_none() => {
                SizeHint::with_exact(left + ahead)
            }
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay_with_pieces(text: &str, size: usize) -> Relay {
        Relay {
            source: RelaySource::Http1(None),
            idle: Duration::ZERO,
            ahead: text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect(),
            read_ahead_error: None,
            decoder: None,
        }
    }

    #[tokio::test]
    async fn an_error_that_was_read_ahead_follows_the_pieces() {
        let mut relay = relay_with_pieces("ab", 1);
        relay.read_ahead_error = Some(BodyError::Idle(Duration::ZERO));
        assert!(relay.is_broken() && !relay.is_end_stream());
        assert_eq!(relay.size_hint().exact(), None);
        assert_eq!(relay.read_ahead().await, Some(Err(BodyError::Idle(Duration::ZERO))));
        let mut read = Vec::new();
        while let Some(piece) = poll_fn(|cx| relay.poll_data(cx)).await {
            read.push(piece);
        }
        let expected = [
            Ok(Bytes::from("a")),
            Ok(Bytes::from("b")),
            Err(BodyError::Idle(Duration::ZERO)),
        ];
        assert_eq!(read, expected);
        assert!(relay.is_end_stream());
    }
}
