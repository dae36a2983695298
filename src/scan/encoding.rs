//! Content codings (RFC 9110 §8.4.1), undone only to look inside.
//!
//! What is looked at must be what the upstream will read. Decoders disagree on what follows the first frame or member:
//! some read on, some stop, some fail. So exactly one is taken, and anything after it is refused.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

/// A coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `zstd` (RFC 8878): one frame, a window of at most 8 MiB (RFC 9659), no dictionary.
    Zstd,
    /// `gzip` or `x-gzip` (RFC 1952): one member.
    Gzip,
    /// `deflate` (RFC 1950); also without the zlib wrapper (RFC 1951), as some clients send it.
    Deflate,
}

/// What a `content-encoding` header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncodingKind {
    /// The body is as it is.
    Identity,
    /// The body has to be decompressed to be read.
    Known(Encoding),
    /// Another coding, or several: the body cannot be read.
    Unknown,
}

impl Encoding {
    /// Reads the value of a `content-encoding` header; names are matched without regard to case. A list is
    /// [`EncodingKind::Unknown`], and so are repeated headers once joined with commas.
    pub fn from_header(value: &str) -> EncodingKind {
        let name = value.trim_matches([' ', '\t']);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if name.is_empty() || is("identity") {
            EncodingKind::Identity
        } else if is("zstd") {
            EncodingKind::Known(Self::Zstd)
        } else if is("gzip") || is("x-gzip") {
            EncodingKind::Known(Self::Gzip)
        } else if is("deflate") {
            EncodingKind::Known(Self::Deflate)
        } else {
            EncodingKind::Unknown
        }
    }
}

/// Decompressed bytes are handed on in pieces of at most this size.
const SCRATCH: usize = 32 * 1024;
/// The largest window that a content coding may ask for, as a power of two (RFC 9659 §3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body that is being decompressed into `W`, a piece at a time. Errors of `W` come back as they are.
pub(super) struct Decoder<W: Write>(Codec<W>);

enum Codec<W: Write> {
    Identity(W),
    Zstd {
        decoder: Box<ZstdDecoder<'static>>,
        scratch: Box<[u8]>,
        sink: W,
        ended: bool,
    },
    Gzip(Box<GzDecoder<W>>),
    /// `deflate` before its first byte, which tells whether it is wrapped. The sink is there until it is told.
    Deflate(Option<W>),
    Zlib(ZlibDecoder<W>),
    Raw(DeflateDecoder<W>),
}

