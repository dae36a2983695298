//! The request scanner compared with its oracle, at every split, with and without vector instructions.

mod access;
mod beginnings;
mod corpus;
mod encrypted;
mod expected;
mod recorded;
mod types;

use std::{fs, path::Path, sync::LazyLock};

use corpus::{INVALID, VALID, body, conversation};
use expected::facts_of;
use proptest::prelude::*;
use serde_json::json;

use super::oracle;
use crate::{
    body_path::BodyPaths,
    ids::{EncryptedContent, ObjectId},
    media::MediaTally,
    scan::{
        JsonError, JsonErrorKind, NamedObject, ReferenceKind, ReferenceSearch, RequestFacts, RequestScanRules,
        RequestScanner, RoutingField, TypedField,
        testing::{DigestBuilder, Item, Leaf, Part, portable_request_scanner},
    },
};

/// The paths that the tests look for.
const PATHS: [&[&str]; 5] = [
    &["prompt_cache_key"],
    &["client_metadata", "session_id"],
    &["metadata", "user_id"],
    &["metadata", "Thread", "id"],
    &["user"],
];

/// The rules with these paths.
fn rules_of(references: ReferenceSearch) -> RequestScanRules<'static> {
    static PARSED: LazyLock<BodyPaths> =
        LazyLock::new(|| BodyPaths::new(&PATHS.map(|names| names.join(".").parse().unwrap())));
    RequestScanRules {
        paths: &PARSED,
        references,
    }
}

fn rules() -> RequestScanRules<'static> {
    rules_of(ReferenceSearch::Usual)
}

fn scan<'a>(
    mut scanner: RequestScanner<'_>,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RequestFacts, JsonError> {
    for chunk in chunks {
        if let Err(error) = scanner.feed(chunk) {
            assert_eq!(
                scanner.feed(b"{}"),
                Err(error),
                "every later call returns the error again"
            );
            assert_eq!(scanner.finish(), Err(error));
            return Err(error);
        }
    }
    scanner.finish()
}

/// Scans `body` whole, in small pieces and cut at each of `cuts`, with all instruction sets. Returns the result, which
/// must always be the same. Chunks are joined to blocks before the instruction set matters, so the slower set is not
/// tried at every cut.
fn scan_all(
    body: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    rules: RequestScanRules<'_>,
) -> Result<RequestFacts, JsonError> {
    let answer = scan(RequestScanner::new(rules), [body]);
    assert_eq!(scan(portable_request_scanner(rules), [body]), answer);
    for size in [1, 63, 64, 65] {
        let what = || format!("in pieces of {size}: {}", body.escape_ascii());
        assert_eq!(
            scan(RequestScanner::new(rules), body.chunks(size)),
            answer,
            "{}",
            what()
        );
        assert_eq!(
            scan(portable_request_scanner(rules), body.chunks(size)),
            answer,
            "{}",
            what()
        );
    }
    for (index, cut) in cuts.into_iter().enumerate() {
        let (head, tail) = body.split_at(cut);
        let what = || format!("cut at {cut}: {}", body.escape_ascii());
        assert_eq!(scan(RequestScanner::new(rules), [head, tail]), answer, "{}", what());
        if index % 16 == 0 {
            assert_eq!(
                scan(portable_request_scanner(rules), [head, tail]),
                answer,
                "{}",
                what()
            );
        }
    }
    answer
}

