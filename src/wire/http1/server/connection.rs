//! A client's HTTP/1.1 connection, and the request body that is read from it.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::coop::unconstrained;

use crate::wire::{
    body::framing::{BodyError, Framing},
    http1::codec::{body_decoder::BodyDecoder, read_buffer::ReadBuffer, write_buffer::WriteBuffer},
    server::socket::ClientSocket,
    timers::wait_timeout::WaitTimeout,
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection, shared by the server loop and the body of the current request.
///
/// Usually both run in one task, so the lock around the connection is free. If the request goes to an HTTP/2 upstream,
/// the task of the upstream's connection reads the body.
pub(in crate::wire) struct ClientConnection {
    pub socket: ClientSocket,
    pub read_buffer: ReadBuffer,
    pub write_buffer: WriteBuffer,
    /// Finds the end of the current request's body.
    pub decoder: BodyDecoder,
    /// Whether the body ended early, so that no request can follow it.
    pub is_broken: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The number of requests so far. It distinguishes the body of the current request from earlier ones.
    pub request: u64,
    pub timeout: WaitTimeout,
    /// The task that waits for more of the body. It is not the server loop's task if the request goes to an HTTP/2
    /// upstream.
    reader: Option<Waker>,
}

impl ClientConnection {
    /// A connection that has carried no request yet.
    pub fn new(socket: ClientSocket) -> Self {
        Self {
            socket,
            read_buffer: ReadBuffer::default(),
            write_buffer: WriteBuffer::default(),
            decoder: BodyDecoder::EMPTY,
            is_broken: false,
            expects_continue: false,
            request: 0,
            timeout: WaitTimeout::default(),
            reader: None,
        }
    }

    /// Prepares for the body of the next request.
    pub fn begin_request(&mut self, framing: Framing) {
        self.request += 1;
        self.timeout.reset();
        self.decoder = match framing {
            Framing::None => BodyDecoder::EMPTY,
            Framing::Length(length) => BodyDecoder::Length(length),
            Framing::Chunked => BodyDecoder::CHUNKED,
        };
    }

    /// Whether the body has been read to its end.
    pub fn is_body_read(&self) -> bool {
        self.decoder.is_end() && !self.is_broken
    }

    /// Whether the client has closed the connection. The task is woken when that happens.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        let is_closed = self.socket.poll_closed(cx);
        // A socket wakes only the task that polled it last. So the task that waits for the body is woken here.
        if let Some(reader) = self.reader.take_if(|reader| !reader.will_wake(cx.waker())) {
            reader.wake();
        }
        is_closed
    }

    /// Writes the bytes that wait to be written.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_buffer.poll_write(&mut self.socket, cx)
    }

    /// Reads the next piece of the body, or `None` at its end. The client may pause for `idle`.
    fn poll_body(&mut self, cx: &mut Context<'_>, idle: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_broken {
            let error = BodyError::Broken("an earlier piece could not be read".to_owned());
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.decoder.take(&mut self.read_buffer.pending) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(bad) => return self.break_body(BodyError::Broken(bad.0.to_owned())),
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    return self.break_body(BodyError::Broken("the client closed the connection".to_owned()));
                }
                Poll::Ready(Ok(_)) => self.timeout.reset(),
                Poll::Ready(Err(error)) => return self.break_body(BodyError::Broken(error.to_string())),
                Poll::Pending => {
                    if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                        self.reader = Some(cx.waker().clone());
                    }
                    ready!(self.timeout.poll(cx, idle));
                    return self.break_body(BodyError::Idle(idle));
                }
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.expects_continue) {
            self.write_buffer.copy(CONTINUE);
        }
        // If the socket does not accept all bytes now, the next write continues with the rest.
        let _ = self.poll_write(cx)?;
        self.read_buffer
            .poll_fill(&mut self.socket, cx, self.decoder.expected())
    }

    fn break_body(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.is_broken = true;
        Poll::Ready(Some(Err(error)))
    }

    /// Discards the part of the body that has arrived. Returns whether the end of the body was reached.
    ///
    /// The budget of the task does not count here: a read that it delays looks as if nothing had arrived, and a connection
    /// would be closed that can be kept.
    pub fn skip_body(&mut self, cx: &mut Context<'_>) -> bool {
        /// The maximum number of bytes to discard. If there are more, the connection is closed after the response.
        const MAX_SKIPPED: usize = 256 << 10;
        let mut skipped = 0;
        while !self.decoder.is_end() && !self.is_broken && !self.expects_continue && skipped < MAX_SKIPPED {
            match self.decoder.take(&mut self.read_buffer.pending) {
                Ok(Some(piece)) => skipped += piece.len(),
                Ok(None) if self.decoder.is_end() => {}
                Ok(None) => {
                    let fill = poll_fn(|cx| self.read_buffer.poll_fill(&mut self.socket, cx, 0));
                    match pin!(unconstrained(fill)).poll(cx) {
                        Poll::Ready(Ok(1..)) => {}
                        _ => break,
                    }
                }
                Err(_) => self.is_broken = true,
            }
        }
        self.is_body_read()
    }

    /// Reads and discards bytes. Returns their number, which is zero when the client has closed its side.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read_buffer.pending.clear();
        self.read_buffer.poll_fill(&mut self.socket, cx, 0)
    }

    /// Closes the sending side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.socket), cx)
    }
}

