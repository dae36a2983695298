//! Reads the facts of a request body that arrives in pieces.

use std::sync::LazyLock;

use super::{facts::RequestFacts, visitor::RequestVisitor};
use crate::{
    body_path::BodyPaths,
    scan::json::{error::JsonError, lexer::InstructionSet, scanner::Scanner},
};

/// What a scanner looks for in a request body.
#[derive(Clone, Copy)]
pub struct RequestScanRules<'r> {
    /// The paths of the texts that may name the session.
    pub paths: &'r BodyPaths,
    /// How thoroughly the names of objects are looked for.
    pub references: ReferenceSearch,
}

/// How thoroughly a body is searched for the names of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceSearch {
    /// The names are read at the places where the API has them, if their keys are written without escapes, as JSON
    /// writers do. A name decides the route only.
    Usual,
    /// The names are read at every depth, also if their keys are written with escapes. A name decides access.
    Exhaustive,
}

/// The paths of a scanner without a configuration: those of the session keys of OpenAI's clients.
static DEFAULT_PATHS: LazyLock<BodyPaths> = LazyLock::new(|| {
    let paths = ["prompt_cache_key", "client_metadata.session_id"];
    BodyPaths::new(&paths.map(|path| path.parse().expect("a valid path")))
});

impl Default for RequestScanRules<'static> {
    fn default() -> Self {
        Self {
            paths: &DEFAULT_PATHS,
            references: ReferenceSearch::Usual,
        }
    }
}

/// Reads a request body as it arrives, in pieces of any size.
///
/// The body is not kept: the memory is bounded by the facts themselves, about 32 KiB at most. The facts are final only
/// when [`RequestScanner::finish`] has returned them.
///
/// ```
/// use steadfast::scan::{RequestScanRules, RequestScanner};
///
/// let mut scanner = RequestScanner::new(RequestScanRules::default());
/// scanner.feed(br#"{"model":"gpt-5","input":"hi","prompt_ca"#)?;
/// scanner.feed(br#"che_key":"session-1"}"#)?;
/// assert_eq!(scanner.finish()?.texts.get(0), Some("session-1"));
/// # Ok::<(), steadfast::scan::JsonError>(())
/// ```
pub struct RequestScanner<'r>(Scanner<RequestVisitor<'r>>);

impl<'r> RequestScanner<'r> {
    /// A scanner that uses the fastest instructions of this processor.
    pub fn new(rules: RequestScanRules<'r>) -> Self {
        Self::with_instructions(InstructionSet::detect(), rules)
    }

    /// A scanner that uses the given instructions.
    pub(in crate::scan) fn with_instructions(instructions: InstructionSet, rules: RequestScanRules<'r>) -> Self {
        Self(Scanner::new(instructions, RequestVisitor::new(rules)))
    }

    /// Reads the next piece of the body.
    ///
    /// # Errors
    ///
    /// Returns a [`JsonError`] as soon as the body is known to be invalid or ambiguous. Every later call returns it again.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), JsonError> {
        self.0.feed(chunk)
    }

    /// Ends the body and returns its facts.
    ///
    /// # Errors
    ///
    /// Returns a [`JsonError`] if the body is invalid, ambiguous or incomplete.
    pub fn finish(self) -> Result<RequestFacts, JsonError> {
        self.0.finish().map(RequestVisitor::finish)
    }
}
