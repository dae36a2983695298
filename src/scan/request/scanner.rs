//! Reads the facts of a request body that arrives in pieces.

use super::{facts::RequestFacts, visitor::RequestVisitor};
use crate::scan::json::{error::JsonError, lexer::InstructionSet, scanner::Scanner};

/// Reads a request body as it arrives, in pieces of any size.
///
/// The body is not kept: the memory is bounded by the facts themselves, about 32 KiB at most. The facts are final only
/// when [`RequestScanner::finish`] has returned them.
///
/// ```
/// use steadfast::scan::RequestScanner;
///
/// let mut scanner = RequestScanner::new();
/// scanner.feed(br#"{"model":"gpt-5","input":"hi","prompt_ca"#)?;
/// scanner.feed(br#"che_key":"session-1"}"#)?;
/// assert_eq!(scanner.finish()?.prompt_cache_key.as_deref(), Some("session-1"));
/// # Ok::<(), steadfast::scan::JsonError>(())
/// ```
pub struct RequestScanner(Scanner<RequestVisitor>);

impl RequestScanner {
    /// A scanner that uses the fastest instructions of this processor.
    pub fn new() -> Self {
        Self::with_instructions(InstructionSet::detect())
    }

    /// A scanner that uses the given instructions.
    pub(in crate::scan) fn with_instructions(instructions: InstructionSet) -> Self {
        Self(Scanner::new(instructions, RequestVisitor::default()))
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
        self.0.finish().map(|visitor| visitor.facts)
    }
}

impl Default for RequestScanner {
    fn default() -> Self {
        Self::new()
    }
}
