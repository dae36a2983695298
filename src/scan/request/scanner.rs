//! Reads the facts of a request body that arrives in pieces.

use super::{facts::RequestFacts, rules::RequestScanRules, visitor::RequestVisitor};
use crate::scan::json::{error::JsonError, lexer::InstructionSet, scanner::Scanner};

/// Reads a request body as it arrives, in pieces of any size.
///
/// The body is not kept: the memory is bounded by the facts themselves, about 128 KiB at most, mostly for the ids of objects. The facts are final only
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
