//! HTTP/2 connections to one upstream, each shared between a bounded number of streams: with hyper's default windows one
//! stalled stream would freeze every other of its connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    client::conn::http2,
    rt::{Read, Write},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::wire::{body::replay::Replay, client::pool::SOON, client::socket::Arrivals};

/// Streams on one connection.
const MAX_STREAMS: usize = 100;
/// A stream may hold back this much; `CONNECTION_WINDOW` covers every stream of a connection at once.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A peer that is silent for this long while a stream is open is asked for a sign of life, and given up without one.
const SILENCE: Duration = Duration::from_secs(20);
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The HTTP/2 connections to one upstream.
pub(in crate::wire) struct Multiplexed {
    connections: Mutex<Vec<Connection>>,
    /// HTTP/2 is offered, and the upstream has not declined when it was last dialled.
    is_expected: AtomicBool,
    dialling: tokio::sync::Mutex<()>,
}

struct Connection {
    sender: http2::SendRequest<Replay>,
    arrivals: Arc<Arrivals>,
    usage: Arc<Usage>,
}

struct Usage {
    streams: AtomicUsize,
    /// When a stream last ended.
    ended: Mutex<Instant>,
}

/// One of a connection's streams, given back on drop.
pub(in crate::wire) struct Stream {
    pub(in crate::wire) sender: http2::SendRequest<Replay>,
    pub(in crate::wire) arrivals: Arc<Arrivals>,
    usage: Arc<Usage>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        *self.usage.ended.lock() = Instant::now();
        self.usage.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connection {
    fn stream(&self) -> Stream {
        self.usage.streams.fetch_add(1, Ordering::AcqRel);
        Stream {
            sender: self.sender.clone(),
            arrivals: self.arrivals.clone(),
            usage: self.usage.clone(),
        }
    }

    fn streams(&self) -> usize {
        self.usage.streams.load(Ordering::Acquire)
    }

    /// Whether it is in use, or was a moment ago.
    fn is_steady(&self) -> bool {
        self.streams() > 0 || self.usage.ended.lock().elapsed() < SOON
    }
}

impl Multiplexed {
    pub(in crate::wire) fn new(is_offered: bool) -> Self {
        Self {
            connections: Mutex::default(),
            is_expected: AtomicBool::new(is_offered),
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// Whether a connection that is dialled now will most likely have room for others.
    pub(in crate::wire) fn is_expected(&self) -> bool {
        self.is_expected.load(Ordering::Relaxed)
    }

    /// Notes what the upstream chose.
    pub(in crate::wire) fn expect(&self, http2: bool) {
        self.is_expected.store(http2, Ordering::Relaxed);
    }

    /// Waits for its turn to dial: the one before may have made room for this one.
    pub(in crate::wire) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.dialling.lock().await
    }

    /// A stream of a connection that is there, and whether that is known to be open.
    pub(in crate::wire) fn checkout(&self, only_steady: bool) -> Option<(Stream, bool)> {
        let mut connections = self.connections.lock();
        if connections.is_empty() {
            return None;
        }
        connections.retain(|connection| !connection.sender.is_closed());
        // The latest first, so that surplus ones fall idle.
        connections.iter().rev().find_map(|connection| {
            let is_steady = connection.is_steady();
            let is_eligible = connection.streams() < MAX_STREAMS && (is_steady || !only_steady);
            is_eligible.then(|| (connection.stream(), is_steady))
        })
    }

    /// Begins HTTP/2 on `io`: the connection's first stream.
    pub(in crate::wire) async fn open<T>(&self, io: T, arrivals: Arc<Arrivals>) -> hyper::Result<Stream>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(SILENCE)
            .keep_alive_timeout(SIGN_OF_LIFE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await?;
        // What ends the connection shows in the requests that it carries.
        tokio::spawn(driver);
        let connection = Connection {
            sender,
            arrivals,
            usage: Arc::new(Usage {
                streams: AtomicUsize::new(0),
                ended: Mutex::new(Instant::now()),
            }),
        };
        let stream = connection.stream();
        self.connections.lock().push(connection);
        Ok(stream)
    }

    /// Gives the connection of `stream` no more of them; those that it has go on.
    pub(in crate::wire) fn retire(&self, stream: &Stream) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.usage, &stream.usage));
    }

    /// Forgets connections that are closed, and closes those without a stream for `limit`.
    pub(in crate::wire) fn reap(&self, limit: Duration) {
        self.connections.lock().retain(|connection| {
            let is_idle = connection.streams() == 0 && connection.usage.ended.lock().elapsed() >= limit;
            !is_idle && !connection.sender.is_closed()
        });
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, DuplexStream};

    use super::*;
    use crate::wire::body::relay::Framing;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A connection to a peer that says nothing.
    async fn open(connections: &Multiplexed) -> (Stream, DuplexStream) {
        let (near, far) = tokio::io::duplex(64 << 10);
        let stream = connections.open(TokioIo::new(near), Arc::default()).await;
        (stream.expect("begun"), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_is_closed_in_time() {
        let connections = Multiplexed::new(true);
        let (stream, mut far) = open(&connections).await;
        tokio::time::advance(LIMIT * 2).await;
        connections.reap(LIMIT);
        assert!(connections.checkout(true).is_some(), "it is in use");
        drop(stream);
        tokio::time::advance(LIMIT / 2).await;
        connections.reap(LIMIT);
        assert!(
            connections.checkout(true).is_none(),
            "it may have been closed meanwhile"
        );
        assert!(connections.checkout(false).is_some_and(|(_, is_steady)| !is_steady));
        tokio::time::advance(LIMIT).await;
        connections.reap(LIMIT);
        assert!(connections.checkout(false).is_none());
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_without_a_sign_of_life_is_given_up() {
        let connections = Multiplexed::new(true);
        let (mut stream, _far) = open(&connections).await;
        let mut request = Request::new(Replay::empty(Framing::None));
        *request.uri_mut() = http::Uri::from_static("https://it/v1/models");
        let answer = tokio::time::timeout(LIMIT, stream.sender.try_send_request(request)).await;
        assert!(answer.expect("given up").is_err());
        assert!(connections.checkout(false).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_connection_gets_no_more_streams() {
        let connections = Multiplexed::new(true);
        let (late, _far) = open(&connections).await;
        let (other, _other_far) = open(&connections).await;
        connections.retire(&late);
        for _ in 0..MAX_STREAMS {
            let next = connections.checkout(false).map(|(stream, _)| stream);
            assert!(next.is_some_and(|next| Arc::ptr_eq(&next.usage, &other.usage)));
        }
    }
}
