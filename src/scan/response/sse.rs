//! A parser of server-sent events (HTML §9.2.6, <https://html.spec.whatwg.org/#event-stream-interpretation>). It reads the
//! field `data` only, and returns slices of the stream without copying them.

use memchr::memchr2;

/// A part of an event stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SseItem<'a> {
    /// A piece of the data of the current event. A line feed separates two `data` lines.
    Data(&'a [u8]),
    /// The current event has ended. It is reported only if the event has data.
    EndOfEvent,
}

/// Splits an event stream that arrives in pieces into the data of its events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SseParser {
    line: SseLine,
    /// Whether the last byte was a carriage return. A line feed after it belongs to the same line ending.
    after_return: bool,
    /// The number of bytes of a byte order mark that have been read at the beginning of the stream. It is 3 after the
    /// beginning.
    mark: usize,
    /// Whether the current event has a `data` line.
    has_data: bool,
}

/// The position in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SseLine {
    /// After this many bytes of the name `data`, at the beginning of the line.
    Name(usize),
    /// After the colon. One space is skipped here.
    Colon,
    /// In data.
    Data,
    /// In a comment or in another field.
    Other,
}

impl Default for SseLine {
    fn default() -> Self {
        Self::Name(0)
    }
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const NAME: &[u8] = b"data";

impl SseParser {
    /// Reads `chunk` and passes its items to `sink`.
    pub fn feed<'a>(&mut self, mut chunk: &'a [u8], mut sink: impl FnMut(SseItem<'a>)) {
        chunk = self.skip_mark(chunk);
        while let Some((&byte, rest)) = chunk.split_first() {
            if std::mem::take(&mut self.after_return) && byte == b'\n' {
                chunk = rest;
                continue;
            }
            match self.line {
                SseLine::Data | SseLine::Other => {
                    let end = memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len());
                    let (text, after) = chunk.split_at(end);
                    if self.line == SseLine::Data && !text.is_empty() {
                        sink(SseItem::Data(text));
                    }
                    chunk = after;
                    if let Some((&end, after)) = after.split_first() {
                        self.end_line(end);
                        chunk = after;
                    }
                }
                SseLine::Colon => {
                    self.line = SseLine::Data;
                    if byte == b' ' {
                        chunk = rest;
                    }
                }
                SseLine::Name(0) if chunk.starts_with(b"data: ") => {
                    self.begin_data(&mut sink);
                    self.line = SseLine::Data;
                    chunk = &chunk[b"data: ".len()..];
                }
                SseLine::Name(matched) => {
                    chunk = self.read_name(matched, byte, chunk, rest, &mut sink);
                }
            }
        }
    }

    /// Reads one byte of the name of a field. `matched` bytes of `data` have been read before, `byte` is the first byte of
    /// `chunk`, and `rest` follows it. Returns the part of `chunk` that is still to be read.
    fn read_name<'a>(
        &mut self,
        matched: usize,
        byte: u8,
        chunk: &'a [u8],
        rest: &'a [u8],
        sink: &mut impl FnMut(SseItem<'a>),
    ) -> &'a [u8] {
        match byte {
            b'\n' | b'\r' => {
                if matched == 0 && std::mem::take(&mut self.has_data) {
                    sink(SseItem::EndOfEvent);
                } else if matched == NAME.len() {
                    // A line without a colon is a field with an empty value.
                    self.begin_data(sink);
                }
                self.end_line(byte);
                rest
            }
            b':' if matched == NAME.len() => {
                self.begin_data(sink);
                self.line = SseLine::Colon;
                rest
            }
            _ if NAME.get(matched) == Some(&byte) => {
                self.line = SseLine::Name(matched + 1);
                rest
            }
            _ => {
                self.line = SseLine::Other;
                chunk
            }
        }
    }

    /// Begins a `data` line.
    fn begin_data<'a>(&mut self, sink: &mut impl FnMut(SseItem<'a>)) {
        if std::mem::replace(&mut self.has_data, true) {
            sink(SseItem::Data(b"\n"));
        }
    }

    /// Ends a line with the byte `end`.
    fn end_line(&mut self, end: u8) {
        self.line = SseLine::Name(0);
        self.after_return = end == b'\r';
    }

    /// Skips a byte order mark, which is allowed once at the beginning of the stream. Returns the rest of `chunk`.
    fn skip_mark<'a>(&mut self, mut chunk: &'a [u8]) -> &'a [u8] {
        while let (Some(expected), Some((byte, rest))) = (MARK.get(self.mark), chunk.split_first()) {
            if byte != expected {
                // An incomplete mark is the beginning of the name of an unknown field.
                if self.mark > 0 {
                    self.line = SseLine::Other;
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

    /// Parses a stream as the standard describes it: into lines, then fields, then events.
    fn parse_slowly(stream: &[u8]) -> Vec<Vec<u8>> {
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

    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let (mut events, mut data) = (Vec::new(), Vec::new());
        let mut parser = SseParser::default();
        for chunk in chunks {
            parser.feed(chunk, |item| match item {
                SseItem::Data(text) => data.extend_from_slice(text),
                SseItem::EndOfEvent => events.push(std::mem::take(&mut data)),
            });
        }
        events
    }

    #[test]
    fn streams_are_parsed_as_the_standard_says_at_every_split() {
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
            let expected = parse_slowly(stream);
            assert_eq!(parse(stream.chunks(1)), expected);
            for cut in 0..=stream.len() {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(
                    parse([head, tail]),
                    expected,
                    "{:?} at {cut}",
                    stream.escape_ascii().to_string()
                );
            }
        }
        assert_eq!(parse_slowly(streams[2]), [b"".to_vec(), b"\n".to_vec()]);
    }

    proptest! {
        #[test]
        fn random_streams_are_parsed_as_the_standard_says(
            parts in prop::collection::vec(prop::sample::select(vec![
                "data", ":", " ", "\n", "\r", "\r\n", "x", "event", "data: {}\n\n", "dat", "\u{feff}",
            ]), 0..40),
            size in 1usize..20,
        ) {
            let stream = parts.concat().into_bytes();
            prop_assert_eq!(parse(stream.chunks(size)), parse_slowly(&stream));
        }
    }
}
