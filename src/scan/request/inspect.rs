//! Reads the facts of a request body as it was sent: it decompresses the body, enforces its maximum size and scans it.

use std::{
    fmt,
    io::{self, Write},
};

use super::{
    facts::RequestFacts,
    multipart::{
        boundary::Boundary,
        error::MultipartError,
        scanner::{FormExtent, MultipartScanner},
    },
    rules::RequestScanRules,
    scanner::RequestScanner,
};
use crate::scan::{
    encoding::{ContentDecoder, Encoding, EncodingKind},
    json::error::JsonError,
};

/// A body that expands more than this many times is refused as a decompression bomb. Deflate expands at most 1,032 times.
const MAX_RATIO: u64 = 1000;
/// The number of decompressed bytes up to which the ratio is not checked.
const RATIO_FREE: u64 = 1024 * 1024;

/// The reasons why no facts can be read from a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectError {
    /// The body is not valid, unambiguous JSON (400).
    InvalidJson(JsonError),
    /// The body is not a valid, unambiguous form (400).
    InvalidForm(MultipartError),
    /// The decompressed body is larger than the limit (413).
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The body cannot be decompressed with its `content-encoding`, or it is a decompression bomb (400). The text says
    /// what is wrong.
    Undecodable(String),
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidJson(error) => error.fmt(f),
            Self::InvalidForm(error) => error.fmt(f),
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::Undecodable(problem) => write!(f, "the body cannot be decompressed: {problem}"),
        }
    }
}

impl std::error::Error for InspectError {}

/// Reads a body as it arrives, compressed or not.
///
/// The memory is bounded: a buffer of 32 KiB, the zstd window of at most 8 MiB, and the memory of [`RequestScanner`] or
/// [`MultipartScanner`].
pub struct BodyInspector<'r> {
    decoder: ContentDecoder<ScannerSink<'r>>,
    /// The rules of the scanner.
    rules: RequestScanRules<'r>,
    /// The error that every later call returns.
    failed: Option<InspectError>,
}

/// The scanner of a body, by the format of the body.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all bodies are JSON, and their scanner needs no allocation"
)]
enum BodyScanner<'r> {
    Json(RequestScanner<'r>),
    Form(Box<MultipartScanner<'r>>),
}

impl BodyScanner<'_> {
    fn feed(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        match self {
            Self::Json(scanner) => scanner.feed(piece).map_err(InspectError::InvalidJson),
            Self::Form(scanner) => scanner.feed(piece).map_err(InspectError::InvalidForm),
        }
    }

    fn finish(self) -> Result<RequestFacts, InspectError> {
        match self {
            Self::Json(scanner) => scanner.finish().map_err(InspectError::InvalidJson),
            Self::Form(scanner) => scanner.finish().map_err(InspectError::InvalidForm),
        }
    }
}

/// Receives the decompressed bytes.
struct ScannerSink<'r> {
    scanner: BodyScanner<'r>,
    /// The maximum number of decompressed bytes.
    limit: u64,
    /// The number of bytes so far, as sent.
    compressed: u64,
    /// The number of bytes so far, after decompression.
    decompressed: u64,
    /// The reason why the sink has refused a piece, if it has.
    error: Option<InspectError>,
}

impl<'r> BodyInspector<'r> {
    /// An inspector of a JSON body with the given content coding and at most `max_decompressed` bytes after decompression, which
    /// looks for what `rules` say. Returns `None` if the coding is not known, or if the decompressor cannot be allocated.
    pub fn new(encoding: EncodingKind, max_decompressed: u64, rules: RequestScanRules<'r>) -> Option<Self> {
        let scanner = BodyScanner::Json(RequestScanner::new(rules));
        Self::with_scanner(encoding, max_decompressed, rules, scanner)
    }

    /// An inspector as [`BodyInspector::new`] makes it, of a form whose parts are divided by `boundary`.
    pub fn form(
        encoding: EncodingKind,
        max_decompressed: u64,
        rules: RequestScanRules<'r>,
        boundary: &Boundary,
    ) -> Option<Self> {
        let scanner = MultipartScanner::new(rules, boundary, FormExtent::Whole);
        let scanner = BodyScanner::Form(Box::new(scanner));
        Self::with_scanner(encoding, max_decompressed, rules, scanner)
    }

