//! Parses the heads of requests and responses (RFC 9112 sections 2 to 6).
//!
//! httparse finds the parts of a head. This module itself parses the fields that decide where a message ends, and does
//! so strictly: a head that two recipients could understand as two different messages is refused (section 11.2).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
};

use crate::wire::{
    body::framing::{Framing, response_may_have_body},
    http1::codec::body_decoder::BodyDecoder,
    limits::MAX_HEAD_BYTES,
};

/// The maximum number of header fields in a head.
const MAX_FIELDS: usize = 100;
/// The number of free entries in a header map for the fields that the proxy adds. A map that has to grow is allocated
/// again.
const SPARE_FIELDS: usize = 6;
/// The maximum length of a request target in bytes. It is the limit of the `http` crate.
const MAX_TARGET: usize = u16::MAX as usize - 1;
/// The first bytes of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The reasons why a head cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum HeadError {
    /// The head is not valid HTTP/1. The text says what is wrong.
    Malformed(&'static str),
    /// The head is longer than allowed, or has too many fields.
    TooLarge,
    /// The head does not define unambiguously where its body ends. The text is a predicate of the message.
    Framing(&'static str),
    /// The bytes are the connection preface of HTTP/2.
    Http2,
}

impl HeadError {
    /// A text for the log that says what is wrong with the head.
    pub fn problem(self) -> &'static str {
        match self {
            Self::Malformed(problem) | Self::Framing(problem) => problem,
            Self::TooLarge => "the head is too large",
            Self::Http2 => "the head is the connection preface of HTTP/2",
        }
    }
}

/// The head of a request. It has no `Debug` implementation, because that would show the caller's credential.
pub(in crate::wire) struct RequestHead {
    pub request: Request<()>,
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// The head of a response.
pub(in crate::wire) struct ResponseHead {
    pub response: Response<()>,
    /// Finds the end of the response's body.
    pub decoder: BodyDecoder,
    /// Whether another request may follow on the connection.
    pub keeps_alive: bool,
}

/// Parses the head at the beginning of `bytes`, and returns it with the framing of its body. Returns `None` if there is
/// no valid head.
#[doc(hidden)]
pub fn read_head(bytes: &[u8]) -> Option<(Request<()>, Framing)> {
    let head = parse_request(&mut Bytes::copy_from_slice(bytes)).ok()??;
    Some((head.request, head.framing))
}

/// Takes the head of a request from the front of `pending`. Returns `None` if it has not arrived completely.
pub(in crate::wire) fn parse_request(pending: &mut Bytes) -> Result<Option<RequestHead>, HeadError> {
    if pending.starts_with(HTTP2_PREFACE) {
        return Err(HeadError::Http2);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head
        .parse_with_uninit_headers(pending, &mut fields)
        .map_err(syntax_error)?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    if length > MAX_HEAD_BYTES {
        return Err(HeadError::TooLarge);
    }
    if has_bare_line_feed(&pending[..length]) {
        return Err(HeadError::Malformed("a line ends in a bare line feed"));
    }
    let method = head.method.expect("httparse sets the method of a complete request");
    let method = Method::from_bytes(method.as_bytes());
    let target = head.path.expect("httparse sets the target of a complete request");
    if target.len() > MAX_TARGET {
        return Err(HeadError::TooLarge);
    }
    if target.contains('#') {
        return Err(HeadError::Malformed("the request target has a fragment"));
    }
    let mut request = Request::new(());
    *request.method_mut() = method.map_err(|_| HeadError::Malformed("invalid method"))?;
    *request.uri_mut() = Uri::from_maybe_shared(pending.slice_ref(target.as_bytes()))
        .map_err(|_| HeadError::Malformed("invalid request target"))?;
    *request.version_mut() = http_version(head.version);
    *request.headers_mut() = header_map(pending, head.headers)?;
    let _ = pending.split_to(length);
    let version = request.version();
    let (framing, is_contradictory) = request_framing(version, request.headers_mut())?;
    let is_persistent = is_persistent(version, request.headers());
    let expects_continue = version == Version::HTTP_11
        && request
            .headers()
            .get(EXPECT)
            .is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Some(RequestHead {
        request,
        framing,
        keeps_alive: is_persistent && !is_contradictory,
        expects_continue,
    }))
}

/// Takes the head of a response to a request with `method` from the front of `pending`. Returns `None` if it has not
/// arrived completely.
pub(in crate::wire) fn parse_response(pending: &mut Bytes, method: &Method) -> Result<Option<ResponseHead>, HeadError> {
    if pending.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut head, pending, &mut fields)
        .map_err(syntax_error)?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let mut response = Response::new(());
    let code = head.code.expect("httparse sets the status code of a complete response");
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("invalid status code"))?;
    *response.version_mut() = http_version(head.version);
    *response.headers_mut() = header_map(pending, head.headers)?;
    let _ = pending.split_to(length);
    let decoder = response_framing(method, &response)?;
    let keeps_alive = is_persistent(response.version(), response.headers()) && decoder != BodyDecoder::UntilClose;
    Ok(Some(ResponseHead {
        response,
        decoder,
        keeps_alive,
    }))
}

