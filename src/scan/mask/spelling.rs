//! The spellings of a credential in a body: each byte is written as it is, or as an escape of JSON.
//!
//! An escape is `\u00XX` with the code of the byte in hexadecimal digits of either case, or `\/` for a slash. In JSON
//! that is quoted in a string of another JSON text, further backslashes precede the escape.

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

/// The maximum length of a `text` with escapes.
pub(super) fn max_length(text: &[u8]) -> usize {
    text.len() * MAX_ESCAPE
}

/// Compares the beginning of `bytes` with `text` in any spelling.
pub(super) fn compare(bytes: &[u8], text: &[u8]) -> Comparison {
    let mut at = 0;
    for &byte in text {
        let rest = bytes.get(at..).expect("escapes end within the bytes");
        match rest.first() {
            None => return Comparison::Partial,
            Some(&found) if found == byte => at += 1,
            Some(b'\\') => match read_escape(rest) {
                Escape::Incomplete => return Comparison::Partial,
                Escape::Byte { value, length } if value == byte => at += length,
                Escape::Byte { .. } | Escape::Other => return Comparison::Different,
            },
            Some(_) => return Comparison::Different,
        }
    }
    Comparison::Equal(at)
}

/// The number of backslashes at the end of `bytes`, at most [`MAX_BACKSLASHES`].
pub(super) fn backslashes_at_end(bytes: &[u8]) -> usize {
    let run = bytes.iter().rev().take(MAX_BACKSLASHES);
    run.take_while(|byte| **byte == b'\\').count()
}

/// An escape at the beginning of a text.
enum Escape {
    /// The text ends before the end of the escape.
    Incomplete,
    /// An escape for an ASCII character.
    Byte { value: u8, length: usize },
    /// An escape for another character, or no escape.
    Other,
}

/// Reads the escape with which `bytes` begin. The first byte is a backslash.
fn read_escape(bytes: &[u8]) -> Escape {
    let run = bytes.iter().take_while(|byte| **byte == b'\\').count();
    if run > MAX_BACKSLASHES {
        return Escape::Other;
    }
    match bytes.get(run) {
        None => Escape::Incomplete,
        Some(b'/') => Escape::Byte {
            value: b'/',
            length: run + 1,
        },
        Some(b'u') => {
            let digits = bytes.get(run + 1..).unwrap_or_default();
            read_code(digits.get(..4).unwrap_or(digits), run + "u0000".len())
        }
        Some(_) => Escape::Other,
    }
}

/// Reads the `digits` of an escape of this length. They are fewer than four if the text ends there.
fn read_code(digits: &[u8], length: usize) -> Escape {
    let mut code = 0_u32;
    for digit in digits {
        match char::from(*digit).to_digit(16) {
            Some(value) => code = code << 4 | value,
            None => return Escape::Other,
        }
    }
    if digits.len() < 4 {
        // The first two digits of an ASCII character are zero.
        return match code >> (4 * digits.len().saturating_sub(2)) {
            0 => Escape::Incomplete,
            _ => Escape::Other,
        };
    }
    match u8::try_from(code) {
        Ok(value) if value.is_ascii() => Escape::Byte { value, length },
        _ => Escape::Other,
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
            (r"a\u00e", Comparison::Partial),
            (r"a\u00e9", Comparison::Different),
            (r"a\u012f", Comparison::Different),
            (r"a\n", Comparison::Different),
            (r"a\u00g", Comparison::Different),
            (r"\a/K", Comparison::Different),
            ("b", Comparison::Different),
            ("a/k", Comparison::Different),
        ] {
            assert_eq!(compare(bytes.as_bytes(), text), expected, "{bytes}");
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
