//! Where a body ends (RFC 9112 sections 6.3 and 7.1), without any I/O: bytes in, pieces of the body out.
//!
//! What two recipients could read differently is refused: line ends are CRLF, a chunk size is plain hexadecimal digits.
//! Chunk extensions and trailers are dropped: nothing behind Steadfast may act on fields that came after everything was
//! decided (RFC 9110 section 6.5.1).

use bytes::{Buf as _, Bytes};

/// Bytes that a chunk may have in front of its size and behind it.
const MAX_EXTENSION: u32 = 256;
/// Bytes of trailers that a body may have.
const MAX_TRAILERS: u32 = 16 << 10;

/// A framing that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct BadChunk(pub &'static str);

/// Finds the pieces of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum Decoder {
    /// This many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(Chunked),
    /// Up to the end of the connection.
    UntilClose,
}

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct Chunked {
    place: Place,
    /// The size of the chunk being read, or what is left of it.
    size: u64,
    /// Bytes of the present chunk's extension, or of the trailers.
    asides: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FirstDigit,
    Digits,
    /// Blanks behind the size, as some pad it with.
    Padding,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    End,
}

impl Decoder {
    /// A body in chunks, from its beginning.
    pub const CHUNKED: Self = Self::Chunked(Chunked {
        place: Place::FirstDigit,
        size: 0,
        asides: 0,
    });
    /// No body.
    pub const EMPTY: Self = Self::Length(0);

    /// Whether the whole body has been read.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked { place: Place::End, .. }))
    }

    /// How many bytes are known to come.
    pub fn expected(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) if chunked.place == Place::Data => chunked.size,
            Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// How many bytes the rest of the body has, where that is known.
    pub fn exact(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunked { place: Place::End, .. }) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece of the body from `pending`; `None` when more has to arrive first, or at the end.
    pub fn take(&mut self, pending: &mut Bytes) -> Result<Option<Bytes>, BadChunk> {
        match self {
            Self::Length(left) => Ok(take_up_to(left, pending)),
            Self::UntilClose => Ok(Some(std::mem::take(pending)).filter(|piece| !piece.is_empty())),
            Self::Chunked(chunked) => chunked.take(pending),
        }
    }
}

fn take_up_to(left: &mut u64, pending: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(pending.len());
    if length == 0 {
        return None;
    }
    *left -= length as u64;
    Some(pending.split_to(length))
}

impl Chunked {
    fn take(&mut self, pending: &mut Bytes) -> Result<Option<Bytes>, BadChunk> {
        self.skip_to_data(pending)?;
        if self.place != Place::Data {
            return Ok(None);
        }
        let piece = take_up_to(&mut self.size, pending);
        if self.size == 0 {
            self.place = Place::DataReturn;
            // So that the end of the body is known together with its last piece.
            self.skip_to_data(pending)?;
        }
        Ok(piece)
    }

    /// Consumes what stands between the data of two chunks, as far as it is there.
    fn skip_to_data(&mut self, pending: &mut Bytes) -> Result<(), BadChunk> {
        let mut read = 0;
        for byte in pending.iter() {
            if matches!(self.place, Place::Data | Place::End) {
                break;
            }
            self.place = self.after(*byte)?;
            read += 1;
        }
        pending.advance(read);
        if pending.is_empty() {
            // Even an empty window would hold what it is a window on.
            *pending = Bytes::new();
        }
        Ok(())
    }

