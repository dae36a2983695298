//! A request body that arrives from a client, with limits on its size, on its pauses and on its rate.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use crate::wire::body::{
    framing::{BodyError, Framing},
    kept::{KeptBody, KeptBodyReader},
    pace::{BodyPace, MinBodyRate, PaceReading},
    request::RequestBody,
};

/// A client's request body as it arrives. Its size, its pauses and its rate are limited.
pub struct Intake {
    body: RequestBody,
    /// The maximum pause between two pieces.
    idle: Duration,
    /// The maximum size in bytes, as sent.
    limit: u64,
    /// The bytes received so far. The count is shared, because the request log reads it after the body is gone.
    received: Arc<AtomicU64>,
    /// The beginning of the body, if it has been [given back](Self::give_back). It is read first.
    given_back: Option<Box<KeptBodyReader>>,
    /// Measures the rate of the body.
    pace: BodyPace,
}

impl Intake {
    /// Reads at most `limit` bytes of `body`, with pauses of at most `idle`, and at least with the rate `min_rate`.
    pub fn new(body: RequestBody, limit: u64, idle: Duration, min_rate: MinBodyRate) -> Self {
        Self {
            body,
            idle,
            limit,
            received: Arc::default(),
            given_back: None,
            pace: BodyPace::new(min_rate),
        }
    }

    /// Gives the beginning of the body back, which has been read. It will be read again, before the rest.
    pub fn give_back(&mut self, beginning: KeptBody) {
        let reader = KeptBodyReader::new(beginning);
        self.given_back = (reader.remaining() > 0).then(|| Box::new(reader));
    }

    /// Whether all of the body has been read.
    pub fn is_end(&self) -> bool {
        self.given_back.is_none() && self.body.is_end()
    }

    /// The number of bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The counter of received bytes, which can outlive the body.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// How fast the body arrives.
    pub(in crate::wire) fn pace(&self) -> PaceReading {
        self.pace.reading()
    }

    /// How the body is delimited.
    pub(in crate::wire) fn framing(&self) -> Framing {
        self.body.framing()
    }

    /// Reads the next piece, or `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(in crate::wire) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(reader) = &mut self.given_back {
            let piece = reader.next();
            if reader.remaining() == 0 {
                self.given_back = None;
            }
            return Poll::Ready(piece.map(Ok));
        }
        let limit = self.pace.limit(self.idle);
        let Poll::Ready(piece) = self.body.poll_data(cx, limit) else {
            let waited = self.pace.begin_wait();
            return waited.map_or_else(|error| Poll::Ready(Some(Err(error))), |()| Poll::Pending);
        };
        if let Some(Err(BodyError::Idle(_))) = &piece {
            return Poll::Ready(Some(Err(self.pace.timeout(limit, self.idle))));
        }
        if let Some(Ok(piece)) = &piece {
            let length = piece.len() as u64;
            self.pace.receive(length);
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::{io::AsyncWriteExt as _, net::UnixStream};

    use super::*;
    use crate::wire::{
        body::kept::KeptBodyBuilder,
        http1::server::connection::{ClientConnection, Http1RequestBody},
        server::{activity::Activity, socket::ClientSocket},
        transport::Transport,
    };

    const IDLE: Duration = Duration::from_millis(50);

    /// The body of a request with a `Content-Length` of eight bytes.
    fn intake(limit: u64) -> (Intake, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let socket = ClientSocket::new(Transport::Unix(near), IDLE, Activity::accepted());
        let client = Arc::new(Mutex::new(ClientConnection::new(socket)));
        let framing = Framing::Length(8);
        client.lock().begin_request(framing);
        let body = Http1RequestBody::new(&client, framing);
        (
            Intake::new(RequestBody::from_http1(body, framing), limit, IDLE, MinBodyRate::OFF),
            far,
        )
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        for (limit, expected) in [
            (8, Ok(Bytes::from("12345678"))),
            (7, Err(BodyError::TooLarge { limit: 7 })),
        ] {
            let (mut intake, mut client) = intake(limit);
            client.write_all(b"12345678").await.expect("written");
            assert_eq!(intake.next().await, Some(expected));
            assert!(intake.is_end());
            assert_eq!((intake.received(), intake.counter().load(Ordering::Relaxed)), (8, 8));
        }
    }

    #[tokio::test]
    async fn a_beginning_that_is_given_back_is_read_again_before_the_rest() {
        let (mut intake, mut client) = intake(8);
        client.write_all(b"12345").await.expect("written");
        let mut beginning = KeptBodyBuilder::default();
        while intake.received() < 5 {
            beginning.push(intake.next().await.expect("a piece").expect("good bytes"));
        }
        client.write_all(b"678").await.expect("written");
        intake.give_back(beginning.finish(None));
        let mut again = Vec::new();
        while let Some(piece) = intake.next().await {
            assert!(again.len() < 5 || !intake.is_end() || again.len() + piece.as_ref().map_or(0, Bytes::len) == 8);
            again.extend_from_slice(&piece.expect("good bytes"));
        }
        assert_eq!((&again[..], intake.received()), (&b"12345678"[..], 8));
        assert!(intake.is_end());
    }

    #[tokio::test]
    async fn a_client_that_pauses_for_too_long_ends_its_body_with_an_error() {
        let (mut intake, mut client) = intake(8);
        client.write_all(b"123").await.expect("written");
        assert_eq!(intake.next().await, Some(Ok(Bytes::from("123"))));
        assert_eq!(intake.next().await, Some(Err(BodyError::Idle(IDLE))));
        assert_eq!(intake.received(), 3);
    }
}