fn syntax_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName => HeadError::Malformed("invalid header name"),
        httparse::Error::HeaderValue => HeadError::Malformed("invalid header value"),
        httparse::Error::NewLine => HeadError::Malformed("invalid line ending"),
        httparse::Error::Status => HeadError::Malformed("invalid status code"),
        httparse::Error::Token => HeadError::Malformed("invalid first line"),
        httparse::Error::Version => HeadError::Malformed("the version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

/// Whether a line ends without a carriage return. httparse accepts such a line, as RFC 9112 section 2.2 allows. But a
/// proxy in front of Steadfast may have read the line feed as part of a value. Then the text after it would be a header
/// field for Steadfast only.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

fn http_version(minor: Option<u8>) -> Version {
    match minor.expect("httparse sets the version of a complete head") {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

/// The header fields. Their values are slices of `head`.
fn header_map(head: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + SPARE_FIELDS);
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Malformed("invalid header name"))?;
        // SAFETY: httparse accepts in a value visible ASCII, spaces, tabs and bytes from 0x80 on, and nothing else. These
        // are the bytes that a `HeaderValue` may hold. A test checks every byte.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(head.slice_ref(field.value)) };
        headers.append(name, value);
    }
    Ok(headers)
}

/// The framing of a request body (RFC 9112 section 6.3), and whether the head has both `Transfer-Encoding` and
/// `Content-Length`. If it has both, the length is removed, and no further request may follow on the connection
/// (section 6.1).
fn request_framing(version: Version, headers: &mut HeaderMap) -> Result<(Framing, bool), HeadError> {
    let refuse = |problem| Err(HeadError::Framing(problem));
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {
            let length = content_length(headers)?;
            Ok((length.map_or(Framing::None, Framing::Length), false))
        }
        (Some(_), Some(_)) => refuse("has Transfer-Encoding twice"),
        (Some(_), None) if version != Version::HTTP_11 => refuse("has Transfer-Encoding before HTTP/1.1"),
        (Some(coding), None) if is_chunked(coding) => {
            let is_contradictory = headers.remove(CONTENT_LENGTH).is_some();
            Ok((Framing::Chunked, is_contradictory))
        }
        (Some(_), None) => refuse("has a Transfer-Encoding other than plain chunked"),
    }
}

/// The framing of a response body (RFC 9112 section 6.3).
fn response_framing(method: &Method, response: &Response<()>) -> Result<BodyDecoder, HeadError> {
    if !response_may_have_body(method, response.status()) {
        return Ok(BodyDecoder::EMPTY);
    }
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(content_length(response.headers())?.map_or(BodyDecoder::UntilClose, BodyDecoder::Length)),
        (Some(coding), None) if is_chunked(coding) => Ok(BodyDecoder::CHUNKED),
        // The request has no TE header, so the upstream may use no other transfer coding (RFC 9112 section 6.1).
        _ => Err(HeadError::Framing("has a Transfer-Encoding other than plain chunked")),
    }
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => return Ok(None),
        (Some(length), None) => length.as_bytes(),
        (Some(_), Some(_)) => return Err(HeadError::Framing("has Content-Length twice")),
    };
    let number = Some(length)
        .filter(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit))
        .and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    number
        .map(Some)
        .ok_or(HeadError::Framing("has a Content-Length that is not a number"))
}

