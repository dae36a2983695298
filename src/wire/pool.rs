//! Connections to one upstream, kept warm.
//!
//! HTTP/1.1 connections are taken most recently used first, so that surplus ones grow old and are closed. HTTP/2, where
//! the operator allows it, shares a connection between a bounded number of streams: with hyper's default windows one
//! stalled stream would freeze every other of its connection.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::Scheme,
};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    body::{BodyError, Relay},
    dial::{DialError, Dialer, root_cause},
    replay::Replay,
};

/// Idle connections kept to one upstream.
const MAX_IDLE: usize = 512;
/// How long an idle connection is kept: below the 75 s after which common servers close theirs.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// HTTP/2 streams on one connection.
const MAX_STREAMS: usize = 100;
/// A stream may hold back this much; `CONNECTION_WINDOW` covers every stream of a connection at once.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Why there is no response head.
#[derive(Debug)]
pub enum SendError {
    /// No connection came about.
    Dial(DialError),
    /// The upstream sent no head in time.
    Timeout(Duration),
    /// The request body ended before its end; the upstream did nothing wrong.
    Body(BodyError),
    /// The upstream closed the connection, or answered something that is not HTTP.
    Broken(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Timeout(limit) => write!(f, "no response head within {} ms", limit.as_millis()),
            Self::Body(error) => error.fmt(f),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

impl std::error::Error for SendError {}

/// The connections to one upstream.
pub struct Pool {
    dialer: Dialer,
    scheme: Scheme,
    authority: http::uri::Authority,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Shared>>,
}

struct Idle {
    sender: http1::SendRequest<Replay>,
    since: Instant,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Replay>,
    streams: Arc<AtomicUsize>,
}

/// One request's hold on a connection.
pub(super) struct Lease {
    pool: Arc<Pool>,
    sender: Sender,
}

enum Sender {
    Exclusive(http1::SendRequest<Replay>),
    Shared {
        sender: http2::SendRequest<Replay>,
        _slot: StreamSlot,
    },
}

/// One of a connection's streams, given back on drop.
struct StreamSlot(Arc<AtomicUsize>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pool {
    /// An empty pool over `dialer`.
    pub fn new(dialer: Dialer, target: &super::Target) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            scheme: if target.tls.is_some() {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            authority: target.authority.clone(),
            idle: Mutex::default(),
            shared: Mutex::default(),
        })
    }

    /// Sends `request` (its target in origin form, with `Host`) and waits for the response head for at most `head`;
    /// the response body may then pause for at most `idle`.
    ///
    /// A pooled connection that turns out to be closed does not show: the request is sent once more on a fresh one.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        self: &Arc<Self>,
        request: Request<Replay>,
        head: Duration,
        idle: Duration,
    ) -> Result<Response<Relay>, SendError> {
        tokio::time::timeout(head, self.send_untimed(request, idle))
            .await
            .unwrap_or(Err(SendError::Timeout(head)))
    }

    async fn send_untimed(
        self: &Arc<Self>,
        request: Request<Replay>,
        idle: Duration,
    ) -> Result<Response<Relay>, SendError> {
        let Some(mut pooled) = self.checkout() else {
            return self.send_fresh(request, idle).await;
        };
        let spare = again(&request);
        match pooled.send(request).await {
            Ok(response) => Ok(response.map(|body| Relay::new(body, idle, pooled))),
            Err(Failure { error, unsent, stale }) => match unsent.or(if stale { spare } else { None }) {
                Some(request) => self.send_fresh(request, idle).await,
                None => Err(error),
            },
        }
    }

