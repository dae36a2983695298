//! A request body from the wire to its facts: decompressed if need be, scanned, and forgotten.

use std::{
    fmt,
    io::{self, Write},
};

use super::scanner::{RequestFacts, RequestScanner};
use crate::scan::{
    encoding::{Decoder, Encoding, EncodingKind},
    json::error::Refusal,
};

/// The ratio of decompressed to compressed bytes from which on a body is taken for a bomb; deflate ends at 1,032.
const RATIO: u64 = 1000;
/// Up to here any ratio is fine.
const RATIO_FREE: u64 = 1024 * 1024;

/// Why the facts of a body cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectError {
    /// It has no single reading (400).
    Refused(Refusal),
    /// It is longer than `limit` bytes, decompressed (413).
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// It is not what its `content-encoding` says, or a bomb (400).
    Undecodable(String),
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::TooLarge { limit } => write!(f, "the body is longer than {limit} bytes"),
            Self::Undecodable(problem) => write!(f, "the body cannot be decompressed: {problem}"),
        }
    }
}

impl std::error::Error for InspectError {}

/// Reads a body as it arrives, compressed or not. Memory is bounded: a scratch of 32 KiB, zstd's window of at most 8 MiB,
/// and what [`RequestScanner`] needs.
pub struct BodyInspector {
    decoder: Decoder<Sink>,
    failed: Option<InspectError>,
}

/// Where decompressed bytes go.
struct Sink {
    scanner: RequestScanner,
    limit: u64,
    compressed: u64,
    decompressed: u64,
    error: Option<InspectError>,
}

impl BodyInspector {
    /// An inspector of a body with this content coding and at most `max_decompressed` bytes in the clear, or `None` where
    /// nobody here can read it.
    pub fn new(encoding: EncodingKind, max_decompressed: u64) -> Option<Self> {
        let encoding: Option<Encoding> = match encoding {
            EncodingKind::Identity => None,
            EncodingKind::Known(encoding) => Some(encoding),
            EncodingKind::Unknown => return None,
        };
        let scanner = RequestScanner::new();
        let sink = Sink {
            scanner,
            limit: max_decompressed,
            compressed: 0,
            decompressed: 0,
            error: None,
        };
        let decoder = Decoder::new(encoding, sink).ok()?;
        Some(Self { decoder, failed: None })
    }

    /// Reads the next piece of the body as it was sent.
    ///
    /// Whether a bomb is seen as one may depend on how it is cut; nothing else does.
    ///
    /// # Errors
    ///
    /// An [`InspectError`] as soon as it is certain; every later call repeats it.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), InspectError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Some(sink) = self.decoder.sink() {
            sink.compressed += chunk.len() as u64;
        }
        let result = self.decoder.feed(chunk);
        result.map_err(|error| self.fail(&error))
    }

    /// How many bytes have been read, in the clear.
    pub fn decompressed(&mut self) -> u64 {
        self.decoder.sink().map_or(0, |sink| sink.decompressed)
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// An [`InspectError`] where the body is not complete or has no single reading.
    pub fn finish(mut self) -> Result<RequestFacts, InspectError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Err(error) = self.decoder.finish() {
            return Err(self.fail(&error));
        }
        let scanner = self
            .decoder
            .sink()
            .map(|sink| std::mem::take(&mut sink.scanner))
            .unwrap_or_default();
        scanner.finish().map_err(InspectError::Refused)
    }

    /// What an error of the decoder means: the sink's own reason where it has one.
    fn fail(&mut self, error: &io::Error) -> InspectError {
        let own = self.decoder.sink().and_then(|sink| sink.error.clone());
        let error = own.unwrap_or_else(|| InspectError::Undecodable(error.to_string()));
        self.failed = Some(error.clone());
        error
    }
}

