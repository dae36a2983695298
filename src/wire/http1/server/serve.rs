//! Serves the HTTP/1.1 requests of one client connection. For each request, it parses the head, calls the handler and
//! sends the response.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Request, Response, Version, response};
use http_body::Body;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::wire::{
    body::request::RequestBody,
    http1::{
        codec::{
            head_reader::{HeadError, RequestHead, parse_request},
            head_writer::{self, ResponseFraming},
            write_buffer::WriteDelimiter,
        },
        server::{
            connection::{ClientConnection, Http1RequestBody},
            response::{RequestProperties, ResponseAborted, ResponseBodyWriter},
        },
    },
    limits::MAX_HEAD_BYTES,
    server::{
        activity::Activity,
        handle::DrainMode,
        refusal::HeadRefusal,
        service::Peer,
        socket::{Http2Preface, ServedConnection},
    },
};

/// How long the server continues to read from a client that is still sending when it gets its response. Closing at once
/// would reset the connection, and the client might see the reset instead of the response.
const LINGER: Duration = Duration::from_secs(5);
/// The maximum pause of such a client before the connection is closed.
const LINGER_PAUSE: Duration = Duration::from_secs(1);

/// The server's side of one connection.
struct Http1Server {
    client: Arc<Mutex<ClientConnection>>,
    activity: Arc<Activity>,
    /// Completes when the connection is to end.
    drain: oneshot::Receiver<DrainMode>,
    /// What `drain` has completed with.
    draining: Option<DrainMode>,
}

/// The reason why there is no further request.
enum NoRequest {
    /// The client has closed the connection.
    Closed,
    /// The server closes the connection, on which no request is in progress.
    Drained,
    /// The connection begins with the preface of HTTP/2.
    Http2,
    /// The head of the request is refused.
    Refused(HeadRefusal),
}

/// Serves the requests of one connection until it ends. After `drain` completes, it ends once the current response is
/// sent.
///
/// `refuse` makes the response to a head that is refused. The function returns a connection that begins with the
/// preface of HTTP/2.
pub(in crate::wire) async fn serve<H, R, F, B>(
    connection: ServedConnection,
    handler: H,
    refuse: R,
) -> Option<Http2Preface>
where
    H: Fn(Peer, Request<RequestBody>) -> F,
    R: Fn(Peer, HeadRefusal) -> Option<Response<B>>,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes>,
{
    let ServedConnection {
        socket,
        peer,
        activity,
        drain,
    } = connection;
    let mut server = Http1Server {
        client: Arc::new(Mutex::new(ClientConnection::new(socket))),
        activity,
        drain,
        draining: None,
    };
    loop {
        match server.next_head().await {
            Ok(head) => {
                let (properties, request) = server.begin_request(head);
                // The handler is boxed, so that an idle connection does not hold the memory of its future.
                let response = server.run_handler(Box::pin(handler(peer, request))).await?;
                match server.respond(response, properties).await {
                    Ok(Persistence::KeepAlive) => server.activity.record_request_end(),
                    Ok(Persistence::Close) => {
                        server.close().await;
                        return None;
                    }
                    Err(ResponseAborted) => {
                        server.activity.record_response_aborted();
                        return None;
                    }
                }
            }
            Err(NoRequest::Closed) => return None,
            Err(NoRequest::Drained) => {
                server.finish().await;
                return None;
            }
            Err(NoRequest::Http2) => return Some(server.into_preface()),
            Err(NoRequest::Refused(refusal)) => {
                server.activity.record_request_start(Version::HTTP_11);
                server.client.lock().is_broken = true;
                if let Some(response) = refuse(peer, refusal)
                    && server.respond(response, RequestProperties::UNKNOWN).await.is_ok()
                {
                    server.close().await;
                }
                return None;
            }
        }
    }
}

/// Whether the connection stays open after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persistence {
    /// Another request may follow.
    KeepAlive,
    /// The connection is closed.
    Close,
}

impl Http1Server {
    /// Takes the connection apart so that HTTP/2 can be served on it.
    fn into_preface(self) -> Http2Preface {
        let client = Arc::into_inner(self.client)
            .expect("only request bodies share the connection, and there has been no request")
            .into_inner();
        Http2Preface {
            socket: client.socket,
            read: client.read_buffer.pending,
            drain: self.drain,
        }
    }

