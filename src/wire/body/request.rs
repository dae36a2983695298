//! The body of a client's request, over HTTP/1.1 or HTTP/2.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use crate::wire::{
    body::{
        framing::{BodyError, Framing},
        h2_request_body::{H2BodyReader, H2RequestBody},
    },
    http1::server::connection::Http1RequestBody,
};

/// The body of a client's request, as it arrives.
pub struct RequestBody {
    source: RequestBodySource,
    framing: Framing,
}

enum RequestBodySource {
    /// There is no body, or all of it has been read.
    End,
    /// The body comes from an HTTP/1.1 connection.
    Http1(Http1RequestBody),
    /// The body comes from an HTTP/2 stream.
    Http2(H2BodyReader),
}

impl RequestBody {
    pub(in crate::wire) fn from_http1(body: Option<Http1RequestBody>, framing: Framing) -> Self {
        let source = body.map_or(RequestBodySource::End, RequestBodySource::Http1);
        Self { source, framing }
    }

    /// The body of an HTTP/2 request whose `Content-Length` is `length`. `body` is `None` if the request has none. The h2
    /// library checks the body against its length.
    pub(in crate::wire) fn from_http2(body: Option<&Arc<H2RequestBody>>, length: Option<u64>) -> Self {
        let (source, framing) = match body {
            None => (RequestBodySource::End, Framing::None),
            Some(body) => {
                let framing = length.map_or(Framing::Chunked, Framing::Length);
                (RequestBodySource::Http2(H2BodyReader::new(body.clone())), framing)
            }
        };
        Self { source, framing }
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether all of the body has been read.
    pub(in crate::wire) fn is_end(&self) -> bool {
        matches!(self.source, RequestBodySource::End)
    }

    /// Reads the next piece, or `None` at the end. The client may pause for `idle`.
    pub(in crate::wire) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        idle: Duration,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let (piece, is_end) = match &mut self.source {
            RequestBodySource::End => return Poll::Ready(None),
            RequestBodySource::Http1(body) => {
                let piece = std::task::ready!(body.poll_data(cx, idle));
                (piece, body.is_end())
            }
            RequestBodySource::Http2(body) => std::task::ready!(body.poll_data(cx, idle)),
        };
        if is_end || piece.is_none() {
            self.source = RequestBodySource::End;
        }
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_body_is_at_its_end() {
        let mut body = RequestBody::from_http1(None, Framing::Length(0));
        assert!(body.is_end());
        assert_eq!(body.framing(), Framing::Length(0));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(body.poll_data(&mut cx, Duration::ZERO), Poll::Ready(None));
    }
}
