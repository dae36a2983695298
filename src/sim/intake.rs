//! Request bodies. They are read at the speed that a script allows, decompressed, and parsed.

use std::io::{self, Read as _};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use super::act::Read;
use super::api_error::ApiError;
use super::lenient;
use super::recorder::{Ending, RequestGuard};

/// The maximum size of a body in bytes, as sent and after decompression.
pub(super) const MAX_BODY: usize = 64 << 20;

/// Reads a whole body.
pub(super) async fn read(mut body: Incoming, how: Read, guard: &mut RequestGuard) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            guard.end(Ending::Aborted);
            return Err(ApiError::broken_body());
        };
        let Ok(piece) = frame.into_data() else { continue };
        guard.record_piece(&piece);
        if let Read::Slow { bytes, every } = how {
            let intervals = piece.len().div_ceil(bytes.max(1));
            sleep(every.saturating_mul(u32::try_from(intervals).unwrap_or(u32::MAX))).await;
        }
        if first.len() + joined.len() + piece.len() > MAX_BODY {
            return Err(ApiError::too_large(MAX_BODY));
        }
        // Most bodies arrive in one piece, which is not copied.
        if first.is_empty() {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// Returns the body without its content encoding (RFC 9110, section 8.4).
pub(super) fn decompress(headers: &HeaderMap, raw: &Bytes) -> Result<Bytes, ApiError> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else {
        return Ok(raw.clone());
    };
    let encoding = String::from_utf8_lossy(encoding.as_bytes()).trim().to_ascii_lowercase();
    match encoding.as_str() {
        "" | "identity" => Ok(raw.clone()),
        "zstd" => inflate(&encoding, zstd::stream::read::Decoder::with_buffer(raw.as_ref())),
        "gzip" | "x-gzip" => inflate(&encoding, Ok(flate2::read::MultiGzDecoder::new(raw.as_ref()))),
        "deflate" => inflate(&encoding, Ok(flate2::read::ZlibDecoder::new(raw.as_ref()))),
        _ => Err(ApiError::unknown_encoding(&encoding)),
    }
}

fn inflate(encoding: &str, decoder: io::Result<impl io::Read>) -> Result<Bytes, ApiError> {
    let broken = |_| ApiError::undecodable(encoding);
    let mut plain = Vec::new();
    let mut bounded = decoder.map_err(broken)?.take(MAX_BODY as u64 + 1);
    bounded.read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > MAX_BODY {
        return Err(ApiError::too_large(MAX_BODY));
    }
    Ok(plain.into())
}

/// Parses the body as JSON.
pub(super) fn parse(plain: &[u8]) -> Result<Value, ApiError> {
    lenient::parse(plain).map_err(|error| ApiError::not_json(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::{HeaderValue, StatusCode};

    use super::*;

    fn decoded(encoding: &'static str, raw: Vec<u8>) -> Result<Bytes, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
        decompress(&headers, &raw.into())
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_encoding_that_clients_use_is_decoded() {
        let plain = br#"{"model":"m"}"#;
        assert_eq!(
            decoded("zstd", zstd::encode_all(&plain[..], 3).unwrap()).unwrap(),
            &plain[..]
        );
        assert_eq!(decoded("GZIP", gzip(plain)).unwrap(), &plain[..]);
        assert_eq!(decoded("deflate", deflate(plain)).unwrap(), &plain[..]);
        assert_eq!(decoded("identity", plain.to_vec()).unwrap(), &plain[..]);
    }

    #[test]
    fn bodies_that_cannot_be_decoded_are_refused() {
        let whole = zstd::encode_all(&[b'x'; 1000][..], 3).unwrap();
        let status = |result: Result<Bytes, ApiError>| result.unwrap_err().status;
        assert_eq!(
            status(decoded("zstd", whole[..whole.len() - 2].to_vec())),
            StatusCode::BAD_REQUEST
        );
        assert_eq!(status(decoded("gzip", b"plain".to_vec())), StatusCode::BAD_REQUEST);
        assert_eq!(
            status(decoded("br", b"plain".to_vec())),
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let bomb = zstd::encode_all(io::repeat(0).take(MAX_BODY as u64 + 1), 1).unwrap();
        assert_eq!(status(decoded("zstd", bomb)), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(parse(b"{").unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
