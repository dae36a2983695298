//! The HTTP/2 connections to one upstream, each shared by a limited number of streams.
//!
//! The sizes of the windows matter: with hyper's default windows, one stream whose client does not read would stall
//! every other stream of its connection.

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

use crate::wire::{
    body::replay::Replay,
    client::{
        dial::HttpProtocol,
        freshness::{CLOSE_DETECTION, CheckoutPolicy, ConnectionFreshness},
        socket::ReadCounter,
    },
    limits::MAX_DECODED_HEAD,
};

/// The maximum number of streams on one connection.
const MAX_STREAMS: usize = 100;
/// The maximum number of unread bytes of one stream.
const STREAM_WINDOW: u32 = 65_535;
/// The maximum number of unread bytes of all streams. It covers the windows of all streams of a connection at once.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How long an upstream may be silent while a stream is open. After this time, a ping is sent.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How long an upstream has to answer a ping before its connection is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP/2 connections to one upstream.
pub(in crate::wire) struct H2Pool {
    /// The open connections, the latest one last.
    connections: Mutex<Vec<H2Connection>>,
    /// Whether a new connection will most likely use HTTP/2, because HTTP/2 is offered and the upstream chose it last
    /// time.
    is_http2_expected: AtomicBool,
    /// Held while a connection is opened, so that waiting requests can use a stream of it.
    dialling: tokio::sync::Mutex<()>,
}

struct H2Connection {
    sender: http2::SendRequest<Replay>,
    reads: Arc<ReadCounter>,
    streams: Arc<H2StreamCount>,
    /// The time after which no stream is opened. The streams that are open continue.
    expires: Instant,
}

/// The number of open streams of one connection.
struct H2StreamCount {
    /// The number of open streams.
    open: AtomicUsize,
    /// When a stream last ended.
    last_end: Mutex<Instant>,
}

/// One stream of a connection. Its place on the connection is freed when it is dropped.
pub(in crate::wire) struct H2Stream {
    pub sender: http2::SendRequest<Replay>,
    /// Counts the reads on the stream's connection.
    pub reads: Arc<ReadCounter>,
    streams: Arc<H2StreamCount>,
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        *self.streams.last_end.lock() = Instant::now();
        self.streams.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl H2Connection {
    fn open_stream(&self) -> H2Stream {
        self.streams.open.fetch_add(1, Ordering::AcqRel);
        H2Stream {
            sender: self.sender.clone(),
            reads: self.reads.clone(),
            streams: self.streams.clone(),
        }
    }

    fn stream_count(&self) -> usize {
        self.streams.open.load(Ordering::Acquire)
    }

    /// When the last stream ended; `None` while a stream is open.
    fn idle_since(&self) -> Option<Instant> {
        (self.stream_count() == 0).then(|| *self.streams.last_end.lock())
    }

    fn freshness(&self, now: Instant) -> ConnectionFreshness {
        let is_busy = self.stream_count() > 0;
        if is_busy || now.saturating_duration_since(*self.streams.last_end.lock()) < CLOSE_DETECTION {
            ConnectionFreshness::RecentlyUsed
        } else {
            ConnectionFreshness::MaybeStale
        }
    }
}

impl H2Pool {
    /// A pool without connections. `expected` is the version of HTTP that the first connection will most likely use.
    pub fn new(expected: HttpProtocol) -> Self {
        Self {
            connections: Mutex::default(),
            is_http2_expected: AtomicBool::new(expected == HttpProtocol::Http2),
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// Whether a connection that is opened now can most likely be shared.
    pub fn is_http2_expected(&self) -> bool {
        self.is_http2_expected.load(Ordering::Relaxed)
    }

    /// Records the version of HTTP that the upstream has chosen for a new connection.
    pub fn record_protocol(&self, protocol: HttpProtocol) {
        self.is_http2_expected
            .store(protocol == HttpProtocol::Http2, Ordering::Relaxed);
    }

    /// Waits until no other request opens a connection. The connection that was opened meanwhile can perhaps be shared.
    pub async fn lock_dialling(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.dialling.lock().await
    }

    /// Opens a stream on a connection that is not known to be closed, and that `policy` allows.
    pub fn checkout(&self, policy: CheckoutPolicy) -> Option<(H2Stream, ConnectionFreshness)> {
        let mut connections = self.connections.lock();
        if connections.is_empty() {
            return None;
        }
        let now = Instant::now();
        // A connection without a handle in this list is closed when its last stream has ended.
        connections.retain(|connection| now < connection.expires && !connection.sender.is_closed());
        // The latest connection is used first, so that unneeded connections become idle.
        connections.iter().rev().find_map(|connection| {
            let freshness = connection.freshness(now);
            let is_eligible = connection.stream_count() < MAX_STREAMS && policy.allows(freshness);
            is_eligible.then(|| (connection.open_stream(), freshness))
        })
    }

    /// Begins HTTP/2 on `io` and opens the first stream. `reads` counts the reads of `io`. No stream is opened after
    /// `expires`.
    pub async fn open<T>(&self, io: T, reads: Arc<ReadCounter>, expires: Instant) -> hyper::Result<H2Stream>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_DECODED_HEAD)
            .handshake(io)
            .await?;
        // The result of the driver is not needed, because each request also receives the error of the connection.
        tokio::spawn(driver);
        let connection = H2Connection {
            sender,
            reads,
            streams: Arc::new(H2StreamCount {
                open: AtomicUsize::new(0),
                last_end: Mutex::new(Instant::now()),
            }),
            expires,
        };
        let stream = connection.open_stream();
        self.connections.lock().push(connection);
        Ok(stream)
    }

