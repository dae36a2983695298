//! Finds where a body ends (RFC 9112 sections 6.3 and 7.1), without I/O: bytes go in, pieces of the body come out.
//!
//! The decoder refuses everything that two readers could understand differently: a line must end in CRLF, and a chunk
//! size must consist of hexadecimal digits only. Chunk extensions and trailers are dropped. The decisions about the
//! request were made without them, so no recipient after Steadfast may use them (RFC 9110 section 6.5.1).

use bytes::{Buf as _, Bytes};

use crate::wire::limits::MAX_TRAILER_BYTES;

/// The maximum size in bytes of a chunk's extension, together with the blanks and leading zeros of its size.
const MAX_EXTENSION: u32 = 256;
/// The maximum size in bytes of a body's trailers.
const MAX_TRAILERS: u32 = MAX_TRAILER_BYTES as u32;

/// The maximum size in bytes of a piece of a body that is delimited by its length or in chunks. A piece is scanned at once, and
/// a larger one would hold up the other tasks of the thread.
const MAX_PIECE: usize = 64 << 10;

/// The error of an invalid chunked coding. The text says what is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct BadChunk(pub &'static str);

/// Finds the pieces and the end of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum BodyDecoder {
    /// This many bytes are still to come.
    Length(u64),
    /// The body is in chunked coding.
    Chunked(ChunkedDecoder),
    /// The body ends when the connection does.
    UntilClose,
}

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct ChunkedDecoder {
    state: ChunkState,
    /// The size so far while a size line is read, and the number of bytes that are still to come while data is read.
    size: u64,
    /// The number of bytes read so far of the current chunk's extension, or of the trailers.
    overhead: u32,
}

/// The part of a chunked body that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    FirstSizeDigit,
    SizeDigits,
    /// The blanks with which some senders pad the size.
    SizePadding,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    End,
}

impl BodyDecoder {
    /// A chunked body, at its beginning.
    pub const CHUNKED: Self = Self::Chunked(ChunkedDecoder {
        state: ChunkState::FirstSizeDigit,
        size: 0,
        overhead: 0,
    });
    /// A message without a body.
    pub const EMPTY: Self = Self::Length(0);

    /// Whether the end of the body has been read.
    pub fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Length(0)
                | Self::Chunked(ChunkedDecoder {
                    state: ChunkState::End,
                    ..
                })
        )
    }

    /// The number of bytes that will certainly come next: the rest of the body or of the chunk, or zero if unknown.
    pub fn expected(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) if chunked.state == ChunkState::Data => chunked.size,
            Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// The number of bytes in the rest of the body, if it is known.
    pub fn exact_length(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(ChunkedDecoder {
                state: ChunkState::End, ..
            }) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece of the body from the front of `pending`; 64 KiB at most. Returns `None` at the end of the body, or
    /// when more bytes have to arrive first.
    pub fn take(&mut self, pending: &mut Bytes) -> Result<Option<Bytes>, BadChunk> {
        match self {
            Self::Length(left) => Ok(take_up_to(left, pending)),
            Self::UntilClose => Ok(Some(std::mem::take(pending)).filter(|piece| !piece.is_empty())),
            Self::Chunked(chunked) => chunked.take(pending),
        }
    }
}

fn take_up_to(left: &mut u64, pending: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(pending.len())
        .min(MAX_PIECE);
    if length == 0 {
        return None;
    }
    *left -= length as u64;
    Some(pending.split_to(length))
}

impl ChunkedDecoder {
    fn take(&mut self, pending: &mut Bytes) -> Result<Option<Bytes>, BadChunk> {
        self.skip_to_data(pending)?;
        if self.state != ChunkState::Data {
            return Ok(None);
        }
        let piece = take_up_to(&mut self.size, pending);
        if self.size == 0 {
            self.state = ChunkState::DataReturn;
            // If the last chunk has arrived too, the end of the body is found together with its last piece.
            self.skip_to_data(pending)?;
        }
        Ok(piece)
    }

