//! The connections to one upstream. They are kept open between requests.
//!
//! An upstream may close a connection at any time, and this side learns of the close only after a while. If a request
//! was sent on such a connection, it is sent again on a new one, provided that a second processing does no harm.
//!
//! Any other request is sent again only if the upstream has certainly not begun it:
//!
//! | what happened | sent again |
//! | --- | --- |
//! | the connection was closed before the system accepted a byte of the request | yes |
//! | an HTTP/2 upstream refused the stream, or the stream came after the last one that its `GOAWAY` frame names (RFC 9113 section 8.7) | yes |
//! | the connection was closed or reset after that, with or without a byte of a response | no |
//!
//! To be lost seldom, such a request does not use a connection that has been [idle](CheckoutPolicy::NotIdle).

use std::{sync::Arc, time::Duration};

use http::{
    Request, Response,
    uri::{Authority, Scheme},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout};

use crate::wire::{
    body::{h2_data::H2Content, relay::Relay, replay::Replay},
    client::{
        age::ConnectionAge,
        dial::{DialError, DialTarget, Dialer, HttpProtocol},
        freshness::{CLOSE_DETECTION, CheckoutPolicy, ConnectionFreshness, Resend, SendEvidence},
        h2::{H2Pool, H2Stream},
        h2_request::H2SendFailure,
        idle::{IdleConnections, MAX_IDLE_TIME},
        proxy::ProxyTarget,
        reclaim::{self, IdleHolder},
        send_error::SendError,
        send_options::SendOptions,
    },
    http1::{exchange::Http1Exchange, upstream_connection::UpstreamConnection},
    shortage::Shortage,
};

#[cfg(test)]
mod tests;

/// The pause before a connection is tried once more that this process lacked something for.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
/// The maximum number of further connections for a request that the upstream has certainly not begun.
const MAX_REFUSALS: u32 = 2;

/// The connections to one upstream.
pub struct Pool {
    dialer: Dialer,
    scheme: Scheme,
    authority: Authority,
    /// The idle HTTP/1.1 connections. They are shared with the response bodies, which return their connections.
    idle: Arc<IdleConnections>,
    http2: H2Pool,
    /// The maximum age of a connection.
    age: ConnectionAge,
}

/// How the connections of a pool are opened, and how long they are used.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// The proxy through which connections are opened; `None` if they are direct.
    pub proxy: Option<ProxyTarget>,
    /// The maximum time to open a connection, the tunnel through the proxy and the TLS handshake included.
    pub connect: Duration,
    /// A connection fails once the upstream has read nothing for this time.
    pub stall: Duration,
    /// A connection carries no new request after about this time; `None` means no limit. Running requests are not cut.
    pub age: Option<Duration>,
}

/// The connection or stream that carries one request.
enum RequestChannel {
    /// An HTTP/1.1 connection, which carries one request at a time.
    Http1(Box<UpstreamConnection>),
    /// A stream of an HTTP/2 connection.
    Http2(H2Stream),
}

/// The reason why a request has no response head.
struct PooledSendFailure {
    error: SendError,
    /// Whether the request can be sent again on a new connection.
    resend: Resend,
}

impl Pool {
    /// An empty pool of direct connections to `target`, which may have any age. Opening a connection may take up to
    /// `connect`. A connection fails once the upstream has read nothing for `stall`.
    ///
    /// # Errors
    /// If the host of an https upstream is not a name that a certificate can be checked against.
    pub fn new(target: &DialTarget, connect: Duration, stall: Duration) -> Result<Arc<Self>, DialError> {
        let options = PoolOptions {
            proxy: None,
            connect,
            stall,
            age: None,
        };
        Self::with_options(target, options)
    }

