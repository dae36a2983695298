//! HTTP/2 towards clients (RFC 9113), by hyper. Its streams become requests like those of HTTP/1.1.
//!
//! A connection that begins with the preface of HTTP/2 is served as HTTP/2, no matter whether the client negotiated it
//! by ALPN or had prior knowledge. One connection carries many requests. So the limits that HTTP/1.1 applies to a
//! connection apply here to each stream and to all streams together: the number of streams, the bytes received and not
//! read, the bytes that wait to be sent to the client, and the time for which the client takes none of them. A stream whose
//! request body is being discarded after an early response counts like any other stream.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{COOKIE, HOST},
    request,
};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, interval, timeout};

use crate::wire::{
    body::{framing::content_length, request::RequestBody},
    limits::{MAX_DECODED_HEAD, is_head_too_large},
    server::{
        activity::{Activity, ConnectionWait},
        h2_response::{H2ResponseBody, RunningRequest, ServerStreams, StallCheck},
        handle::DrainMode,
        refusal::HeadRefusal,
        rewound_socket::RewoundSocket,
        service::{Peer, ServeLimits},
        socket::Http2Preface,
    },
};

/// The maximum number of concurrent streams on a connection, as in nginx.
const MAX_STREAMS: u32 = 128;
/// The number of bytes that a client may send on a stream before they are read.
const STREAM_WINDOW: u32 = 128 << 10;
/// The number of bytes that a client may send on all streams before they are read. It covers every stream's own window, so
/// that no stream can use up the window of another.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// The maximum number of bytes that are buffered for a stream while its client does not take them.
const MAX_SEND_BUFFER: usize = 64 << 10;
/// The maximum number of streams that the client has reset before they were handled. A client with more is flooding
/// (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;
/// The maximum number of streams that were reset because of the client's errors (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 256;
/// How often the connection is checked for responses that the client does not take.
const STALL_CHECK_PERIOD: Duration = Duration::from_secs(1);
/// The maximum time that an idle connection stays open after it was told to close for a new client: if its client sends
/// nothing, and if it sends something.
const SHED_TIME: Duration = Duration::from_secs(1);
const MAX_SHED_TIME: Duration = Duration::from_secs(10);

/// A connection that begins with the preface of HTTP/2.
pub(in crate::wire) struct Http2Connection {
    pub preface: Http2Preface,
    pub peer: Peer,
    pub activity: Arc<Activity>,
}

/// Serves the requests of one connection until it ends. After `drain` completes, it ends once the requests in progress
/// are answered.
///
/// `refuse` makes the response to a head that is refused. The connection stays open after it.
pub(in crate::wire) async fn serve<H, R, F, B>(connection: Http2Connection, limits: ServeLimits, handler: H, refuse: R)
where
    H: Fn(Peer, Request<RequestBody>) -> F + 'static,
    R: Fn(Peer, HeadRefusal) -> Option<Response<B>> + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Http2Connection {
        preface: Http2Preface {
            socket,
            read,
            mut drain,
        },
        peer,
        activity,
    } = connection;
    activity.record_http2();
    let streams = Arc::new(ServerStreams::<B>::new(activity.clone()));
    let of_service = streams.clone();
    let service = service_fn(move |request| respond(&of_service, peer, request, &handler, &refuse));
    let socket = TokioIo::new(RewoundSocket::new(read, socket));
    let mut connection = pin!(builder().serve_connection(socket, service));
    let mut stall_check = interval(STALL_CHECK_PERIOD);
    let mut is_draining = false;
    let mut shed: Option<ShedConnection> = None;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return log_end(peer, ended),
            mode = &mut drain, if !is_draining => {
                is_draining = true;
                streams.record_draining();
                connection.as_mut().graceful_shutdown();
                if mode == Ok(DrainMode::Shed) {
                    let closing = ShedConnection::new(&activity);
                    // This sends GOAWAY.
                    if timeout(Duration::ZERO, connection.as_mut()).await.is_ok() || closing.is_over() {
                        return;
                    }
                    shed = Some(closing);
                }
            }
            _ = stall_check.tick() => if shed.as_ref().is_some_and(ShedConnection::is_over) {
                return;
            } else if streams.drop_stalled(limits.stall) == StallCheck::AllStalled {
                return log_stalled(peer);
            },
        }
    }
}

/// Makes the response to one request.
fn respond<H, R, F, B>(
    streams: &Arc<ServerStreams<B>>,
    peer: Peer,
    request: Request<Incoming>,
    handler: &H,
    refuse: &R,
) -> impl Future<Output = Result<Response<H2ResponseBody<B>>, &'static str>> + use<H, R, F, B>
where
    H: Fn(Peer, Request<RequestBody>) -> F,
    R: Fn(Peer, HeadRefusal) -> Option<Response<B>>,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    let (mut parts, incoming) = request.into_parts();
    let body = (!incoming.is_end_stream()).then(|| streams.receive(incoming));
    let running = RunningRequest::begin(streams, body.clone());
    let method = parts.method.clone();
    let checked = check_head(&mut parts);
    // The body of a refused request is dropped here. Then the rest that the client sends is discarded.
    let body = RequestBody::from_http2(body.as_ref(), checked.unwrap_or_default());
    let handled = match checked {
        Ok(_) => Ok(handler(peer, to_http1(parts, body))),
        Err(refusal) => Err(refuse(peer, refusal)),
    };
    async move {
        let response = match handled {
            Ok(handled) => Some(handled.await),
            Err(refusal) => refusal,
        };
        match response {
            Some(response) => Ok(running.respond(response, &method).await),
            None => Err("the request is refused without a response"),
        }
    }
}