/// Scans `body` with both kinds of search, and compares the answers with the oracle. Returns the answer of the usual search.
fn check(body: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<RequestFacts, JsonError> {
    let cuts: Vec<usize> = cuts.into_iter().collect();
    let _ = check_with(body, cuts.iter().copied(), ReferenceSearch::Exhaustive);
    check_with(body, cuts, ReferenceSearch::Usual)
}

fn check_with(
    body: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    references: ReferenceSearch,
) -> Result<RequestFacts, JsonError> {
    let answer = scan_all(body, cuts, rules_of(references));
    let rules = oracle::Rules {
        paths: &PATHS,
        is_exhaustive: references == ReferenceSearch::Exhaustive,
    };
    let expected = oracle::read(body, rules).map(facts_of);
    if let Ok(facts) = &answer {
        check_renaming(body, facts);
    }
    let facts = answer.clone().ok().map(|facts| RequestFacts {
        model_at: None,
        ..facts
    });
    let names = |facts: &Option<RequestFacts>| facts.as_ref().map(|facts| facts.texts.clone());
    assert_eq!(facts, expected, "{answer:?} for {references:?} {}", body.escape_ascii());
    assert_eq!(names(&facts), names(&expected));
    if let Err(error) = answer {
        assert!(error.offset <= body.len() as u64, "{error}");
    }
    answer
}

/// Checks that replacing the value of `model` by another string changes the model and nothing else.
fn check_renaming(body: &[u8], facts: &RequestFacts) {
    // Bodies with lone surrogates cannot be compared by serde_json.
    let Ok(mut expected) = serde_json::from_slice::<serde_json::Value>(body) else {
        return;
    };
    assert_eq!(facts.model.is_some(), facts.model_at.is_some());
    let Some(at) = &facts.model_at else { return };
    let at = at.start as usize..at.end as usize;
    let written: String = serde_json::from_slice(&body[at.clone()]).unwrap();
    assert_eq!(Some(written), facts.model);
    for name in ["", "my-deployment", "a \"name\" in quotes\\"] {
        let mut renamed = body.to_vec();
        renamed.splice(at.clone(), serde_json::to_vec(name).unwrap());
        expected["model"] = json!(name);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&renamed).unwrap(), expected);
    }
}

fn check_every_split(body: &[u8]) -> Result<RequestFacts, JsonError> {
    check(body, 0..=body.len())
}

fn recordings() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let mut bodies = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".body") || name.ends_with(".json") || name.contains(".msg") {
            bodies.push((name, fs::read(path).unwrap()));
        }
    }
    assert!(bodies.len() > 20);
    bodies
}

#[test]
fn the_prefix_stays_the_same_as_a_conversation_grows() {
    let item =
        |role: &str, text: &str| json!({"type": "message", "role": role, "content": [{"text": text, "role": "user"}]});
    let prefix_of = |items: &[serde_json::Value]| {
        let body = json!({"instructions": "be brief", "input": items}).to_string();
        check_every_split(body.as_bytes()).unwrap().content
    };
    let (system, ask) = (item("developer", "obey"), item("user", "hi"));
    let first = prefix_of(&[system.clone(), ask.clone()]);
    let later = prefix_of(&[
        system.clone(),
        ask.clone(),
        item("assistant", "hello"),
        item("user", "bye"),
    ]);
    assert_eq!(first, later);
    assert_ne!(first, prefix_of(&[system, item("user", "ho")]));
    assert_ne!(first, prefix_of(&[item("developer", "do as you like"), ask]));
}

