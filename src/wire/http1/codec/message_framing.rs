//! The fields of a head that decide where its message ends (RFC 9112 section 6). They are parsed strictly: a head that two
//! recipients could understand as two different messages is refused (section 11.2).

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::wire::{
    body::framing::{Framing, content_length, response_may_have_body},
    http1::codec::body_decoder::BodyDecoder,
};

/// The framing of a request body (RFC 9112 section 6.3).
///
/// A request with both `Transfer-Encoding` and `Content-Length` is refused, as section 6.1 allows and nginx does. It is
/// most likely an attack: a proxy in front of Steadfast may have used the other field.
///
/// # Errors
/// If the head does not define unambiguously where its body ends. The text is a predicate of the message.
pub(in crate::wire) fn request_framing(version: Version, headers: &HeaderMap) -> Result<Framing, &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {
            let length = content_length(headers)?;
            Ok(length.map_or(Framing::None, Framing::Length))
        }
        (Some(_), Some(_)) => Err("has Transfer-Encoding twice"),
        (Some(_), None) if version != Version::HTTP_11 => Err("has Transfer-Encoding before HTTP/1.1"),
        (Some(_), None) if headers.contains_key(CONTENT_LENGTH) => Err("has both Transfer-Encoding and Content-Length"),
        (Some(coding), None) if is_chunked(coding) => Ok(Framing::Chunked),
        (Some(_), None) => Err("has a Transfer-Encoding other than plain chunked"),
    }
}

/// The framing of a response body.
pub(in crate::wire) struct ResponseBodyFraming {
    /// Finds the end of the body.
    pub decoder: BodyDecoder,
    /// Whether it is certain where the response ends. If not, the upstream may take other bytes for its end, so the
    /// connection must not be used again. The next response on it could belong to another caller.
    pub is_certain: bool,
}

/// The framing of a response body (RFC 9112 section 6.3). Removes a `Content-Length` that has no meaning, so that the
/// client cannot use it.
///
/// A response with both `Transfer-Encoding` and `Content-Length`, or with `Transfer-Encoding` and HTTP/1.0, is decoded as
/// its coding says. But its sender does not follow section 6.1, so its end is not certain.
///
/// # Errors
/// If the head does not define unambiguously where its body ends. The text is a predicate of the message.
pub(in crate::wire) fn response_framing(
    method: &Method,
    response: &mut Response<()>,
) -> Result<ResponseBodyFraming, &'static str> {
    let (status, version) = (response.status(), response.version());
    let may_have_body = response_may_have_body(method, status);
    let headers = response.headers_mut();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let framing = match (codings.next(), codings.next()) {
        (None, _) => {
            let length = content_length(headers)?;
            let decoder = match length {
                _ if !may_have_body => BodyDecoder::EMPTY,
                Some(length) => BodyDecoder::Length(length),
                None => BodyDecoder::UntilClose,
            };
            ResponseBodyFraming {
                decoder,
                is_certain: decoder != BodyDecoder::UntilClose && !(never_has_length(status) && length > Some(0)),
            }
        }
        (Some(coding), None) if is_chunked(coding) => ResponseBodyFraming {
            decoder: match may_have_body {
                true => BodyDecoder::CHUNKED,
                false => BodyDecoder::EMPTY,
            },
            is_certain: version == Version::HTTP_11
                && !headers.contains_key(CONTENT_LENGTH)
                && !never_has_length(status),
        },
        _ if !may_have_body => ResponseBodyFraming {
            decoder: BodyDecoder::EMPTY,
            is_certain: false,
        },
        // The request has no TE header, so the upstream may use no other transfer coding (RFC 9112 section 6.1).
        _ => return Err("has a Transfer-Encoding other than plain chunked"),
    };
    if headers.contains_key(TRANSFER_ENCODING) || never_has_length(status) {
        headers.remove(CONTENT_LENGTH);
    }
    Ok(framing)
}

/// Whether a response with this status must have neither `Content-Length` nor `Transfer-Encoding` (RFC 9110 section 8.6
/// and RFC 9112 section 6.1). A sender that sets one may also send a body.
fn never_has_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::http1::codec::head_reader::{HeadError, parse_request, parse_response};

    #[test]
    fn ambiguous_framing_is_refused() {
        let framing = |lines: &str| {
            let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            let head = parse_request(&mut Bytes::from(text))?.expect("complete");
            Ok((head.framing, head.keeps_alive))
        };
        assert_eq!(framing(""), Ok((Framing::None, true)));
        assert_eq!(framing("content-length: 7\r\n"), Ok((Framing::Length(7), true)));
        assert_eq!(framing("transfer-encoding: Chunked \r\n"), Ok((Framing::Chunked, true)));
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
            "content-length: 7\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
            "transfer-encoding: chunked\r\ncontent-length: x\r\n",
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
            framing(Method::GET, "200 OK\r\ntransfer-encoding: chunked"),
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

    #[test]
    fn a_connection_is_not_used_again_if_the_end_of_a_response_is_not_certain() {
        let cases = [
            (
                "1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked",
                BodyDecoder::CHUNKED,
            ),
            (
                "1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 0",
                BodyDecoder::CHUNKED,
            ),
            (
                "1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: x",
                BodyDecoder::CHUNKED,
            ),
            (
                "1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked",
                BodyDecoder::CHUNKED,
            ),
            (
                "1.1 304 Not Modified\r\ncontent-length: 7\r\ntransfer-encoding: chunked",
                BodyDecoder::EMPTY,
            ),
            ("1.1 304 Not Modified\r\ntransfer-encoding: gzip", BodyDecoder::EMPTY),
            ("1.1 204 No Content\r\ncontent-length: 7", BodyDecoder::EMPTY),
            ("1.1 204 No Content\r\ntransfer-encoding: chunked", BodyDecoder::EMPTY),
            ("1.1 103 Early Hints\r\ncontent-length: 7", BodyDecoder::EMPTY),
            ("1.1 200 OK\nx-a: 1\r\ntransfer-encoding: chunked", BodyDecoder::CHUNKED),
        ];
        for (head, decoder) in cases {
            let mut pending = Bytes::from(format!("HTTP/{head}\r\n\r\n"));
            let read = parse_response(&mut pending, &Method::GET)
                .expect("a valid head")
                .expect("complete");
            assert_eq!((read.decoder, read.keeps_alive), (decoder, false), "{head}");
            assert!(!read.response.headers().contains_key(CONTENT_LENGTH), "{head}");
        }
        for head in [
            "204 No Content",
            "204 No Content\r\ncontent-length: 0",
            "103 Early Hints",
        ] {
            let mut pending = Bytes::from(format!("HTTP/1.1 {head}\r\n\r\n"));
            let read = parse_response(&mut pending, &Method::GET)
                .expect("a valid head")
                .expect("complete");
            assert!(read.keeps_alive && read.response.headers().is_empty(), "{head}");
        }
    }
}