    /// Consumes the bytes between the data of two chunks, as far as they have arrived.
    fn skip_to_data(&mut self, pending: &mut Bytes) -> Result<(), BadChunk> {
        let mut read = 0;
        for byte in pending.iter() {
            if matches!(self.state, ChunkState::Data | ChunkState::End) {
                break;
            }
            self.state = self.after(*byte)?;
            read += 1;
        }
        pending.advance(read);
        if pending.is_empty() {
            // An empty slice would keep the whole buffer alive.
            *pending = Bytes::new();
        }
        Ok(())
    }

    /// The state after `byte`, which is not data.
    fn after(&mut self, byte: u8) -> Result<ChunkState, BadChunk> {
        use ChunkState::{
            Data, DataLineFeed, DataReturn, End, Extension, FirstSizeDigit, LastLineFeed, SizeDigits, SizeLineFeed,
            SizePadding, TrailerLineFeed, TrailerName, TrailerStart, TrailerValue,
        };
        let refuse = |problem| Err(BadChunk(problem));
        Ok(match (self.state, byte) {
            (FirstSizeDigit | SizeDigits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.push_size_digit(byte)?;
                SizeDigits
            }
            (FirstSizeDigit, _) => return refuse("a chunk has no size"),
            (SizeDigits | SizePadding | Extension, b'\r') => SizeLineFeed,
            (SizeDigits | SizePadding, b';') => Extension,
            (SizeDigits | SizePadding, b' ' | b'\t') => {
                self.count_overhead(1, MAX_EXTENSION)?;
                SizePadding
            }
            (SizeDigits | SizePadding, _) => return refuse("a chunk size is not a hexadecimal number"),
            (Extension, b'\n') => return refuse("a chunk size line ends in a bare line feed"),
            (Extension, _) if is_control(byte) => return refuse("a chunk extension contains a control character"),
            (Extension, _) => {
                self.count_overhead(1, MAX_EXTENSION)?;
                Extension
            }
            (SizeLineFeed, b'\n') => {
                self.overhead = 0;
                if self.size == 0 { TrailerStart } else { Data }
            }
            (DataReturn, b'\r') => DataLineFeed,
            (DataLineFeed, b'\n') => FirstSizeDigit,
            (DataReturn | DataLineFeed, _) => return refuse("a chunk is longer than its size"),
            (TrailerStart, b'\r') => LastLineFeed,
            (TrailerValue, b'\r') => TrailerLineFeed,
            (TrailerStart | TrailerValue, b'\n') => return refuse("a trailer line ends in a bare line feed"),
            (TrailerName, b':') => TrailerValue,
            (TrailerStart | TrailerName, _) if !is_token(byte) => return refuse("invalid trailer name"),
            (TrailerValue, _) if is_control(byte) => return refuse("a trailer contains a control character"),
            (TrailerStart | TrailerName, _) => {
                self.count_overhead(1, MAX_TRAILERS)?;
                TrailerName
            }
            (TrailerValue, _) => {
                self.count_overhead(1, MAX_TRAILERS)?;
                TrailerValue
            }
            (TrailerLineFeed, b'\n') => TrailerStart,
            (LastLineFeed, b'\n') => End,
            (SizeLineFeed | TrailerLineFeed | LastLineFeed, _) => {
                return refuse("a carriage return is not followed by a line feed");
            }
            (Data | End, _) => unreachable!("this function gets no byte of the data and none after the end"),
        })
    }

    fn push_size_digit(&mut self, digit: u8) -> Result<(), BadChunk> {
        let digit = (digit as char)
            .to_digit(16)
            .expect("the caller has matched a hexadecimal digit");
        let size = self
            .size
            .checked_mul(16)
            .and_then(|size| size.checked_add(digit.into()));
        self.size = size.ok_or(BadChunk("a chunk size does not fit in 64 bits"))?;
        // Leading zeros count as overhead. Otherwise their number would be unlimited.
        self.count_overhead(u32::from(self.size == 0), MAX_EXTENSION)
    }

