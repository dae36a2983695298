//! One client's connection: HTTP on it, and what it is busy with.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::{activity::Activity, client_socket::ClientSocket, refusal::Refusal, transport::Transport};

/// A request head may be this large, in bytes; Codex sends about 2 KB.
const MAX_HEAD: usize = 64 << 10;
/// What is read at once from a client at most, in bytes.
const MAX_READ: usize = 128 << 10;

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address, where the transport has one.
    pub address: Option<SocketAddr>,
    /// Whether it came over TLS.
    pub is_secure: bool,
}

/// Time limits of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// From the first byte of a request head (or from accepting the connection) to its last.
    pub client_header: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// For a client that reads nothing.
    pub stall: Duration,
}

/// Answers the requests of one connection until it ends, or after `drain` until it is done with the present one.
///
/// A piece of an answer costs here what hyper does with it, one flag for the client's presence and one atomic load of
/// `drain`: no lock, no timer. Limits are kept from outside, by whoever reads `activity`.
pub(super) async fn serve<H, F, B>(
    transport: Transport,
    peer: Peer,
    stall: Duration,
    activity: Arc<Activity>,
    mut drain: oneshot::Receiver<()>,
    handler: H,
) -> Option<Refusal>
where
    H: Fn(Peer, Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let socket = ClientSocket::new(transport, stall, activity.clone());
    let service = service_fn(move |request| {
        let busy = Busy::new(&activity, request.version());
        let response = handler(peer, request);
        async move { Ok::<_, Infallible>(response.await.map(|body| Attended { body, busy })) }
    });
    let mut served = pin!(
        http1::Builder::new()
            // The listener knows an idle connection from a slow head; hyper's own limit does not.
            .header_read_timeout(None)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_READ)
            .serve_connection(TokioIo::new(socket), service)
    );
    tokio::select! {
        biased;
        ended = served.as_mut() => return refusal(ended),
        _ = &mut drain => served.as_mut().graceful_shutdown(),
    }
    refusal(served.await)
}

/// How a connection ended is told by the requests that it carried, but for one that became none.
fn refusal(ended: hyper::Result<()>) -> Option<Refusal> {
    ended.err().as_ref().and_then(Refusal::of)
}

/// A request is being answered, from its head to the end or drop of its response body.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>, version: Version) -> Self {
        activity.request_began(version);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

pin_project_lite::pin_project! {
    /// A response body during which its connection counts as busy.
    struct Attended<B> {
        #[pin]
        body: B,
        busy: Busy,
    }
}

impl<B: Body> Body for Attended<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            this.busy.0.answer_broke();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