    fn after(&mut self, byte: u8) -> Result<Place, BadChunk> {
        let refuse = |problem| Err(BadChunk(problem));
        Ok(match (self.place, byte) {
            (Place::FirstDigit | Place::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or_default());
                let size = self.size.checked_mul(16).and_then(|size| size.checked_add(digit));
                self.size = size.ok_or(BadChunk("a chunk's size is over 64 bits"))?;
                self.aside(u32::from(self.size == 0), MAX_EXTENSION)?;
                Place::Digits
            }
            (Place::FirstDigit, _) => return refuse("a chunk has no size"),
            (Place::Digits | Place::Padding | Place::Extension, b'\r') => Place::SizeLineFeed,
            (Place::Digits | Place::Padding, b';') => Place::Extension,
            (Place::Digits | Place::Padding, b' ' | b'\t') => {
                self.aside(1, MAX_EXTENSION)?;
                Place::Padding
            }
            (Place::Digits | Place::Padding, _) => return refuse("a chunk's size is not a number"),
            (Place::Extension, b'\n') => return refuse("a chunk's size ends in a bare line feed"),
            (Place::Extension, _) if is_control(byte) => return refuse("a chunk's extension has a control character"),
            (Place::Extension, _) => {
                self.aside(1, MAX_EXTENSION)?;
                Place::Extension
            }
            (Place::SizeLineFeed, b'\n') => {
                self.asides = 0;
                if self.size == 0 {
                    Place::TrailerStart
                } else {
                    Place::Data
                }
            }
            (Place::DataReturn, b'\r') => Place::DataLineFeed,
            (Place::DataLineFeed, b'\n') => Place::FirstDigit,
            (Place::DataReturn | Place::DataLineFeed, _) => return refuse("a chunk is longer than its size"),
            (Place::TrailerStart, b'\r') => Place::LastLineFeed,
            (Place::Trailer, b'\r') => Place::TrailerLineFeed,
            (Place::TrailerStart | Place::Trailer, b'\n') => return refuse("a trailer ends in a bare line feed"),
            (Place::TrailerName, b':') => Place::Trailer,
            (Place::TrailerStart | Place::TrailerName, _) if !is_token(byte) => {
                return refuse("a trailer is not a field");
            }
            (Place::Trailer, _) if is_control(byte) => return refuse("a trailer has a control character"),
            (Place::TrailerStart | Place::TrailerName | Place::Trailer, _) => {
                self.aside(1, MAX_TRAILERS)?;
                if self.place == Place::Trailer {
                    Place::Trailer
                } else {
                    Place::TrailerName
                }
            }
            (Place::TrailerLineFeed, b'\n') => Place::TrailerStart,
            (Place::LastLineFeed, b'\n') => Place::End,
            (Place::SizeLineFeed | Place::TrailerLineFeed | Place::LastLineFeed, _) => {
                return refuse("a carriage return stands alone");
            }
            (place @ (Place::Data | Place::End), _) => place,
        })
    }

    fn aside(&mut self, more: u32, most: u32) -> Result<(), BadChunk> {
        self.asides += more;
        if self.asides > most {
            return Err(BadChunk("a chunk's extension, or the trailers, are too long"));
        }
        Ok(())
    }
}

/// What no field's value may have (RFC 9110 section 5.5).
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// What a field's name is made of (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `wire` cut at `cuts`, and gives the body, what was left over, and the state at the end.
    fn decode(mut decoder: Decoder, wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, bool), BadChunk> {
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
        fn chunks_come_out_as_they_went_in_however_they_are_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut wire = in_chunks(&chunks);
            wire.extend(b"GET /");
            let read = decode(Decoder::CHUNKED, &wire, &cuts);
            prop_assert_eq!(read, Ok((chunks.concat(), b"GET /".to_vec(), true)));
        }

        #[test]
        fn no_input_breaks_it(wire in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
            let whole = decode(Decoder::CHUNKED, &wire, &[]);
            let parts = decode(Decoder::CHUNKED, &wire, &cuts);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            prop_assert_eq!(whole.ok(), parts.ok());
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        assert_eq!(
            decode(Decoder::Length(5), b"helloGET", &[2]),
            Ok((b"hello".to_vec(), b"GET".to_vec(), true))
        );
        assert_eq!(
            decode(Decoder::Length(9), b"hello", &[2]),
            Ok((b"hello".to_vec(), Vec::new(), false))
        );
    }

    #[test]
    fn what_stands_beside_the_data_is_bounded_for_each_chunk() {
        let chunk = "00000010;chunk-signature=0123456789abcdef0123456789abcdef0123456789abcdef\r\nsixteen bytes...\r\n";
        let wire = chunk.repeat(5_000) + "0\r\n\r\n";
        let read = decode(Decoder::CHUNKED, wire.as_bytes(), &[]).expect("plain chunks");
        assert_eq!((read.0.len(), read.2), (16 * 5_000, true));
    }

    #[test]
    fn chunks_with_two_readings_are_refused() {
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
            let read = decode(Decoder::CHUNKED, wire.as_bytes(), &[]);
            assert!(read.is_err(), "{wire:?}: {read:?}");
        }
        let endless = [
            "1;".to_owned() + &"x".repeat(20_000),
            "0".repeat(20_000),
            "0\r\n".to_owned() + &"a".repeat(20_000),
        ];
        for wire in endless {
            assert!(decode(Decoder::CHUNKED, wire.as_bytes(), &[]).is_err());
        }
    }
}