/// Whether the connection stays open after the message (RFC 9112 section 9.3).
fn is_persistent(version: Version, headers: &HeaderMap) -> bool {
    let has_option = |wanted: &str| {
        headers.get_all(CONNECTION).iter().any(|value| {
            let mut options = value.as_bytes().split(|byte| *byte == b',');
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
        })
    };
    !has_option("close") && (version == Version::HTTP_11 || has_option("keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Option<RequestHead>, HeadError> {
        parse_request(&mut Bytes::copy_from_slice(text))
    }

    #[test]
    fn a_parsed_value_is_a_valid_header_value() {
        for byte in 0..=u8::MAX {
            let mut text = b"GET / HTTP/1.1\r\nhost: it\r\nx: a".to_vec();
            text.push(byte);
            text.extend_from_slice(b"b\r\n\r\n");
            if let Ok(Some(head)) = read(&text) {
                let value = head.request.headers().get("x").expect("the field exists");
                assert!(HeaderValue::from_bytes(value.as_bytes()).is_ok(), "{byte:#x}");
                assert_eq!(value.as_bytes(), [b'a', byte, b'b']);
            }
        }
    }

    #[test]
    fn a_line_must_end_in_cr_lf() {
        let head = "GET / HTTP/1.1\r\nhost: it\r\nx: a\r\n\r\n";
        assert!(matches!(read(head.as_bytes()), Ok(Some(_))));
        for (at, _) in head.match_indices('\r') {
            let mut without = head.to_owned();
            without.remove(at);
            assert!(
                matches!(read(without.as_bytes()), Err(HeadError::Malformed(_))),
                "{without:?}"
            );
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let framing = |lines: &str| {
            let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            let head = read(text.as_bytes())?.expect("complete");
            Ok((head.framing, head.keeps_alive))
        };
        assert_eq!(framing(""), Ok((Framing::None, true)));
        assert_eq!(framing("content-length: 7\r\n"), Ok((Framing::Length(7), true)));
        assert_eq!(framing("transfer-encoding: Chunked \r\n"), Ok((Framing::Chunked, true)));
        // A proxy in front may have used the other header, so nothing may follow on the connection.
        let both = "content-length: 7\r\ntransfer-encoding: chunked\r\n";
        assert_eq!(framing(both), Ok((Framing::Chunked, false)));
        for lines in [
            "content-length: 7\r\ncontent-length: 7\r\n",
            "content-length: +7\r\n",
            "content-length: 7, 7\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: xchunked\r\n",
            "transfer-encoding: \r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            let read = framing(lines);
            assert!(matches!(read, Err(HeadError::Framing(_))), "{lines}: {read:?}");
        }
    }

    #[test]
    fn the_head_of_a_response_decides_where_its_body_ends() {
        let framing = |method: Method, head: &str| {
            let mut pending = Bytes::from(format!("HTTP/1.1 {head}\r\n\r\n"));
            parse_response(&mut pending, &method).map(|head| head.map(|head| (head.decoder, head.keeps_alive)))
        };
        let length = "200 OK\r\ncontent-length: 7";
        assert_eq!(framing(Method::GET, length), Ok(Some((BodyDecoder::Length(7), true))));
        assert_eq!(framing(Method::HEAD, length), Ok(Some((BodyDecoder::EMPTY, true))));
        assert_eq!(
            framing(Method::GET, "304 Not Modified\r\ncontent-length: 7"),
            Ok(Some((BodyDecoder::EMPTY, true)))
        );
        assert_eq!(
            framing(Method::GET, "200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked"),
            Ok(Some((BodyDecoder::CHUNKED, true)))
        );
        assert_eq!(
            framing(Method::GET, "200 OK"),
            Ok(Some((BodyDecoder::UntilClose, false)))
        );
        assert_eq!(
            framing(Method::GET, "200 OK\r\nconnection: close\r\ncontent-length: 7"),
            Ok(Some((BodyDecoder::Length(7), false)))
        );
        for head in [
            "200 OK\r\ncontent-length: 7\r\ncontent-length: 8",
            "200 OK\r\ncontent-length: x",
            "200 OK\r\ntransfer-encoding: gzip, chunked",
        ] {
            assert!(framing(Method::GET, head).is_err(), "{head}");
        }
    }
}
