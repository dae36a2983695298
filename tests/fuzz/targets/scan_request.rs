//! Fuzz target for request bodies. The request scanner must return the result of the oracle, with every instruction set, at every
//! cut and with both kinds of search. The first byte of the input is the size of the pieces.

use std::sync::LazyLock;

use steadfast::{
    body_path::BodyPaths,
    ids::{EncryptedContent, ObjectId},
    media::MediaTally,
    scan::{
        JsonError, JsonErrorKind, NamedObject, ReferenceKind, ReferenceSearch, RequestFacts, RequestScanRules,
        RequestScanner, TypedField,
        testing::{DigestBuilder, Item, Leaf, Part, portable_request_scanner},
    },
};

#[path = "../../../src/scan/request/tests/expected.rs"]
mod expected;
#[path = "../../../src/scan/request/oracle.rs"]
mod oracle;

/// The paths that are looked for.
const PATHS: [&[&str]; 4] = [
    &["prompt_cache_key"],
    &["client_metadata", "session_id"],
    &["metadata", "user_id"],
    &["metadata", "Thread", "id"],
];

static PARSED: LazyLock<BodyPaths> =
    LazyLock::new(|| BodyPaths::new(&PATHS.map(|names| names.join(".").parse().expect("a path"))));

fn scan<'a>(
    mut scanner: RequestScanner<'_>,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> Result<RequestFacts, JsonError> {
    for chunk in chunks {
        scanner.feed(chunk)?;
    }
    scanner.finish()
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let (size, body) = input
        .split_first()
        .map_or((1, input), |(size, body)| (usize::from(*size).max(1), body));
    for references in [ReferenceSearch::Usual, ReferenceSearch::Exhaustive] {
        check(body, size, references);
    }
}

fn check(body: &[u8], size: usize, references: ReferenceSearch) {
    let rules = RequestScanRules {
        paths: &PARSED,
        references,
    };
    let answer = scan(RequestScanner::new(rules), std::iter::once(body));
    assert_eq!(scan(RequestScanner::new(rules), body.chunks(size)), answer);
    assert_eq!(scan(portable_request_scanner(rules), body.chunks(size)), answer);
    // The maximum depth of serde_json is one level less.
    if answer.as_ref().is_err_and(|error| error.kind == JsonErrorKind::TooDeep) {
        return;
    }
    let facts = answer.ok().map(|facts| RequestFacts {
        model_at: None,
        ..facts
    });
    let rules = oracle::Rules {
        paths: &PATHS,
        is_exhaustive: references == ReferenceSearch::Exhaustive,
    };
    assert_eq!(facts, oracle::read(body, rules).map(expected::facts_of));
}