    fn count_overhead(&mut self, more: u32, limit: u32) -> Result<(), BadChunk> {
        self.overhead += more;
        if self.overhead > limit {
            return Err(BadChunk("a chunk extension is too long, or the trailers are too long"));
        }
        Ok(())
    }
}

/// Whether `byte` is a control character that a field value must not contain (RFC 9110 section 5.5).
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Whether `byte` may be part of a field name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `wire` in parts that are cut at `cuts`. Returns the body, the bytes after it, and whether its end was read.
    fn decode(mut decoder: BodyDecoder, wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, bool), BadChunk> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let mut body = Vec::new();
        let mut pending = Bytes::new();
        for pair in cuts.windows(2) {
            pending = [&pending[..], &wire[pair[0]..pair[1]]].concat().into();
            while let Some(piece) = decoder.take(&mut pending)? {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
        }
        Ok((body, pending.to_vec(), decoder.is_end()))
    }

    fn in_chunks(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            wire.extend(format!("{:X};ext=\"1\"\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\nx-trailer: 1\r\n\r\n");
        wire
    }

    proptest! {
        #[test]
        fn a_chunked_body_is_decoded_in_the_same_way_at_every_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut wire = in_chunks(&chunks);
            wire.extend(b"GET /");
            let read = decode(BodyDecoder::CHUNKED, &wire, &cuts);
            prop_assert_eq!(read, Ok((chunks.concat(), b"GET /".to_vec(), true)));
        }

        #[test]
        fn the_result_never_depends_on_the_cuts(wire in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
            let whole = decode(BodyDecoder::CHUNKED, &wire, &[]);
            let parts = decode(BodyDecoder::CHUNKED, &wire, &cuts);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            prop_assert_eq!(whole.ok(), parts.ok());
        }
    }

    #[test]
    fn a_body_with_a_length_ends_after_that_many_bytes() {
        assert_eq!(
            decode(BodyDecoder::Length(5), b"helloGET", &[2]),
            Ok((b"hello".to_vec(), b"GET".to_vec(), true))
        );
        assert_eq!(
            decode(BodyDecoder::Length(9), b"hello", &[2]),
            Ok((b"hello".to_vec(), Vec::new(), false))
        );
    }

    #[test]
    fn the_limit_on_extensions_holds_for_each_chunk_alone() {
        let chunk = "00000010;chunk-signature=0123456789abcdef0123456789abcdef0123456789abcdef\r\nsixteen bytes...\r\n";
        let wire = chunk.repeat(5_000) + "0\r\n\r\n";
        let read = decode(BodyDecoder::CHUNKED, wire.as_bytes(), &[]).expect("valid chunks");
        assert_eq!((read.0.len(), read.2), (16 * 5_000, true));
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for wire in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\na\r\n",
            " 1\r\na\r\n",
            "1\na\r\n",
            "1;a\nb\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\rb",
            "1\r\r\n",
            "1;x\ra\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\n\rx",
            "0\r\na\rb\r\n",
            "0\r\na: b\rc\r\n",
            "0\r\nGET / HTTP/1.1\r\n",
            "0\r\n: b\r\n",
            "0\r\na : b\r\n",
            "0\r\na: b\r\n c\r\n",
            "0\r\na: \0\r\n",
            "1 1\r\na\r\n",
            "1 x\r\na\r\n",
            "1;\0\r\na\r\n",
            "10000000000000000\r\n",
        ] {
            let read = decode(BodyDecoder::CHUNKED, wire.as_bytes(), &[]);
            assert!(read.is_err(), "{wire:?}: {read:?}");
        }
        let endless = [
            "1;".to_owned() + &"x".repeat(20_000),
            "0".repeat(20_000),
            "0\r\n".to_owned() + &"a".repeat(20_000),
        ];
        for wire in endless {
            assert!(decode(BodyDecoder::CHUNKED, wire.as_bytes(), &[]).is_err());
        }
    }
}
