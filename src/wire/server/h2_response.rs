//! The responses on a client's HTTP/2 connection, and the check for responses that the client does not take.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::wire::{
    body::{framing::response_may_have_body, h2_request_body::H2RequestBody},
    server::activity::Activity,
};

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
pub(in crate::wire) struct ServerStreams<B> {
    activity: Arc<Activity>,
    /// Whether the connection ends after the requests in progress.
    draining: Arc<watch::Sender<bool>>,
    /// The number of requests in progress.
    running: AtomicUsize,
    /// The responses that are being sent.
    responses: Mutex<VecDeque<Weak<Mutex<H2SendState<B>>>>>,
}

/// The result of a check for stalled responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum StallCheck {
    /// At least one request makes progress, or may still make progress.
    Alive,
    /// All streams are stalled. They have also been stalled for the whole limit since their bodies were dropped.
    AllStalled,
}

impl<B> ServerStreams<B> {
    /// A connection without streams. `activity` is that of the connection.
    pub fn new(activity: Arc<Activity>) -> Self {
        Self {
            activity,
            draining: Arc::new(watch::Sender::new(false)),
            running: AtomicUsize::new(0),
            responses: Mutex::default(),
        }
    }

    /// Takes over the body of a request.
    pub fn receive(&self, incoming: Incoming) -> Arc<H2RequestBody> {
        H2RequestBody::new(incoming, self.draining.clone())
    }

    /// Records that the connection ends after the requests in progress.
    pub fn record_draining(&self) {
        self.draining.send_replace(true);
    }

    /// Drops the body of each response of which the client has taken nothing for `limit`.
    /// Their streams stay open, because hyper polls a stream again only when the client makes space in its window. If
    /// all streams have been stalled for the limit once more, the connection is of no use and should be closed.
    pub fn drop_stalled(&self, limit: Duration) -> StallCheck {
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
pub(in crate::wire) struct RunningRequest<B> {
    streams: Arc<ServerStreams<B>>,
    /// The body of the request, if it has one.
    body: Option<Arc<H2RequestBody>>,
}

impl<B> RunningRequest<B> {
    /// Counts a request with this `body` on one of the `streams`.
    pub fn begin(streams: &Arc<ServerStreams<B>>, body: Option<Arc<H2RequestBody>>) -> Self {
        streams.running.fetch_add(1, Ordering::Relaxed);
        streams.activity.record_request_start(http::Version::HTTP_2);
        Self {
            streams: streams.clone(),
            body,
        }
    }
}

impl<B> Drop for RunningRequest<B> {
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            body.record_response_end();
        }
        if self.streams.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.streams.activity.record_request_end();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> RunningRequest<B> {
    /// Prepares the response to a request with `method` for hyper.
    pub async fn respond(self, response: Response<B>, method: &Method) -> Response<H2ResponseBody<B>> {
        let (mut parts, mut body) = response.into_parts();
        remove_connection_headers(&mut parts.headers);
        if parts.status == StatusCode::NO_CONTENT {
            // A 204 must not have a length (RFC 9110 section 8.6).
            parts.headers.remove(CONTENT_LENGTH);
        }
        let is_omitted = !response_may_have_body(method, parts.status);
        if is_omitted {
            if let Some(length) = body.size_hint().exact()
                && !parts.headers.contains_key(CONTENT_LENGTH)
                && parts.status != StatusCode::NO_CONTENT
            {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            // The body is read although it is not sent, because the response counts as complete only at the end of its
            // body.
            while let Some(Ok(_)) = body.frame().await {}
        }
        let state = Arc::new(Mutex::new(H2SendState {
            body: (!is_omitted).then_some(body),
            offered: (!is_omitted).then(Instant::now),
            waker: None,
        }));
        self.streams.responses.lock().push_back(Arc::downgrade(&state));
        let body = H2ResponseBody {
            state,
            is_omitted,
            _running: self,
        };
        Response::from_parts(parts, body)
    }
}

/// The body of a response. hyper does not poll it while the client takes nothing. So the inner body is shared with the
/// check for stalled responses, which can drop it.
pub(in crate::wire) struct H2ResponseBody<B> {
    state: Arc<Mutex<H2SendState<B>>>,
    /// Whether the body is read but not sent, because the response must not have one.
    is_omitted: bool,
    _running: RunningRequest<B>,
}

struct H2SendState<B> {
    /// `None` once the body has been dropped because the client takes nothing.
    body: Option<B>,
    /// When the head or piece that the client has not taken yet was offered. Once the body has been dropped, this is
    /// the time of the drop.
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
        let running = RunningRequest::begin(&streams, None);
        let response = running.respond(response(), &Method::GET).await;
        assert!(response.headers().is_empty());
        assert_eq!(streams.drop_stalled(LIMIT), StallCheck::Alive);
        tokio::time::advance(LIMIT).await;
        assert_eq!(streams.drop_stalled(LIMIT), StallCheck::Alive, "the body is dropped");
        assert!(response.into_body().frame().await.is_some_and(|frame| frame.is_err()));
        assert!(!streams.activity.is_busy());
        let running = RunningRequest::begin(&streams, None);
        let _stalled = running.respond(self::response(), &Method::GET).await;
        tokio::time::advance(LIMIT).await;
        streams.drop_stalled(LIMIT);
        tokio::time::advance(LIMIT).await;
        assert_eq!(streams.drop_stalled(LIMIT), StallCheck::AllStalled);
        let _other = RunningRequest::begin(&streams, None);
        assert_eq!(
            streams.drop_stalled(LIMIT),
            StallCheck::Alive,
            "another request is in progress"
        );
    }

    #[tokio::test]
    async fn a_response_to_head_names_its_length_and_has_no_body() {
        let running = RunningRequest::begin(&streams(), None);
        let response = running.respond(response(), &Method::HEAD).await;
        assert_eq!(response.headers()[CONTENT_LENGTH], "5");
        assert!(response.body().is_end_stream());
    }
}
