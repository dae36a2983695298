//! The limits on message heads that HTTP/1.1 and HTTP/2 share.

use http::HeaderMap;

/// The maximum size of a message head in bytes, on both sides. Codex sends heads of about 2 KB.
pub(in crate::wire) const MAX_HEAD_BYTES: usize = 64 << 10;
/// The maximum number of header fields in a head.
pub(in crate::wire) const MAX_FIELDS: usize = 100;
/// The size of a head over HTTP/2 that is still decoded, in bytes as RFC 9113 section 6.5.2 counts them: 32 bytes more
/// for each field. It is larger than [`MAX_HEAD_BYTES`], so that a head over that limit can be refused with a reason. The
/// h2 library itself refuses a larger head, without a reason.
pub(in crate::wire) const MAX_DECODED_HEAD: u32 = 2 * MAX_HEAD_BYTES as u32;
/// The maximum size of a body's trailers in bytes.
pub(in crate::wire) const MAX_TRAILER_BYTES: usize = 16 << 10;

/// The size in bytes that `fields` have in a message of HTTP/1.1: each with a colon, a space and a line ending.
pub(in crate::wire) fn written_size(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// Whether a head that has arrived over HTTP/2 is too large for HTTP/1.1. Its first line would have `first_line` bytes.
pub(in crate::wire) fn is_head_too_large(first_line: usize, fields: &HeaderMap) -> bool {
    const LAST_LINE: usize = 2;
    fields.len() > MAX_FIELDS || first_line + written_size(fields) + LAST_LINE > MAX_HEAD_BYTES
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_head_has_the_same_size_over_both_versions() {
        let line = "GET / HTTP/1.1\r\n";
        let mut fields = HeaderMap::new();
        fields.append("host", HeaderValue::from_static("it"));
        fields.append("cookie", HeaderValue::from_static("a=1"));
        fields.append("cookie", HeaderValue::from_static("b=2"));
        let head = format!("{line}host: it\r\ncookie: a=1\r\ncookie: b=2\r\n\r\n");
        assert_eq!(line.len() + written_size(&fields) + 2, head.len());
        let rest = MAX_HEAD_BYTES - head.len() - "x: \r\n".len();
        for (length, is_too_large) in [(rest, false), (rest + 1, true)] {
            fields.insert("x", HeaderValue::from_bytes(&vec![b'x'; length]).expect("a value"));
            assert_eq!(is_head_too_large(line.len(), &fields), is_too_large, "{length}");
        }
    }

    #[test]
    fn every_line_counts_as_a_field() {
        let mut fields = HeaderMap::new();
        for _ in 0..MAX_FIELDS {
            fields.append(HeaderName::from_static("cookie"), HeaderValue::from_static("a"));
        }
        assert!(!is_head_too_large(0, &fields));
        fields.append("x", HeaderValue::from_static("a"));
        assert!(is_head_too_large(0, &fields));
    }
}