    fn with_scanner(
        encoding: EncodingKind,
        max_decompressed: u64,
        rules: RequestScanRules<'r>,
        scanner: BodyScanner<'r>,
    ) -> Option<Self> {
        let encoding: Option<Encoding> = match encoding {
            EncodingKind::Identity => None,
            EncodingKind::Known(encoding) => Some(encoding),
            EncodingKind::Unknown => return None,
        };
        let sink = ScannerSink {
            scanner,
            limit: max_decompressed,
            compressed: 0,
            decompressed: 0,
            error: None,
        };
        let decoder = ContentDecoder::new(encoding, sink).ok()?;
        Some(Self {
            decoder,
            rules,
            failed: None,
        })
    }

    /// Reads the next piece of the body as it was sent.
    ///
    /// The detection of a decompression bomb may depend on where the body is cut. Nothing else depends on it.
    ///
    /// # Errors
    ///
    /// Returns an [`InspectError`] as soon as it is certain. Every later call returns it again.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), InspectError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.decoder.sink_mut().compressed += chunk.len() as u64;
        let result = self.decoder.feed(chunk);
        result.map_err(|error| self.fail(&error))
    }

    /// The number of bytes read so far, after decompression.
    pub fn decompressed(&mut self) -> u64 {
        self.decoder.sink_mut().decompressed
    }

    /// Ends the body and returns its facts.
    ///
    /// # Errors
    ///
    /// Returns an [`InspectError`] if the body is incomplete, invalid or ambiguous.
    pub fn finish(mut self) -> Result<RequestFacts, InspectError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Err(error) = self.decoder.finish() {
            return Err(self.fail(&error));
        }
        let empty = BodyScanner::Json(RequestScanner::new(self.rules));
        let scanner = std::mem::replace(&mut self.decoder.sink_mut().scanner, empty);
        scanner.finish()
    }

    /// Turns an error of the decoder into an [`InspectError`]. If the sink has refused a piece, its reason is returned.
    fn fail(&mut self, error: &io::Error) -> InspectError {
        let refusal = self.decoder.sink_mut().error.clone();
        let error = refusal.unwrap_or_else(|| InspectError::Undecodable(error.to_string()));
        self.failed = Some(error.clone());
        error
    }
}

impl ScannerSink<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.decompressed += piece.len() as u64;
        if self.decompressed > self.limit {
            return Err(InspectError::TooLarge { limit: self.limit });
        }
        if self.decompressed > RATIO_FREE && self.decompressed / MAX_RATIO > self.compressed {
            let problem = format!("the body expands more than {MAX_RATIO} times");
            return Err(InspectError::Undecodable(problem));
        }
        self.scanner.feed(piece)
    }
}

impl Write for ScannerSink<'_> {
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
    use crate::scan::{JsonErrorKind, RoutingField};
    use flate2::{Compression, write::GzEncoder};

    fn inspect(kind: EncodingKind, body: &[u8], limit: u64, size: usize) -> Result<RequestFacts, InspectError> {
        let mut inspector = BodyInspector::new(kind, limit, RequestScanRules::default()).unwrap();
        for chunk in body.chunks(size) {
            if let Err(error) = inspector.feed(chunk) {
                assert_eq!(
                    inspector.feed(b"more"),
                    Err(error.clone()),
                    "every later call returns the error again"
                );
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
    fn a_body_with_an_unknown_coding_has_no_inspector() {
        assert!(BodyInspector::new(EncodingKind::Unknown, 1, RequestScanRules::default()).is_none());
    }

    #[test]
    fn the_limit_applies_to_the_decompressed_body() {
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
    fn decompression_bombs_are_refused() {
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
    fn the_offset_of_an_error_counts_decompressed_bytes() {
        let text = br#"{"model":"a","model":"b"}"#;
        let error = JsonError {
            kind: JsonErrorKind::DuplicateField(RoutingField::Model),
            offset: 13,
        };
        let error = Err(InspectError::InvalidJson(error));
        assert_eq!(inspect(GZIP, &gzip(text), 100, 3), error);
        assert_eq!(inspect(ZSTD, &zstd::encode_all(&text[..], 1).unwrap(), 100, 3), error);
    }

    #[test]
    fn a_body_that_is_not_compressed_is_undecodable() {
        let undecodable = |result| matches!(result, Err(InspectError::Undecodable(_)));
        for kind in [ZSTD, GZIP, EncodingKind::Known(Encoding::Deflate)] {
            assert!(undecodable(inspect(kind, b"", 100, 4)), "{kind:?}");
        }
        for kind in [ZSTD, GZIP] {
            assert!(undecodable(inspect(kind, b"{\"model\":\"gpt-5\"}", 100, 4)), "{kind:?}");
        }
    }
}
