//! Hooks for tests, benches and fuzzing. Nothing else may use them.

use super::{
    json::lexer::InstructionSet,
    request::{rules::RequestScanRules, scanner::RequestScanner},
};

pub use super::request::conversation::{DigestBuilder, Item, Leaf, Part};

/// A request scanner that uses no vector instructions, to compare it with [`RequestScanner::new`].
pub fn portable_request_scanner(rules: RequestScanRules<'_>) -> RequestScanner<'_> {
    RequestScanner::with_instructions(InstructionSet::Portable, rules)
}
