//! The spellings of a credential in a body: each byte is written as it is, or as an escape.
//!
//! An escape of JSON is `\uXXXX` with a unit of UTF-16 in hexadecimal digits of either case, or `\/` for a slash. In JSON
//! that is quoted in a string of another JSON text, further backslashes precede the escape. An escape of a URL is `%XX`
//! with the byte. No URL needs it for an unreserved character (RFC 3986 section 2.3), so it is not recognized for those.

/// The maximum number of backslashes before an escape. That many are necessary for JSON inside JSON inside JSON inside
/// JSON.
pub(super) const MAX_BACKSLASHES: usize = 8;
/// The maximum length of one byte of a credential as an escape.
const MAX_ESCAPE: usize = MAX_BACKSLASHES + "u0000".len();

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The bytes do not begin with the credential.
    Different,
    /// All bytes are the beginning of the credential.
    Partial,
    /// The bytes begin with the credential, which has this length there.
    Equal(usize),
}

/// Whether a URL can contain `byte` without an escape wherever it is.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The maximum length of a `text` with escapes.
pub(super) fn max_length(text: &[u8]) -> usize {
    text.len() * MAX_ESCAPE
}

/// Compares the beginning of `bytes` with `text` in any spelling.
pub(super) fn compare(bytes: &[u8], text: &[u8]) -> Comparison {
    let (mut at, mut compared) = (0, 0);
    while let Some(&byte) = text.get(compared) {
        let rest = bytes.get(at..).expect("escapes end within the bytes");
        let found = match rest.first() {
            None => return Comparison::Partial,
            Some(found) => *found,
        };
        if found == byte && !matches!(found, b'\\' | b'%') {
            (at, compared) = (at + 1, compared + 1);
            continue;
        }
        // The first byte of an escape may also stand for itself.
        if found == byte {
            match compare(&rest[1..], &text[compared + 1..]) {
                Comparison::Different => {}
                Comparison::Partial => return Comparison::Partial,
                Comparison::Equal(length) => return Comparison::Equal(at + 1 + length),
            }
        }
        let (escape, length) = match found {
            b'\\' => compare_json_escape(rest, &text[compared..]),
            b'%' if !is_unreserved(byte) => (compare_hex(&rest[1..], &[byte >> 4, byte & 15]).after(1), 1),
            _ => return Comparison::Different,
        };
        match escape {
            Comparison::Equal(escape) => (at, compared) = (at + escape, compared + length),
            other => return other,
        }
    }
    Comparison::Equal(at)
}

/// The number of backslashes at the end of `bytes`, at most [`MAX_BACKSLASHES`].
pub(super) fn backslashes_at_end(bytes: &[u8]) -> usize {
    let run = bytes.iter().rev().take(MAX_BACKSLASHES);
    run.take_while(|byte| **byte == b'\\').count()
}

impl Comparison {
    /// The result for bytes with `length` further ones before them, which are equal.
    fn after(self, length: usize) -> Self {
        match self {
            Self::Equal(rest) => Self::Equal(length + rest),
            other => other,
        }
    }
}

/// Compares the escape of JSON with which `bytes` begin with the first character of `text`. Returns the length of that
/// character in `text` too.
fn compare_json_escape(bytes: &[u8], text: &[u8]) -> (Comparison, usize) {
    let start = &text[..text.len().min(4)];
    let valid = start.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let Some(character) = valid.chars().next() else {
        return (Comparison::Different, 0);
    };
    let run = backslashes_at_start(bytes);
    if character == '/' && run <= MAX_BACKSLASHES && bytes.get(run) == Some(&b'/') {
        return (Comparison::Equal(run + 1), 1);
    }
    let mut at = 0;
    for unit in character.encode_utf16(&mut [0; 2]) {
        match compare_unit(&bytes[at..], *unit) {
            Comparison::Equal(length) => at += length,
            other => return (other, 0),
        }
    }
    (Comparison::Equal(at), character.len_utf8())
}

/// Compares the beginning of `bytes` with the escape of a unit of UTF-16.
fn compare_unit(bytes: &[u8], unit: u16) -> Comparison {
    let run = backslashes_at_start(bytes);
    match bytes.get(run) {
        None if run <= MAX_BACKSLASHES => Comparison::Partial,
        Some(b'u') if (1..=MAX_BACKSLASHES).contains(&run) => {
            let digits = [12, 8, 4, 0].map(|shift| (unit >> shift) as u8 & 15);
            compare_hex(&bytes[run + 1..], &digits).after(run + 1)
        }
        _ => Comparison::Different,
    }
}

/// The number of backslashes at the beginning of `bytes`. All numbers above [`MAX_BACKSLASHES`] count as the next one.
fn backslashes_at_start(bytes: &[u8]) -> usize {
    let run = bytes.iter().take(MAX_BACKSLASHES + 1);
    run.take_while(|byte| **byte == b'\\').count()
}

