//! Fuzz target for request bodies. The request scanner must return the result of the oracle, with every instruction set and at every
//! cut. The first byte of the input is the size of the pieces.

use steadfast::{
    ids::EncryptedContent,
    scan::{JsonError, JsonErrorKind, RequestFacts, RequestScanner, testing::portable_request_scanner},
};

#[path = "../../../src/scan/request/oracle.rs"]
mod oracle;

fn scan<'a>(mut scanner: RequestScanner, chunks: impl Iterator<Item = &'a [u8]>) -> Result<RequestFacts, JsonError> {
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
    let answer = scan(RequestScanner::new(), std::iter::once(body));
    assert_eq!(scan(RequestScanner::new(), body.chunks(size)), answer);
    assert_eq!(scan(portable_request_scanner(), body.chunks(size)), answer);
    // The maximum depth of serde_json is one level less.
    if answer.is_err_and(|error| error.kind == JsonErrorKind::TooDeep) {
        return;
    }
    let answer = scan(RequestScanner::new(), std::iter::once(body)).ok();
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
        instructions: facts.content.instructions().to_vec(),
        input: facts.content.input().to_vec(),
        model: facts.model,
        prompt_cache_key: facts.prompt_cache_key,
        stream: facts.stream,
        previous_response_id: facts.previous_response_id,
        session_id: facts.session_id,
    });
    assert_eq!(facts, expected);
}
