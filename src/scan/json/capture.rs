//! Taking text out of a stream without copying it, unless the stream cuts it in two.

use std::borrow::Cow;

use memchr::memchr;

/// A piece of the stream that lies in memory in one piece.
#[derive(Clone, Copy)]
pub(in crate::scan) struct Run<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The offset of the first byte in the stream.
    pub base: u64,
}

impl<'a> Run<'a> {
    /// The bytes from stream offset `from` to `to`, as far as they lie in this run.
    fn between(&self, from: u64, to: u64) -> &'a [u8] {
        let index = |offset: u64| usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let to = index(to).min(self.bytes.len());
        self.bytes.get(index(from).min(to)..to).unwrap_or_default()
    }
}

/// Text that has begun and whose end has not been seen: the first `limit` bytes of it.
pub(in crate::scan) struct Capture {
    start: u64,
    limit: usize,
    /// What earlier runs held of it.
    held: Vec<u8>,
}

impl Capture {
    /// Begins at stream offset `start`.
    pub fn new(start: u64, limit: usize) -> Self {
        let held = Vec::new();
        Self { start, limit, held }
    }

    /// Where the text begins.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether the text, were it to end at stream offset `end`, is longer than the limit.
    pub fn overflows(&self, end: u64) -> bool {
        end - self.start > self.limit as u64
    }

    /// Keeps what `run` holds of the text, as the run is about to go.
    pub fn suspend(&mut self, run: &Run<'_>) {
        let room = self.limit - self.held.len();
        let from = self.start + self.held.len() as u64;
        let piece = run.between(from, from + room as u64);
        self.held.extend_from_slice(piece);
    }

    /// The text up to stream offset `end`, cut off at the limit.
    pub fn finish<'a>(mut self, run: &Run<'a>, end: u64) -> Cow<'a, [u8]> {
        let end = end.min(self.start + self.limit as u64);
        if self.held.is_empty() {
            return Cow::Borrowed(run.between(self.start, end));
        }
        let from = self.start + self.held.len() as u64;
        self.held.extend_from_slice(run.between(from, end));
        Cow::Owned(self.held)
    }
}

/// The text that a JSON string stands for, from the bytes between its quotes.
///
/// # Errors
///
/// The index of the escape that is not valid (RFC 8259 §7), or of the byte that is not UTF-8.
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
        let (character, length) = escaped(escape).ok_or(at)?;
        plain.push(character);
        rest = escape.get(length..).ok_or(at)?;
    }
    plain.push_str(rest);
    Ok(Cow::Owned(plain))
}

/// What the escape stands for whose backslash `text` follows, and its length without that backslash.
fn escaped(text: &str) -> Option<(char, usize)> {
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
            let unit = hex(text.get(1..5)?)?;
            if !(0xd800..0xdc00).contains(&unit) {
                return Some((char::from_u32(unit)?, 5));
            }
            let low = hex(text.get(5..11)?.strip_prefix("\\u")?)?;
            let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return Some((char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low)?, 11));
        }
        _ => return None,
    };
    Some((simple, 1))
}

/// Four hexadecimal digits; `from_str_radix` alone would take a sign.
fn hex(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_the_same_however_it_is_cut() {
        let text = b"0123456789abcdef";
        for start in 0..text.len() {
            for end in start..=text.len() {
                for cut in 0..=text.len() {
                    for limit in [0, 3, 100] {
                        let (head, tail) = text.split_at(cut);
                        let expected = &text[start..end.min(start + limit)];
                        let mut capture = Capture::new(start as u64, limit);
                        if end > cut {
                            capture.suspend(&Run { bytes: head, base: 0 });
                            let run = Run {
                                bytes: tail,
                                base: cut as u64,
                            };
                            assert_eq!(&*capture.finish(&run, end as u64), expected);
                        } else {
                            let run = Run { bytes: head, base: 0 };
                            assert_eq!(&*capture.finish(&run, end as u64), expected);
                        }
                    }
                }
            }
        }
    }

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
            let ours = unescape(raw.as_bytes()).ok().map(Cow::into_owned);
            assert_eq!(ours, serde_json::from_str(&format!("\"{raw}\"")).ok(), "{raw}");
        }
        assert_eq!(unescape(b"ab\\x"), Err(2));
        assert_eq!(unescape(b"ab\\ud800\\n"), Err(2));
        assert_eq!(unescape(b"a\xff"), Err(1));
    }
}
