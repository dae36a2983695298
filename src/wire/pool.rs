//! Connections to one upstream, kept warm.
//!
//! HTTP/1.1 connections are taken most recently used first, so that surplus ones grow old and are closed.
//!
//! An upstream may close a connection at any time, and it takes a while until that is known here. A connection in steady
//! use, which has outlived a request before and whose last one ended only just now, is taken to be open. Any other
//! carries only what can be sent once more, and it alone is worth a copy of the request.

use std::{sync::Arc, time::Duration};

use http::{
    Request, Response,
    uri::{Authority, Scheme},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{
    body::Relay,
    dial::{DialError, Dialer, Target, root_cause},
    http1::{Connection, Exchange},
    multiplex::{Multiplexed, Stream},
    replay::Replay,
    send_error::SendError,
    stream::{Failure, again},
    workers,
};

/// Idle connections that each worker keeps to one upstream.
const MAX_IDLE: usize = 256;
/// How long an idle connection is kept: below the 75 s after which common servers close theirs.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// The time in which a closed connection shows: news of it travels one way, and an answer to what was written there both.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// The connections to one upstream.
pub struct Pool {
    dialer: Dialer,
    scheme: Scheme,
    authority: Authority,
    /// By the worker that uses them: a connection is driven by the event loop that dialled it.
    idle: Box<[Mutex<Vec<Idle>>]>,
    http2: Multiplexed,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Idle {
    fn is_steady(&self, now: Instant) -> bool {
        self.connection.is_reused && now.duration_since(self.since) < SOON
    }
}

/// How long a response may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Until its head, from the end of the request.
    pub head: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
}

/// What carries one request.
enum Line {
    /// A connection of HTTP/1.1: one request at a time.
    Exclusive(Box<Connection>),
    /// A stream of HTTP/2.
    Stream(Stream),
}

/// What became of a request.
enum Sent {
    Answered(Response<Relay>),
    /// Most likely the connection had been closed before, so the request can be sent once more.
    Stale(Request<Replay>),
    Failed(SendError),
}

impl Pool {
    /// An empty pool towards `target`, whose connections come about within `connect` and fail once the upstream has
    /// read nothing for `stall`.
    ///
    /// # Errors
    /// When the host is no name that TLS can verify.
    pub fn new(target: &Target, connect: Duration, stall: Duration) -> Result<Arc<Self>, DialError> {
        let offers_http2 = target
            .tls
            .as_ref()
            .is_some_and(|config| config.alpn_protocols.iter().any(|protocol| protocol == b"h2"));
        Ok(Arc::new(Self {
            dialer: Dialer::new(target, connect, stall)?,
            scheme: if target.tls.is_some() {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            authority: target.authority.clone(),
            idle: (0..workers::places()).map(|_| Mutex::default()).collect(),
            http2: Multiplexed::new(offers_http2),
        }))
    }

    /// Sends `request` (its target in origin form, with `Host`) and waits for the response head for at most `head`
    /// once it has been sent; the response body may then pause for at most `idle`.
    ///
    /// A pooled connection that had been closed does not show: the request is sent once more on a fresh one.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        self: &Arc<Self>,
        request: Request<Replay>,
        head: Duration,
        idle: Duration,
    ) -> Result<Response<Relay>, SendError> {
        let limits = Limits { head, idle };
        let request = match self.checkout(!request.body().is_repeatable()) {
            None => request,
            Some((line, is_steady)) => match self.send_on(line, request, limits, is_steady).await {
                Sent::Answered(response) => return Ok(response),
                Sent::Failed(error) => return Err(error),
                Sent::Stale(request) => request,
            },
        };
        // In boxes, as all that is rare: a request's future is as large as its largest branch.
        let fresh = Box::pin(self.connect()).await.map_err(SendError::Dial)?;
        match self.send_on(fresh, request, limits, true).await {
            Sent::Answered(response) => Ok(response),
            Sent::Failed(error) => Err(error),
            Sent::Stale(_) => Err(SendError::Broken("the connection closed at once".to_owned())),
        }
    }

    /// Sends `request` on `line`, which is known to be open where it `is_steady`.
    async fn send_on(self: &Arc<Self>, line: Line, request: Request<Replay>, limits: Limits, is_steady: bool) -> Sent {
        match line {
            Line::Exclusive(connection) => self.exchange(connection, request, limits, is_steady).await,
            Line::Stream(stream) => Box::pin(self.stream(stream, request, limits, is_steady)).await,
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        connection: Box<Connection>,
        mut request: Request<Replay>,
        limits: Limits,
        is_steady: bool,
    ) -> Sent {
        let begun = Instant::now();
        let body = request.body_mut().share();
        match Exchange::begin(connection, &request, body, limits.head).await {
            Ok((exchange, response)) => {
                Sent::Answered(response.map(|()| Relay::exchange(exchange, self.clone(), limits.idle)))
            }
            Err(failed) => {
                let is_stale = failed.is_silent_end && !is_steady && begun.elapsed() < SOON;
                if is_stale && request.body().is_repeatable() {
                    Sent::Stale(request)
                } else {
                    Sent::Failed(failed.error)
                }
            }
        }
    }

    async fn stream(
        self: &Arc<Self>,
        mut stream: Stream,
        request: Request<Replay>,
        limits: Limits,
        is_steady: bool,
    ) -> Sent {
        let spare = if is_steady { None } else { again(&request) };
        let Failure {
            error,
            unsent,
            is_stale,
            is_late,
        } = match stream.send(request, (&self.scheme, &self.authority), limits).await {
            Ok(response) => return Sent::Answered(response.map(|body| Relay::stream(body, stream, limits.idle))),
            Err(failure) => failure,
        };
        if is_late {
            self.http2.retire(&stream);
        }
        match unsent.or(spare.filter(|_| is_stale)) {
            Some(request) => Sent::Stale(request),
            None => Sent::Failed(error),
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn reap(&self) {
        for idle in &self.idle {
            idle.lock()
                .retain(|idle| idle.since.elapsed() < IDLE_FOR && idle.connection.is_open());
        }
        self.http2.reap(IDLE_FOR);
    }

    /// Idle connections at this moment.
    pub fn idle(&self) -> usize {
        self.idle.iter().map(|idle| idle.lock().len()).sum()
    }

    /// Takes a connection of HTTP/1.1 back.
    pub(super) fn put_back(&self, connection: Box<Connection>) {
        let Some(mut idle) = self.idle.get(workers::place()).map(Mutex::lock) else {
            return;
        };
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// What is open, and whether that is certain.
    fn checkout(&self, only_steady: bool) -> Option<(Line, bool)> {
        if let Some((stream, is_steady)) = self.http2.checkout(only_steady) {
            return Some((Line::Stream(stream), is_steady));
        }
        let mut idle = self.idle.get(workers::place())?.lock();
        let now = Instant::now();
        while let Some(last) = idle.pop() {
            let is_steady = last.is_steady(now);
            if !is_steady && only_steady {
                // Those below have waited for longer.
                idle.push(last);
                return None;
            }
            if now.duration_since(last.since) < IDLE_FOR && last.connection.is_open() {
                let mut connection = last.connection;
                connection.is_reused = true;
                return Some((Line::Exclusive(connection), is_steady));
            }
        }
        None
    }

    /// A new connection; over HTTP/2 perhaps a stream of one that another request has dialled meanwhile. So a burst of
    /// requests does not dial a connection each.
    async fn connect(self: &Arc<Self>) -> Result<Line, DialError> {
        if !self.http2.is_expected() {
            return self.dial().await;
        }
        let dialled = async {
            let turn = self.http2.turn().await;
            if !self.http2.is_expected() {
                drop(turn);
                return self.dial().await;
            }
            match self.http2.checkout(true) {
                Some((stream, _)) => Ok(Line::Stream(stream)),
                None => self.dial().await,
            }
        };
        // Whoever waits behind others that wait in vain does not wait for longer than they.
        let limit = self.dialer.limit();
        timeout(limit, dialled).await.unwrap_or(Err(DialError::Timeout(limit)))
    }

    async fn dial(&self) -> Result<Line, DialError> {
        let (socket, http2) = self.dialer.dial().await?;
        self.http2.expect(http2);
        if !http2 {
            return Ok(Line::Exclusive(Connection::new(socket)));
        }
        let arrivals = socket.arrivals();
        let stream = self.http2.open(TokioIo::new(socket), arrivals).await;
        stream
            .map(Line::Stream)
            .map_err(|error| DialError::Handshake(root_cause(&error)))
    }
}
