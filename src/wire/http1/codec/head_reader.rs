//! Heads of requests and responses (RFC 9112 sections 2 to 6), read.
//!
//! httparse finds the parts; what a message's end depends on is read here, strictly: where two recipients could see two
//! different messages, the head is refused (section 11.2).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
};

use crate::wire::body::relay::Framing;
use crate::wire::{http1::MAX_HEAD, http1::codec::body_decoder::Decoder};

/// More fields than this are no request of anyone's.
const MAX_FIELDS: usize = 100;
/// Room for fields that are added on the way: a map that grows is made anew.
const ADDED: usize = 6;
/// The first bytes of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Why a head cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum HeadError {
    /// It is no HTTP/1.
    Malformed(&'static str),
    /// It is longer, or has more fields, than is read.
    TooLarge,
    /// It does not say where its body ends, or says it twice.
    Framing(&'static str),
    /// It is the beginning of HTTP/2.
    Http2,
}

impl HeadError {
    /// What is wrong, for a log.
    pub fn problem(self) -> &'static str {
        match self {
            Self::Malformed(problem) | Self::Framing(problem) => problem,
            Self::TooLarge => "the head is too large",
            Self::Http2 => "it is HTTP/2",
        }
    }
}

/// The head of a request. It has no `Debug`, which would show the caller's credential.
pub(in crate::wire) struct RequestHead {
    pub request: Request<()>,
    pub framing: Framing,
    /// Another request may follow on the connection.
    pub keeps_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// The head of a response.
pub(in crate::wire) struct ResponseHead {
    pub response: Response<()>,
    pub decoder: Decoder,
    pub keeps_alive: bool,
}

/// Takes a request's head off `pending`; `None` when the rest of it is still to come.
pub(in crate::wire) fn request(pending: &mut Bytes) -> Result<Option<RequestHead>, HeadError> {
    if pending.starts_with(HTTP2_PREFACE) {
        return Err(HeadError::Http2);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(pending, &mut fields).map_err(refused)?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    if length > MAX_HEAD {
        return Err(HeadError::TooLarge);
    }
    if has_bare_line_feed(pending.get(..length).unwrap_or_default()) {
        return Err(HeadError::Malformed("a line ends in a bare line feed"));
    }
    let method = Method::from_bytes(head.method.unwrap_or_default().as_bytes());
    let target = head.path.unwrap_or_default();
    if target.len() >= usize::from(u16::MAX) {
        return Err(HeadError::TooLarge);
    }
    if target.contains('#') {
        return Err(HeadError::Malformed("the target has a fragment"));
    }
    let mut request = Request::new(());
    *request.method_mut() = method.map_err(|_| HeadError::Malformed("the method is none"))?;
    *request.uri_mut() = Uri::from_maybe_shared(pending.slice_ref(target.as_bytes()))
        .map_err(|_| HeadError::Malformed("the target is none"))?;
    *request.version_mut() = version(head.version);
    *request.headers_mut() = headers(pending, head.headers)?;
    let _ = pending.split_to(length);
    let version = request.version();
    let (framing, is_contradictory) = request_framing(version, request.headers_mut())?;
    let is_persistent = persists(version, request.headers());
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

/// Takes the head of a response to `method` off `pending`; `None` when the rest of it is still to come.
pub(in crate::wire) fn response(pending: &mut Bytes, method: &Method) -> Result<Option<ResponseHead>, HeadError> {
    if pending.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut head, pending, &mut fields)
        .map_err(refused)?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.code.unwrap_or_default()).map_err(|_| HeadError::Malformed("the status is none"))?;
    *response.version_mut() = version(head.version);
    *response.headers_mut() = headers(pending, head.headers)?;
    let _ = pending.split_to(length);
    let decoder = response_framing(method, &response)?;
    let keeps_alive = persists(response.version(), response.headers()) && decoder != Decoder::UntilClose;
    Ok(Some(ResponseHead {
        response,
        decoder,
        keeps_alive,
    }))
}

fn refused(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName => HeadError::Malformed("a field's name is none"),
        httparse::Error::HeaderValue => HeadError::Malformed("a field's value is none"),
        httparse::Error::NewLine => HeadError::Malformed("a line does not end as it should"),
        httparse::Error::Status => HeadError::Malformed("the status is none"),
        httparse::Error::Token => HeadError::Malformed("the first line is none"),
        httparse::Error::Version => HeadError::Malformed("the version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

/// Whether a line ends without a carriage return. httparse takes that, as it may (RFC 9112 section 2.2); but whoever is in
/// front of us may have taken it for a part of a value, with a field behind it that only we would read.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head.get(at - 1) != Some(&b'\r'))
}

fn version(minor: Option<u8>) -> Version {
    match minor {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

/// The fields, as windows on `head`.
fn headers(head: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + ADDED);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadError::Malformed("a field's name is none"))?;
        // SAFETY: httparse takes a value of visible ASCII, spaces, tabs and bytes from 0x80 on, and nothing else: exactly
        // what a `HeaderValue` may hold. A test asks it about every byte.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(head.slice_ref(field.value)) };
        headers.append(name, value);
    }
    Ok(headers)
}

/// Where a request's body ends (RFC 9112 section 6.3), and whether it said so twice: then the coding holds, the length
/// goes, and nothing may follow on the connection (section 6.1).
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

/// Where a response's body ends (RFC 9112 section 6.3).
fn response_framing(method: &Method, response: &Response<()>) -> Result<Decoder, HeadError> {
    let status = response.status();
    let has_none = method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_none {
        return Ok(Decoder::EMPTY);
    }
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(content_length(response.headers())?.map_or(Decoder::UntilClose, Decoder::Length)),
        (Some(coding), None) if is_chunked(coding) => Ok(Decoder::CHUNKED),
        // We name no coding that we take, so there can be no other.
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
        .ok_or(HeadError::Framing("has a Content-Length that is no number"))
}

/// Whether the connection outlives the message (RFC 9112 section 9.3).
fn persists(version: Version, headers: &HeaderMap) -> bool {
    let names = |option: &str| {
        headers.get_all(CONNECTION).iter().any(|value| {
            let mut options = value.as_bytes().split(|byte| *byte == b',');
            options.any(|named| named.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
        })
    };
    !names("close") && (version == Version::HTTP_11 || names("keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Option<RequestHead>, HeadError> {
        request(&mut Bytes::copy_from_slice(text))
    }

    #[test]
    fn a_value_holds_only_what_a_header_value_may() {
        for byte in 0..=u8::MAX {
            let mut text = b"GET / HTTP/1.1\r\nhost: it\r\nx: a".to_vec();
            text.push(byte);
            text.extend_from_slice(b"b\r\n\r\n");
            if let Ok(Some(head)) = read(&text) {
                let value = head.request.headers().get("x").expect("it stands there");
                assert!(HeaderValue::from_bytes(value.as_bytes()).is_ok(), "{byte:#x}");
                assert_eq!(value.as_bytes(), [b'a', byte, b'b']);
            }
        }
    }

    #[test]
    fn lines_end_in_both_characters() {
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
    fn framing_has_one_reading() {
        let framing = |lines: &str| {
            let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            let head = read(text.as_bytes())?.expect("whole");
            Ok((head.framing, head.keeps_alive))
        };
        assert_eq!(framing(""), Ok((Framing::None, true)));
        assert_eq!(framing("content-length: 7\r\n"), Ok((Framing::Length(7), true)));
        assert_eq!(framing("transfer-encoding: Chunked \r\n"), Ok((Framing::Chunked, true)));
        // Whoever sent both may have had a reader in front that believed the other.
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
    fn a_response_ends_where_its_head_says() {
        let framing = |method: Method, head: &str| {
            let mut pending = Bytes::from(format!("HTTP/1.1 {head}\r\n\r\n"));
            response(&mut pending, &method).map(|head| head.map(|head| (head.decoder, head.keeps_alive)))
        };
        let length = "200 OK\r\ncontent-length: 7";
        assert_eq!(framing(Method::GET, length), Ok(Some((Decoder::Length(7), true))));
        assert_eq!(framing(Method::HEAD, length), Ok(Some((Decoder::EMPTY, true))));
        assert_eq!(
            framing(Method::GET, "304 Not Modified\r\ncontent-length: 7"),
            Ok(Some((Decoder::EMPTY, true)))
        );
        assert_eq!(
            framing(Method::GET, "200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked"),
            Ok(Some((Decoder::CHUNKED, true)))
        );
        assert_eq!(framing(Method::GET, "200 OK"), Ok(Some((Decoder::UntilClose, false))));
        assert_eq!(
            framing(Method::GET, "200 OK\r\nconnection: close\r\ncontent-length: 7"),
            Ok(Some((Decoder::Length(7), false)))
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
