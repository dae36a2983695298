//! Decompression of bodies by their content coding (RFC 9110 §8.4.1). A request body is decompressed only to inspect it,
//! and is forwarded as it was sent.
//!
//! The inspected text must be the text that the upstream will read. Decoders treat the bytes after the first frame or
//! member differently: some continue, some stop and some fail. So a body must have exactly one frame or member, and a body
//! with bytes after it is refused.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

#[cfg(test)]
mod tests;

/// A content coding that can be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `zstd` (RFC 8878): one frame with a window of at most 8 MiB (RFC 9659) and without a dictionary.
    Zstd,
    /// `gzip` or `x-gzip` (RFC 1952): one member.
    Gzip,
    /// `deflate` (RFC 1950). A bare stream without the zlib header (RFC 1951) is accepted too, because some clients send it.
    Deflate,
}

/// The meaning of a `content-encoding` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncodingKind {
    /// The body is not compressed.
    Identity,
    /// The body must be decompressed before it can be inspected.
    Known(Encoding),
    /// The coding is not supported, or there are several codings. The body cannot be inspected.
    Unknown,
}

impl Encoding {
    /// Parses the value of a `content-encoding` header. Case is ignored. A list of codings is [`EncodingKind::Unknown`];
    /// repeated headers are a list once they are joined with commas.
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

    /// Whether a body that begins with `bytes` can be in this coding. Some servers name a coding and do not apply it. A
    /// `deflate` body can begin with any byte.
    pub fn can_begin_with(self, bytes: &[u8]) -> bool {
        let begins = |magic: &[u8]| bytes.iter().zip(magic).all(|(byte, expected)| byte == expected);
        match self {
            Self::Gzip => begins(b"\x1f\x8b"),
            Self::Zstd => begins(b"\x28\xb5\x2f\xfd"),
            Self::Deflate => true,
        }
    }
}

/// The maximum size in bytes of the pieces that the zstd decoder passes on.
const SCRATCH: usize = 32 * 1024;
/// The maximum number of compressed bytes that one step of a decoder reads. To decompress so many bytes takes well under a
/// millisecond, whatever they are.
const STEP: usize = 16 * 1024;
/// The maximum number of bytes of a plain body that one step reads: as many as one read of a socket brings, so that a piece
/// is not cut again. The scanner copies the beginning of a value that is cut.
const PLAIN_STEP: usize = 64 * 1024;
/// The binary logarithm of the largest window that a content coding may ask for (RFC 9659 §3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Decompresses a body that arrives in pieces into `W`. Errors of `W` are returned unchanged.
///
/// A piece may expand a thousand times, so it is decompressed in bounded steps: one step reads at most [`STEP`] bytes, and
/// writes about [`SCRATCH`] bytes to `W`. A step of a plain body reads at most [`PLAIN_STEP`] bytes.
pub(super) struct ContentDecoder<W: Write>(Codec<W>);

/// Whether a piece of a body has been decompressed completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepEnd {
    /// The whole piece has been decompressed.
    PieceDone,
    /// Another step follows.
    HasMore,
}

enum Codec<W: Write> {
    Identity(W),
    Zstd {
        decoder: Box<ZstdDecoder<'static>>,
        scratch: Box<[u8]>,
        sink: W,
        ended: bool,
        /// Whether the last step has filled the scratch buffer, so that the decoder may hold more output.
        is_full: bool,
    },
    Gzip(Box<GzDecoder<W>>),
    /// A `deflate` body before its first byte. That byte tells whether the stream has a zlib header. The sink is `None`
    /// only while the state changes.
    Deflate(Option<W>),
    Zlib(ZlibDecoder<W>),
    Raw(DeflateDecoder<W>),
}

/// The reason why [`Codec::Deflate`] holds a sink whenever it is used.
const DEFLATE_HAS_SINK: &str = "the sink is taken only when the state changes";