    /// An empty pool for `target`.
    ///
    /// # Errors
    /// If the host of an https upstream is not a name that a certificate can be checked against.
    pub fn with_options(target: &DialTarget, options: PoolOptions) -> Result<Arc<Self>, DialError> {
        let offers_http2 = target
            .tls
            .as_ref()
            .is_some_and(|config| config.alpn_protocols.iter().any(|protocol| protocol == b"h2"));
        let pool = Arc::new(Self {
            dialer: Dialer::new(target, options.proxy, options.connect, options.stall)?,
            scheme: if target.tls.is_some() {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            authority: target.authority.clone(),
            idle: Arc::new(IdleConnections::new()),
            http2: H2Pool::new(if offers_http2 {
                HttpProtocol::Http2
            } else {
                HttpProtocol::Http1
            }),
            age: ConnectionAge::new(options.age),
        });
        reclaim::register(&pool);
        Ok(pool)
    }

    /// Sends `request`, with its target in origin form and a `Host` header, and waits for the response head.
    ///
    /// If the upstream has closed the pooled connection that is used, or has not begun the request, the request is sent
    /// again on a new connection, provided that this is safe.
    ///
    /// # Errors
    /// See [`SendError`]. The request can be sent to another upstream if its body [can still be sent](Replay::is_sendable).
    pub async fn send(
        &self,
        request: &mut Request<Replay>,
        options: SendOptions,
    ) -> Result<Response<Relay>, SendError> {
        let policy = match (request.body().is_repeatable(), options.is_repeatable) {
            (true, true) => CheckoutPolicy::AnyOpen,
            (true, false) => CheckoutPolicy::NotIdle,
            (false, _) => CheckoutPolicy::RecentlyUsedOnly,
        };
        if let Some((channel, freshness)) = self.checkout(policy) {
            match self.send_on(channel, request, options, freshness).await {
                Ok(response) => return Ok(response),
                Err(failure) if failure.resend == Resend::No => return Err(failure.error),
                Err(_) => {}
            }
        }
        // The rare branches are boxed, because a request's future is as large as its largest branch.
        let new = Box::pin(self.connect()).await.map_err(SendError::Dial)?;
        match self.send_on(new, request, options, ConnectionFreshness::New).await {
            Err(failure) if failure.resend == Resend::Safe => {
                Box::pin(self.send_after_refusal(request, options, failure.error)).await
            }
            sent => sent.map_err(|failure| failure.error),
        }
    }

    /// Sends a request that the upstream has certainly not begun on further new connections, at most [`MAX_REFUSALS`] of
    /// them. `error` is the reason of the last failure.
    async fn send_after_refusal(
        &self,
        request: &mut Request<Replay>,
        options: SendOptions,
        mut error: SendError,
    ) -> Result<Response<Relay>, SendError> {
        for _ in 0..MAX_REFUSALS {
            let new = self.connect().await.map_err(SendError::Dial)?;
            match self.send_on(new, request, options, ConnectionFreshness::New).await {
                Err(failure) if failure.resend == Resend::Safe => error = failure.error,
                sent => return sent.map_err(|failure| failure.error),
            }
        }
        Err(error)
    }

    async fn send_on(
        &self,
        channel: RequestChannel,
        request: &mut Request<Replay>,
        options: SendOptions,
        freshness: ConnectionFreshness,
    ) -> Result<Response<Relay>, PooledSendFailure> {
        match channel {
            RequestChannel::Http1(connection) => self.send_http1(connection, request, options, freshness).await,
            RequestChannel::Http2(stream) => Box::pin(self.send_http2(stream, request, options, freshness)).await,
        }
    }

    async fn send_http1(
        &self,
        connection: Box<UpstreamConnection>,
        request: &mut Request<Replay>,
        options: SendOptions,
        freshness: ConnectionFreshness,
    ) -> Result<Response<Relay>, PooledSendFailure> {
        let begun = Instant::now();
        let body = request.body_mut().share();
        match Http1Exchange::begin(connection, request, body, options.head).await {
            Ok((exchange, response)) => {
                Ok(response.map(|()| Relay::from_http1(exchange, self.idle.clone(), options.idle)))
            }
            Err(failed) => {
                let evidence = SendEvidence {
                    is_unprocessed: failed.is_silent_close && failed.is_unsent,
                    is_closed: failed.is_silent_close && begun.elapsed() < CLOSE_DETECTION,
                };
                Err(PooledSendFailure {
                    resend: evidence.resend(request.body(), freshness, options),
                    error: failed.error,
                })
            }
        }
    }

    async fn send_http2(
        &self,
        mut stream: H2Stream,
        request: &mut Request<Replay>,
        options: SendOptions,
        freshness: ConnectionFreshness,
    ) -> Result<Response<Relay>, PooledSendFailure> {
        let H2SendFailure {
            error,
            unsent,
            is_refused,
            is_silent_close,
            is_timeout,
        } = match stream.send(request, (&self.scheme, &self.authority), options).await {
            Ok(response) => {
                let content = H2Content::of_response(request.method(), response.status());
                return Ok(response.map(|body| Relay::from_http2(body, content, stream, options.idle)));
            }
            Err(failure) => failure,
        };
        if is_timeout || is_refused {
            self.http2.retire(&stream);
        }
        let is_unsent = unsent.is_some();
        if let Some(body) = unsent {
            *request.body_mut() = body;
        }
        let evidence = SendEvidence {
            is_unprocessed: is_unsent || is_refused,
            is_closed: is_silent_close,
        };
        let resend = evidence.resend(request.body(), freshness, options);
        Err(PooledSendFailure { error, resend })
    }

    /// Closes connections that have been idle for too long, and idle connections that are too old.
    pub fn reap(&self) {
        self.idle.close_expired();
        self.http2.close_expired(MAX_IDLE_TIME);
    }

    /// The number of idle HTTP/1.1 connections at this moment.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Takes a stream or a connection that is not known to be closed, and that `policy` allows.
    fn checkout(&self, policy: CheckoutPolicy) -> Option<(RequestChannel, ConnectionFreshness)> {
        if let Some((stream, freshness)) = self.http2.checkout(policy) {
            return Some((RequestChannel::Http2(stream), freshness));
        }
        let (connection, freshness) = self.idle.take(policy)?;
        Some((RequestChannel::Http1(connection), freshness))
    }

    /// Opens a connection. If this process lacks something for it, idle connections are closed, and it is tried once more.
    async fn connect(&self) -> Result<RequestChannel, DialError> {
        match self.connect_once().await {
            // The future is boxed, because shortages are rare.
            Err(DialError::Shortage(shortage)) => Box::pin(self.connect_again(shortage)).await,
            connected => connected,
        }
    }

    async fn connect_again(&self, shortage: Shortage) -> Result<RequestChannel, DialError> {
        if shortage.ends_by_closing() {
            reclaim::close_oldest();
        }
        // An HTTP/2 connection is not closed at once, and requests that end meanwhile free resources too. The lock for
        // HTTP/2 is not held, so that waiting requests do not pause one after the other.
        sleep(SHORTAGE_PAUSE).await;
        self.connect_once().await
    }

    /// Opens a connection. If HTTP/2 is expected, only one request at a time opens a connection, and the others wait to
    /// share it. So a burst of requests does not open a connection for each request.
    async fn connect_once(&self) -> Result<RequestChannel, DialError> {
        if !self.http2.is_http2_expected() {
            return self.dial().await;
        }
        let connected = async {
            let guard = self.http2.lock_dialling().await;
            if !self.http2.is_http2_expected() {
                drop(guard);
                return self.dial().await;
            }
            match self.http2.checkout(CheckoutPolicy::RecentlyUsedOnly) {
                Some((stream, _)) => Ok(RequestChannel::Http2(stream)),
                None => self.dial().await,
            }
        };
        // The time spent waiting for other requests is part of the limit, so that no request waits for longer than a
        // dial may take.
        let limit = self.dialer.limit();
        timeout(limit, connected)
            .await
            .unwrap_or(Err(DialError::Timeout(limit)))
    }

    async fn dial(&self) -> Result<RequestChannel, DialError> {
        let (socket, protocol) = self.dialer.dial().await?;
        self.http2.record_protocol(protocol);
        let expires = self.age.expiry();
        match protocol {
            HttpProtocol::Http1 => Ok(RequestChannel::Http1(UpstreamConnection::new(socket, expires))),
            HttpProtocol::Http2 => {
                let reads = socket.reads();
                let stream = self.http2.open(TokioIo::new(socket), reads, expires).await;
                stream
                    .map(RequestChannel::Http2)
                    .map_err(|error| DialError::of_error(&error, DialError::Handshake))
            }
        }
    }
}

impl IdleHolder for Pool {
    fn list_idle(&self, times: &mut Vec<Instant>) {
        self.idle.list_idle(times);
        self.http2.list_idle(times);
    }

    fn close_idle_since(&self, until: Instant) -> usize {
        self.idle.close_idle_since(until) + self.http2.close_idle_since(until)
    }
}
