//! A request's body, read by whoever handles the request from the connection that another part of the same task serves.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::wire::{body::relay::BodyError, body::relay::Framing, server::socket::ClientSocket};
use crate::wire::{
    http1::codec::body_decoder::Decoder, http1::codec::read_buffer::Inbound, http1::codec::write_buffer::Outbound,
    timers::alarm::Alarm,
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection, shared by what serves it and the body of its present request. As a rule both run in one task,
/// and its lock is free; over HTTP/2 the body is read by the upstream connection's.
pub(in crate::wire) struct Client {
    pub socket: ClientSocket,
    pub inbound: Inbound,
    pub outbound: Outbound,
    /// What is left of the present request's body.
    pub decoder: Decoder,
    /// The body broke off, so that nothing can follow it.
    pub is_broken: bool,
    /// The client waits to be asked for the body.
    pub expects_continue: bool,
    /// Tells the requests of the connection apart.
    pub request: u64,
    pub alarm: Alarm,
    /// Who waits for more of the body: another task, where HTTP/2 carries the request on.
    reader: Option<Waker>,
}

impl Client {
    pub fn new(socket: ClientSocket) -> Self {
        Self {
            socket,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            decoder: Decoder::EMPTY,
            is_broken: false,
            expects_continue: false,
            request: 0,
            alarm: Alarm::default(),
            reader: None,
        }
    }

    /// Whether the body has been read to its end.
    pub fn is_at_end(&self) -> bool {
        self.decoder.is_end() && !self.is_broken
    }

    /// Whether the client has gone; the task is woken when it goes.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let is_gone = self.socket.poll_gone(cx);
        // A socket wakes the one task that asked last, which must not leave another waiting for the body.
        if let Some(reader) = self.reader.take_if(|reader| !reader.will_wake(cx.waker())) {
            reader.wake();
        }
        is_gone
    }

    /// Writes what waits to be written.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.poll_write(&mut self.socket, cx)
    }

    /// The next piece of the body; the client may pause for `limit`.
    fn poll_body(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_broken {
            return Poll::Ready(Some(Err(BodyError::Broken("it broke off before".to_owned()))));
        }
        loop {
            match self.decoder.take(&mut self.inbound.pending) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(bad) => return self.break_off(BodyError::Broken(bad.0.to_owned())),
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return self.break_off(BodyError::Broken("the client closed".to_owned())),
                Poll::Ready(Ok(_)) => self.alarm.reset(),
                Poll::Ready(Err(error)) => return self.break_off(BodyError::Broken(error.to_string())),
                Poll::Pending => {
                    if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                        self.reader = Some(cx.waker().clone());
                    }
                    ready!(self.alarm.poll(cx, limit));
                    return self.break_off(BodyError::Idle(limit));
                }
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.expects_continue) {
            self.outbound.copy(CONTINUE);
        }
        // What the socket does not take now leaves with the next write.
        let _ = self.poll_write(cx)?;
        self.inbound.poll_fill(&mut self.socket, cx, self.decoder.expected())
    }

    fn break_off(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.is_broken = true;
        Poll::Ready(Some(Err(error)))
    }

    /// Throws the rest of the body away, as far as it is there; `true` when that was all of it.
    pub fn skip_body(&mut self, cx: &mut Context<'_>) -> bool {
        /// A client that has sent more than this may hear the answer while it still sends.
        const MOST: usize = 256 << 10;
        let mut skipped = 0;
        while !self.decoder.is_end() && !self.is_broken && !self.expects_continue && skipped < MOST {
            match self.decoder.take(&mut self.inbound.pending) {
                Ok(Some(piece)) => skipped += piece.len(),
                Ok(None) if self.decoder.is_end() => {}
                Ok(None) => match self.inbound.poll_fill(&mut self.socket, cx, 0) {
                    Poll::Ready(Ok(1..)) => {}
                    _ => break,
                },
                Err(_) => self.is_broken = true,
            }
        }
        self.is_at_end()
    }

    /// Throws away whatever arrives; ready at the end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbound.pending.clear();
        self.inbound.poll_fill(&mut self.socket, cx, 0)
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.socket), cx)
    }
}

/// The body of a connection's present request.
pub(in crate::wire) struct ClientBody {
    client: Option<Arc<Mutex<Client>>>,
    request: u64,
}

impl ClientBody {
    /// `None` where the request has no body.
    pub fn new(client: &Arc<Mutex<Client>>, framing: Framing) -> Option<Self> {
        let has_none = matches!(framing, Framing::None | Framing::Length(0));
        (!has_none).then(|| Self {
            request: client.lock().request,
            client: Some(client.clone()),
        })
    }

    /// Whether all of it has been read.
    pub fn is_end(&self) -> bool {
        self.client.is_none()
    }

    /// The next piece, or `None` at the end; the client may pause for `limit`.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(client) = &self.client else {
            return Poll::Ready(None);
        };
        let mut client = client.lock();
        if client.request != self.request {
            return Poll::Ready(Some(Err(BodyError::Broken("its request is over".to_owned()))));
        }
        let piece = ready!(client.poll_body(cx, limit));
        let is_end = client.decoder.is_end();
        drop(client);
        if is_end {
            self.client = None;
        }
        Poll::Ready(piece)
    }
}
