//! Recognises base64 data among the long strings: images, recordings and files.
//!
//! The grammar reports each string of at least [`LongStrings::MIN`] bytes, at every depth. A string is classified by its
//! first bytes and by the key before it, so that the data itself is never searched. If a chunk of the body ends inside
//! a long string, its first bytes are kept.

use super::capture::StreamSlice;
use crate::media::MediaKind;

/// The number of bytes before a string that are searched for its key.
const BEFORE: usize = 32;
/// The number of bytes of a string by which it is classified.
const SAMPLE: usize = 96;

/// Finds the media among the long strings of a stream.
#[derive(Default)]
pub(super) struct LongStrings {
    /// The stream offset of the last token that has begun.
    last_begin: u64,
    /// The stream offset of the last closing quote.
    last_close: u64,
    /// The last bytes of the stream before the current slice.
    tail: [u8; BEFORE],
    /// The string that the end of the last slice has cut.
    held: Option<Box<HeldString>>,
}

/// The beginning of a string that the end of a slice has cut.
struct HeldString {
    /// The stream offset of the opening quote.
    open: u64,
    /// The bytes before the opening quote.
    before: [u8; BEFORE],
    /// The first bytes of the string, of which `length` are valid.
    sample: [u8; SAMPLE],
    length: usize,
}

impl LongStrings {
    /// The minimum length of a long string in bytes as written.
    pub const MIN: u64 = 1024;

    /// Reads the tokens of the block at stream offset `at`, of which at least one mask is not 0. Returns the kind and the length
    /// in bytes of the media that ends in the block.
    #[inline(always)]
    pub fn read_block(
        &mut self,
        slice: &StreamSlice<'_>,
        at: u64,
        begins: u64,
        closes: u64,
    ) -> Option<(MediaKind, u64)> {
        let first_close = closes.trailing_zeros();
        let close = at + u64::from(first_close);
        // If a closing quote comes before the first other token, the last token was its opening quote.
        let is_long = first_close < begins.trailing_zeros() && close - self.last_begin > Self::MIN;
        let open = self.last_begin;
        if begins != 0 {
            self.last_begin = at + 63 - u64::from(begins.leading_zeros());
        }
        if closes != 0 {
            self.last_close = at + 63 - u64::from(closes.leading_zeros());
        }
        if is_long {
            self.classify(slice, open, close)
        } else {
            None
        }
    }

    /// Classifies the string between the quotes at the stream offsets `open` and `close`.
    #[cold]
    fn classify(&mut self, slice: &StreamSlice<'_>, open: u64, close: u64) -> Option<(MediaKind, u64)> {
        let held = match self.held.take().filter(|held| held.open == open) {
            Some(held) => *held,
            None => HeldString::begin(open, &self.tail, slice),
        };
        let kind = kind_of(&held.before, held.sample.get(..held.length)?)?;
        Some((kind, close - open - 1))
    }

    /// Keeps what may be needed of `slice`, before it becomes invalid.
    pub fn suspend(&mut self, slice: &StreamSlice<'_>) {
        let open = self.last_begin;
        match &mut self.held {
            Some(held) if held.open == open => held.extend(slice),
            _ if self.last_close < open && slice.between(open, open + 1) == b"\"" => {
                self.held = Some(Box::new(HeldString::begin(open, &self.tail, slice)));
            }
            held => *held = None,
        }
        let end = slice.base + slice.bytes.len() as u64;
        self.tail = bytes_before(end, &self.tail, slice);
    }
}

impl HeldString {
    /// The beginning of the string whose opening quote is at `open` in `slice`. `tail` stands before `slice`.
    fn begin(open: u64, tail: &[u8; BEFORE], slice: &StreamSlice<'_>) -> Self {
        let mut held = Self {
            open,
            before: bytes_before(open, tail, slice),
            sample: [0; SAMPLE],
            length: 0,
        };
        held.extend(slice);
        held
    }

