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
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{
    body::Relay,
    dial::{DialError, Dialer, Target, root_cause},
    lease::{Exclusive, Failure, Lease, Line, again},
    multiplex::{Multiplexed, Stream},
    replay::Replay,
    send_error::SendError,
};

/// Idle connections kept to one upstream.
const MAX_IDLE: usize = 512;
/// How long an idle connection is kept: below the 75 s after which common servers close theirs.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// The time in which a closed connection shows: news of it travels one way, and an answer to what was written there both.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// The connections to one upstream.
pub struct Pool {
    dialer: Dialer,
    scheme: Scheme,
    authority: Authority,
    idle: Mutex<Vec<Idle>>,
    http2: Multiplexed,
}

struct Idle {
    connection: Exclusive,
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

/// A connection that was used before.
struct Pooled {
    lease: Lease,
    is_steady: bool,
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
            idle: Mutex::default(),
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
        let Some(Pooled { mut lease, is_steady }) = self.checkout(!request.body().is_repeatable()) else {
            return self.send_fresh(request, limits).await;
        };
        let spare = if is_steady { None } else { again(&request) };
        let Failure {
            error,
            unsent,
            is_stale,
        } = match lease.send(request, limits).await {
            Ok(response) => return Ok(response.map(|body| Relay::new(body, idle, lease))),
            Err(failure) => failure,
        };
        match unsent.or(spare.filter(|_| is_stale)) {
            Some(request) => self.send_fresh(request, limits).await,
            None => Err(error),
        }
    }

    async fn send_fresh(
        self: &Arc<Self>,
        request: Request<Replay>,
        limits: Limits,
    ) -> Result<Response<Relay>, SendError> {
        let mut fresh = self.connect().await.map_err(SendError::Dial)?;
        match fresh.send(request, limits).await {
            Ok(response) => Ok(response.map(|body| Relay::new(body, limits.idle, fresh))),
            Err(failure) => Err(failure.error),
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn reap(&self) {
        self.idle
            .lock()
            .retain(|idle| idle.since.elapsed() < IDLE_FOR && !idle.connection.sender.is_closed());
        self.http2.reap(IDLE_FOR);
    }

    /// Idle connections at this moment.
    pub fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    /// Takes a connection of HTTP/1.1 back.
    pub(super) fn put_back(&self, connection: Exclusive) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// An answer on `stream` is overdue, perhaps because the peer is gone.
    pub(super) fn give_up(&self, stream: &Stream) {
        self.http2.retire(stream);
    }

    /// What HTTP/2 puts into each request target.
    pub(super) fn origin(&self) -> (&Scheme, &Authority) {
        (&self.scheme, &self.authority)
    }

    fn checkout(self: &Arc<Self>, only_steady: bool) -> Option<Pooled> {
        let (line, is_steady) = match self.http2.checkout(only_steady) {
            Some((stream, is_steady)) => (Line::Stream(stream), is_steady),
            None => {
                let (connection, is_steady) = self.checkout_exclusive(only_steady)?;
                (Line::Exclusive(connection), is_steady)
            }
        };
        let lease = Lease::new(self.clone(), line);
        Some(Pooled { lease, is_steady })
    }

    fn checkout_exclusive(&self, only_steady: bool) -> Option<(Exclusive, bool)> {
        let mut idle = self.idle.lock();
        let mut position = idle.len();
        let now = Instant::now();
        while position > 0 {
            position -= 1;
            let candidate = idle.get(position)?;
            let is_steady = candidate.is_steady(now);
            if candidate.connection.sender.is_closed() || now.duration_since(candidate.since) >= IDLE_FOR {
                idle.remove(position);
            } else if candidate.connection.sender.is_ready() && (is_steady || !only_steady) {
                // One whose last response has only just ended may not be ready yet: that is left to a later request.
                let mut connection = idle.remove(position).connection;
                connection.is_reused = true;
                return Some((connection, is_steady));
            }
        }
        None
    }

    /// A new connection; over HTTP/2 perhaps a stream of one that another request has dialled meanwhile. So a burst of
    /// requests does not dial a connection each.
    async fn connect(self: &Arc<Self>) -> Result<Lease, DialError> {
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
                Some((stream, _)) => Ok(Lease::new(self.clone(), Line::Stream(stream))),
                None => self.dial().await,
            }
        };
        // Whoever waits behind others that wait in vain does not wait for longer than they.
        let limit = self.dialer.limit();
        timeout(limit, dialled).await.unwrap_or(Err(DialError::Timeout(limit)))
    }

    async fn dial(self: &Arc<Self>) -> Result<Lease, DialError> {
        let (socket, http2) = self.dialer.dial().await?;
        self.http2.expect(http2);
        let arrivals = socket.arrivals();
        let io = TokioIo::new(socket);
        let failed = |error: hyper::Error| DialError::Handshake(root_cause(&error));
        let line = if http2 {
            Line::Stream(self.http2.open(io, arrivals).await.map_err(failed)?)
        } else {
            let (sender, driver) = http1::Builder::new().handshake(io).await.map_err(failed)?;
            // What ends the connection shows in the request that it carries.
            tokio::spawn(driver);
            Line::Exclusive(Exclusive {
                sender,
                arrivals,
                is_reused: false,
            })
        };
        Ok(Lease::new(self.clone(), line))
    }
}
