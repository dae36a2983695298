//! Copies of texts from a request's head, short enough to be kept or shown.

use http::HeaderValue;

/// The longest text of a caller that a message or a log line repeats, in characters.
const MAX_SHOWN: usize = 200;

/// A caller's text for a message or a log line, cut to [`MAX_SHOWN`] characters.
pub(super) fn truncated(text: &str) -> String {
    if text.len() <= MAX_SHOWN {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_SHOWN).collect();
    short.push('…');
    short
}

/// Copies a value into its own memory. The values of a head are views of a buffer that many requests share, and a view
/// that is kept for a long time would keep the whole buffer.
pub(super) fn deep_copy(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).expect("the bytes of a header value are valid in a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(truncated("short"), "short");
        assert_eq!(truncated(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(truncated(&"é".repeat(201)), format!("{}…", "é".repeat(200)));
    }

    #[test]
    fn a_deep_copy_is_equal() {
        for value in [&b""[..], b"abc", b"caf\xe9"] {
            let value = HeaderValue::from_bytes(value).expect("a valid value");
            assert_eq!(deep_copy(&value), value);
        }
    }
}