#[test]
fn valid_bodies_are_read_at_every_split() {
    for body in VALID {
        for shift in [0, 1, 31, 50, 60] {
            let body = format!("{}{body}", " ".repeat(shift));
            check_every_split(body.as_bytes()).unwrap();
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for body in VALID {
        for end in 0..body.trim_end().len() {
            check_every_split(&body.as_bytes()[..end]).unwrap_err();
        }
    }
    let (_, long) = recordings()
        .into_iter()
        .find(|(name, _)| name.starts_with("python-sdk-create-stream"))
        .unwrap();
    for end in 0..long.len() {
        check(&long[..end], [end / 2]).unwrap_err();
    }
}

#[test]
fn invalid_bodies_are_refused_with_the_same_error_at_every_split_and_alignment() {
    for (body, kind, offset) in INVALID {
        let error = JsonError {
            kind: *kind,
            offset: *offset,
        };
        assert_eq!(check_every_split(body), Err(error), "{}", body.escape_ascii());
        // A byte order mark is an error of its own only at the beginning, and a leading byte outside of strings can be
        // either of two errors.
        if body.first().is_some_and(|byte| *byte >= 0x80) {
            continue;
        }
        for shift in 1..=64 {
            let shifted = [&b" ".repeat(shift), *body].concat();
            let error = JsonError {
                offset: offset + shift as u64,
                ..error
            };
            assert_eq!(
                check(&shifted, [shift]),
                Err(error),
                "{} after {shift}",
                body.escape_ascii()
            );
        }
    }
}

#[test]
fn strings_of_escapes_end_where_they_should_at_every_alignment() {
    for shift in 0..64 {
        for count in 0..70 {
            let escapes = "\\".repeat(count);
            let body = format!(r#"{{"{}":"{escapes}","model":"m"}}"#, "a".repeat(shift));
            let _ = check(body.as_bytes(), [body.len() / 2]);
        }
        let body = format!(r#"{{"{}":"\"\\\" \u0022\\\\","model":"m"}}"#, "a".repeat(shift));
        assert_eq!(check(body.as_bytes(), [shift]).unwrap().model.as_deref(), Some("m"));
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1)).into_bytes();
    check(&nested(127), [100]).unwrap();
    // serde_json stops one level earlier.
    let usual = oracle::Rules {
        paths: &PATHS,
        is_exhaustive: false,
    };
    assert_eq!(oracle::read(&nested(128), usual), None);
    scan_all(&nested(128), [100, 200], rules()).unwrap();
    let error = JsonError {
        kind: JsonErrorKind::TooDeep,
        offset: 5 + 127,
    };
    assert_eq!(check(&nested(129), [100, 200]), Err(error));
    assert_eq!(
        scan_all(&b"{\"a\":".repeat(100_000), [], rules()).unwrap_err().kind,
        JsonErrorKind::TooDeep
    );
    let siblings = format!("{{\"a\":[{}]}}", vec!["[[{}]]"; 1000].join(","));
    check(siblings.as_bytes(), []).unwrap();
}

#[test]
fn long_texts_are_refused_and_long_keys_are_ignored() {
    for (length, fits) in [(4095, true), (4096, true), (4097, false), (100_000, false)] {
        let text = "k".repeat(length);
        let body = json!({"prompt_cache_key": text}).to_string();
        let answer = check(body.as_bytes(), [20, body.len() / 2]);
        let error = JsonError {
            kind: JsonErrorKind::FieldTooLong(RoutingField::Path { path: 0, names: 1 }),
            offset: 20,
        };
        assert_eq!(
            answer.map(|facts| facts.texts.get(0).map(str::to_owned)),
            if fits { Ok(Some(text)) } else { Err(error) }
        );
    }
    let escaped = "previous_response_id"
        .bytes()
        .map(|byte| format!("\\u{byte:04x}"))
        .collect::<String>();
    let body = format!(
        r#"{{"{}":1,"{escaped}":"resp_1","{escaped}x":2}}"#,
        "model".repeat(1000)
    );
    let facts = check(body.as_bytes(), [body.len() - 100]).unwrap();
    assert_eq!(facts.named[0].id, ObjectId::from_text(b"resp_1"));
}

#[test]
fn errors_name_the_problem_and_the_offset() {
    let error = check_every_split(br#"{"model":"a","model":"b"}"#).unwrap_err();
    assert_eq!(error.to_string(), "duplicate field `model` at byte 13");
    let error = JsonError {
        kind: JsonErrorKind::TooDeep,
        offset: 7,
    };
    assert_eq!(
        error.to_string(),
        "arrays and objects are nested deeper than 128 levels at byte 7"
    );
    let error = JsonError {
        kind: JsonErrorKind::DuplicateField(RoutingField::Path { path: 1, names: 2 }),
        offset: 1,
    };
    assert_eq!(
        error.kind.describe(rules().paths),
        "duplicate field `client_metadata.session_id`"
    );
    assert_eq!(error.to_string(), "duplicate field `(a configured path)` at byte 1");
}

#[test]
fn the_debug_output_contains_no_text_of_the_conversation() {
    let facts = scan(RequestScanner::new(rules()), [br#"{"input":"my secret"}"#.as_slice()]).unwrap();
    assert!(!format!("{facts:?}").contains("secret"));
}

#[test]
fn the_fuzz_corpus_is_read_as_by_the_oracle() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/scan_request");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let body = fs::read(entry.unwrap().path()).unwrap();
        let _ = check(&body, (0..body.len()).step_by(7));
        count += 1;
    }
    assert!(count >= 10);
}

proptest! {
    #[test]
    fn random_bodies_in_random_pieces_are_read_as_by_the_oracle(body in body(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 4)) {
        let _ = check(&body, cuts.iter().map(|cut| cut.index(body.len() + 1)));
    }

    #[test]
    fn random_conversations_in_random_pieces_are_read_as_by_the_oracle(body in conversation(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 4)) {
        let _ = check(&body, cuts.iter().map(|cut| cut.index(body.len() + 1)));
    }

    #[test]
    fn bodies_with_a_wrong_byte_are_read_as_by_the_oracle(
        mut body in prop_oneof![body(), conversation()],
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:, \n0e-.u\x00\x7f\x80\xbf\xc3\xed\xf0".to_vec())],
        how in 0..3,
    ) {
        let index = at.index(body.len());
        match how {
            0 => body[index] = byte,
            1 => body.insert(index, byte),
            _ => drop(body.remove(index)),
        }
        let _ = check(&body, [index]);
    }
}
