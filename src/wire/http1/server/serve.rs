//! The server's side of one connection: a request's head, the handler, its answer, and again.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Request, Response, Version};
use http_body::Body;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::wire::{
    body::relay::Framing, body::request::RequestBody, server::activity::Activity, server::refusal::Refusal,
    server::service::Peer, server::socket::ClientSocket,
};
use crate::wire::{
    http1::MAX_HEAD,
    http1::codec::body_decoder::Decoder,
    http1::codec::head_reader::HeadError,
    http1::codec::head_reader::{self as head, RequestHead},
    http1::codec::head_writer::{self, Closing},
    http1::codec::write_buffer::Delimiter,
    http1::server::connection::Client,
    http1::server::connection::ClientBody,
    http1::server::response::{Asked, Broken, Sending},
};

/// How long a client that is answered while it still sends is heard: closing at once would reset the connection, and it
/// would see that instead of the answer.
const LINGER: Duration = Duration::from_secs(5);
/// It is heard no longer once it pauses for this long.
const LINGER_PAUSE: Duration = Duration::from_secs(1);

/// One client's connection.
pub(in crate::wire) struct Server {
    client: Arc<Mutex<Client>>,
    activity: Arc<Activity>,
    drain: oneshot::Receiver<()>,
    is_draining: bool,
}

/// What came instead of another request.
enum NoRequest {
    /// The client is done, or we are.
    Closed,
    /// The preface of HTTP/2, before any request.
    Http2,
    Refused(Refusal),
}

/// A connection on which the client has begun to speak HTTP/2.
pub(in crate::wire) struct Preface {
    pub socket: ClientSocket,
    /// What the client has sent, from its preface on.
    pub read: Bytes,
    pub drain: oneshot::Receiver<()>,
}

/// Answers the requests of one connection until it ends, or after `drain` until the present one is answered. What is no
/// request is answered by `refuse`. A connection that begins with the preface of HTTP/2 is given back.
pub(in crate::wire) async fn serve<H, R, F, B>(
    socket: ClientSocket,
    peer: Peer,
    activity: Arc<Activity>,
    drain: oneshot::Receiver<()>,
    handler: H,
    refuse: R,
) -> Option<Preface>
where
    H: Fn(Peer, Request<RequestBody>) -> F,
    R: Fn(Peer, Refusal) -> Option<Response<B>>,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes>,
{
    let mut server = Server {
        client: Arc::new(Mutex::new(Client::new(socket))),
        activity,
        drain,
        is_draining: false,
    };
    loop {
        match server.next().await {
            Ok(head) => {
                let (asked, request) = server.begin(head);
                // In a box of its own, so that an idle connection does not hold the room for it.
                let response = server.attend(Box::pin(handler(peer, request))).await?;
                match server.answer(response, asked).await {
                    Ok(true) => server.activity.request_ended(),
                    Ok(false) => {
                        server.close().await;
                        return None;
                    }
                    Err(Broken) => {
                        server.activity.answer_broke();
                        return None;
                    }
                }
            }
            Err(NoRequest::Closed) => return None,
            Err(NoRequest::Http2) => return server.into_preface(),
            Err(NoRequest::Refused(refusal)) => {
                server.activity.request_began(Version::HTTP_11);
                server.client.lock().is_broken = true;
                if let Some(response) = refuse(peer, refusal)
                    && server.answer(response, Asked::UNKNOWN).await.is_ok()
                {
                    server.close().await;
                }
                return None;
            }
        }
    }
}

impl Server {
    /// What HTTP/2 goes on with. Nobody else has the connection: there has been no request.
    fn into_preface(self) -> Option<Preface> {
        let client = Arc::into_inner(self.client)?.into_inner();
        Some(Preface {
            socket: client.socket,
            read: client.inbound.pending,
            drain: self.drain,
        })
    }

