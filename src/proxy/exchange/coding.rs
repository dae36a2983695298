//! Makes compressed answers readable.
//!
//! Most requests ask upstreams for plain answers. If an upstream with a configured credential compresses an answer, the
//! answer must be searched for the credential, and its events and usage can be read only without the coding. So it is
//! decompressed, and the caller receives it plain. An answer in a coding that Steadfast cannot read does not reach the caller.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG},
};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    scan::{Encoding, EncodingKind, StreamDecoder},
    state::Upstream,
    wire::{PieceDecoder, Relay, SendError},
};

/// The maximum time to wait for the first bytes of a compressed body.
const BEGINNING_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of bytes by which a coding is recognized.
const BEGINNING: usize = 4;

/// Whether an answer names a content coding and must be readable.
#[inline]
pub(super) fn must_be_decoded(response: &Response<Relay>, upstream: &Upstream) -> bool {
    response.headers().contains_key(CONTENT_ENCODING)
        && !upstream.confidential.is_empty()
        && !response.body().is_end_stream()
}

/// Makes an answer of `upstream` plain. The body of an error or a redirect that cannot be read is dropped, because the
/// status says most.
///
/// # Errors
/// If the answer is a success and cannot be read.
pub(super) async fn decode(mut response: Response<Relay>, upstream: &Upstream) -> Result<Response<Relay>, SendError> {
    let status = response.status();
    let encoding = match answer_coding(response.headers()) {
        EncodingKind::Identity => return Ok(response),
        // A part of a compressed body cannot be decompressed.
        EncodingKind::Known(encoding) if status != StatusCode::PARTIAL_CONTENT => encoding,
        EncodingKind::Known(_) | EncodingKind::Unknown if status.is_success() => {
            let why = "it compressed its answer in a way that it was not asked for and that cannot be read";
            return Err(SendError::Broken(why.to_owned()));
        }
        EncodingKind::Known(_) | EncodingKind::Unknown => {
            let (upstream, status) = (&*upstream.name, status.as_u16());
            tracing::warn!(
                upstream,
                status,
                "the body of an error is dropped, because it is compressed in a way that cannot be read"
            );
            response.body_mut().empty();
            for name in [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG] {
                response.headers_mut().remove(name);
            }
            return Ok(response);
        }
    };
    if !is_applied(encoding, response.body_mut()).await {
        return Ok(response);
    }
    let decoder = StreamDecoder::new(encoding).map_err(|error| SendError::Broken(error.to_string()))?;
    response.body_mut().decode(Box::new(AnswerDecoder(decoder)));
    describe_plain(response.headers_mut());
    Ok(response)
}

/// The coding of an answer. Several codings count as unknown.
fn answer_coding(headers: &HeaderMap) -> EncodingKind {
    /// Values that name no coding, and that misconfigured servers send.
    const MISNOMERS: [&str; 6] = ["none", "utf-8", "utf8", "binary", "8bit", "7bit"];
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let mut found = EncodingKind::Identity;
    for name in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let name = std::str::from_utf8(name).unwrap_or("not text").trim();
        let kind = match MISNOMERS.iter().any(|misnomer| misnomer.eq_ignore_ascii_case(name)) {
            true => EncodingKind::Identity,
            false => Encoding::from_header(name),
        };
        found = match (found, kind) {
            (found, EncodingKind::Identity) => found,
            (EncodingKind::Identity, kind) => kind,
            _ => EncodingKind::Unknown,
        };
    }
    found
}

/// Whether a body begins as one with `encoding` does. A body without the coding is passed on as it is.
async fn is_applied(encoding: Encoding, relay: &mut Relay) -> bool {
    let deadline = Instant::now() + BEGINNING_TIMEOUT;
    let mut beginning = Vec::new();
    while beginning.len() < BEGINNING {
        match timeout_at(deadline, relay.read_ahead()).await {
            Ok(Some(Ok(piece))) => beginning.extend_from_slice(&piece),
            Ok(None) if beginning.is_empty() => return false,
            Ok(None | Some(Err(_))) | Err(_) => break,
        }
    }
    encoding.can_begin_with(&beginning)
}

/// Makes the headers of a compressed answer describe the plain one.
fn describe_plain(headers: &mut HeaderMap) {
    for name in [CONTENT_ENCODING, CONTENT_LENGTH, ACCEPT_RANGES] {
        headers.remove(name);
    }
    // A strong validator is one of the compressed bytes (RFC 9110 section 8.8.3).
    if let Some(etag) = headers.get_mut(ETAG)
        && etag.as_bytes().starts_with(b"\"")
    {
        let weak = [b"W/", etag.as_bytes()].concat();
        *etag = HeaderValue::from_maybe_shared(Bytes::from(weak)).expect("ASCII before a value is a value");
    }
}

/// The decompression of an answer.
struct AnswerDecoder(StreamDecoder);

impl PieceDecoder for AnswerDecoder {
    fn push(&mut self, encoded: Bytes) {
        self.0.push(encoded);
    }

    fn next_piece(&mut self) -> Result<Option<Bytes>, String> {
        self.0.next_piece().map_err(|_| INVALID.to_owned())
    }

    fn finish(&mut self) -> Result<Option<Bytes>, String> {
        self.0.finish().map_err(|_| INVALID.to_owned())
    }
}

/// Why a body could not be decompressed.
const INVALID: &str = "its compressed body is not valid";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    #[test]
    fn one_known_coding_is_readable() {
        use EncodingKind::{Identity, Known, Unknown};
        for (sent, expected) in [
            (&["identity"][..], Identity),
            (&["UTF-8"], Identity),
            (&["none"], Identity),
            (&[""], Identity),
            (&["gzip"], Known(Encoding::Gzip)),
            (&["identity, ZSTD"], Known(Encoding::Zstd)),
            (&["identity", "deflate"], Known(Encoding::Deflate)),
            (&["gzip, gzip"], Unknown),
            (&["gzip", "zstd"], Unknown),
            (&["br"], Unknown),
            (&["\u{e9}"], Unknown),
        ] {
            let fields: Vec<(&str, &str)> = sent.iter().map(|value| ("content-encoding", *value)).collect();
            assert_eq!(answer_coding(&headers(&fields)), expected, "{sent:?}");
        }
    }

    #[test]
    fn the_headers_of_a_plain_answer_name_no_coding() {
        let mut map = headers(&[
            ("content-encoding", "gzip"),
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("content-type", "text/plain"),
            ("etag", "\"a\""),
        ]);
        describe_plain(&mut map);
        assert_eq!(map.len(), 2);
        assert_eq!(
            (&map[ETAG], &map[CONTENT_TYPE]),
            (&"W/\"a\"".parse().unwrap(), &"text/plain".parse().unwrap())
        );
    }
}
