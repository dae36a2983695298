//! Connections to one upstream, kept warm.
//!
//! HTTP/1.1 connections are taken most recently used first, so that surplus ones grow old and are closed.
//!
//! An upstream may close a connection at any time, and it takes a while until that is known here. A request that went to
//! such a connection is sent once more on a fresh one, where its sender can do with that: the upstream may have begun it.
//! Others are sent once more only where that is unlikely: not on a connection in steady use, which has outlived a request
//! before and whose last one ended only just now.

use std::{sync::Arc, time::Duration};

use http::{
    Request, Response,
    uri::{Authority, Scheme},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::wire::{
    body::relay::Relay,
    body::replay::Replay,
    client::dial::{DialError, Dialer, Target, root_cause},
    client::h2::{Multiplexed, Stream},
    client::h2_request::Failure,
    client::send_error::SendError,
    http1::exchange::Connection,
    http1::exchange::Exchange,
    server::workers,
};

/// Idle connections that each worker keeps to one upstream.
const MAX_IDLE: usize = 256;
/// How long an idle connection is kept: below the 75 s after which common servers close theirs.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// The time in which a closed connection shows: news of it travels one way, and an answer to what was written there both.
pub(in crate::wire) const SOON: Duration = Duration::from_secs(1);

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

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Until the response head, from the end of the request.
    pub head: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
    /// Whether it does no harm that the upstream may have begun a request which is sent once more.
    pub is_repeatable: bool,
}

/// What carries one request.
enum Line {
    /// A connection of HTTP/1.1: one request at a time.
    Exclusive(Box<Connection>),
    /// A stream of HTTP/2.
    Stream(Stream),
}

/// Why there is no answer.
struct Unanswered {
    error: SendError,
    /// Most likely the connection had been closed before, and the request can be sent once more.
    is_stale: bool,
}

/// How well a connection is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Dialled for this request.
    Fresh,
    /// In steady use.
    Steady,
    /// Perhaps closed by now.
    Uncertain,
}

impl Standing {
    fn of_pooled(is_steady: bool) -> Self {
        if is_steady { Self::Steady } else { Self::Uncertain }
    }

    /// Whether a request that found the connection closed is sent once more.
    fn allows_repeat(self, terms: Terms) -> bool {
        match self {
            Self::Fresh => false,
            Self::Steady => terms.is_repeatable,
            Self::Uncertain => true,
        }
    }
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

    /// Sends `request` (its target in origin form, with `Host`) and waits for the response head.
    ///
    /// A pooled connection that had been closed does not show: the request is sent once more on a fresh one.
    ///
    /// # Errors
    /// See [`SendError`]. The request can then be sent elsewhere if its body [is here](Replay::is_here) still.
    pub async fn send(
        self: &Arc<Self>,
        request: &mut Request<Replay>,
        terms: Terms,
    ) -> Result<Response<Relay>, SendError> {
        if let Some((line, is_steady)) = self.checkout(!request.body().is_repeatable()) {
            match self.send_on(line, request, terms, Standing::of_pooled(is_steady)).await {
                Ok(response) => return Ok(response),
                Err(unanswered) if !unanswered.is_stale => return Err(unanswered.error),
                Err(_) => {}
            }
        }
        // In boxes, as all that is rare: a request's future is as large as its largest branch.
        let fresh = Box::pin(self.connect()).await.map_err(SendError::Dial)?;
        let sent = self.send_on(fresh, request, terms, Standing::Fresh).await;
        sent.map_err(|unanswered| unanswered.error)
    }

    async fn send_on(
        self: &Arc<Self>,
        line: Line,
        request: &mut Request<Replay>,
        terms: Terms,
        standing: Standing,
    ) -> Result<Response<Relay>, Unanswered> {
        match line {
            Line::Exclusive(connection) => self.exchange(connection, request, terms, standing).await,
            Line::Stream(stream) => Box::pin(self.stream(stream, request, terms, standing)).await,
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        connection: Box<Connection>,
        request: &mut Request<Replay>,
        terms: Terms,
        standing: Standing,
    ) -> Result<Response<Relay>, Unanswered> {
        let begun = Instant::now();
        let body = request.body_mut().share();
        match Exchange::begin(connection, request, body, terms.head).await {
            Ok((exchange, response)) => Ok(response.map(|()| Relay::exchange(exchange, self.clone(), terms.idle))),
            Err(failed) => {
                let is_closed = failed.is_silent_end && begun.elapsed() < SOON;
                Err(Unanswered {
                    error: failed.error,
                    is_stale: is_closed && standing.allows_repeat(terms) && request.body().is_here(),
                })
            }
        }
    }

    async fn stream(
        self: &Arc<Self>,
        mut stream: Stream,
        request: &mut Request<Replay>,
        terms: Terms,
        standing: Standing,
    ) -> Result<Response<Relay>, Unanswered> {
        let Failure {
            error,
            unsent,
            is_stale,
            is_late,
        } = match stream.send(request, (&self.scheme, &self.authority), terms).await {
            Ok(response) => return Ok(response.map(|body| Relay::stream(body, stream, terms.idle))),
            Err(failure) => failure,
        };
        if is_late {
            self.http2.retire(&stream);
        }
        let is_unsent = unsent.is_some();
        if let Some(body) = unsent {
            *request.body_mut() = body;
        }
        let may_repeat = is_stale && standing.allows_repeat(terms) && request.body().is_here();
        Err(Unanswered {
            error,
            is_stale: is_unsent || may_repeat,
        })
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
    pub(in crate::wire) fn put_back(&self, connection: Box<Connection>) {
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
