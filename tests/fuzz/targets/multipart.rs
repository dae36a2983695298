//! Fuzz target for forms (`multipart/form-data`). The scanner must return the result of the oracle, at every cut. The first byte of the
//! input is the size of the pieces. The boundary is `b`.

use std::sync::LazyLock;

use steadfast::{
    body_path::BodyPaths,
    ids::ObjectId,
    scan::{Boundary, FormExtent, MultipartError, MultipartScanner, ReferenceSearch, RequestFacts, RequestScanRules},
};

#[path = "../../../src/scan/request/multipart/oracle.rs"]
mod oracle;

fn scanner(extent: FormExtent) -> MultipartScanner<'static> {
    static PATHS: LazyLock<BodyPaths> = LazyLock::new(|| {
        let paths = ["user", "purpose"].map(|path| path.parse().expect("a path"));
        BodyPaths::new(&paths)
    });
    let rules = RequestScanRules {
        paths: &PATHS,
        references: ReferenceSearch::Usual,
    };
    let boundary = Boundary::new(b"b").expect("a boundary");
    MultipartScanner::new(rules, &boundary, extent)
}

fn scan<'a>(extent: FormExtent, pieces: impl Iterator<Item = &'a [u8]>) -> Result<RequestFacts, MultipartError> {
    let mut scanner = scanner(extent);
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let (size, body) = input
        .split_first()
        .map_or((1, input), |(size, body)| (usize::from(*size).max(1), body));
    for extent in [FormExtent::Whole, FormExtent::BeforeFiles] {
        let whole = scan(extent, std::iter::once(body));
        assert_eq!(scan(extent, body.chunks(size)), whole);
        assert_eq!(scan(extent, body.chunks(1)), whole);
    }
    let found = scan(FormExtent::Whole, std::iter::once(body)).ok();
    let expected = oracle::read(body, "b");
    if let (Some(facts), Some(expected)) = (&found, &expected) {
        let named = facts.named.iter().map(|named| named.id);
        assert!(named.eq(expected.named.iter().map(|id| ObjectId::from_text(id.as_bytes()))));
        // A form that is good as a whole has a good beginning.
        assert!(scan(FormExtent::BeforeFiles, std::iter::once(body)).is_ok());
    }
    let found = found.map(|facts| oracle::ExpectedForm {
        model: facts.model.zip(facts.model_at),
        user: facts.texts.get(0).map(str::to_owned),
        purpose: facts.texts.get(1).map(str::to_owned),
        files: (facts.media.files + facts.media.images + facts.media.recordings) as usize,
        file_bytes: facts.media.bytes,
        named: expected
            .as_ref()
            .map(|expected| expected.named.clone())
            .unwrap_or_default(),
    });
    assert_eq!(found, expected);
}