    /// Waits for the head of the next request.
    async fn next_head(&mut self) -> Result<RequestHead, NoRequest> {
        // A pipelined request may be in the buffer already, so the buffer is parsed before the first read.
        let mut is_worth_parsing = true;
        poll_fn(|cx| {
            let mut client = self.client.lock();
            let client = &mut *client;
            loop {
                skip_empty_lines(&mut client.read_buffer.pending);
                if !client.read_buffer.pending.is_empty() {
                    self.activity.record_head_start();
                }
                if is_worth_parsing && !client.read_buffer.pending.is_empty() {
                    match parse_request(&mut client.read_buffer.pending) {
                        Ok(Some(head)) => return Poll::Ready(Ok(head)),
                        Ok(None) => {}
                        Err(HeadError::Http2) if client.request == 0 => return Poll::Ready(Err(NoRequest::Http2)),
                        Err(error) => return Poll::Ready(Err(NoRequest::Refused(error.into()))),
                    }
                }
                if client.read_buffer.pending.len() > MAX_HEAD_BYTES {
                    return Poll::Ready(Err(NoRequest::Refused(HeadRefusal::HeadTooLarge)));
                }
                match client.read_buffer.poll_fill(&mut client.socket, cx, 0) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoRequest::Closed)),
                    Poll::Ready(Ok(count)) => {
                        is_worth_parsing = may_complete_head(&client.read_buffer.pending, count);
                    }
                    Poll::Pending => {
                        let ends = match poll_drain(&mut self.drain, &mut self.draining, cx) {
                            None => false,
                            Some(DrainMode::Shutdown) => client.read_buffer.pending.is_empty(),
                            Some(DrainMode::Shed) => true,
                        };
                        return if ends {
                            Poll::Ready(Err(NoRequest::Drained))
                        } else {
                            Poll::Pending
                        };
                    }
                }
            }
        })
        .await
    }

    /// Makes the request with this head. Its body is read from the connection.
    fn begin_request(&mut self, head: RequestHead) -> (RequestProperties, Request<RequestBody>) {
        let RequestHead {
            request,
            framing,
            keeps_alive,
            expects_continue,
        } = head;
        let mut client = self.client.lock();
        client.begin_request(framing);
        client.expects_continue = expects_continue;
        drop(client);
        self.activity.record_request_start(request.version());
        let properties = RequestProperties {
            method: request.method().clone(),
            version: request.version(),
            keeps_alive,
        };
        let body = Http1RequestBody::new(&self.client, framing);
        (properties, request.map(|()| RequestBody::from_http1(body, framing)))
    }

    /// Waits for the handler's response. Returns `None` if the client closes the connection first.
    async fn run_handler<T>(&self, mut handler: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        poll_fn(|cx| match handler.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending if self.client.lock().poll_closed(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Sends a response, and returns whether the connection stays open afterwards.
    async fn respond<B: Body<Data = Bytes>>(
        &mut self,
        response: Response<B>,
        request: RequestProperties,
    ) -> Result<Persistence, ResponseAborted> {
        let (parts, body) = response.into_parts();
        let mut writer = ResponseBodyWriter::new(&parts, &body, &request);
        let mut body = pin!(Some(body));
        // The head is dropped as soon as it is written. Its values are slices of a buffer that many connections share,
        // and the body may take long.
        let mut unwritten_head = Some(parts);
        let mut keeps_alive = false;
        poll_fn(|cx| {
            if let Some(parts) = unwritten_head.take() {
                keeps_alive = self.may_keep_alive(cx, &request, &parts, &writer);
                let framing = ResponseFraming {
                    length: writer.missing_length,
                    is_chunked: writer.delimiter == WriteDelimiter::Chunked,
                    keeps_alive,
                    announces_keep_alive: request.version == Version::HTTP_10,
                };
                let mut client = self.client.lock();
                head_writer::write_response(parts.status, &parts.headers, &framing, &mut client.write_buffer);
            }
            writer.poll(cx, body.as_mut(), &self.client)
        })
        .await?;
        self.activity.record_response_complete();
        Ok(if keeps_alive && self.draining.is_none() {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        })
    }

    /// Whether another request may follow after the response with `parts`.
    fn may_keep_alive(
        &mut self,
        cx: &mut Context<'_>,
        request: &RequestProperties,
        parts: &response::Parts,
        writer: &ResponseBodyWriter,
    ) -> bool {
        poll_drain(&mut self.drain, &mut self.draining, cx);
        request.keeps_alive
            && self.draining.is_none()
            && !head_writer::closes_connection(&parts.headers)
            && !writer.ends_with_connection
            && self.is_body_read(cx)
    }

    /// Whether the request body has been read to its end, or can be discarded at once.
    fn is_body_read(&self, cx: &mut Context<'_>) -> bool {
        // If the upstream responded early, the body may still be on its way to the upstream, and no byte of it may be
        // lost.
        let has_reader = Arc::strong_count(&self.client) > 1;
        let mut client = self.client.lock();
        if has_reader {
            client.is_body_read()
        } else {
            client.skip_body(cx)
        }
    }

    /// Closes the connection after a response. If the client is still sending, its bytes are read first, because unread
    /// bytes in this process or in the kernel would turn the close into a reset. Meanwhile the connection counts as idle.
    async fn close(mut self) {
        self.activity.record_request_end();
        let client = self.client;
        let shut_down = poll_fn(|cx| client.lock().poll_shutdown(cx));
        if timeout(LINGER_PAUSE, shut_down).await.is_err() {
            return;
        }
        let rest = async {
            let more = || poll_fn(|cx| client.lock().poll_discard(cx));
            while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, more()).await {}
        };
        let shed = poll_fn(|cx| match poll_drain(&mut self.drain, &mut self.draining, cx) {
            Some(DrainMode::Shed) => Poll::Ready(()),
            _ => Poll::Pending,
        });
        tokio::select! {
            biased;
            // The connection is closed even if the client has not stopped in time.
            _ = timeout(LINGER, rest) => {}
            () = shed => {}
        }
    }

    /// Closes an idle connection: over TLS with a closing message, and without waiting for the client.
    async fn finish(self) {
        poll_fn(|cx| {
            // The client has read everything before, so there is space in the socket's buffer.
            let _ = self.client.lock().poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }
}

/// Checks whether the connection is to end. The channel must not be polled again once it has completed.
fn poll_drain(
    drain: &mut oneshot::Receiver<DrainMode>,
    draining: &mut Option<DrainMode>,
    cx: &mut Context<'_>,
) -> Option<DrainMode> {
    if draining.is_none()
        && let Poll::Ready(mode) = Pin::new(drain).poll(cx)
    {
        // The sender is dropped only with the listener's task, which ends all connections.
        *draining = Some(mode.unwrap_or(DrainMode::Shutdown));
    }
    *draining
}

/// Skips empty lines before a request, which a server should ignore (RFC 9112 section 2.2).
fn skip_empty_lines(pending: &mut Bytes) {
    while pending.starts_with(b"\r\n") {
        pending.advance(2);
    }
}

/// Whether the last `count` bytes may have completed a head or made it invalid. Only then is it worthwhile to parse the
/// head again. The bytes must be the first ones, or contain the end of a line.
fn may_complete_head(pending: &[u8], count: usize) -> bool {
    let before = pending.len().saturating_sub(count);
    before == 0 || memchr::memchr(b'\n', &pending[before..]).is_some()
}

impl From<HeadError> for HeadRefusal {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(problem) => Self::BadHead { problem },
            HeadError::TooLarge => Self::HeadTooLarge,
            HeadError::Framing(problem) => Self::BadFraming { problem },
            HeadError::Http2 => Self::BadHead {
                problem: "HTTP/2 begins after an HTTP/1 request",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_again_only_after_a_line_end() {
        assert!(may_complete_head(b"GET", 3), "the first bytes");
        assert!(!may_complete_head(b"GET / HT", 5));
        assert!(may_complete_head(b"GET / HTTP/1.1\r\nhost: it\r\n\r\n", 3));
        assert!(!may_complete_head(b"GET / HTTP/1.1\r\nho", 2));
    }

    #[test]
    fn empty_lines_before_a_request_are_skipped() {
        let mut pending = Bytes::from_static(b"\r\n\r\nGET / HTTP/1.1\r\n");
        skip_empty_lines(&mut pending);
        assert_eq!(pending, "GET / HTTP/1.1\r\n");
    }
}
