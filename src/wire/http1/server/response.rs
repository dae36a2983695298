//! The body of one response that is written to the client: how it is delimited, and how much of it is written at once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Version, header::CONTENT_LENGTH, response};
use http_body::Body;
use parking_lot::Mutex;

use crate::wire::{
    body::framing::response_may_have_body,
    http1::{codec::write_buffer::WriteDelimiter, server::connection::ClientConnection},
};

/// The error for a response that could not be sent completely: its body ended early, or the client has closed the
/// connection.
pub(in crate::wire) struct ResponseAborted;

/// The properties of a request that its response depends on.
pub(in crate::wire) struct RequestProperties {
    pub method: Method,
    pub version: Version,
    /// Whether the request allows another one on its connection.
    pub keeps_alive: bool,
}

impl RequestProperties {
    /// The properties that are assumed if the head of the request could not be parsed.
    pub const UNKNOWN: Self = Self {
        method: Method::GET,
        version: Version::HTTP_11,
        keeps_alive: false,
    };
}

/// Writes the body of one response.
pub(in crate::wire) struct ResponseBodyWriter {
    pub delimiter: WriteDelimiter,
    /// The number of bytes that are still to come according to the length in the head; `None` if the head names no
    /// length.
    left: Option<u64>,
    /// The length of the body if it is known and the response's own headers do not name it.
    pub missing_length: Option<u64>,
    /// Whether only the end of the connection marks the end of the body.
    pub ends_with_connection: bool,
    /// Whether the body is read but not sent, because the response must not have one.
    is_omitted: bool,
}

impl ResponseBodyWriter {
    /// A writer for `body`, which belongs to the response with `parts`.
    pub fn new<B: Body>(parts: &response::Parts, body: &B, request: &RequestProperties) -> Self {
        let is_omitted = !response_may_have_body(&request.method, parts.status);
        let named = parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let known = body.size_hint().exact();
        let length = named.or(known).filter(|_| !is_omitted);
        let is_open_ended = length.is_none() && !is_omitted;
        let is_http_1_0 = request.version == Version::HTTP_10;
        Self {
            delimiter: if is_open_ended && !is_http_1_0 {
                WriteDelimiter::Chunked
            } else {
                WriteDelimiter::LengthOrClose
            },
            left: length,
            missing_length: known.filter(|_| named.is_none() && !is_omitted),
            ends_with_connection: is_open_ended && is_http_1_0,
            is_omitted,
        }
    }

    /// Reads and writes the body until all of it has been written. `body` becomes `None` at its end.
    pub fn poll<B: Body<Data = Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut Option<B>>,
        client: &Mutex<ClientConnection>,
    ) -> Poll<Result<(), ResponseAborted>> {
        loop {
            let gathered = self.gather(cx, body.as_mut(), client);
            let mut client = client.lock();
            let written = client.poll_write(cx);
            // The pieces before the error have been written, as far as the client accepts them.
            if gathered.is_err() || matches!(written, Poll::Ready(Err(_))) {
                return Poll::Ready(Err(ResponseAborted));
            }
            if written.is_ready() && body.is_none() {
                return Poll::Ready(Ok(()));
            }
            let is_waiting = written.is_pending() || matches!(gathered, Ok(Gathered::AllAvailable));
            if is_waiting {
                return match client.poll_closed(cx) {
                    true => Poll::Ready(Err(ResponseAborted)),
                    false => Poll::Pending,
                };
            }
        }
    }

    /// Reads the available pieces of the body, until there are enough for one write.
    fn gather<B: Body<Data = Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut Option<B>>,
        client: &Mutex<ClientConnection>,
    ) -> Result<Gathered, ResponseAborted> {
        while let Some(open) = body.as_mut().as_pin_mut() {
            if client.lock().write_buffer.is_full() {
                return Ok(Gathered::Enough);
            }
            let frame = if open.is_end_stream() {
                Poll::Ready(None)
            } else {
                open.poll_frame(cx)
            };
            match frame {
                Poll::Pending => return Ok(Gathered::AllAvailable),
                Poll::Ready(None) => {
                    self.end(client)?;
                    // Dropping the body counts the response as complete. This must happen before the last bytes are
                    // written, because the client can then send another request.
                    body.set(None);
                }
                Poll::Ready(Some(Err(_))) => return Err(ResponseAborted),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        self.push(piece, client)?;
                    }
                }
            }
        }
        Ok(Gathered::Enough)
    }

    fn push(&mut self, piece: Bytes, client: &Mutex<ClientConnection>) -> Result<(), ResponseAborted> {
        if self.is_omitted {
            return Ok(());
        }
        if let Some(left) = &mut self.left {
            // The client would take the bytes beyond the length for another response.
            *left = left.checked_sub(piece.len() as u64).ok_or(ResponseAborted)?;
        }
        client.lock().write_buffer.push(piece, self.delimiter);
        Ok(())
    }

    fn end(&mut self, client: &Mutex<ClientConnection>) -> Result<(), ResponseAborted> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(ResponseAborted);
        }
        client.lock().write_buffer.end_body(self.delimiter);
        Ok(())
    }
}

/// The reason why reading from a body ended.
enum Gathered {
    /// All pieces that are available have been read; more may arrive.
    AllAvailable,
    /// There is enough to write, or the body is at its end.
    Enough,
}

#[cfg(test)]
mod tests {
    use http::Response;
    use http_body_util::{Full, combinators::BoxBody};

    use super::*;

    fn writer(
        method: Method,
        version: Version,
        response: Response<BoxBody<Bytes, std::convert::Infallible>>,
    ) -> ResponseBodyWriter {
        let request = RequestProperties {
            method,
            version,
            keeps_alive: true,
        };
        let (parts, body) = response.into_parts();
        ResponseBodyWriter::new(&parts, &body, &request)
    }

    fn known() -> BoxBody<Bytes, std::convert::Infallible> {
        BoxBody::new(Full::new(Bytes::from_static(b"hello")))
    }

    fn open_ended() -> BoxBody<Bytes, std::convert::Infallible> {
        let (_, channel) = http_body_util::channel::Channel::<Bytes, std::convert::Infallible>::new(1);
        BoxBody::new(channel)
    }

    #[test]
    fn a_known_length_is_added_to_a_head_without_a_length() {
        let unnamed = writer(Method::GET, Version::HTTP_11, Response::new(known()));
        assert_eq!((unnamed.left, unnamed.missing_length), (Some(5), Some(5)));
        let mut response = Response::new(known());
        response.headers_mut().insert(CONTENT_LENGTH, 5.into());
        let named = writer(Method::GET, Version::HTTP_11, response);
        assert_eq!((named.left, named.missing_length), (Some(5), None));
        assert_eq!(named.delimiter, WriteDelimiter::LengthOrClose);
    }

    #[test]
    fn an_unknown_length_is_delimited_as_the_version_allows() {
        let new = writer(Method::GET, Version::HTTP_11, Response::new(open_ended()));
        assert!(new.delimiter == WriteDelimiter::Chunked && !new.ends_with_connection);
        let old = writer(Method::GET, Version::HTTP_10, Response::new(open_ended()));
        assert!(old.delimiter == WriteDelimiter::LengthOrClose && old.ends_with_connection);
    }

    #[test]
    fn a_response_to_head_has_no_body() {
        for body in [known(), open_ended()] {
            let writer = writer(Method::HEAD, Version::HTTP_11, Response::new(body));
            assert!(writer.is_omitted && !writer.ends_with_connection);
            assert_eq!((writer.left, writer.missing_length), (None, None));
        }
    }
}
