//! HTTP/2 connections to one upstream, each shared between a bounded number of streams: with hyper's default windows one
//! stalled stream would freeze every other of its connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hyper::{
    client::conn::http2,
    rt::{Read, Write},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{pool::SOON, replay::Replay, socket::Arrivals};

/// Streams on one connection.
const MAX_STREAMS: usize = 100;
/// A stream may hold back this much; `CONNECTION_WINDOW` covers every stream of a connection at once.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The HTTP/2 connections to one upstream.
#[derive(Default)]
pub(super) struct Multiplexed {
    connections: Mutex<Vec<Connection>>,
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
pub(super) struct Stream {
    pub(super) sender: http2::SendRequest<Replay>,
    pub(super) arrivals: Arc<Arrivals>,
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
    /// A stream of a connection that is there, and whether that is known to be open.
    pub(super) fn checkout(&self, only_steady: bool) -> Option<(Stream, bool)> {
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
    pub(super) async fn open<T>(&self, io: T, arrivals: Arc<Arrivals>) -> hyper::Result<Stream>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
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

    /// Forgets connections that are closed.
    pub(super) fn reap(&self) {
        self.connections
            .lock()
            .retain(|connection| !connection.sender.is_closed());
    }
}