/// The body of the current request on a client's connection.
pub(in crate::wire) struct Http1RequestBody {
    /// `None` once the end of the body has been read.
    client: Option<Arc<Mutex<ClientConnection>>>,
    /// The number of the request on its connection.
    request: u64,
}

impl Http1RequestBody {
    /// The body of the current request, or `None` if it is empty.
    pub fn new(client: &Arc<Mutex<ClientConnection>>, framing: Framing) -> Option<Self> {
        let is_empty = matches!(framing, Framing::None | Framing::Length(0));
        (!is_empty).then(|| Self {
            request: client.lock().request,
            client: Some(client.clone()),
        })
    }

    /// Whether the end of the body has been read.
    pub fn is_end(&self) -> bool {
        self.client.is_none()
    }

    /// Reads the next piece, or `None` at the end. The client may pause for `idle`.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, idle: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(client) = &self.client else {
            return Poll::Ready(None);
        };
        let mut client = client.lock();
        if client.request != self.request {
            let error = BodyError::Broken("the connection already serves another request".to_owned());
            return Poll::Ready(Some(Err(error)));
        }
        let piece = ready!(client.poll_body(cx, idle));
        let is_end = client.decoder.is_end();
        drop(client);
        if is_end {
            self.client = None;
        }
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
        task::{coop, yield_now},
    };

    use super::*;
    use crate::wire::{server::activity::Activity, transport::Transport};

    const LIMIT: Duration = Duration::from_secs(60);

    fn connected(framing: Framing) -> (Arc<Mutex<ClientConnection>>, Http1RequestBody, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let socket = ClientSocket::new(Transport::Unix(near), LIMIT, Activity::accepted());
        let client = Arc::new(Mutex::new(ClientConnection::new(socket)));
        client.lock().begin_request(framing);
        let body = Http1RequestBody::new(&client, framing).expect("a body");
        (client, body, far)
    }

    async fn next(body: &mut Http1RequestBody) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| body.poll_data(cx, LIMIT)).await
    }

    #[tokio::test]
    async fn the_client_is_told_to_continue_when_its_body_is_read() {
        let (client, mut body, mut far) = connected(Framing::Length(5));
        client.lock().expects_continue = true;
        let sending = async {
            let mut head = vec![0; CONTINUE.len()];
            far.read_exact(&mut head).await.expect("100 Continue");
            assert_eq!(head, CONTINUE);
            far.write_all(b"helloGET").await.expect("written");
        };
        let (piece, ()) = tokio::join!(next(&mut body), sending);
        assert_eq!(piece, Some(Ok(Bytes::from("hello"))));
        assert!(body.is_end() && client.lock().is_body_read());
        assert_eq!(client.lock().read_buffer.pending, "GET");
    }

    #[tokio::test]
    async fn a_body_that_ends_early_stays_broken() {
        let (client, mut body, mut far) = connected(Framing::Length(5));
        far.write_all(b"hel").await.expect("written");
        far.shutdown().await.expect("shut down");
        assert_eq!(next(&mut body).await, Some(Ok(Bytes::from("hel"))));
        for _ in 0..2 {
            assert!(matches!(next(&mut body).await, Some(Err(BodyError::Broken(_)))));
        }
        assert!(!client.lock().is_body_read());
    }

    #[tokio::test]
    async fn a_body_that_has_arrived_is_discarded_although_the_task_has_no_budget_left() {
        let (client, _body, mut far) = connected(Framing::Length(5));
        far.write_all(b"hello").await.expect("written");
        // The runtime learns here that the socket is readable.
        yield_now().await;
        let skipping = tokio::spawn(poll_fn(move |cx| {
            while coop::has_budget_remaining() {
                if let Poll::Ready(operation) = coop::poll_proceed(cx) {
                    operation.made_progress();
                }
            }
            Poll::Ready(client.lock().skip_body(cx))
        }));
        assert!(skipping.await.expect("the task ends"));
    }

    #[tokio::test]
    async fn the_body_of_an_earlier_request_cannot_be_read() {
        let (client, mut body, _far) = connected(Framing::Chunked);
        client.lock().begin_request(Framing::None);
        assert!(matches!(next(&mut body).await, Some(Err(BodyError::Broken(_)))));
    }
}
