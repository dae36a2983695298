use super::*;
use crate::scan::{JsonErrorKind, RoutingField};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

fn inspect(kind: EncodingKind, body: &[u8], limit: u64, size: usize) -> Result<RequestFacts, InspectError> {
    let mut inspector = BodyInspector::new(kind, limit, RequestScanRules::default()).unwrap();
    for chunk in body.chunks(size) {
        if let Err(error) = inspector.feed(chunk) {
            assert_eq!(
                inspector.feed(b"more"),
                Err(error.clone()),
                "every later call returns the error again"
            );
            assert_eq!(inspector.finish(), Err(error.clone()));
            return Err(error);
        }
    }
    inspector.finish()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

const ZSTD: EncodingKind = EncodingKind::Known(Encoding::Zstd);
const GZIP: EncodingKind = EncodingKind::Known(Encoding::Gzip);

#[test]
fn a_recorded_zstd_body_has_the_facts_of_its_plain_text() {
    let body = include_bytes!("../../../../tests/fixtures/recordings/codex0.169-sse-chatgpt-zstd.body.zst");
    let plain = include_bytes!("../../../../tests/fixtures/recordings/codex0.169-sse-chatgpt-zstd.body.json");
    let expected = inspect(EncodingKind::Identity, plain, 1 << 20, 1 << 20).unwrap();
    assert_eq!(expected.model.as_deref(), Some("gpt-5.2-codex"));
    for size in [1, 7, 4096, body.len()] {
        assert_eq!(inspect(ZSTD, body, 1 << 20, size).as_ref(), Ok(&expected));
    }
}

#[test]
fn a_body_with_an_unknown_coding_has_no_inspector() {
    assert!(BodyInspector::new(EncodingKind::Unknown, 1, RequestScanRules::default()).is_none());
}

#[test]
fn the_limit_applies_to_the_decompressed_body() {
    let text = format!("{{\"input\":\"{}\"}}", "ab".repeat(5000));
    let length = text.len() as u64;
    let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
    for (kind, body) in [
        (EncodingKind::Identity, text.as_bytes()),
        (ZSTD, &zstd),
        (GZIP, &gzip(text.as_bytes())),
    ] {
        for size in [1, 100, 1 << 20] {
            assert!(inspect(kind, body, length, size).is_ok());
            let error = InspectError::TooLarge { limit: length - 1 };
            assert_eq!(inspect(kind, body, length - 1, size), Err(error));
        }
    }
}

#[test]
fn decompression_bombs_are_refused() {
    let bomb = zstd::encode_all(&*[b"{\"input\":\"".as_slice(), &vec![b'a'; 50 << 20]].concat(), 3).unwrap();
    assert!(bomb.len() < 10_000);
    for size in [1, 100, 1 << 20] {
        let error = inspect(ZSTD, &bomb, 1 << 30, size);
        assert!(matches!(error, Err(InspectError::Undecodable(_))), "{error:?}");
    }
    let small = zstd::encode_all(&*[b"{\"input\":\"", &[b'a'; 1_000_000][..], b"\"}"].concat(), 3).unwrap();
    assert!(small.len() < 500);
    assert!(inspect(ZSTD, &small, 1 << 30, 1 << 20).is_ok());
}

#[test]
fn the_offset_of_an_error_counts_decompressed_bytes() {
    let text = br#"{"model":"a","model":"b"}"#;
    let error = JsonError {
        kind: JsonErrorKind::DuplicateField(RoutingField::Model),
        offset: 13,
    };
    let error = Err(InspectError::InvalidJson(error));
    assert_eq!(inspect(GZIP, &gzip(text), 100, 3), error);
    assert_eq!(inspect(ZSTD, &zstd::encode_all(&text[..], 1).unwrap(), 100, 3), error);
}

#[test]
fn a_body_that_is_not_compressed_is_undecodable() {
    let undecodable = |result| matches!(result, Err(InspectError::Undecodable(_)));
    for kind in [ZSTD, GZIP, EncodingKind::Known(Encoding::Deflate)] {
        assert!(undecodable(inspect(kind, b"", 100, 4)), "{kind:?}");
    }
    for kind in [ZSTD, GZIP] {
        assert!(undecodable(inspect(kind, b"{\"model\":\"gpt-5\"}", 100, 4)), "{kind:?}");
    }
}

/// The facts of a body that is decompressed and scanned at once.
fn facts_at_once(text: &[u8]) -> Result<RequestFacts, InspectError> {
    let mut scanner = RequestScanner::new(RequestScanRules::default());
    scanner.feed(text).map_err(InspectError::InvalidJson)?;
    scanner.finish().map_err(InspectError::InvalidJson)
}

#[test]
fn a_step_is_short_however_far_a_piece_expands() {
    let text = [b"{\"input\":\"", &vec![b'a'; 8 << 20][..], b"\"}"].concat();
    for (kind, body) in [
        (EncodingKind::Identity, text.clone()),
        (ZSTD, zstd::encode_all(&*text, 3).unwrap()),
        (GZIP, gzip(&text)),
    ] {
        let mut inspector = BodyInspector::new(kind, 1 << 30, RequestScanRules::default()).unwrap();
        // The ratio is checked against the whole piece.
        let filler = vec![0; 64 << 10];
        inspector.decoder.sink_mut().compressed = filler.len() as u64;
        let (mut piece, mut steps) = (PieceInspection::new(&body), 0);
        loop {
            let step = piece.step(&mut inspector).unwrap();
            assert!(step.scanned <= 64 << 10, "{kind:?}: {step:?}");
            steps += 1;
            if !step.has_more {
                break;
            }
        }
        assert!(steps > 100, "{kind:?}: {steps}");
        assert_eq!(inspector.finish(), facts_at_once(&text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// However a body is compressed and cut, its steps read what one reading of its text reads. They stop at the end of each
    /// piece, and read no byte twice.
    #[test]
    fn steps_read_what_one_reading_reads(
        unit in prop_oneof![
            Just("\"a\":1,"), Just("\"input\":[[[]],{}],"), Just("\"b\":\"\\u0061\\\"é\","), Just("\"model\":\"m\","), Just("\"c\":"),
        ],
        end in prop_oneof![Just("\"prompt_cache_key\":\"k\"}"), Just("}"), Just("")],
        repeat in prop_oneof![0usize..20, 1000usize..30_000],
        size in prop_oneof![1usize..40, 40usize..300_000],
    ) {
        let text = format!("{{{}{end}", unit.repeat(repeat)).into_bytes();
        let expected = facts_at_once(&text);
        for (kind, body) in [
            (EncodingKind::Identity, text.clone()),
            (ZSTD, zstd::encode_all(&*text, 3).unwrap()),
            (GZIP, gzip(&text)),
        ] {
            let mut inspector = BodyInspector::new(kind, 1 << 30, RequestScanRules::default()).unwrap();
            let (mut scanned, mut failed) = (0, None);
            'body: for chunk in body.chunks(size) {
                let mut piece = PieceInspection::new(chunk);
                loop {
                    match piece.step(&mut inspector) {
                        Ok(step) => {
                            scanned += step.scanned;
                            prop_assert_eq!(scanned, inspector.decompressed());
                            if !step.has_more {
                                prop_assert!(piece.rest.is_empty());
                                break;
                            }
                        }
                        Err(error) => {
                            failed = Some(error);
                            break 'body;
                        }
                    }
                }
            }
            let read = failed.map_or_else(|| inspector.finish(), Err);
            prop_assert_eq!(&read, &expected, "{:?}", kind);
            prop_assert!(read.is_err() || kind != EncodingKind::Identity || scanned == text.len() as u64);
        }
    }
}