impl<W: Write> Decoder<W> {
    /// A decoder at the beginning of a body; `None` stands for a body as it is.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn new(encoding: Option<Encoding>, sink: W) -> io::Result<Self> {
        Ok(Self(match encoding {
            None => Codec::Identity(sink),
            Some(Encoding::Zstd) => {
                let mut decoder = Box::new(ZstdDecoder::new()?);
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
                Codec::Zstd {
                    decoder,
                    scratch: vec![0; SCRATCH].into_boxed_slice(),
                    sink,
                    ended: false,
                }
            }
            Some(Encoding::Gzip) => Codec::Gzip(Box::new(GzDecoder::new(sink))),
            Some(Encoding::Deflate) => Codec::Deflate(Some(sink)),
        }))
    }

    /// Decompresses `chunk`.
    ///
    /// # Errors
    ///
    /// Those of the sink, and where the body is not what it should be.
    pub fn feed(&mut self, mut chunk: &[u8]) -> io::Result<()> {
        if let (Codec::Deflate(sink), Some(first)) = (&mut self.0, chunk.first())
            && let Some(sink) = sink.take()
        {
            self.0 = begin_deflate(*first, sink);
        }
        while !chunk.is_empty() {
            let consumed = self.0.step(chunk)?;
            if consumed == 0 {
                return Err(io::Error::other("bytes follow the end of the compressed body"));
            }
            chunk = chunk.get(consumed..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// Those of the sink, and where the body is not complete.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Codec::Identity(_) | Codec::Zstd { ended: true, .. } => Ok(()),
            Codec::Gzip(decoder) => decoder.try_finish(),
            Codec::Zlib(decoder) => decoder.try_finish(),
            Codec::Raw(decoder) => decoder.try_finish(),
            Codec::Zstd { .. } | Codec::Deflate(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Where it goes; `None` while that is not yet in use.
    pub fn sink(&mut self) -> Option<&mut W> {
        match &mut self.0 {
            Codec::Identity(sink) | Codec::Zstd { sink, .. } => Some(sink),
            Codec::Gzip(decoder) => Some(decoder.get_mut()),
            Codec::Deflate(sink) => sink.as_mut(),
            Codec::Zlib(decoder) => Some(decoder.get_mut()),
            Codec::Raw(decoder) => Some(decoder.get_mut()),
        }
    }
}

/// Tells a zlib header from a bare stream. A header's first byte ends in 8 (RFC 1950 §2.2); a bare stream that began so
/// would be a stored block whose padding is not zero, which no encoder writes and which is refused here.
fn begin_deflate<W: Write>(first: u8, sink: W) -> Codec<W> {
    if first & 0x0f == 8 {
        Codec::Zlib(ZlibDecoder::new(sink))
    } else {
        Codec::Raw(DeflateDecoder::new(sink))
    }
}

impl<W: Write> Codec<W> {
    /// Takes at least one byte of `input`, or none where the body has ended.
    fn step(&mut self, input: &[u8]) -> io::Result<usize> {
        match self {
            Self::Identity(sink) => sink.write(input),
            Self::Gzip(decoder) => decoder.write(input),
            Self::Zlib(decoder) => decoder.write(input),
            Self::Raw(decoder) => decoder.write(input),
            Self::Deflate(_) | Self::Zstd { ended: true, .. } => Ok(0),
            Self::Zstd {
                decoder,
                scratch,
                sink,
                ended,
            } => {
                let mut consumed = 0;
                loop {
                    let rest = input.get(consumed..).unwrap_or_default();
                    let status = decoder.run_on_buffers(rest, scratch)?;
                    consumed += status.bytes_read;
                    sink.write_all(scratch.get(..status.bytes_written).unwrap_or_default())?;
                    *ended = status.remaining == 0;
                    // A full scratch may mean that there is more than it could hold.
                    if *ended || consumed == input.len() && status.bytes_written < scratch.len() {
                        return Ok(consumed);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write};
    use proptest::prelude::*;

    fn compress(encoding: Encoding, text: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Zstd => zstd::encode_all(text, 3).unwrap(),
            Encoding::Gzip => {
                let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn compress_raw(text: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decompress<'a>(encoding: Encoding, chunks: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::new(Some(encoding), Vec::new())?;
        for chunk in chunks {
            decoder.feed(chunk)?;
        }
        decoder.finish()?;
        Ok(std::mem::take(decoder.sink().unwrap()))
    }

    const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Gzip, Encoding::Deflate];

    #[test]
    fn headers_are_read_as_they_are_written() {
        use EncodingKind::{Identity, Known, Unknown};
        for (value, kind) in [
            ("", Identity),
            (" Identity\t", Identity),
            ("zstd", Known(Encoding::Zstd)),
            ("GZIP", Known(Encoding::Gzip)),
            ("x-gzip", Known(Encoding::Gzip)),
            ("deflate ", Known(Encoding::Deflate)),
            ("br", Unknown),
            ("gzip, zstd", Unknown),
            ("gzip,", Unknown),
            ("identity, gzip", Unknown),
        ] {
            assert_eq!(Encoding::from_header(value), kind, "{value:?}");
        }
    }

    #[test]
    fn truncated_bodies_and_what_follows_the_end_are_errors() {
        for encoding in ALL {
            let whole = compress(encoding, b"some text, some text, some text");
            for end in 0..whole.len() {
                assert!(decompress(encoding, [&whole[..end]]).is_err(), "{encoding:?} {end}");
                assert!(
                    decompress(encoding, whole[..end].chunks(1)).is_err(),
                    "{encoding:?} {end}"
                );
            }
            let twice = [&whole[..], &whole].concat();
            let garbage = [&whole[..], b"x"].concat();
            for more in [&twice, &garbage] {
                assert!(decompress(encoding, [&more[..]]).is_err(), "{encoding:?}");
                assert!(decompress(encoding, more.chunks(1)).is_err(), "{encoding:?}");
                assert!(
                    decompress(encoding, [&whole[..], &more[whole.len()..]]).is_err(),
                    "{encoding:?}"
                );
            }
            assert!(decompress(encoding, [b"{}".as_slice()]).is_err());
        }
        // A skippable frame is a frame, and what follows it is one too many.
        let skippable = [b"\x50\x2a\x4d\x18\x01\0\0\0x", &compress(Encoding::Zstd, b"text")[..]].concat();
        assert!(decompress(Encoding::Zstd, [&skippable[..]]).is_err());
    }

    #[test]
    fn checksums_are_checked() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let mut whole = compress(encoding, b"some text");
            *whole
                .iter_mut()
                .nth_back(if encoding == Encoding::Gzip { 4 } else { 0 })
                .unwrap() ^= 1;
            assert!(decompress(encoding, [&whole[..]]).is_err(), "{encoding:?}");
        }
    }

    #[test]
    fn a_window_over_eight_mebibytes_is_refused() {
        for (log, accepted) in [(21, true), (23, true), (24, false), (27, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"text").unwrap();
            let body = encoder.finish().unwrap();
            assert_eq!(decompress(Encoding::Zstd, [&body[..]]).is_ok(), accepted, "{log}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_was_compressed_comes_out_again(
            text in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5000),
            repeat in 1usize..60,
            size in prop_oneof![1usize..40, 40usize..100_000],
            level in 0u32..10,
        ) {
            let text = text.repeat(repeat);
            for encoding in ALL {
                let body = compress(encoding, &text);
                prop_assert_eq!(&decompress(encoding, body.chunks(size)).unwrap(), &text);
            }
            let body = compress_raw(&text, level);
            prop_assert_eq!(&decompress(Encoding::Deflate, body.chunks(size)).unwrap(), &text);
        }
    }
}