impl Sink {
    fn take(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.decompressed += piece.len() as u64;
        if self.decompressed > self.limit {
            return Err(InspectError::TooLarge { limit: self.limit });
        }
        if self.decompressed > RATIO_FREE && self.decompressed / RATIO > self.compressed {
            let problem = format!("it expands more than {RATIO} times");
            return Err(InspectError::Undecodable(problem));
        }
        self.scanner.feed(piece).map_err(InspectError::Refused)
    }
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.take(piece) {
            Ok(()) => Ok(piece.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Problem;
    use flate2::{Compression, write::GzEncoder};

    fn inspect(kind: EncodingKind, body: &[u8], limit: u64, size: usize) -> Result<RequestFacts, InspectError> {
        let mut inspector = BodyInspector::new(kind, limit).unwrap();
        for chunk in body.chunks(size) {
            if let Err(error) = inspector.feed(chunk) {
                assert_eq!(inspector.feed(b"more"), Err(error.clone()), "it is told again");
                assert_eq!(inspector.finish(), Err(error.clone()));
                return Err(error);
            }
        }
        inspector.finish()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    const ZSTD: EncodingKind = EncodingKind::Known(Encoding::Zstd);
    const GZIP: EncodingKind = EncodingKind::Known(Encoding::Gzip);

    #[test]
    fn a_recorded_zstd_body_has_the_facts_of_its_plain_text() {
        let body = include_bytes!("../../../tests/fixtures/recordings/codex0.169-sse-chatgpt-zstd.body.zst");
        let plain = include_bytes!("../../../tests/fixtures/recordings/codex0.169-sse-chatgpt-zstd.body.json");
        let expected = inspect(EncodingKind::Identity, plain, 1 << 20, 1 << 20).unwrap();
        assert_eq!(expected.model.as_deref(), Some("gpt-5.2-codex"));
        for size in [1, 7, 4096, body.len()] {
            assert_eq!(inspect(ZSTD, body, 1 << 20, size).as_ref(), Ok(&expected));
        }
    }

    #[test]
    fn nobody_reads_an_unknown_coding() {
        assert!(BodyInspector::new(EncodingKind::Unknown, 1).is_none());
    }

    #[test]
    fn the_limit_is_on_what_comes_out() {
        let text = format!("{{\"input\":\"{}\"}}", "ab".repeat(5000));
        let length = text.len() as u64;
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        for (kind, body) in [
            (EncodingKind::Identity, text.as_bytes()),
            (ZSTD, &zstd),
            (GZIP, &gzip(text.as_bytes())),
        ] {
            for size in [1, 100, 1 << 20] {
                assert!(inspect(kind, body, length, size).is_ok());
                let error = InspectError::TooLarge { limit: length - 1 };
                assert_eq!(inspect(kind, body, length - 1, size), Err(error));
            }
        }
    }

    #[test]
    fn bombs_are_seen_before_they_go_off() {
        let bomb = zstd::encode_all(&*[b"{\"input\":\"".as_slice(), &vec![b'a'; 50 << 20]].concat(), 3).unwrap();
        assert!(bomb.len() < 10_000);
        for size in [1, 100, 1 << 20] {
            let error = inspect(ZSTD, &bomb, 1 << 30, size);
            assert!(matches!(error, Err(InspectError::Undecodable(_))), "{error:?}");
        }
        let small = zstd::encode_all(&*[b"{\"input\":\"", &[b'a'; 1_000_000][..], b"\"}"].concat(), 3).unwrap();
        assert!(small.len() < 500);
        assert!(inspect(ZSTD, &small, 1 << 30, 1 << 20).is_ok());
    }

    #[test]
    fn what_is_wrong_inside_is_told_with_its_offset_in_the_clear() {
        let text = br#"{"model":"a","model":"b"}"#;
        let refusal = Refusal {
            problem: Problem::Twice(crate::scan::Field::Model),
            offset: 13,
        };
        let error = Err(InspectError::Refused(refusal));
        assert_eq!(inspect(GZIP, &gzip(text), 100, 3), error);
        assert_eq!(inspect(ZSTD, &zstd::encode_all(&text[..], 1).unwrap(), 100, 3), error);
    }

    #[test]
    fn what_is_not_compressed_is_undecodable() {
        let undecodable = |result| matches!(result, Err(InspectError::Undecodable(_)));
        for kind in [ZSTD, GZIP, EncodingKind::Known(Encoding::Deflate)] {
            assert!(undecodable(inspect(kind, b"", 100, 4)), "{kind:?}");
        }
        for kind in [ZSTD, GZIP] {
            assert!(undecodable(inspect(kind, b"{\"model\":\"gpt-5\"}", 100, 4)), "{kind:?}");
        }
    }
}
