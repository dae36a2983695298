//! Checks that every server reads a path the same way.
//!
//! An upstream may normalise a path in its own way, and then serve another path than the one that Steadfast has
//! checked. Nothing is therefore normalised here: a path that two servers could read differently (RFC 3986 sections
//! 5.2.4 and 6.2.2) is refused, and any other path is passed on as it was received.

use crate::fault::Fault;

/// Checks that a path has only one reading.
///
/// # Errors
/// [`Fault::AmbiguousTarget`] if it has several.
pub(super) fn check(path: &str) -> Result<(), Fault> {
    const CONTROL: &str = "has an encoded control character in its path";
    let refuse = |problem| Err(Fault::AmbiguousTarget { problem });
    if !path.starts_with('/') {
        return refuse("is not an absolute path");
    }
    let bytes = path.as_bytes();
    if memchr::memmem::find(bytes, b"//").is_some() {
        return refuse("has an empty path segment (//)");
    }
    if memchr::memchr3(b'\\', b'#', b';', bytes).is_some() {
        return refuse("has a character in its path that servers interpret differently (\\, # or ;)");
    }
    let mut has_encoded_slash = false;
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'%', rest) {
        rest = &rest[at + 1..];
        match rest.get(..2) {
            Some(b"2e" | b"2E") => return refuse("has an encoded dot (%2e) in its path"),
            Some(b"5c" | b"5C") => return refuse("has an encoded backslash (%5c) in its path"),
            Some([b'0' | b'1', digit]) if digit.is_ascii_hexdigit() => return refuse(CONTROL),
            Some(b"7f" | b"7F") => return refuse(CONTROL),
            Some(b"2f" | b"2F") => has_encoded_slash = true,
            Some(b"25")
                if rest
                    .get(2..4)
                    .is_some_and(|more| more.iter().all(u8::is_ascii_hexdigit)) =>
            {
                return refuse("has a doubly encoded character (%25) in its path");
            }
            Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {}
            _ => return refuse("has a percent sign that is not followed by two hexadecimal digits"),
        }
    }
    if !path.is_ascii() {
        return refuse("has a character in its path that must be percent-encoded");
    }
    // Lenient decoders accept overlong forms of dots and slashes (RFC 3629 section 10).
    if percent_encoding::percent_decode_str(path).decode_utf8().is_err() {
        return refuse("has encoded bytes in its path that are not UTF-8");
    }
    if has_dot_segment(path) {
        return refuse("has a dot segment (. or ..) in its path");
    }
    // A server that decodes %2f before it splits the path must find no other segments than Steadfast did.
    if has_encoded_slash {
        let decoded = path.replace("%2f", "/").replace("%2F", "/");
        if has_dot_segment(&decoded) || decoded.contains("//") {
            return refuse("has a dot segment or an empty segment next to an encoded slash (%2f)");
        }
    }
    Ok(())
}

fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| segment == "." || segment == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_one_reading_are_accepted() {
        for path in [
            "/",
            "/v1/responses",
            "/v1/responses/",
            "/v1/models/org%2Fname",
            "/v1/models/org%2fname.with...dots",
            "/v1/a%20b%C3%A9",
            "/v1/a:b@c,d=e&f$g!h'(i)*j+k~l",
            "/v1/100%25",
            "/v1/.well-known",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn paths_with_several_readings_are_refused() {
        for (path, problem) in [
            ("v1", "absolute"),
            ("*", "absolute"),
            ("/v1/../admin", "dot segment"),
            ("/v1/./responses", "dot segment"),
            ("/v1/responses/..", "dot segment"),
            ("/v1/%2e%2e/x", "%2e"),
            ("/v1/a%2Eb", "%2e"),
            ("/v1//responses", "//"),
            ("//v1/responses", "//"),
            ("/v1/a\\b", ";"),
            ("/v1/a#b", ";"),
            ("/v1/a;b=c", ";"),
            ("/v1/a%5cb", "%5c"),
            ("/v1/a%00", "control"),
            ("/v1/a%1f", "control"),
            ("/v1/a%7f", "control"),
            ("/v1/..%2fadmin", "%2f"),
            ("/v1/x/..%2F..%2Fadmin", "%2f"),
            ("/v1/x%2f.", "%2f"),
            ("/v1/x%2f/y", "%2f"),
            ("/v1/a%", "percent sign"),
            ("/v1/a%1", "percent sign"),
            ("/v1/a%zz", "percent sign"),
            ("/v1/%252e%252e/x", "%25"),
            ("/v1/a%252Fb", "%25"),
            ("/v1/%c0%ae%c0%ae/x", "UTF-8"),
            ("/v1/%e0%80%af", "UTF-8"),
            ("/v1/a%ff", "UTF-8"),
            ("/v1/a\u{e9}", "percent-encoded"),
        ] {
            match check(path) {
                Err(Fault::AmbiguousTarget { problem: told }) => assert!(told.contains(problem), "{path}: {told}"),
                other => panic!("{path}: {other:?}"),
            }
        }
    }
}
