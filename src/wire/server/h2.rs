//! HTTP/2 towards clients (RFC 9113), by hyper. Its streams become requests like those of HTTP/1.1.
//!
//! A connection that begins with the preface of HTTP/2 speaks it, whether the client agreed on that by ALPN or had prior
//! knowledge. One connection carries many requests. So what limits a connection of HTTP/1.1 is limited here for each stream
//! and for all streams together: the number of streams, the bytes received and not read, the bytes to be sent that the
//! client does not take, and the time for which it takes none.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, interval},
};

use crate::wire::{
    body::{framing::response_may_have_body, request::RequestBody},
    http1::server::serve::Http2Preface,
    limits::MAX_HEAD_BYTES,
    server::{
        activity::Activity,
        service::{Peer, ServeLimits},
        socket::ClientSocket,
    },
};

/// The maximum number of concurrent streams on a connection, as in nginx.
const MAX_STREAMS: u32 = 128;
/// The number of bytes that a client may send on a stream before they are read.
const STREAM_WINDOW: u32 = 128 << 10;
/// The number of bytes that a client may send on all streams before they are read. It covers every stream's own window, so
/// that no stream can use up the window of another.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// The maximum number of bytes that are buffered for a stream whose client does not take them.
const MAX_SEND_BUFFER: usize = 64 << 10;
/// The maximum number of streams that the client has reset before they were handled. A client with more is flooding
/// (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;
/// The maximum number of streams that were reset because of the client's errors (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 256;
/// How often the connection is checked for responses that the client does not take.
const STALL_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Serves the requests of one connection until it ends, or after its drain until the requests in progress are answered.
pub(in crate::wire) async fn serve<H, F, B>(
    preface: Http2Preface,
    peer: Peer,
    limits: ServeLimits,
    activity: Arc<Activity>,
    handler: H,
) where
    H: Fn(Peer, Request<RequestBody>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Http2Preface {
        socket,
        read,
        mut drain,
    } = preface;
    let streams = Arc::new(ServerStreams::<B>::new(activity));
    let of_service = streams.clone();
    let service = service_fn(move |request| {
        let running = RunningRequest::begin(&of_service);
        let request = to_http1(request);
        let method = request.method().clone();
        let handled = handler(peer, request);
        async move { Ok::<_, Infallible>(running.respond(handled.await, &method).await) }
    });
    let socket = TokioIo::new(RewoundSocket { read, socket });
    let mut connection = pin!(builder().serve_connection(socket, service));
    let mut stall_check = interval(STALL_CHECK_PERIOD);
    let mut is_draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = peer.address.map(tracing::field::display), %error, "an HTTP/2 connection failed");
                }
                return;
            }
            _ = &mut drain, if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = stall_check.tick() => if streams.drop_stalled(limits.stall) == StallCheck::AllStalled {
                tracing::debug!(
                    peer = peer.address.map(tracing::field::display),
                    "an HTTP/2 client takes none of its responses; closing its connection"
                );
                return;
            },
        }
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS);
    builder
}

/// Makes the request look as over HTTP/1.1: with a `Host` header beside its target (RFC 9113 section 8.3.1), and with one
/// `Cookie` header (section 8.2.3).
fn to_http1(request: Request<Incoming>) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
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
    let body = RequestBody::from_http2(body, &parts.headers);
    Request::from_parts(parts, body)
}

/// Removes the headers that concern an HTTP/1.1 connection. HTTP/2 does not allow them (RFC 9113 section 8.2.2).
fn remove_connection_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// The streams of one client connection.
struct ServerStreams<B> {
    activity: Arc<Activity>,
    /// The number of requests in progress.
    running: AtomicUsize,
    /// The responses that are being sent.
    responses: Mutex<VecDeque<Weak<Mutex<H2SendState<B>>>>>,
}

/// The result of a check for stalled responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StallCheck {
    /// At least one request makes progress, or may still make progress.
    Alive,
    /// All streams are stalled, and have been for as long again after their bodies were dropped.
    AllStalled,
}

impl<B> ServerStreams<B> {
    fn new(activity: Arc<Activity>) -> Self {
        Self {
            activity,
            running: AtomicUsize::new(0),
            responses: Mutex::default(),
        }
    }

    /// Drops the body of each response of which the client has taken nothing for `limit`.
    ///
    /// Their streams remain, because hyper polls a stream again only when the client makes room in its window. When for
    /// as long again there have been no other streams, the connection is of no use and should be closed.
    fn drop_stalled(&self, limit: Duration) -> StallCheck {
        let mut stalled = 0;
        self.responses.lock().retain(|response| {
            let Some(response) = response.upgrade() else {
                return false;
            };
            let mut state = response.lock();
            if state.offered.is_some_and(|since| since.elapsed() >= limit) {
                if state.body.take().is_some() {
                    state.offered = Some(Instant::now());
                } else {
                    stalled += 1;
                }
                if let Some(waker) = state.waker.take() {
                    waker.wake();
                }
            }
            true
        });
        if stalled > 0 && stalled == self.running.load(Ordering::Relaxed) {
            StallCheck::AllStalled
        } else {
            StallCheck::Alive
        }
    }
}