    async fn send_fresh(
        self: &Arc<Self>,
        request: Request<Replay>,
        idle: Duration,
    ) -> Result<Response<Relay>, SendError> {
        let mut fresh = self.dial().await.map_err(SendError::Dial)?;
        match fresh.send(request).await {
            Ok(response) => Ok(response.map(|body| Relay::new(body, idle, fresh))),
            Err(failure) => Err(failure.error),
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn reap(&self) {
        self.idle
            .lock()
            .retain(|idle| idle.since.elapsed() < IDLE_FOR && !idle.sender.is_closed());
        self.shared.lock().retain(|shared| !shared.sender.is_closed());
    }

    /// Idle connections at this moment.
    pub fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    fn checkout(self: &Arc<Self>) -> Option<Lease> {
        let sender = match self.checkout_shared() {
            Some(sender) => sender,
            None => Sender::Exclusive(self.checkout_exclusive()?),
        };
        Some(Lease {
            pool: self.clone(),
            sender,
        })
    }

    fn checkout_exclusive(&self) -> Option<http1::SendRequest<Replay>> {
        let mut idle = self.idle.lock();
        // A connection whose last response has only just ended may not be ready yet: leave it to a later request.
        let mut position = idle.len();
        while position > 0 {
            position -= 1;
            let candidate = idle.get(position)?;
            if candidate.sender.is_closed() || candidate.since.elapsed() >= IDLE_FOR {
                idle.remove(position);
            } else if candidate.sender.is_ready() {
                return Some(idle.remove(position).sender);
            }
        }
        None
    }

    fn checkout_shared(&self) -> Option<Sender> {
        let mut shared = self.shared.lock();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|connection| !connection.sender.is_closed());
        let connection = shared
            .iter()
            .find(|connection| connection.streams.load(Ordering::Acquire) < MAX_STREAMS)?;
        connection.streams.fetch_add(1, Ordering::AcqRel);
        Some(Sender::Shared {
            sender: connection.sender.clone(),
            _slot: StreamSlot(connection.streams.clone()),
        })
    }

    async fn dial(self: &Arc<Self>) -> Result<Lease, DialError> {
        let (socket, http2) = self.dialer.dial().await?;
        let io = TokioIo::new(socket);
        let sender = if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(io)
                .await
                .map_err(|error| DialError::Handshake(root_cause(&error)))?;
            tokio::spawn(connection);
            let streams = Arc::new(AtomicUsize::new(1));
            self.shared.lock().push(Shared {
                sender: sender.clone(),
                streams: streams.clone(),
            });
            Sender::Shared {
                sender,
                _slot: StreamSlot(streams),
            }
        } else {
            let (sender, connection) = http1::Builder::new()
                .handshake(io)
                .await
                .map_err(|error| DialError::Handshake(root_cause(&error)))?;
            // What ends the connection shows in the request that it carried.
            tokio::spawn(connection);
            Sender::Exclusive(sender)
        };
        Ok(Lease {
            pool: self.clone(),
            sender,
        })
    }
}

/// A request that failed, and what is left of it.
struct Failure {
    error: SendError,
    /// The request, where nothing of it was written.
    unsent: Option<Request<Replay>>,
    /// The connection closed without a byte of response: on a pooled one it had most likely been closed before.
    stale: bool,
}

impl Lease {
    async fn send(&mut self, mut request: Request<Replay>) -> Result<Response<Incoming>, Failure> {
        let result = match &mut self.sender {
            Sender::Exclusive(sender) => {
                name_coding(&mut request);
                sender.try_send_request(request).await
            }
            Sender::Shared { sender, .. } => {
                to_http2(&mut request, &self.pool.scheme, &self.pool.authority);
                sender.try_send_request(request).await
            }
        };
        result.map_err(|mut failed| {
            let unsent = failed.take_message().map(to_http1);
            let error = failed.into_error();
            let stale = error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset(&error);
            Failure {
                error: classify(&error),
                unsent,
                stale,
            }
        })
    }

    /// Gives the connection back: the response has been read to its end.
    pub(super) fn release(self) {
        if let Sender::Exclusive(sender) = self.sender
            && !sender.is_closed()
        {
            let mut idle = self.pool.idle.lock();
            if idle.len() < MAX_IDLE {
                idle.push(Idle {
                    sender,
                    since: Instant::now(),
                });
            }
        }
    }
}

/// A copy of `request` to send once more, where its body is kept.
fn again(request: &Request<Replay>) -> Option<Request<Replay>> {
    let mut copy = Request::new(request.body().again()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// hyper adds the field for some methods only, and drops the body of the others.
fn name_coding(request: &mut Request<Replay>) {
    if request.body().is_chunked() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

/// HTTP/2 frames bodies by itself (RFC 9113 section 8.2.2), and names the authority in the target and not in `Host` (RFC 9113 section 8.3.1).
fn to_http2(request: &mut Request<Replay>, scheme: &Scheme, authority: &http::uri::Authority) {
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.clone());
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// Undoes [`to_http2`], so that an unsent request can go to a connection of either version.
fn to_http1(mut request: Request<Replay>) -> Request<Replay> {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
    }
    request
}

fn classify(error: &hyper::Error) -> SendError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(body) = error.downcast_ref::<BodyError>() {
            return SendError::Body(body.clone());
        }
        cause = error.source();
    }
    SendError::Broken(root_cause(error))
}

fn is_reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|io| {
        matches!(
            io.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected
        )
    })
}
