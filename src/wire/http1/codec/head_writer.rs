//! Heads of requests and responses (RFC 9112 sections 2 to 6), written.

use std::fmt::Write as _;

use bytes::BytesMut;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
};

use crate::wire::body::relay::Framing;
use crate::wire::{http1::codec::date, http1::codec::write_buffer::Outbound};

/// Writes the head of a request in origin form. What delimits its body is `framing`, whatever the fields say.
pub(in crate::wire) fn write_request<B>(request: &Request<B>, framing: Framing, out: &mut Outbound) {
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
            // These have a body as a rule, so its absence is worth saying (RFC 9110 section 8.6).
            Framing::None if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) => {
                write_length(0, out);
            }
            Framing::None => {}
        }
        out.extend_from_slice(b"\r\n");
    });
}

/// What a response's head says beside its fields.
pub(in crate::wire) struct Closing {
    /// The length of a body whose head names none.
    pub length: Option<u64>,
    pub is_chunked: bool,
    pub keeps_alive: bool,
    /// The client would not expect that of its version.
    pub says_keep_alive: bool,
}

/// Whether a response's own fields end the connection.
pub(in crate::wire) fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Writes the head of a response.
pub(in crate::wire) fn write_response(status: StatusCode, headers: &HeaderMap, closing: &Closing, out: &mut Outbound) {
    out.append(|out| {
        out.reserve(512);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(status.canonical_reason().unwrap_or("Status").as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in headers {
            // It may have none (RFC 9110 section 8.6), and a reader that believes one would wait for it.
            if status != StatusCode::NO_CONTENT || name != CONTENT_LENGTH {
                write_field(name.as_str(), value.as_bytes(), out);
            }
        }
        if let Some(length) = closing.length {
            write_length(length, out);
        }
        if closing.is_chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if !closing.keeps_alive {
            if !says_close(headers) {
                out.extend_from_slice(b"connection: close\r\n");
            }
        } else if closing.says_keep_alive {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !headers.contains_key(DATE) {
            write_field(DATE.as_str(), date::now().as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    });
}

fn write_length(length: u64, out: &mut BytesMut) {
    // Writing to memory cannot fail.
    let _ = write!(out, "content-length: {length}\r\n");
}

fn write_field(name: &str, value: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
