//! Parses the heads of requests and responses (RFC 9112 sections 2 to 6).
//!
//! httparse finds the parts of a head. A head that two recipients could understand as two different messages is refused
//! (section 11.2).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, EXPECT},
};

use crate::wire::{
    body::framing::Framing,
    http1::codec::{
        body_decoder::BodyDecoder,
        message_framing::{ResponseBodyFraming, request_framing, response_framing},
    },
    limits::{MAX_FIELDS, MAX_HEAD_BYTES},
};

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
    let framing = request_framing(version, request.headers()).map_err(HeadError::Framing)?;
    let keeps_alive = is_persistent(version, request.headers());
    let expects_continue = version == Version::HTTP_11
        && request
            .headers()
            .get(EXPECT)
            .is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Some(RequestHead {
        request,
        framing,
        keeps_alive,
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
    if length > MAX_HEAD_BYTES {
        return Err(HeadError::TooLarge);
    }
    // An upstream that ends its lines in another way than it should may also have copied a line feed into a value. Then the
    // text after it is a header field for Steadfast only.
    let has_bare_line_feed = has_bare_line_feed(&pending[..length]);
    let mut response = Response::new(());
    let code = head.code.expect("httparse sets the status code of a complete response");
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("invalid status code"))?;
    *response.version_mut() = http_version(head.version);
    *response.headers_mut() = header_map(pending, head.headers)?;
    let _ = pending.split_to(length);
    let framing = response_framing(method, &mut response).map_err(HeadError::Framing)?;
    let ResponseBodyFraming { decoder, is_certain } = framing;
    let keeps_alive = is_certain && !has_bare_line_feed && is_persistent(response.version(), response.headers());
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
}
