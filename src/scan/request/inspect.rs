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

    /// Reads at most 64 KiB of a plain piece. Of a compressed one, reads at most 16 KiB, and at most about 32 KiB of what it
    /// expands to. The same `inspector` must take all steps of a piece before it takes the next piece.
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
mod tests;
