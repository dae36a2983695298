//! The client's side: one request and its response on a connection to an upstream.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;

use crate::wire::{
    body::relay::BodyError, body::relay::Framing, body::replay::Replay, client::send_error::SendError,
    client::socket::UpstreamSocket, transport::PeerSide,
};
use crate::wire::{
    http1::MAX_HEAD,
    http1::codec::body_decoder::Decoder,
    http1::codec::head_reader::{self as head, ResponseHead},
    http1::codec::head_writer,
    http1::codec::read_buffer::Inbound,
    http1::codec::write_buffer::Delimiter,
    http1::codec::write_buffer::Outbound,
    timers::alarm::Alarm,
};

/// A connection to an upstream between two exchanges.
pub(in crate::wire) struct Connection {
    socket: UpstreamSocket,
    inbound: Inbound,
    outbound: Outbound,
    alarm: Alarm,
    /// It has outlived a request before the present one.
    pub is_reused: bool,
}

impl Connection {
    pub fn new(socket: UpstreamSocket) -> Box<Self> {
        Box::new(Self {
            socket,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            alarm: Alarm::default(),
            is_reused: false,
        })
    }

    /// Whether it can carry another exchange, as far as is known here: an upstream that has closed it, or says
    /// something unasked, has ended it.
    pub fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.inbound.pending.is_empty() && self.socket.poll_peer(&mut cx) == PeerSide::Quiet
    }
}

/// One request on a connection, from its first byte to the end of its response.
pub(in crate::wire) struct Exchange {
    connection: Box<Connection>,
    /// What has yet to be taken of the request's body.
    upload: Option<Replay>,
    delimiter: Delimiter,
    /// What is left of the length that the request's head names.
    left: Option<u64>,
    /// Where the response's body ends.
    decoder: Decoder,
    keeps_alive: bool,
}

/// Interim responses (RFC 9110 section 15.2) before a final one.
const MAX_INTERIM: u32 = 16;

/// What has come before the final response head.
#[derive(Default)]
struct Heard {
    anything: bool,
    interim: u32,
}

/// Why there is no response head.
pub(in crate::wire) struct Failed {
    pub error: SendError,
    /// The connection ended, without a byte of response.
    pub is_silent_end: bool,
}

impl Failed {
    fn broken(why: &str) -> Self {
        SendError::Broken(why.to_owned()).into()
    }

    /// The body is not as long as the head says. What follows on the connection would be taken for the rest of it.
    fn unframed() -> Self {
        SendError::Body(BodyError::Broken("it is not as long as its head says".to_owned())).into()
    }

    fn ended(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        Self {
            is_silent_end: matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            ),
            error: SendError::Broken(error.to_string()),
        }
    }
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Self {
        Self {
            error,
            is_silent_end: false,
        }
    }
}

