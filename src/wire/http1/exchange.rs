//! One HTTP/1.1 request and its response on a connection to an upstream.

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
    body::{
        framing::{BodyError, Framing},
        replay::Replay,
    },
    client::send_error::SendError,
    http1::{
        codec::{
            body_decoder::BodyDecoder,
            head_reader::{ResponseHead, parse_response},
            head_writer,
            write_buffer::WriteDelimiter,
        },
        upstream_connection::UpstreamConnection,
    },
    limits::MAX_HEAD_BYTES,
};

/// One request on a connection, from its first byte to the end of its response.
pub(in crate::wire) struct Http1Exchange {
    connection: Box<UpstreamConnection>,
    /// The part of the request body that is still to be read; `None` once its end has been read.
    upload: Option<Replay>,
    /// How the request body is delimited.
    delimiter: WriteDelimiter,
    /// The number of bytes of the request body that are still to come according to its head; `None` for a chunked body.
    upload_left: Option<u64>,
    /// Finds the end of the response body.
    decoder: BodyDecoder,
    /// Whether the response allows another exchange on the connection.
    keeps_alive: bool,
}

/// The maximum number of interim responses (RFC 9110 section 15.2) before the final one.
const MAX_INTERIM_RESPONSES: u32 = 16;

/// The bytes and interim responses that have arrived before the final response head.
#[derive(Default)]
struct HeadProgress {
    /// Whether any byte has arrived.
    has_bytes: bool,
    /// The number of interim responses.
    interim_responses: u32,
    /// Whether an interim response closes the connection, or may have a body (see [`ResponseHead::keeps_alive`]).
    is_interim_doubtful: bool,
}

/// The reason why an exchange has no response head.
pub(in crate::wire) struct ExchangeError {
    pub error: SendError,
    /// Whether the connection ended without a byte of response.
    pub is_silent_close: bool,
    /// Whether the upstream has certainly received nothing of the request.
    pub is_unsent: bool,
}

impl ExchangeError {
    fn broken(why: &str) -> Self {
        SendError::Broken(why.to_owned()).into()
    }

    /// The error for a request body that does not have the length that its head names. The upstream would take the next
    /// request on the connection for the rest of this body.
    fn length_mismatch() -> Self {
        SendError::Body(BodyError::Broken(
            "its length differs from its Content-Length".to_owned(),
        ))
        .into()
    }

    /// The error for a connection that ended, or on which a read or write failed.
    fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        Self {
            is_silent_close: matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            ),
            is_unsent: false,
            error: SendError::Broken(error.to_string()),
        }
    }
}

impl From<SendError> for ExchangeError {
    fn from(error: SendError) -> Self {
        Self {
            error,
            is_silent_close: false,
            is_unsent: false,
        }
    }
}