    /// Appends the bytes that `slice` has to the sample.
    fn extend(&mut self, slice: &StreamSlice<'_>) {
        let from = self.open + 1 + self.length as u64;
        let piece = slice.between(from, self.open + 1 + SAMPLE as u64);
        let end = self.length + piece.len();
        if let Some(free) = self.sample.get_mut(self.length..end) {
            free.copy_from_slice(piece);
            self.length = end;
        }
    }
}

/// The bytes before stream offset `at`, which lies in `slice` or at its end. `tail` stands before `slice`. Bytes before the
/// stream are 0.
fn bytes_before(at: u64, tail: &[u8; BEFORE], slice: &StreamSlice<'_>) -> [u8; BEFORE] {
    let inside = slice.between(at.saturating_sub(BEFORE as u64), at);
    let mut bytes = [0; BEFORE];
    let (old, new) = bytes.split_at_mut(BEFORE - inside.len());
    new.copy_from_slice(inside);
    let kept = tail.get(inside.len()..).expect("the part is no longer than the whole");
    old.copy_from_slice(kept);
    bytes
}

/// The kind of the data in a string. `sample` is its beginning as written, and `before` stands before its opening quote.
fn kind_of(before: &[u8], sample: &[u8]) -> Option<MediaKind> {
    if let Some(rest) = sample.strip_prefix(b"data:") {
        let semicolon = rest.windows(8).position(|window| window == b";base64,")?;
        let media_type = rest.get(..semicolon)?;
        // A model reads a URL in a text as text.
        let is_text = matches!(
            key_at_end(before),
            Some(b"text" | b"content" | b"input" | b"instructions" | b"arguments" | b"output" | b"system")
        );
        return (!is_text).then(|| MediaKind::from_media_type(media_type).unwrap_or(MediaKind::File));
    }
    let key = key_at_end(before)?;
    let is_image_key = match key {
        b"b64_json" | b"result" => true,
        b"data" | b"file_data" => false,
        _ => return None,
    };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=\\".contains(byte);
    if !sample.iter().all(is_base64) {
        return None;
    }
    let contains = |text: &[u8]| before.windows(text.len()).any(|window| window == text);
    Some(match kind_by_signature(sample) {
        Some(kind) => kind,
        None if is_image_key || contains(b"\"image/") => MediaKind::Image,
        None if [&b"audio"[..], b"\"wav\"", b"\"mp3\"", b"\"pcm16\""]
            .into_iter()
            .any(contains) =>
        {
            MediaKind::Recording
        }
        None => MediaKind::File,
    })
}

/// The kind of base64 data by the signature of its format, or `None` if it has none of the common ones.
fn kind_by_signature(base64: &[u8]) -> Option<MediaKind> {
    const IMAGES: &[&[u8]] = &[b"iVBORw0KGgo", b"/9j/", b"\\/9j\\/", b"R0lGODlh", b"R0lGODdh"];
    const RECORDINGS: &[&[u8]] = &[b"SUQz", b"T2dnUw", b"ZkxhQw", b"//uQ", b"//vQ", b"//NE"];
    let begins_with = |signatures: &[&[u8]]| signatures.iter().any(|signature| base64.starts_with(signature));
    match base64 {
        _ if begins_with(IMAGES) => Some(MediaKind::Image),
        _ if begins_with(RECORDINGS) => Some(MediaKind::Recording),
        // RIFF: the form, `WEBP` or `WAVE`, begins with the twelfth character.
        _ if base64.starts_with(b"UklGR") => match base64.get(11..14)? {
            b"XRU" => Some(MediaKind::Image),
            _ => Some(MediaKind::Recording),
        },
        _ if base64.starts_with(b"JVBERi0") => Some(MediaKind::File),
        _ => None,
    }
}

/// The key, without its quotes, whose colon stands at the end of `text`.
fn key_at_end(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_end().strip_suffix(b":")?;
    let text = text.trim_ascii_end().strip_suffix(b"\"")?;
    let open = text.iter().rposition(|byte| *byte == b'"')?;
    text.get(open + 1..)
}

#[cfg(test)]
mod tests;