/// Compares the beginning of `bytes` with these hexadecimal `digits`.
fn compare_hex(bytes: &[u8], digits: &[u8]) -> Comparison {
    let is_equal = |(byte, digit): (&u8, &u8)| char::from(*byte).to_digit(16) == Some(u32::from(*digit));
    match bytes.iter().zip(digits).all(is_equal) {
        false => Comparison::Different,
        true if bytes.len() < digits.len() => Comparison::Partial,
        true => Comparison::Equal(digits.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_equal_in_any_spelling() {
        let text = b"a/K";
        for (bytes, expected) in [
            ("a/K", Comparison::Equal(3)),
            ("a/Kx", Comparison::Equal(3)),
            (r"a\/K", Comparison::Equal(4)),
            (r"a\\/K", Comparison::Equal(5)),
            (r"\u0061\u002f\u004b", Comparison::Equal(18)),
            (r"a\u002FK", Comparison::Equal(8)),
            (r"\\u0061/\\\\u004B", Comparison::Equal(17)),
            (r"\\\\\\\\u0061/K", Comparison::Equal(15)),
            (r"\\\\\\\\\u0061/K", Comparison::Different),
            ("", Comparison::Partial),
            ("a", Comparison::Partial),
            (r"a\", Comparison::Partial),
            (r"a\\", Comparison::Partial),
            (r"a\u", Comparison::Partial),
            (r"a\u00", Comparison::Partial),
            (r"a\u002", Comparison::Partial),
            (r"a\u1", Comparison::Different),
            (r"a\u01", Comparison::Different),
            (r"a\u00e", Comparison::Different),
            (r"a\u00e9", Comparison::Different),
            (r"a\u012f", Comparison::Different),
            (r"a\n", Comparison::Different),
            (r"a\u00g", Comparison::Different),
            (r"\a/K", Comparison::Different),
            ("a%2FK", Comparison::Equal(5)),
            ("a%2fK", Comparison::Equal(5)),
            ("a%", Comparison::Partial),
            ("a%2", Comparison::Partial),
            ("a%3", Comparison::Different),
            ("%61/K", Comparison::Different),
            (r"a\\\\\\\\\/K", Comparison::Different),
            ("b", Comparison::Different),
            ("a/k", Comparison::Different),
        ] {
            assert_eq!(compare(bytes.as_bytes(), text), expected, "{bytes}");
        }
    }

    #[test]
    fn characters_of_every_length_are_compared() {
        let text = "aé你😀b".as_bytes();
        for (bytes, expected) in [
            ("aé你😀b", Comparison::Equal(11)),
            (r"a\u00e9\u4F60\ud83d\uDE00b", Comparison::Equal(26)),
            (r"a\\u00E9你\\ud83d\\ude00b", Comparison::Equal(26)),
            ("a%C3%a9%e4%bd%A0%F0%9f%98%80b", Comparison::Equal(29)),
            (r"a\u00e9\u4f60\ud83d", Comparison::Partial),
            (r"a\u00e9\u4f60\ud83d\u", Comparison::Partial),
            (r"a\u00e9\u4f60\ud83db", Comparison::Different),
            (r"a\u00e8", Comparison::Different),
            (r"a\u00e9\u4f61", Comparison::Different),
        ] {
            assert_eq!(compare(bytes.as_bytes(), text), expected, "{bytes}");
        }
        // The bytes of a password need not be text.
        assert_eq!(compare(b"\xc3%28\xff", b"\xc3(\xff"), Comparison::Equal(5));
        assert_eq!(compare(br"\u00c3", b"\xc3("), Comparison::Different);
    }

    #[test]
    fn the_first_byte_of_an_escape_may_stand_for_itself() {
        for (text, bytes, expected) in [
            (r"a\b", r"a\b", Comparison::Equal(3)),
            (r"a\b", r"a\u005cb", Comparison::Equal(8)),
            (r"a\b", r"a\u005", Comparison::Partial),
            (r"a\b", r"a\", Comparison::Partial),
            (r"a\b", r"a\u0062", Comparison::Different),
            (r"a\u005cb", r"a\u005cb", Comparison::Equal(8)),
            ("a%25b", "a%25b", Comparison::Equal(5)),
            ("a%25b", "a%2525b", Comparison::Equal(7)),
            ("a%25b", "a%2", Comparison::Partial),
            ("a%b", "a%25b", Comparison::Equal(5)),
            ("a%b", "a%b", Comparison::Equal(3)),
            ("a%b", "a%26b", Comparison::Different),
        ] {
            assert_eq!(compare(bytes.as_bytes(), text.as_bytes()), expected, "{text} {bytes}");
        }
    }

    #[test]
    fn backslashes_are_counted_up_to_the_bound() {
        for (bytes, expected) in [
            ("", 0),
            ("a", 0),
            (r"a\", 1),
            (r"\\", 2),
            (r"\\\\\\\\\\", 8),
            (r"\a", 0),
        ] {
            assert_eq!(backslashes_at_end(bytes.as_bytes()), expected, "{bytes}");
        }
    }
}