impl Http1Exchange {
    /// Sends the head of `request` with `body`, and waits for the response head.
    ///
    /// The wait may last for `limit` after the end of the request. The time of the upload does not count, because it
    /// depends on the client. A client that pauses for too long ends its body with an error.
    pub async fn begin<B>(
        connection: Box<UpstreamConnection>,
        request: &Request<B>,
        body: Replay,
        limit: Duration,
    ) -> Result<(Self, Response<()>), ExchangeError> {
        let framing = body.framing();
        let mut exchange = Self {
            connection,
            delimiter: match framing {
                Framing::Chunked => WriteDelimiter::Chunked,
                Framing::None | Framing::Length(_) => WriteDelimiter::LengthOrClose,
            },
            upload_left: match framing {
                Framing::None => Some(0),
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            },
            decoder: BodyDecoder::EMPTY,
            keeps_alive: false,
            upload: Some(body),
        };
        exchange.connection.timeout.reset();
        exchange.connection.socket.begin_request();
        head_writer::write_request(request, framing, &mut exchange.connection.write_buffer);
        let mut progress = HeadProgress::default();
        let head = poll_fn(|cx| exchange.poll_head(cx, request.method(), limit, &mut progress));
        match head.await {
            Ok(head) => {
                exchange.connection.timeout.reset();
                exchange.decoder = head.decoder;
                exchange.keeps_alive = head.keeps_alive && !progress.is_interim_doubtful;
                Ok((exchange, head.response))
            }
            Err(failed) => Err(ExchangeError {
                is_silent_close: failed.is_silent_close && !progress.has_bytes,
                is_unsent: !progress.has_bytes && !exchange.connection.socket.may_have_sent(),
                ..failed
            }),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        limit: Duration,
        progress: &mut HeadProgress,
    ) -> Poll<Result<ResponseHead, ExchangeError>> {
        let is_sent = self.poll_upload(cx)?.is_ready();
        let UpstreamConnection {
            socket,
            read_buffer,
            timeout,
            ..
        } = &mut *self.connection;
        loop {
            match parse_response(&mut read_buffer.pending, method) {
                Ok(Some(head)) if head.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(ExchangeError::broken(
                        "the upstream switched protocols without a request to do so",
                    )));
                }
                Ok(Some(head)) if head.response.status().is_informational() => {
                    progress.interim_responses += 1;
                    progress.is_interim_doubtful |= !head.keeps_alive;
                    if progress.interim_responses > MAX_INTERIM_RESPONSES {
                        return Poll::Ready(Err(ExchangeError::broken(
                            "the upstream sent too many interim responses",
                        )));
                    }
                    continue;
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) if read_buffer.pending.len() < MAX_HEAD_BYTES => {}
                Ok(None) => return Poll::Ready(Err(ExchangeError::broken("the response head is too large"))),
                Err(error) => return Poll::Ready(Err(ExchangeError::broken(error.problem()))),
            }
            match read_buffer.poll_fill(socket, cx, 0) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(ExchangeError::from_io(&io::ErrorKind::UnexpectedEof.into())));
                }
                // The timeout is not reset, so a head that arrives slowly gets no additional time.
                Poll::Ready(Ok(_)) => progress.has_bytes = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ExchangeError::from_io(&error))),
                Poll::Pending if !is_sent => return Poll::Pending,
                Poll::Pending => {
                    ready!(timeout.poll(cx, limit));
                    return Poll::Ready(Err(SendError::Timeout(limit).into()));
                }
            }
        }
    }

    /// Sends the available part of the request. Ready once all of the request has been written.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let UpstreamConnection {
            socket, write_buffer, ..
        } = &mut *self.connection;
        loop {
            let mut is_waiting = false;
            while let Some(body) = &mut self.upload
                && !is_waiting
                && !write_buffer.is_full()
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => is_waiting = true,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(SendError::Body(error).into())),
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(piece) = frame.into_data() {
                            if let Some(left) = &mut self.upload_left {
                                let rest = left.checked_sub(piece.len() as u64);
                                *left = rest.ok_or_else(ExchangeError::length_mismatch)?;
                            }
                            write_buffer.push(piece, self.delimiter);
                        }
                    }
                    Poll::Ready(None) if self.upload_left.is_some_and(|left| left > 0) => {
                        return Poll::Ready(Err(ExchangeError::length_mismatch()));
                    }
                    Poll::Ready(None) => {
                        write_buffer.end_body(self.delimiter);
                        self.upload = None;
                    }
                }
            }
            ready!(write_buffer.poll_write(socket, cx)).map_err(|error| ExchangeError::from_io(&error))?;
            if self.upload.is_none() {
                return Poll::Ready(Ok(()));
            }
            if is_waiting {
                return Poll::Pending;
            }
        }
    }

    /// Whether the end of the response body has been read.
    pub fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    /// The number of bytes in the rest of the response body, if it is known.
    pub fn exact_length(&self) -> Option<u64> {
        self.decoder.exact_length()
    }

    /// Reads the next piece of the response body, or `None` at its end. The upstream may pause for `idle`.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, idle: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        let broken = |why: String| Poll::Ready(Some(Err(BodyError::Broken(why))));
        // An upstream that responds early may still read the rest of the request.
        if let Poll::Ready(Err(failed)) = self.poll_upload(cx) {
            return match failed.error {
                SendError::Body(error) => Poll::Ready(Some(Err(error))),
                other => broken(other.to_string()),
            };
        }
        let UpstreamConnection {
            socket,
            read_buffer,
            timeout,
            ..
        } = &mut *self.connection;
        loop {
            match self.decoder.take(&mut read_buffer.pending) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(bad) => return broken(bad.0.to_owned()),
            }
            match read_buffer.poll_fill(socket, cx, self.decoder.expected()) {
                Poll::Ready(Ok(0)) if self.decoder == BodyDecoder::UntilClose => {
                    self.decoder = BodyDecoder::EMPTY;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    return broken("the upstream closed the connection before the end of the body".to_owned());
                }
                Poll::Ready(Ok(_)) => timeout.reset(),
                Poll::Ready(Err(error)) => return broken(error.to_string()),
                Poll::Pending => {
                    ready!(timeout.poll(cx, idle));
                    return Poll::Ready(Some(Err(BodyError::Idle(idle))));
                }
            }
        }
    }

    /// The connection, if another exchange may follow on it.
    pub fn into_reusable(self) -> Option<Box<UpstreamConnection>> {
        let is_complete = self.upload.is_none() && self.connection.write_buffer.is_empty() && self.decoder.is_end();
        let is_reusable = is_complete && self.keeps_alive && self.connection.read_buffer.pending.is_empty();
        is_reusable.then_some(self.connection)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    use super::*;
    use crate::wire::{client::socket::UpstreamSocket, transport::Transport};

    const LIMIT: Duration = Duration::from_secs(60);

    fn connected() -> (Box<UpstreamConnection>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let socket = UpstreamSocket::new(Transport::Unix(near), LIMIT);
        (
            UpstreamConnection::new(socket, tokio::time::Instant::now() + LIMIT),
            far,
        )
    }

    /// Sends a GET, and closes the upstream's side after `response`.
    async fn exchange_with(response: &str) -> Result<(Http1Exchange, Response<()>), ExchangeError> {
        let (connection, mut far) = connected();
        far.write_all(response.as_bytes()).await.expect("written");
        far.shutdown().await.expect("shut down");
        let request = Request::get("/").header("host", "it").body(()).expect("a request");
        let begun = Http1Exchange::begin(connection, &request, Replay::empty(Framing::None), LIMIT).await;
        let mut sent = vec![0; 64];
        let count = far.read(&mut sent).await.expect("a request");
        assert_eq!(&sent[..count], b"GET / HTTP/1.1\r\nhost: it\r\n\r\n");
        begun
    }

    async fn read_body(exchange: &mut Http1Exchange) -> Result<Vec<u8>, BodyError> {
        let mut body = Vec::new();
        while let Some(piece) = poll_fn(|cx| exchange.poll_data(cx, LIMIT)).await {
            body.extend_from_slice(&piece?);
        }
        Ok(body)
    }

    #[tokio::test]
    async fn a_response_is_read_after_its_interim_responses() {
        let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let text = interim.repeat(3) + "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        let (mut exchange, response) = exchange_with(&text).await.ok().expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(exchange.exact_length(), Some(5));
        assert_eq!(read_body(&mut exchange).await, Ok(b"hello".to_vec()));
        assert!(exchange.is_end() && exchange.into_reusable().is_some());
        let endless = exchange_with(&interim.repeat(17)).await.err().expect("an error");
        assert!(matches!(endless.error, SendError::Broken(_)) && !endless.is_silent_close);
    }

    #[tokio::test]
    async fn a_body_that_is_cut_is_an_error() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello";
        let (mut exchange, _) = exchange_with(text).await.ok().expect("a response");
        assert!(matches!(read_body(&mut exchange).await, Err(BodyError::Broken(_))));
    }

    #[tokio::test]
    async fn a_close_without_a_byte_is_distinguished_from_a_cut_head() {
        for (text, is_silent_close) in [("", true), ("HTTP/1.1 200", false)] {
            let failed = exchange_with(text).await.err().expect("an error");
            assert_eq!(failed.is_silent_close, is_silent_close, "{text:?}");
            assert!(!failed.is_unsent, "the system has accepted the request");
        }
    }

    #[tokio::test]
    async fn a_request_of_which_no_byte_was_accepted_is_unsent() {
        for is_body_large in [false, true] {
            let (connection, far) = connected();
            drop(far);
            let request = Request::post("/").header("host", "it").body(()).expect("a request");
            let mut keep = crate::wire::body::kept::KeptBodyBuilder::default();
            let length = if is_body_large { 1 << 20 } else { 1 };
            keep.push(vec![b'x'; length].into());
            let body = Replay::kept(keep.finish(None), Framing::Length(length as u64));
            let failed = Http1Exchange::begin(connection, &request, body, LIMIT).await;
            let failed = failed.err().expect("an error");
            assert!(failed.is_silent_close && failed.is_unsent, "{:?}", failed.error);
        }
    }
}