    async fn next(&mut self) -> Result<RequestHead, NoRequest> {
        // A pipelined request is there already.
        let mut is_new = true;
        poll_fn(|cx| {
            let mut client = self.client.lock();
            let client = &mut *client;
            loop {
                skip_empty_lines(&mut client.inbound.pending);
                if !client.inbound.pending.is_empty() {
                    self.activity.head_began();
                }
                if is_new && !client.inbound.pending.is_empty() {
                    match head::request(&mut client.inbound.pending) {
                        Ok(Some(head)) => return Poll::Ready(Ok(head)),
                        Ok(None) => {}
                        Err(HeadError::Http2) if client.request == 0 => return Poll::Ready(Err(NoRequest::Http2)),
                        Err(error) => return Poll::Ready(Err(NoRequest::Refused(error.into()))),
                    }
                }
                if client.inbound.pending.len() > MAX_HEAD {
                    return Poll::Ready(Err(NoRequest::Refused(Refusal::HeadTooLarge)));
                }
                match client.inbound.poll_fill(&mut client.socket, cx, 0) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoRequest::Closed)),
                    Poll::Ready(Ok(count)) => is_new = is_worth_a_look(&client.inbound.pending, count),
                    Poll::Pending => {
                        let is_draining = self.is_draining || Pin::new(&mut self.drain).poll(cx).is_ready();
                        self.is_draining = is_draining;
                        if is_draining && client.inbound.pending.is_empty() {
                            return Poll::Ready(Err(NoRequest::Closed));
                        }
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    fn begin(&mut self, head: RequestHead) -> (Asked, Request<RequestBody>) {
        let RequestHead {
            request,
            framing,
            keeps_alive,
            expects_continue,
        } = head;
        let mut client = self.client.lock();
        client.request += 1;
        client.expects_continue = expects_continue;
        client.alarm.reset();
        client.decoder = match framing {
            Framing::None => Decoder::EMPTY,
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::CHUNKED,
        };
        drop(client);
        self.activity.request_began(request.version());
        let asked = Asked {
            method: request.method().clone(),
            version: request.version(),
            keeps_alive,
        };
        (
            asked,
            request.map(|()| RequestBody::of_connection(ClientBody::new(&self.client, framing), framing)),
        )
    }

    /// Waits for the handler's answer; `None` when the client has gone before.
    async fn attend<T>(&self, mut handler: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        poll_fn(|cx| match handler.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.client.lock().poll_gone(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Sends an answer. `true` when another request may follow.
    async fn answer<B: Body<Data = Bytes>>(&mut self, response: Response<B>, asked: Asked) -> Result<bool, Broken> {
        let (parts, body) = response.into_parts();
        let mut sending = Sending::new(&parts, &body, &asked);
        let mut body = pin!(Some(body));
        // Dropped once it is written: its fields are windows on a buffer that many connections share, and the body may be long in coming.
        let mut unwritten = Some(parts);
        let mut keeps_alive = false;
        poll_fn(|cx| {
            if let Some(parts) = unwritten.take() {
                keeps_alive = self.keeps_alive(cx, &asked, &parts, &sending);
                let closing = Closing {
                    length: sending.named_length,
                    is_chunked: sending.delimiter == Delimiter::Chunks,
                    keeps_alive,
                    says_keep_alive: asked.version == Version::HTTP_10,
                };
                let mut client = self.client.lock();
                head_writer::write_response(parts.status, &parts.headers, &closing, &mut client.outbound);
            }
            sending.poll(cx, body.as_mut(), &self.client)
        })
        .await?;
        self.activity.answer_is_whole();
        Ok(keeps_alive && !self.is_draining)
    }

    fn keeps_alive(
        &mut self,
        cx: &mut Context<'_>,
        asked: &Asked,
        parts: &http::response::Parts,
        sending: &Sending,
    ) -> bool {
        self.poll_drain(cx);
        asked.keeps_alive
            && !self.is_draining
            && !head_writer::says_close(&parts.headers)
            && !sending.ends_with_connection
            && self.has_read_body(cx)
    }

    /// Whether the body has been read to its end, or can be thrown away at once.
    fn has_read_body(&self, cx: &mut Context<'_>) -> bool {
        // An upstream that answered early may still be sent the body: that must not lose a byte.
        let has_reader = Arc::strong_count(&self.client) > 1;
        let mut client = self.client.lock();
        if has_reader {
            client.is_at_end()
        } else {
            client.skip_body(cx)
        }
    }

    /// Looks whether the connection is to end with the present request. A channel that has spoken must not be asked again.
    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        self.is_draining = self.is_draining || Pin::new(&mut self.drain).poll(cx).is_ready();
    }

    /// Closes after an answer, and first hears out a client that still sends: what lies unread, here or in the kernel,
    /// would make closing a reset.
    async fn close(self) {
        let client = self.client;
        let shut = poll_fn(|cx| client.lock().poll_shutdown(cx));
        if timeout(LINGER_PAUSE, shut).await.is_err() {
            return;
        }
        let rest = async {
            let more = || poll_fn(|cx| client.lock().poll_discard(cx));
            while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, more()).await {}
        };
        let _ = timeout(LINGER, rest).await;
    }
}

/// Empty lines before a request are ignored (RFC 9112 section 2.2).
fn skip_empty_lines(pending: &mut Bytes) {
    while pending.starts_with(b"\r\n") {
        pending.advance(2);
    }
}

/// Whether a head can be complete, or turn out wrong, by its last `count` bytes: by its first ones, or by a line's end.
fn is_worth_a_look(pending: &[u8], count: usize) -> bool {
    let before = pending.len().saturating_sub(count);
    before == 0 || memchr::memchr(b'\n', pending.get(before..).unwrap_or_default()).is_some()
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(problem) => Self::BadHead { problem },
            HeadError::TooLarge => Self::HeadTooLarge,
            HeadError::Framing(problem) => Self::BadFraming { problem },
            HeadError::Http2 => Self::BadHead {
                problem: "HTTP/2 begins behind a request of HTTP/1",
            },
        }
    }
}
