//! HTTP/2 towards clients (RFC 9113), by hyper: its streams become requests like those of HTTP/1.1.
//!
//! Whoever begins a connection with the preface speaks it, be it agreed by ALPN or known before. One connection carries many
//! requests, so what bounds a connection of HTTP/1.1 is bounded here for each stream and for all of them together: their
//! number, what is received and not read, what is to be sent and not taken, and how long nothing is taken of it.

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
    body::request::RequestBody,
    http1::MAX_HEAD,
    http1::server::serve::Preface,
    server::activity::Activity,
    server::service::{Peer, ServeLimits},
    server::socket::ClientSocket,
};

/// Requests at a time on one connection; nginx allows as many.
const STREAMS: u32 = 128;
/// Bytes that a client may send on a stream before they are read.
const STREAM_WINDOW: u32 = 128 << 10;
/// The same for all streams together: none can take what another may send.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// Bytes that are held for a stream that does not take them.
const UNSENT: usize = 64 << 10;
/// Streams that a client has reset and that were not yet looked at, at most; beyond that it is flooding (CVE-2023-44487).
const RESETS_PENDING: usize = 32;
/// Streams that were reset for the client's mistakes, at most (CVE-2025-8671).
const MISTAKES: usize = 256;
/// How often it is looked for streams of which nothing is taken.
const LOOK: Duration = Duration::from_secs(1);

/// Serves the requests of one connection until it ends, or after its drain until those that run are answered.
pub(in crate::wire) async fn serve<H, F, B>(
    preface: Preface,
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
    let Preface {
        socket,
        read,
        mut drain,
    } = preface;
    let streams = Arc::new(Streams::<B>::new(activity));
    let opened = streams.clone();
    let service = service_fn(move |request| {
        let running = Running::begin(&opened);
        let request = readable(request);
        let is_mute = request.method() == Method::HEAD;
        let handled = handler(peer, request);
        async move { Ok::<_, Infallible>(running.answer(handled.await, is_mute).await) }
    });
    let socket = TokioIo::new(Rewound { read, socket });
    let mut connection = pin!(builder().serve_connection(socket, service));
    let mut look = interval(LOOK);
    let mut is_draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = peer.address.map(tracing::field::display), %error, "an HTTP/2 connection broke");
                }
                return;
            }
            _ = &mut drain, if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = look.tick() => if streams.give_up_stalled(limits.stall) {
                tracing::debug!(peer = peer.address.map(tracing::field::display), "an HTTP/2 client takes none of its answers");
                return;
            },
        }
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(UNSENT)
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(MISTAKES);
    builder
}

/// The request as HTTP/1.1 would have said it: `Host` beside its target (RFC 9113 section 8.3.1), and one `Cookie` (section
/// 8.2.3).
fn readable(request: Request<Incoming>) -> Request<RequestBody> {
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
    let body = RequestBody::of_stream(body, &parts.headers);
    Request::from_parts(parts, body)
}

/// What belongs to a connection of HTTP/1.1 has no place here (RFC 9113 section 8.2.2).
fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// The streams of one connection.
struct Streams<B> {
    activity: Arc<Activity>,
    running: AtomicUsize,
    /// The answers that are being sent.
    answers: Mutex<VecDeque<Weak<Mutex<Sending<B>>>>>,
}

impl<B> Streams<B> {
    fn new(activity: Arc<Activity>) -> Self {
        Self {
            activity,
            running: AtomicUsize::new(0),
            answers: Mutex::default(),
        }
    }

    /// Lets go of answers of which the client has taken nothing for `limit`. Their streams stay: hyper looks at them again
    /// only when the client makes room. `true` when for as long again there has been nothing but such streams: then they
    /// would hold the connection for ever.
    fn give_up_stalled(&self, limit: Duration) -> bool {
        let mut stuck = 0;
        self.answers.lock().retain(|answer| {
            let Some(answer) = answer.upgrade() else { return false };
            let mut sending = answer.lock();
            if sending.offered.is_some_and(|since| since.elapsed() >= limit) {
                if sending.body.take().is_some() {
                    sending.offered = Some(Instant::now());
                } else {
                    stuck += 1;
                }
                if let Some(waker) = sending.waker.take() {
                    waker.wake();
                }
            }
            true
        });
        stuck > 0 && stuck == self.running.load(Ordering::Relaxed)
    }
}

/// A request that runs. Dropped, it runs no more.
struct Running<B>(Arc<Streams<B>>);

impl<B> Running<B> {
    fn begin(streams: &Arc<Streams<B>>) -> Self {
        streams.running.fetch_add(1, Ordering::Relaxed);
        streams.activity.request_began(http::Version::HTTP_2);
        Self(streams.clone())
    }
}

impl<B> Drop for Running<B> {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.activity.request_ended();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Running<B> {
    async fn answer(self, response: Response<B>, is_mute: bool) -> Response<Answer<B>> {
        let (mut parts, mut body) = response.into_parts();
        strip(&mut parts.headers);
        let is_mute = is_mute || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_mute {
            if let Some(length) = body.size_hint().exact()
                && !parts.headers.contains_key(CONTENT_LENGTH)
                && parts.status != StatusCode::NO_CONTENT
            {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            // It is over for whoever counts it only when it has been read.
            while let Some(Ok(_)) = body.frame().await {}
        }
        let sending = Arc::new(Mutex::new(Sending {
            body: (!is_mute).then_some(body),
            offered: (!is_mute).then(Instant::now),
            waker: None,
        }));
        self.0.answers.lock().push_back(Arc::downgrade(&sending));
        let answer = Answer {
            sending,
            is_mute,
            _running: self,
        };
        Response::from_parts(parts, answer)
    }
}

/// An answer's body that the connection's watch can let go of: it is not polled while the client takes nothing.
struct Answer<B> {
    sending: Arc<Mutex<Sending<B>>>,
    is_mute: bool,
    _running: Running<B>,
}

struct Sending<B> {
    /// `None` when it has been let go of.
    body: Option<B>,
    /// Since when a piece, or the head, has been waiting to be taken; once it has been let go of, since then.
    offered: Option<Instant>,
    waker: Option<Waker>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_mute {
            return Poll::Ready(None);
        }
        let mut sending = self.sending.lock();
        let Some(body) = &mut sending.body else {
            return Poll::Ready(Some(Err("the client reads nothing".into())));
        };
        let frame = Pin::new(body).poll_frame(cx);
        sending.offered = match &frame {
            Poll::Ready(Some(Ok(_))) => Some(Instant::now()),
            _ => None,
        };
        if frame.is_pending() {
            sending.waker = Some(cx.waker().clone());
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.is_mute || self.sending.lock().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.sending.lock().body {
            Some(body) => body.size_hint(),
            None => SizeHint::default(),
        }
    }
}

/// A connection whose first bytes have been read already.
struct Rewound {
    read: Bytes,
    socket: ClientSocket,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buf.remaining());
            buf.put_slice(self.read.get(..count).unwrap_or_default());
            self.read.advance(count);
            if self.read.is_empty() {
                // Even an empty window would hold the room that many connections share.
                self.read = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rewound {
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
