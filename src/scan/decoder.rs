//! Decompression of a body that is passed on piece by piece.

use std::io;

use bytes::{Buf as _, Bytes};

use super::encoding::{ContentDecoder, Encoding, StepEnd};

/// The size in bytes from which on a decompressed piece is passed on.
const PIECE: usize = 32 << 10;

/// Decompresses a body that is passed on piece by piece. It keeps no more than one piece in memory, however much larger
/// the body becomes.
pub struct StreamDecoder {
    decoder: ContentDecoder<Vec<u8>>,
    /// The compressed bytes that have not been decompressed yet.
    compressed: Bytes,
    /// Whether all of the compressed bytes have been decompressed.
    is_done: bool,
    is_finished: bool,
}

impl StreamDecoder {
    /// A decoder for the beginning of a body.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(Self {
            decoder: ContentDecoder::new(Some(encoding), Vec::new())?,
            compressed: Bytes::new(),
            is_done: true,
            is_finished: false,
        })
    }

    /// Adds compressed bytes.
    pub fn push(&mut self, compressed: Bytes) {
        self.compressed = match self.compressed.is_empty() {
            true => compressed,
            false => [&self.compressed[..], &compressed].concat().into(),
        };
        self.is_done = false;
    }

    /// Returns the next piece of the decompressed body; `None` if more compressed bytes are necessary.
    ///
    /// # Errors
    /// If the body is corrupt, or continues after its end.
    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        while !self.is_done && self.decoder.sink_mut().len() < PIECE {
            let mut rest = &self.compressed[..];
            self.is_done = self.decoder.step(&mut rest)? == StepEnd::PieceDone;
            let read = self.compressed.len() - rest.len();
            self.compressed.advance(read);
            if self.is_done {
                self.decoder.flush()?;
            }
        }
        Ok(self.take())
    }

    /// Ends the body. Returns the last piece of it, if there is one more.
    ///
    /// # Errors
    /// If the body is incomplete.
    pub fn finish(&mut self) -> io::Result<Option<Bytes>> {
        if !self.is_finished {
            self.decoder.finish()?;
            self.is_finished = true;
        }
        Ok(self.take())
    }

    fn take(&mut self) -> Option<Bytes> {
        let piece = std::mem::take(self.decoder.sink_mut());
        (!piece.is_empty()).then(|| piece.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write};
    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Gzip, Encoding::Deflate];

    fn compress(encoding: Encoding, text: &[u8]) -> Vec<u8> {
        let (mut bytes, level) = (Vec::new(), Compression::default());
        match encoding {
            Encoding::Zstd => bytes = zstd::encode_all(text, 3).expect("compressed"),
            Encoding::Gzip => write::GzEncoder::new(&mut bytes, level)
                .write_all(text)
                .expect("compressed"),
            Encoding::Deflate => write::ZlibEncoder::new(&mut bytes, level)
                .write_all(text)
                .expect("compressed"),
        }
        bytes
    }

    fn decompress<'a>(encoding: Encoding, pieces: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<Bytes>> {
        let mut decoder = StreamDecoder::new(encoding)?;
        let mut found = Vec::new();
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(piece) = decoder.next_piece()? {
                found.push(piece);
            }
        }
        while let Some(piece) = decoder.finish()? {
            found.push(piece);
        }
        Ok(found)
    }

    #[test]
    fn a_piece_is_bounded_however_well_the_body_is_compressed() {
        let zeros = vec![0; 64 << 20];
        for encoding in ALL {
            let body = compress(encoding, &zeros);
            let pieces = decompress(encoding, [&body[..]]).expect("a valid body");
            let largest = pieces.iter().map(Bytes::len).max();
            assert!(
                largest.is_some_and(|largest| largest <= 4 * PIECE),
                "{encoding:?} {largest:?}"
            );
            assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), zeros.len());
        }
    }

    #[test]
    fn an_event_is_passed_on_before_the_next_one_arrives() {
        let (first, second) = (b"data: {\"a\":1}\n\n", b"data: {\"b\":2}\n\n");
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(first).expect("compressed");
        encoder.flush().expect("compressed");
        let mut decoder = StreamDecoder::new(Encoding::Gzip).expect("memory");
        decoder.push(std::mem::take(encoder.get_mut()).into());
        assert_eq!(decoder.next_piece().expect("valid").as_deref(), Some(&first[..]));
        assert_eq!(decoder.next_piece().expect("valid"), None);
        encoder.write_all(second).expect("compressed");
        decoder.push(encoder.finish().expect("compressed").into());
        assert_eq!(decoder.next_piece().expect("valid").as_deref(), Some(&second[..]));
        assert_eq!(decoder.finish().expect("whole"), None);
    }

    #[test]
    fn corrupt_and_incomplete_bodies_are_errors() {
        for encoding in ALL {
            let body = compress(encoding, b"some text");
            assert!(decompress(encoding, [&body[..body.len() - 1]]).is_err(), "{encoding:?}");
            assert!(
                decompress(encoding, [&[0x1f, 0x8b, 0xff, 0xff][..]]).is_err(),
                "{encoding:?}"
            );
            assert!(decompress(encoding, [&body[..], b"more"]).is_err(), "{encoding:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_body_is_decompressed_from_any_pieces(
            text in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5000),
            repeat in 1usize..30,
            size in prop_oneof![1usize..40, 40usize..100_000],
        ) {
            let text = text.repeat(repeat);
            for encoding in ALL {
                let pieces = decompress(encoding, compress(encoding, &text).chunks(size)).expect("a valid body");
                prop_assert_eq!(pieces.concat(), &text[..]);
            }
        }
    }
}