fn log_end(peer: Peer, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(peer = peer.address.map(tracing::field::display), %error, "an HTTP/2 connection failed");
    }
}

fn log_stalled(peer: Peer) {
    tracing::debug!(
        peer = peer.address.map(tracing::field::display),
        "an HTTP/2 client reads none of its responses; closing its connection"
    );
}

/// A connection that was idle and is closed for a new client.
struct ShedConnection {
    activity: Arc<Activity>,
    since: Instant,
    /// Whether there has been no request since the connection was accepted, so that the client loses nothing.
    is_unused: bool,
    /// The number of reads before the connection was shed.
    reads: u32,
}

impl ShedConnection {
    fn new(activity: &Arc<Activity>) -> Self {
        let since = Instant::now();
        Self {
            since,
            is_unused: matches!(activity.current_wait(since), ConnectionWait::FirstStream(_)),
            reads: activity.reads(),
            activity: activity.clone(),
        }
    }

    /// Whether the connection is closed without waiting for its client any longer. A client that reads GOAWAY acknowledges it,
    /// and may still take the end of a response that waits for its flow control.
    fn is_over(&self) -> bool {
        let limit = match self.activity.reads() == self.reads {
            _ if self.is_unused => Duration::ZERO,
            true => SHED_TIME,
            false => MAX_SHED_TIME,
        };
        !self.activity.is_busy() && self.since.elapsed() >= limit
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_DECODED_HEAD)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS);
    builder
}

/// Checks the head of a request against the rules that the codec of HTTP/1.1 applies and the h2 library does not. Gives
/// the request a `Host` header beside its target, as in HTTP/1.1 (RFC 9113 section 8.3.1). Returns its `Content-Length`.
fn check_head(parts: &mut request::Parts) -> Result<Option<u64>, HeadRefusal> {
    if !parts.headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let first_line = parts.method.as_str().len() + target + "  HTTP/1.1\r\n".len();
    if is_head_too_large(first_line, &parts.headers) {
        return Err(HeadRefusal::HeadTooLarge);
    }
    content_length(&parts.headers).map_err(|problem| HeadRefusal::BadFraming { problem })
}

/// Converts the request to the form of HTTP/1.1, with one `Cookie` header (RFC 9113 section 8.2.3).
fn to_http1(mut parts: request::Parts, body: RequestBody) -> Request<RequestBody> {
    let crumbs: Vec<&[u8]> = parts
        .headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        parts.headers.insert(COOKIE, cookie);
    }
    Request::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use tokio::{net::UnixStream, sync::oneshot};

    use super::*;
    use crate::wire::{
        body::{intake::Intake, pace::MinBodyRate},
        server::socket::ClientSocket,
        transport::Transport,
    };

    const LIMIT: Duration = Duration::from_secs(60);
    const LIMITS: ServeLimits = ServeLimits {
        client_header: LIMIT,
        keep_alive: LIMIT,
        stall: LIMIT,
    };

    /// Responds with the headers `host` and `cookie` of the request, and with its body.
    async fn echo(request: Request<RequestBody>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let mut echoed = Vec::new();
        for name in [HOST, COOKIE] {
            let values = parts.headers.get_all(&name).iter();
            echoed.extend(values.flat_map(|value| [value.as_bytes(), b"|"]).flatten());
        }
        let mut intake = Intake::new(body, 1 << 20, LIMIT, MinBodyRate::OFF);
        while let Some(piece) = intake.next().await {
            echoed.extend_from_slice(&piece.expect("a complete body"));
        }
        Response::new(Full::new(echoed.into()))
    }

    #[tokio::test]
    async fn a_request_is_converted_to_the_form_of_http_1_and_the_connection_drains() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let activity = Activity::accepted();
        let (drain, drained) = oneshot::channel();
        let preface = Http2Preface {
            socket: ClientSocket::new(Transport::Unix(near), LIMIT, activity.clone()),
            read: Bytes::new(),
            drain: drained,
        };
        let peer = Peer {
            address: None,
            is_secure: false,
        };
        let connection = Http2Connection {
            preface,
            peer,
            activity,
        };
        let served = tokio::spawn(serve(connection, LIMITS, |_, request| echo(request), |_, _| None));
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(far))
            .await
            .expect("a handshake");
        tokio::spawn(connection);
        let request = Request::post("http://api.example/v1/responses")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::new(Bytes::from_static(b"hello")))
            .expect("a request");
        let response = sender.send_request(request).await.expect("a response");
        let body = response.into_body().collect().await.expect("a complete body");
        assert_eq!(body.to_bytes(), "api.example|a=1; b=2|hello");
        drain.send(DrainMode::Shutdown).expect("the connection is open");
        tokio::time::timeout(LIMIT, served)
            .await
            .expect("the connection ends")
            .expect("no panic");
    }
}