impl<W: Write> ContentDecoder<W> {
    /// A decoder for the beginning of a body. `None` stands for a body that is not compressed.
    ///
    /// # Errors
    ///
    /// Fails if zstd cannot allocate its state.
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
                    is_full: false,
                }
            }
            Some(Encoding::Gzip) => Codec::Gzip(Box::new(GzDecoder::new(sink))),
            Some(Encoding::Deflate) => Codec::Deflate(Some(sink)),
        }))
    }

    /// Decompresses the beginning of `chunk` in one bounded step, and shortens `chunk` by the bytes that were read. The caller
    /// repeats this until the piece is done.
    ///
    /// # Errors
    ///
    /// Returns the errors of the sink, and an error if the body is corrupt or continues after its end.
    pub fn step(&mut self, chunk: &mut &[u8]) -> io::Result<StepEnd> {
        if let (Codec::Deflate(sink), Some(first)) = (&mut self.0, chunk.first()) {
            let sink = sink.take().expect(DEFLATE_HAS_SINK);
            self.0 = begin_deflate(*first, sink);
        }
        if !chunk.is_empty() || self.0.has_output() {
            let (input, _) = chunk.split_at(chunk.len().min(self.0.max_step()));
            let consumed = self.0.step(input)?;
            if consumed == 0 && self.0.is_ended(input) {
                return Err(io::Error::other("bytes follow the end of the compressed body"));
            }
            *chunk = chunk
                .get(consumed..)
                .expect("a decoder consumes no more than its input");
        }
        Ok(match chunk.is_empty() && !self.0.has_output() {
            true => StepEnd::PieceDone,
            false => StepEnd::HasMore,
        })
    }

    /// Passes everything that has been decompressed on to the sink.
    ///
    /// # Errors
    ///
    /// Returns the errors of the sink, and an error if the body is corrupt.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Codec::Gzip(decoder) => decoder.flush(),
            Codec::Zlib(decoder) => decoder.flush(),
            Codec::Raw(decoder) => decoder.flush(),
            Codec::Identity(_) | Codec::Zstd { .. } | Codec::Deflate(_) => Ok(()),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// Returns the errors of the sink, and an error if the body is incomplete.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Codec::Identity(_) | Codec::Zstd { ended: true, .. } => Ok(()),
            Codec::Gzip(decoder) => decoder.try_finish(),
            Codec::Zlib(decoder) => decoder.try_finish(),
            Codec::Raw(decoder) => decoder.try_finish(),
            Codec::Zstd { .. } | Codec::Deflate(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The sink that receives the decompressed bytes.
    pub fn sink_mut(&mut self) -> &mut W {
        match &mut self.0 {
            Codec::Identity(sink) | Codec::Zstd { sink, .. } => sink,
            Codec::Gzip(decoder) => decoder.get_mut(),
            Codec::Deflate(sink) => sink.as_mut().expect(DEFLATE_HAS_SINK),
            Codec::Zlib(decoder) => decoder.get_mut(),
            Codec::Raw(decoder) => decoder.get_mut(),
        }
    }
}

/// Decides by the first byte whether a `deflate` stream has a zlib header. The first byte of a header ends in 8 (RFC 1950
/// §2.2). A bare stream with such a byte would begin with a stored block whose padding is not zero. No encoder writes that,
/// and it is refused as an invalid header.
fn begin_deflate<W: Write>(first: u8, sink: W) -> Codec<W> {
    if first & 0x0f == 8 {
        Codec::Zlib(ZlibDecoder::new(sink))
    } else {
        Codec::Raw(DeflateDecoder::new(sink))
    }
}

impl<W: Write> Codec<W> {
    /// The maximum number of bytes that one step reads.
    fn max_step(&self) -> usize {
        match self {
            Self::Identity(_) => PLAIN_STEP,
            _ => STEP,
        }
    }

    /// Whether the decoder may hold output although it has read all of its input.
    fn has_output(&self) -> bool {
        matches!(self, Self::Zstd { is_full: true, .. })
    }

    /// Whether the body has ended, after a step has read nothing of `input`.
    fn is_ended(&self, input: &[u8]) -> bool {
        match self {
            Self::Zstd { ended, .. } => *ended && !input.is_empty(),
            // These decoders read at least one byte of a body that goes on.
            Self::Identity(_) | Self::Gzip(_) | Self::Deflate(_) | Self::Zlib(_) | Self::Raw(_) => true,
        }
    }

    /// Decompresses a part of `input` and returns its length.
    fn step(&mut self, input: &[u8]) -> io::Result<usize> {
        match self {
            Self::Identity(sink) => sink.write(input),
            Self::Gzip(decoder) => decoder.write(input),
            Self::Zlib(decoder) => decoder.write(input),
            Self::Raw(decoder) => decoder.write(input),
            Self::Zstd { ended: true, .. } => Ok(0),
            Self::Deflate(_) => unreachable!("the first byte of the body ends this state"),
            Self::Zstd {
                decoder,
                scratch,
                sink,
                ended,
                is_full,
            } => {
                let status = decoder.run_on_buffers(input, scratch)?;
                let written = scratch.get(..status.bytes_written);
                sink.write_all(written.expect("zstd writes no more than its buffer"))?;
                *ended = status.remaining == 0;
                *is_full = !*ended && status.bytes_written == scratch.len();
                Ok(status.bytes_read)
            }
        }
    }
}
