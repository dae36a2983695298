//! Fuzz target for request bodies. The request scanner must return the result of the oracle, with every instruction set and at every
//! cut. The first byte of the input is the size of the pieces.

use std::sync::LazyLock;

use steadfast::{
    body_path::BodyPaths,
    ids::EncryptedContent,
    scan::{
        JsonError, JsonErrorKind, ReferenceSearch, RequestFacts, RequestScanRules, RequestScanner,
        testing::portable_request_scanner,
    },
};

#[path = "../../../src/scan/request/oracle.rs"]
mod oracle;

/// The rules with the paths of the default order.
fn rules() -> RequestScanRules<'static> {
    static PATHS: LazyLock<BodyPaths> = LazyLock::new(|| {
        let paths = ["prompt_cache_key", "client_metadata.session_id"].map(|path| path.parse().expect("a path"));
        BodyPaths::new(&paths)
    });
    RequestScanRules {
        paths: &PATHS,
        references: ReferenceSearch::Usual,
    }
}

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
    let answer = scan(RequestScanner::new(rules()), std::iter::once(body));
    assert_eq!(scan(RequestScanner::new(rules()), body.chunks(size)), answer);
    assert_eq!(scan(portable_request_scanner(rules()), body.chunks(size)), answer);
    // The maximum depth of serde_json is one level less.
    if answer.is_err_and(|error| error.kind == JsonErrorKind::TooDeep) {
        return;
    }
    let answer = scan(RequestScanner::new(rules()), std::iter::once(body)).ok();
    let expected = oracle::read(body);
    if let (Some(facts), Some(expected)) = (&answer, &expected) {
        let expected = expected.encrypted.iter().map(|text| EncryptedContent::from_text(text));
        assert_eq!(facts.encrypted, expected.collect::<Vec<_>>());
    }
    let facts = answer.map(|facts| oracle::ExpectedFacts {
        encrypted: expected
            .as_ref()
            .map(|expected| expected.encrypted.clone())
            .unwrap_or_default(),
        model: facts.model,
        prompt_cache_key: facts.texts.get(0).map(str::to_owned),
        stream: facts.stream,
        previous_response_id: expected
            .as_ref()
            .and_then(|expected| expected.previous_response_id.clone()),
        session_id: facts.texts.get(1).map(str::to_owned),
    });
    assert_eq!(facts, expected);
}
