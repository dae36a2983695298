//! Server-sent events as the WHATWG defines them (HTML §9.2.6, <https://html.spec.whatwg.org/#event-stream-interpretation>),
//! as far as their data goes: pieces of the stream, never copied.

use memchr::memchr2;

/// What an event stream brings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Data of the present event. Several lines of it come with a line feed between them.
    Data(&'a [u8]),
    /// The present event is complete. Without any data there is no event.
    End,
}

/// Splits an event stream into the data of its events, across any borders.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventReader {
    line: Line,
    /// The last byte was a carriage return, so that a line feed is part of the same line end.
    after_return: bool,
    /// Bytes of a byte order mark seen at the very beginning; past it, 3.
    mark: usize,
    /// The present event has a data line.
    has_data: bool,
}

/// Where in a line the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// This many bytes of `data`, and nothing else.
    Name(usize),
    /// Just past the colon: one space is not data.
    Colon,
    /// In data.
    Data,
    /// In a comment or another field.
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Name(0)
    }
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const NAME: &[u8] = b"data";

impl EventReader {
    /// Reads `chunk` and gives `sink` what it brings.
    pub fn feed<'a>(&mut self, mut chunk: &'a [u8], mut sink: impl FnMut(Piece<'a>)) {
        chunk = self.skip_mark(chunk);
        while let Some((&byte, rest)) = chunk.split_first() {
            if std::mem::take(&mut self.after_return) && byte == b'\n' {
                chunk = rest;
                continue;
            }
            match self.line {
                Line::Data | Line::Other => {
                    let end = memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len());
                    let (text, after) = chunk.split_at(end);
                    if self.line == Line::Data && !text.is_empty() {
                        sink(Piece::Data(text));
                    }
                    chunk = after;
                    if let Some((&end, after)) = after.split_first() {
                        self.end_line(end);
                        chunk = after;
                    }
                }
                Line::Colon => {
                    self.line = Line::Data;
                    if byte == b' ' {
                        chunk = rest;
                    }
                }
                Line::Name(0) if chunk.starts_with(b"data: ") => {
                    self.begin_data(&mut sink);
                    self.line = Line::Data;
                    chunk = chunk.get(b"data: ".len()..).unwrap_or_default();
                }
                Line::Name(matched) => {
                    chunk = self.name(matched, byte, chunk, rest, &mut sink);
                }
            }
        }
    }

    /// Reads one byte of a field's name; gives what is left to read.
    fn name<'a>(
        &mut self,
        matched: usize,
        byte: u8,
        chunk: &'a [u8],
        rest: &'a [u8],
        sink: &mut impl FnMut(Piece<'a>),
    ) -> &'a [u8] {
        match byte {
            b'\n' | b'\r' => {
                if matched == 0 && std::mem::take(&mut self.has_data) {
                    sink(Piece::End);
                } else if matched == NAME.len() {
                    // A name alone is a field with an empty value.
                    self.begin_data(sink);
                }
                self.end_line(byte);
                rest
            }
            b':' if matched == NAME.len() => {
                self.begin_data(sink);
                self.line = Line::Colon;
                rest
            }
            _ if NAME.get(matched) == Some(&byte) => {
                self.line = Line::Name(matched + 1);
                rest
            }
            _ => {
                self.line = Line::Other;
                chunk
            }
        }
    }

    fn begin_data<'a>(&mut self, sink: &mut impl FnMut(Piece<'a>)) {
        if std::mem::replace(&mut self.has_data, true) {
            sink(Piece::Data(b"\n"));
        }
    }

    fn end_line(&mut self, end: u8) {
        self.line = Line::Name(0);
        self.after_return = end == b'\r';
    }

    /// Skips a byte order mark, which may stand once at the very beginning.
    fn skip_mark<'a>(&mut self, mut chunk: &'a [u8]) -> &'a [u8] {
        while let (Some(expected), Some((byte, rest))) = (MARK.get(self.mark), chunk.split_first()) {
            if byte != expected {
                // Part of a mark is no mark but the beginning of some unknown field's name.
                if self.mark > 0 {
                    self.line = Line::Other;
                }
                self.mark = MARK.len();
                break;
            }
            self.mark += 1;
            chunk = rest;
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The events of a stream, by the words of the standard: split into lines, then fields.
    fn slow(stream: &[u8]) -> Vec<Vec<u8>> {
        let stream = stream.strip_prefix(MARK).unwrap_or(stream);
        let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
        let mut bytes = stream.iter().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' => {
                    bytes.next_if(|next| **next == b'\n');
                    lines.push(Vec::new());
                }
                b'\n' => lines.push(Vec::new()),
                _ => lines.last_mut().unwrap().push(*byte),
            }
        }
        lines.pop();
        let (mut events, mut data) = (Vec::new(), Vec::new());
        for line in lines {
            if line.is_empty() {
                if !data.is_empty() {
                    events.push(std::mem::take(&mut data).join(&b'\n'));
                }
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.unwrap_or(line.len()));
            let value = value.strip_prefix(b":").unwrap_or(value);
            if name == b"data" {
                data.push(value.strip_prefix(b" ").unwrap_or(value).to_vec());
            }
        }
        events
    }

    fn fast<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let (mut events, mut data) = (Vec::new(), Vec::new());
        let mut reader = EventReader::default();
        for chunk in chunks {
            reader.feed(chunk, |piece| match piece {
                Piece::Data(text) => data.extend_from_slice(text),
                Piece::End => events.push(std::mem::take(&mut data)),
            });
        }
        events
    }

    #[test]
    fn streams_of_the_standard_and_oddities_are_read_at_every_split() {
        let streams: &[&[u8]] = &[
            b"data: YHOO\ndata: +2\ndata: 10\n\n",
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            b"data\n\ndata\ndata\n\ndata:",
            b"\xef\xbb\xbfdata: a\r\rdata: b\r\n\r\ndata: c\n\r\ndata: d\n\n",
            b"\xef\xbbdata: a\n\ndata: b\n\n",
            b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n",
            b"event: x\ndata : no\ndatas: no\ndat: no\n data: no\ndata:: yes\n\n",
            b"\n\r\n\rdata:\n\n\n\n",
            b"data: unfinished\n",
            b"data: a\r\n\r\ndata: b\r\n\r",
        ];
        for stream in streams {
            let expected = slow(stream);
            assert_eq!(fast(stream.chunks(1)), expected);
            for cut in 0..=stream.len() {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(
                    fast([head, tail]),
                    expected,
                    "{:?} at {cut}",
                    stream.escape_ascii().to_string()
                );
            }
        }
        assert_eq!(slow(streams[2]), [b"".to_vec(), b"\n".to_vec()]);
    }

    proptest! {
        #[test]
        fn random_streams_agree_with_the_slow_reading(
            parts in prop::collection::vec(prop::sample::select(vec![
                "data", ":", " ", "\n", "\r", "\r\n", "x", "event", "data: {}\n\n", "dat", "\u{feff}",
            ]), 0..40),
            size in 1usize..20,
        ) {
            let stream = parts.concat().into_bytes();
            prop_assert_eq!(fast(stream.chunks(size)), slow(&stream));
        }
    }
}
