//! Capturing text from a stream. The text is borrowed from the stream, and copied only if it lies across two slices.

use std::borrow::Cow;

/// A part of the stream that is contiguous in memory.
#[derive(Clone, Copy)]
pub(in crate::scan) struct StreamSlice<'a> {
    /// The bytes of the slice.
    pub bytes: &'a [u8],
    /// The offset of the first byte from the beginning of the stream, in bytes.
    pub base: u64,
}

impl<'a> StreamSlice<'a> {
    /// The bytes from stream offset `from` to `to`, as far as they lie in this slice.
    pub fn between(&self, from: u64, to: u64) -> &'a [u8] {
        let index = |offset: u64| usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let to = index(to).min(self.bytes.len());
        self.bytes
            .get(index(from).min(to)..to)
            .expect("both ends are clamped to the slice")
    }
}

/// A text that has begun in the stream and has not ended yet. At most its first `limit` bytes are captured.
pub(in crate::scan) struct Capture {
    /// The stream offset of the first byte of the text.
    start: u64,
    /// The maximum number of bytes to capture.
    limit: usize,
    /// The bytes of the text that earlier slices contained.
    held: Vec<u8>,
}

impl Capture {
    /// Begins a capture at stream offset `start`.
    pub fn new(start: u64, limit: usize) -> Self {
        let held = Vec::new();
        Self { start, limit, held }
    }

    /// The stream offset of the first byte of the text.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether the text is longer than the limit if it ends at stream offset `end`.
    pub fn overflows(&self, end: u64) -> bool {
        end - self.start > self.limit as u64
    }

    /// Copies the part of the text that lies in `slice`. Must be called before `slice` becomes invalid.
    pub fn suspend(&mut self, slice: &StreamSlice<'_>) {
        let missing = self.limit - self.held.len();
        let from = self.start + self.held.len() as u64;
        let piece = slice.between(from, from + missing as u64);
        self.held.extend_from_slice(piece);
    }

    /// Returns the text up to stream offset `end`, truncated to the limit.
    pub fn finish<'a>(mut self, slice: &StreamSlice<'a>, end: u64) -> Cow<'a, [u8]> {
        let end = end.min(self.start + self.limit as u64);
        if self.held.is_empty() {
            return Cow::Borrowed(slice.between(self.start, end));
        }
        let from = self.start + self.held.len() as u64;
        self.held.extend_from_slice(slice.between(from, end));
        Cow::Owned(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_does_not_depend_on_where_the_stream_is_cut() {
        let text = b"0123456789abcdef";
        for start in 0..text.len() {
            for end in start..=text.len() {
                for cut in 0..=text.len() {
                    for limit in [0, 3, 100] {
                        let (head, tail) = text.split_at(cut);
                        let expected = &text[start..end.min(start + limit)];
                        let mut capture = Capture::new(start as u64, limit);
                        if end > cut {
                            capture.suspend(&StreamSlice { bytes: head, base: 0 });
                            let slice = StreamSlice {
                                bytes: tail,
                                base: cut as u64,
                            };
                            assert_eq!(&*capture.finish(&slice, end as u64), expected);
                        } else {
                            let slice = StreamSlice { bytes: head, base: 0 };
                            assert_eq!(&*capture.finish(&slice, end as u64), expected);
                        }
                    }
                }
            }
        }
    }
}
