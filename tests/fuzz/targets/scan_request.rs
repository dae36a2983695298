//! The request scanner says the same on every path and however a body is cut, and what it says is what serde_json says.
//! The first byte of the input is where to cut.

use steadfast::{
    ids::EncryptedContent,
    scan::{Problem, Refusal, RequestFacts, RequestScanner},
};

#[path = "../../../src/scan/request/oracle.rs"]
mod oracle;

fn scan<'a>(mut scanner: RequestScanner, chunks: impl Iterator<Item = &'a [u8]>) -> Result<RequestFacts, Refusal> {
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
    assert_eq!(scan(RequestScanner::portable(), body.chunks(size)), answer);
    // serde_json gives up one level earlier.
    if answer.is_err_and(|refusal| refusal.problem == Problem::TooDeep) {
        return;
    }
    let answer = scan(RequestScanner::new(), std::iter::once(body)).ok();
    let expected = oracle::read(body);
    if let (Some(facts), Some(expected)) = (&answer, &expected) {
        let expected = expected.encrypted.iter().map(|text| EncryptedContent::from_text(text));
        assert_eq!(facts.encrypted, expected.collect::<Vec<_>>());
    }
    let facts = answer.map(|facts| oracle::Expected {
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
