//! Writes the heads of requests and responses (RFC 9112 sections 2 to 6).

use std::fmt::Write as _;

use bytes::BytesMut;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
};

use crate::wire::{
    body::framing::Framing,
    http1::codec::{date, write_buffer::WriteBuffer},
};

/// Writes the head of a request, with its target in origin form. Only `framing` decides how the body is delimited;
/// framing fields among the request's headers are left out.
pub(in crate::wire) fn write_request<B>(request: &Request<B>, framing: Framing, out: &mut WriteBuffer) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    out.append(|out| {
        out.reserve(1 << 10);
        for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        for (name, value) in request.headers() {
            if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
                write_field(name.as_str(), value.as_bytes(), out);
            }
        }
        match framing {
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::Length(length) => write_length(length, out),
            // Requests with these methods usually have a body, so a missing body is stated explicitly (RFC 9110 section
            // 8.6).
            Framing::None if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) => {
                write_length(0, out);
            }
            Framing::None => {}
        }
        out.extend_from_slice(b"\r\n");
    });
}

/// The framing and connection headers of a response head, in addition to the response's own headers.
pub(in crate::wire) struct ResponseFraming {
    /// The `Content-Length` to add if the body's size is known and the headers do not name it.
    pub length: Option<u64>,
    /// Whether the body is in chunked coding.
    pub is_chunked: bool,
    /// Whether the connection stays open after the response.
    pub keeps_alive: bool,
    /// Whether an open connection has to be announced, because the client's version of HTTP closes it by default.
    pub announces_keep_alive: bool,
}

/// Whether the headers of a response close the connection.
pub(in crate::wire) fn closes_connection(headers: &HeaderMap) -> bool {
    headers
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Writes the head of a response.
pub(in crate::wire) fn write_response(
    status: StatusCode,
    headers: &HeaderMap,
    framing: &ResponseFraming,
    out: &mut WriteBuffer,
) {
    out.append(|out| {
        out.reserve(512);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(status.canonical_reason().unwrap_or("Status").as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in headers {
            // A 204 must not have a length (RFC 9110 section 8.6). A client that uses the length would wait for the
            // body.
            if status != StatusCode::NO_CONTENT || name != CONTENT_LENGTH {
                write_field(name.as_str(), value.as_bytes(), out);
            }
        }
        if let Some(length) = framing.length {
            write_length(length, out);
        }
        if framing.is_chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if !framing.keeps_alive {
            if !closes_connection(headers) {
                out.extend_from_slice(b"connection: close\r\n");
            }
        } else if framing.announces_keep_alive {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !headers.contains_key(DATE) {
            write_field(DATE.as_str(), date::current_date().as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    });
}

fn write_length(length: u64, out: &mut BytesMut) {
    write!(out, "content-length: {length}\r\n").expect("writing to memory cannot fail");
}

fn write_field(name: &str, value: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use http::HeaderValue;

    use super::*;

    fn written(mut out: WriteBuffer) -> String {
        let mut io = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(out.poll_write(&mut io, &mut cx), Poll::Ready(Ok(()))));
        String::from_utf8(io).expect("ASCII")
    }

    #[test]
    fn the_framing_replaces_the_framing_fields_of_a_request() {
        let request = |framing| {
            let request = Request::post("https://it/v1/responses?a=1")
                .header("content-length", "9")
                .header("transfer-encoding", "gzip")
                .header("accept", "*/*")
                .body(())
                .expect("a request");
            let mut out = WriteBuffer::default();
            write_request(&request, framing, &mut out);
            written(out)
        };
        let head = "POST /v1/responses?a=1 HTTP/1.1\r\naccept: */*\r\n";
        assert_eq!(request(Framing::None), format!("{head}content-length: 0\r\n\r\n"));
        assert_eq!(request(Framing::Length(5)), format!("{head}content-length: 5\r\n\r\n"));
        assert_eq!(
            request(Framing::Chunked),
            format!("{head}transfer-encoding: chunked\r\n\r\n")
        );
    }

    #[test]
    fn a_response_head_says_how_its_body_and_its_connection_end() {
        let response = |status, headers: &[(&'static str, &'static str)], framing: ResponseFraming| {
            let mut map = HeaderMap::new();
            for (name, value) in headers.iter().chain(&[("date", "now")]) {
                map.append(*name, HeaderValue::from_static(value));
            }
            let mut out = WriteBuffer::default();
            write_response(status, &map, &framing, &mut out);
            written(out)
        };
        let framing = |length, is_chunked, keeps_alive, announces_keep_alive| ResponseFraming {
            length,
            is_chunked,
            keeps_alive,
            announces_keep_alive,
        };
        assert_eq!(
            response(StatusCode::OK, &[], framing(Some(7), false, true, false)),
            "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 7\r\n\r\n"
        );
        assert_eq!(
            response(StatusCode::OK, &[], framing(None, true, false, false)),
            "HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            response(
                StatusCode::OK,
                &[("connection", "close")],
                framing(None, false, false, true)
            ),
            "HTTP/1.1 200 OK\r\nconnection: close\r\ndate: now\r\n\r\n"
        );
        assert_eq!(
            response(
                StatusCode::NO_CONTENT,
                &[("content-length", "3")],
                framing(None, false, true, true)
            ),
            "HTTP/1.1 204 No Content\r\ndate: now\r\nconnection: keep-alive\r\n\r\n"
        );
    }
}