    /// Opens no more streams on the connection of `stream`. The streams that are open continue.
    pub fn retire(&self, stream: &H2Stream) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.streams, &stream.streams));
    }

    /// Adds the times since which the connections without a stream have been idle to `times`.
    pub fn list_idle(&self, times: &mut Vec<Instant>) {
        let connections = self.connections.lock();
        times.extend(connections.iter().filter_map(H2Connection::idle_since));
    }

    /// Closes the connections that have had no stream since `until` or for longer. Returns their number.
    pub fn close_idle_since(&self, until: Instant) -> usize {
        let mut connections = self.connections.lock();
        let before = connections.len();
        connections.retain(|connection| connection.idle_since().is_none_or(|since| since > until));
        before - connections.len()
    }

    /// Drops the connections that are closed or too old, and closes those that have had no stream for `limit`.
    pub fn close_expired(&self, limit: Duration) {
        self.connections.lock().retain(|connection| {
            let is_idle = connection.stream_count() == 0 && connection.streams.last_end.lock().elapsed() >= limit;
            !is_idle && Instant::now() < connection.expires && !connection.sender.is_closed()
        });
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, DuplexStream};

    use super::*;
    use crate::wire::body::framing::Framing;

    const LIMIT: Duration = Duration::from_secs(60);
    const AGE: Duration = Duration::from_secs(600);

    /// Opens a connection to an upstream that sends nothing.
    async fn open(connections: &H2Pool) -> (H2Stream, DuplexStream) {
        let (near, far) = tokio::io::duplex(64 << 10);
        let stream = connections
            .open(TokioIo::new(near), Arc::default(), Instant::now() + AGE)
            .await;
        (stream.expect("a connection"), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_is_closed_after_the_limit() {
        let connections = H2Pool::new(HttpProtocol::Http2);
        let (stream, mut far) = open(&connections).await;
        tokio::time::advance(LIMIT * 2).await;
        connections.close_expired(LIMIT);
        assert!(
            connections.checkout(CheckoutPolicy::RecentlyUsedOnly).is_some(),
            "the connection is in use"
        );
        drop(stream);
        tokio::time::advance(LIMIT / 2).await;
        connections.close_expired(LIMIT);
        assert!(
            connections.checkout(CheckoutPolicy::RecentlyUsedOnly).is_none(),
            "the upstream may have closed the connection"
        );
        assert!(
            connections
                .checkout(CheckoutPolicy::AnyOpen)
                .is_some_and(|(_, freshness)| freshness == ConnectionFreshness::MaybeStale)
        );
        tokio::time::advance(LIMIT).await;
        connections.close_expired(LIMIT);
        assert!(connections.checkout(CheckoutPolicy::AnyOpen).is_none());
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("closed");
    }

    #[tokio::test(start_paused = true)]
    async fn only_connections_without_streams_are_closed_to_free_descriptors() {
        let connections = H2Pool::new(HttpProtocol::Http2);
        let (busy, _busy_far) = open(&connections).await;
        let (idle, mut far) = open(&connections).await;
        drop(idle);
        let until = Instant::now();
        let mut times = Vec::new();
        connections.list_idle(&mut times);
        assert_eq!(times, [until]);
        assert_eq!(connections.close_idle_since(until), 1);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("closed");
        assert!(!busy.sender.is_closed());
        drop(busy);
        assert_eq!(connections.close_idle_since(until - LIMIT), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_answers_no_ping_is_disconnected() {
        let connections = H2Pool::new(HttpProtocol::Http2);
        let (mut stream, _far) = open(&connections).await;
        let mut request = Request::new(Replay::empty(Framing::None));
        *request.uri_mut() = http::Uri::from_static("https://it/v1/models");
        let response = tokio::time::timeout(LIMIT, stream.sender.try_send_request(request)).await;
        assert!(response.expect("an end in time").is_err());
        assert!(connections.checkout(CheckoutPolicy::AnyOpen).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_gets_no_streams_after_its_age_and_closes_after_its_last_stream() {
        let connections = H2Pool::new(HttpProtocol::Http2);
        let (stream, mut far) = open(&connections).await;
        tokio::time::advance(AGE - Duration::from_secs(1)).await;
        assert!(connections.checkout(CheckoutPolicy::AnyOpen).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(connections.checkout(CheckoutPolicy::AnyOpen).is_none());
        assert!(!stream.sender.is_closed(), "the stream that is open continues");
        drop(stream);
        let mut sent = Vec::new();
        let closed = tokio::time::timeout(LIMIT, far.read_to_end(&mut sent)).await;
        closed.expect("an end in time").expect("the connection is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_connection_gets_no_more_streams() {
        let connections = H2Pool::new(HttpProtocol::Http2);
        let (late, _far) = open(&connections).await;
        let (other, _other_far) = open(&connections).await;
        connections.retire(&late);
        for _ in 0..MAX_STREAMS {
            let next = connections.checkout(CheckoutPolicy::AnyOpen).map(|(stream, _)| stream);
            assert!(next.is_some_and(|next| Arc::ptr_eq(&next.streams, &other.streams)));
        }
    }
}