impl Exchange {
    /// Sends the head of `request` with `body`, and waits for the response head: for `limit` from the end of the request
    /// on. How long an upload takes is up to the client, and a client that pauses for too long ends its body itself.
    pub async fn begin<B>(
        connection: Box<Connection>,
        request: &Request<B>,
        body: Replay,
        limit: Duration,
    ) -> Result<(Self, Response<()>), Failed> {
        let framing = body.framing();
        let mut exchange = Self {
            connection,
            delimiter: match framing {
                Framing::Chunked => Delimiter::Chunks,
                Framing::None | Framing::Length(_) => Delimiter::Outside,
            },
            left: match framing {
                Framing::None => Some(0),
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            },
            decoder: Decoder::EMPTY,
            keeps_alive: false,
            upload: Some(body),
        };
        exchange.connection.alarm.reset();
        head_writer::write_request(request, framing, &mut exchange.connection.outbound);
        let mut heard = Heard::default();
        let answer = poll_fn(|cx| exchange.poll_head(cx, request.method(), limit, &mut heard));
        match answer.await {
            Ok(head) => {
                exchange.connection.alarm.reset();
                exchange.decoder = head.decoder;
                exchange.keeps_alive = head.keeps_alive;
                Ok((exchange, head.response))
            }
            Err(failed) => Err(Failed {
                is_silent_end: failed.is_silent_end && !heard.anything,
                ..failed
            }),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        limit: Duration,
        heard: &mut Heard,
    ) -> Poll<Result<ResponseHead, Failed>> {
        let is_sent = self.poll_upload(cx)?.is_ready();
        let Connection {
            socket, inbound, alarm, ..
        } = &mut *self.connection;
        loop {
            match head::response(&mut inbound.pending, method) {
                Ok(Some(head)) if head.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(Failed::broken("it switched protocols unasked")));
                }
                Ok(Some(head)) if head.response.status().is_informational() => {
                    heard.interim += 1;
                    if heard.interim > MAX_INTERIM {
                        return Poll::Ready(Err(Failed::broken("there is no end to its interim responses")));
                    }
                    continue;
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) if inbound.pending.len() < MAX_HEAD => {}
                Ok(None) => return Poll::Ready(Err(Failed::broken("the response head is too large"))),
                Err(error) => return Poll::Ready(Err(Failed::broken(error.problem()))),
            }
            match inbound.poll_fill(socket, cx, 0) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failed::ended(&io::ErrorKind::UnexpectedEof.into()))),
                // The time for a head runs on, however slowly it arrives.
                Poll::Ready(Ok(_)) => heard.anything = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::ended(&error))),
                Poll::Pending if !is_sent => return Poll::Pending,
                Poll::Pending => {
                    ready!(alarm.poll(cx, limit));
                    return Poll::Ready(Err(SendError::Timeout(limit).into()));
                }
            }
        }
    }

    /// Sends what is there of the request; ready once all of it has left.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let Connection { socket, outbound, .. } = &mut *self.connection;
        loop {
            let mut is_waiting = false;
            while let Some(body) = &mut self.upload
                && !is_waiting
                && !outbound.is_full()
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => is_waiting = true,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(SendError::Body(error).into())),
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(piece) = frame.into_data() {
                            if let Some(left) = &mut self.left {
                                *left = left.checked_sub(piece.len() as u64).ok_or_else(Failed::unframed)?;
                            }
                            outbound.push(piece, self.delimiter);
                        }
                    }
                    Poll::Ready(None) if self.left.is_some_and(|left| left > 0) => {
                        return Poll::Ready(Err(Failed::unframed()));
                    }
                    Poll::Ready(None) => {
                        outbound.end(self.delimiter);
                        self.upload = None;
                    }
                }
            }
            ready!(outbound.poll_write(socket, cx)).map_err(|error| Failed::ended(&error))?;
            if self.upload.is_none() {
                return Poll::Ready(Ok(()));
            }
            if is_waiting {
                return Poll::Pending;
            }
        }
    }

    /// Whether the response's body has been read to its end.
    pub fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    /// How long the rest of the response's body is, where that is known.
    pub fn exact_length(&self) -> Option<u64> {
        self.decoder.exact()
    }

    /// The next piece of the response's body; the upstream may pause for `limit`.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        let broken = |why: String| Poll::Ready(Some(Err(BodyError::Broken(why))));
        // An upstream that answers early may still want the rest of the request.
        if let Poll::Ready(Err(failed)) = self.poll_upload(cx) {
            return match failed.error {
                SendError::Body(error) => Poll::Ready(Some(Err(error))),
                other => broken(other.to_string()),
            };
        }
        let Connection {
            socket, inbound, alarm, ..
        } = &mut *self.connection;
        loop {
            match self.decoder.take(&mut inbound.pending) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(bad) => return broken(bad.0.to_owned()),
            }
            match inbound.poll_fill(socket, cx, self.decoder.expected()) {
                Poll::Ready(Ok(0)) if self.decoder == Decoder::UntilClose => {
                    self.decoder = Decoder::EMPTY;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return broken("the upstream closed the connection before the end".to_owned()),
                Poll::Ready(Ok(_)) => alarm.reset(),
                Poll::Ready(Err(error)) => return broken(error.to_string()),
                Poll::Pending => {
                    ready!(alarm.poll(cx, limit));
                    return Poll::Ready(Some(Err(BodyError::Idle(limit))));
                }
            }
        }
    }

    /// The connection, where another exchange may follow on it.
    pub fn into_reusable(self) -> Option<Box<Connection>> {
        let is_over = self.upload.is_none() && self.connection.outbound.is_empty() && self.decoder.is_end();
        let is_reusable = is_over && self.keeps_alive && self.connection.inbound.pending.is_empty();
        is_reusable.then_some(self.connection)
    }
}