/// A request in progress, counted until it is dropped.
struct RunningRequest<B>(Arc<ServerStreams<B>>);

impl<B> RunningRequest<B> {
    fn begin(streams: &Arc<ServerStreams<B>>) -> Self {
        streams.running.fetch_add(1, Ordering::Relaxed);
        streams.activity.record_request_start(http::Version::HTTP_2);
        Self(streams.clone())
    }
}

impl<B> Drop for RunningRequest<B> {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.activity.record_request_end();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> RunningRequest<B> {
    /// Prepares the response to a request with `method` for hyper.
    async fn respond(self, response: Response<B>, method: &Method) -> Response<H2ResponseBody<B>> {
        let (mut parts, mut body) = response.into_parts();
        remove_connection_headers(&mut parts.headers);
        let is_omitted = !response_may_have_body(method, parts.status);
        if is_omitted {
            if let Some(length) = body.size_hint().exact()
                && !parts.headers.contains_key(CONTENT_LENGTH)
                && parts.status != StatusCode::NO_CONTENT
            {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            // The body is read although it is not sent: the response counts as complete only at the end of its body.
            while let Some(Ok(_)) = body.frame().await {}
        }
        let state = Arc::new(Mutex::new(H2SendState {
            body: (!is_omitted).then_some(body),
            offered: (!is_omitted).then(Instant::now),
            waker: None,
        }));
        self.0.responses.lock().push_back(Arc::downgrade(&state));
        let body = H2ResponseBody {
            state,
            is_omitted,
            _running: self,
        };
        Response::from_parts(parts, body)
    }
}

/// The body of a response. hyper does not poll it while the client takes nothing, so the inner body is shared with the check
/// for stalled responses, which can drop it.
struct H2ResponseBody<B> {
    state: Arc<Mutex<H2SendState<B>>>,
    is_omitted: bool,
    _running: RunningRequest<B>,
}

struct H2SendState<B> {
    /// `None` once the body has been dropped because the client takes nothing.
    body: Option<B>,
    /// When the head or a piece was offered that the client has not taken yet. Once the body has been dropped, the time
    /// when that was done.
    offered: Option<Instant>,
    /// The task that waits for the next piece.
    waker: Option<Waker>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for H2ResponseBody<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_omitted {
            return Poll::Ready(None);
        }
        let mut state = self.state.lock();
        let Some(body) = &mut state.body else {
            return Poll::Ready(Some(Err("the client reads nothing".into())));
        };
        let frame = Pin::new(body).poll_frame(cx);
        state.offered = match &frame {
            Poll::Ready(Some(Ok(_))) => Some(Instant::now()),
            _ => None,
        };
        if frame.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.is_omitted || self.state.lock().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state.lock().body {
            Some(body) => body.size_hint(),
            None => SizeHint::default(),
        }
    }
}

/// A socket whose first bytes have been read already, and are read again.
struct RewoundSocket {
    read: Bytes,
    socket: ClientSocket,
}

impl AsyncRead for RewoundSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read[..count]);
            self.read.advance(count);
            if self.read.is_empty() {
                // An empty slice would still keep the whole buffer alive, which many connections share.
                self.read = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for RewoundSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn streams() -> Arc<ServerStreams<Full<Bytes>>> {
        Arc::new(ServerStreams::new(Activity::accepted()))
    }

    fn response() -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
        let headers = response.headers_mut();
        for name in ["connection", "transfer-encoding", "keep-alive"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        response
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_response_loses_its_body_and_then_its_connection() {
        let streams = streams();
        let running = RunningRequest::begin(&streams);
        let response = running.respond(response(), &Method::GET).await;
        assert!(response.headers().is_empty());
        assert_eq!(streams.drop_stalled(LIMIT), StallCheck::Alive);
        tokio::time::advance(LIMIT).await;
        assert_eq!(streams.drop_stalled(LIMIT), StallCheck::Alive, "the body is dropped");
        assert!(response.into_body().frame().await.is_some_and(|frame| frame.is_err()));
        assert!(!streams.activity.is_busy());
        let running = RunningRequest::begin(&streams);
        let _stalled = running.respond(self::response(), &Method::GET).await;
        tokio::time::advance(LIMIT).await;
        streams.drop_stalled(LIMIT);
        tokio::time::advance(LIMIT).await;
        assert_eq!(streams.drop_stalled(LIMIT), StallCheck::AllStalled);
        let _other = RunningRequest::begin(&streams);
        assert_eq!(
            streams.drop_stalled(LIMIT),
            StallCheck::Alive,
            "another request is in progress"
        );
    }

    #[tokio::test]
    async fn a_response_to_head_names_its_length_and_has_no_body() {
        let running = RunningRequest::begin(&streams());
        let response = running.respond(response(), &Method::HEAD).await;
        assert_eq!(response.headers()[CONTENT_LENGTH], "5");
        assert!(response.body().is_end_stream());
    }
}
