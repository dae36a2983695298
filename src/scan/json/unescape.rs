//! Unescaping of JSON strings (RFC 8259 §7).

use std::borrow::Cow;

use memchr::memchr;

/// Unescapes a JSON string, given as the bytes between its quotes. A string without escapes is borrowed.
///
/// # Errors
///
/// The index in `raw` of the first escape that is invalid (RFC 8259 §7), or of the first byte that is not UTF-8.
pub(in crate::scan) fn unescape(raw: &[u8]) -> Result<Cow<'_, str>, usize> {
    let text = std::str::from_utf8(raw).map_err(|error| error.valid_up_to())?;
    if memchr(b'\\', raw).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(raw.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        let at = text.len() - escape.len() - 1;
        let (character, length) = read_escape(escape).ok_or(at)?;
        plain.push(character);
        rest = escape.get(length..).expect("an escape is as long as it was read");
    }
    plain.push_str(rest);
    Ok(Cow::Owned(plain))
}

/// Reads the escape whose backslash stands directly before `text`. Returns the character and the length of the escape
/// without the backslash.
fn read_escape(text: &str) -> Option<(char, usize)> {
    let simple = match text.as_bytes().first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = parse_hex(text.get(1..5)?)?;
            if !(0xd800..0xdc00).contains(&unit) {
                return Some((char::from_u32(unit)?, 5));
            }
            let low = parse_hex(text.get(5..11)?.strip_prefix("\\u")?)?;
            let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return Some((char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low)?, 11));
        }
        _ => return None,
    };
    Some((simple, 1))
}

/// Parses four hexadecimal digits. They are checked first because `from_str_radix` also accepts a sign.
fn parse_hex(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes_as_serde_json_does() {
        let cases: &[&str] = &[
            "",
            "plain",
            "é漢😀",
            r#"\"\\\/\b\f\n\r\t"#,
            r"\u0041\u00e9\u6f22",
            r"\ud83d\ude00",
            r"\uD83D\uDE00x",
            r"\ud83d",
            r"\ud83dx",
            r"\ud83d\n",
            r"\ud83d\u0041",
            r"\ude00",
            r"\ud83d\ud83d",
            r"\x",
            r"\u12",
            r"\u12g4",
            r"\u+123",
            r"a\",
            r"\ud83d\ude0",
            "\\u00é9",
            "\\é",
        ];
        for raw in cases {
            let unescaped = unescape(raw.as_bytes()).ok().map(Cow::into_owned);
            assert_eq!(unescaped, serde_json::from_str(&format!("\"{raw}\"")).ok(), "{raw}");
        }
        assert_eq!(unescape(b"ab\\x"), Err(2));
        assert_eq!(unescape(b"ab\\ud800\\n"), Err(2));
        assert_eq!(unescape(b"a\xff"), Err(1));
    }
}
