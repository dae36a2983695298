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
    encoding::{ContentDecoder, Encoding, EncodingKind, StepEnd},
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

/// A piece of a body that is read in steps, so that its reader can do something else between them. The steps together do
/// the same as one [`BodyInspector::feed`]. Nothing is copied.
///
/// ```
/// use steadfast::scan::{BodyInspector, EncodingKind, PieceInspection, RequestScanRules};
///
/// let mut inspector = BodyInspector::new(EncodingKind::Identity, 1000, RequestScanRules::default()).expect("a known coding");
/// let mut piece = PieceInspection::new(br#"{"model":"gpt-5"}"#);
/// while piece.step(&mut inspector)?.has_more {}
/// assert_eq!(inspector.finish()?.model.as_deref(), Some("gpt-5"));
/// # Ok::<(), steadfast::scan::InspectError>(())
/// ```
pub struct PieceInspection<'p> {
    /// The bytes that have not been read yet.
    rest: &'p [u8],
    is_begun: bool,
}

/// What one step of a [`PieceInspection`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectionStep {
    /// The number of bytes that were scanned, after decompression; at most 64 KiB.
    pub scanned: u64,
    /// Whether the piece needs another step.
    pub has_more: bool,
}

impl<'p> PieceInspection<'p> {
    /// The inspection of the next piece of a body.
    pub fn new(piece: &'p [u8]) -> Self {
        Self {
            rest: piece,
            is_begun: false,
        }
    }

    /// Reads at most 16 KiB of the piece, and at most about 32 KiB of what it expands to. The same `inspector` must take all
    /// steps of a piece before it takes the next piece.
    ///
    /// # Errors
    ///
    /// Those of [`BodyInspector::feed`].
    pub fn step(&mut self, inspector: &mut BodyInspector<'_>) -> Result<InspectionStep, InspectError> {
        if let Some(error) = &inspector.failed {
            return Err(error.clone());
        }
        let sink = inspector.decoder.sink_mut();
        if !self.is_begun {
            sink.compressed += self.rest.len() as u64;
            self.is_begun = true;
        }
        let before = sink.decompressed;
        match inspector.decoder.step(&mut self.rest) {
            Ok(end) => Ok(InspectionStep {
                scanned: inspector.decompressed() - before,
                has_more: end == StepEnd::HasMore,
            }),
            Err(error) => Err(inspector.fail(&error)),
        }
    }
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
    /// This takes long if the piece expands a thousand times. A caller that has other tasks to run uses
    /// [`PieceInspection`] instead.
    ///
    /// The detection of a decompression bomb may depend on where the body is cut. Nothing else depends on it.
    ///
    /// # Errors
    ///
    /// Returns an [`InspectError`] as soon as it is certain. Every later call returns it again.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), InspectError> {
        let mut piece = PieceInspection::new(chunk);
        while piece.step(self)?.has_more {}
        Ok(())
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
    use proptest::prelude::*;

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

    /// The facts of a body that is decompressed and scanned at once.
    fn facts_at_once(text: &[u8]) -> Result<RequestFacts, InspectError> {
        let mut scanner = RequestScanner::new(RequestScanRules::default());
        scanner.feed(text).map_err(InspectError::InvalidJson)?;
        scanner.finish().map_err(InspectError::InvalidJson)
    }

    #[test]
    fn a_step_is_short_however_far_a_piece_expands() {
        let text = [b"{\"input\":\"", &vec![b'a'; 8 << 20][..], b"\"}"].concat();
        for (kind, body) in [
            (EncodingKind::Identity, text.clone()),
            (ZSTD, zstd::encode_all(&*text, 3).unwrap()),
            (GZIP, gzip(&text)),
        ] {
            let mut inspector = BodyInspector::new(kind, 1 << 30, RequestScanRules::default()).unwrap();
            // The ratio is checked against the whole piece.
            let filler = vec![0; 64 << 10];
            inspector.decoder.sink_mut().compressed = filler.len() as u64;
            let (mut piece, mut steps) = (PieceInspection::new(&body), 0);
            loop {
                let step = piece.step(&mut inspector).unwrap();
                assert!(step.scanned <= 64 << 10, "{kind:?}: {step:?}");
                steps += 1;
                if !step.has_more {
                    break;
                }
            }
            assert!(steps > 100, "{kind:?}: {steps}");
            assert_eq!(inspector.finish(), facts_at_once(&text));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// However a body is compressed and cut, its steps read what one reading of its text reads. They stop at the end of each
        /// piece, and read no byte twice.
        #[test]
        fn steps_read_what_one_reading_reads(
            unit in prop_oneof![
                Just("\"a\":1,"), Just("\"input\":[[[]],{}],"), Just("\"b\":\"\\u0061\\\"é\","), Just("\"model\":\"m\","), Just("\"c\":"),
            ],
            end in prop_oneof![Just("\"prompt_cache_key\":\"k\"}"), Just("}"), Just("")],
            repeat in prop_oneof![0usize..20, 1000usize..30_000],
            size in prop_oneof![1usize..40, 40usize..300_000],
        ) {
            let text = format!("{{{}{end}", unit.repeat(repeat)).into_bytes();
            let expected = facts_at_once(&text);
            for (kind, body) in [
                (EncodingKind::Identity, text.clone()),
                (ZSTD, zstd::encode_all(&*text, 3).unwrap()),
                (GZIP, gzip(&text)),
            ] {
                let mut inspector = BodyInspector::new(kind, 1 << 30, RequestScanRules::default()).unwrap();
                let (mut scanned, mut failed) = (0, None);
                'body: for chunk in body.chunks(size) {
                    let mut piece = PieceInspection::new(chunk);
                    loop {
                        match piece.step(&mut inspector) {
                            Ok(step) => {
                                scanned += step.scanned;
                                prop_assert_eq!(scanned, inspector.decompressed());
                                if !step.has_more {
                                    prop_assert!(piece.rest.is_empty());
                                    break;
                                }
                            }
                            Err(error) => {
                                failed = Some(error);
                                break 'body;
                            }
                        }
                    }
                }
                let read = failed.map_or_else(|| inspector.finish(), Err);
                prop_assert_eq!(&read, &expected, "{:?}", kind);
                prop_assert!(read.is_err() || kind != EncodingKind::Identity || scanned == text.len() as u64);
            }
        }
    }
}
