//! JSON as real accounts read it: an escape of a lone surrogate (`"tail \ud83d"`, RFC 8259, section 8.2) is part of a text.
//! The text has U+FFFD in its place, because a `String` cannot contain it.

use serde_json::Value;

/// Parses `text` as JSON.
pub(super) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text).or_else(|error| match without_lone_surrogates(text) {
        Some(text) => serde_json::from_slice(&text),
        None => Err(error),
    })
}

/// Returns `text` with `\ufffd` in place of each escape of a lone surrogate, or `None` if it has none.
fn without_lone_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < text.len() {
        at += match (text[at], code_unit(text, at)) {
            (b'\\', Some(0xd800..0xdc00)) if matches!(code_unit(text, at + 6), Some(0xdc00..0xe000)) => 12,
            (b'\\', Some(0xd800..0xe000)) => {
                mended.get_or_insert_with(|| text.to_vec())[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    mended
}

/// Returns the UTF-16 code unit of the `\u` escape at `at`, or `None` if there is no such escape.
fn code_unit(text: &[u8], at: usize) -> Option<u32> {
    let digits = std::str::from_utf8(text.get(at..at + 6)?.strip_prefix(b"\\u")?).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).expect("the digits are hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_texts_and_all_else_is_as_serde_reads_it() {
        for (text, expected) in [
            (r#""tail \ud83d""#, Some("tail \u{fffd}")),
            (r#""\uDE00 head""#, Some("\u{fffd} head")),
            (r#""\ud83d\ud83d\ude00""#, Some("\u{fffd}\u{1f600}")),
            (r#""\ud83d\n""#, Some("\u{fffd}\n")),
            (r#""\\ud83d""#, Some(r"\ud83d")),
            (r#""\ud83d\ude00""#, Some("\u{1f600}")),
            (r#""\ud83d"#, None),
            (r#""\ud8"#, None),
            (r#""\ud83d" x"#, None),
        ] {
            assert_eq!(parse(text.as_bytes()).ok(), expected.map(Value::from), "{text}");
        }
    }
}
