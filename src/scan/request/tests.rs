//! The request scanner against its oracle, over every split, with and without vector instructions.

mod corpus;

use std::{fs, path::Path};

use corpus::{HOSTILE, SOUND, body, conversation};
use proptest::prelude::*;
use serde_json::json;

use super::oracle;
use crate::{
    ids::EncryptedContent,
    scan::{Field, Problem, Refusal, RequestFacts, RequestScanner},
};

fn scan<'a>(mut scanner: RequestScanner, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<RequestFacts, Refusal> {
    for chunk in chunks {
        if let Err(refusal) = scanner.feed(chunk) {
            assert_eq!(scanner.feed(b"{}"), Err(refusal), "it is told again");
            assert_eq!(scanner.finish(), Err(refusal));
            return Err(refusal);
        }
    }
    scanner.finish()
}

/// Scans `body` whole, byte by byte and cut at each of `cuts`, on all paths, and gives the one answer. Chunks are put
/// together before the paths part, so that the slower path need not be taken at every cut.
fn scan_all(body: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<RequestFacts, Refusal> {
    let answer = scan(RequestScanner::new(), [body]);
    assert_eq!(scan(RequestScanner::portable(), [body]), answer);
    for size in [1, 63, 64, 65] {
        assert_eq!(
            scan(RequestScanner::new(), body.chunks(size)),
            answer,
            "in pieces of {size}"
        );
        assert_eq!(
            scan(RequestScanner::portable(), body.chunks(size)),
            answer,
            "in pieces of {size}"
        );
    }
    for (index, cut) in cuts.into_iter().enumerate() {
        let (head, tail) = body.split_at(cut);
        assert_eq!(scan(RequestScanner::new(), [head, tail]), answer, "cut at {cut}");
        if index % 16 == 0 {
            assert_eq!(scan(RequestScanner::portable(), [head, tail]), answer, "cut at {cut}");
        }
    }
    answer
}

/// Checks `body` against the oracle and gives the answer.
fn check(body: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<RequestFacts, Refusal> {
    let answer = scan_all(body, cuts);
    let expected = oracle::read(body);
    if let (Ok(facts), Some(expected)) = (&answer, &expected) {
        check_renaming(body, facts);
        let expected = expected.encrypted.iter().map(|text| EncryptedContent::from_text(text));
        assert_eq!(facts.encrypted, expected.collect::<Vec<_>>(), "{}", body.escape_ascii());
    }
    let facts = answer.clone().ok().map(|facts| oracle::Expected {
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
    assert_eq!(facts, expected, "{answer:?} for {}", body.escape_ascii());
    if let Err(refusal) = answer {
        assert!(refusal.offset <= body.len() as u64, "{refusal}");
    }
    answer
}

/// Checks that another string in the place of the model changes the model and nothing else.
fn check_renaming(body: &[u8], facts: &RequestFacts) {
    let mut expected: serde_json::Value = serde_json::from_slice(body).unwrap();
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

fn check_every_split(body: &[u8]) -> Result<RequestFacts, Refusal> {
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
fn recordings_are_read_as_serde_json_reads_them() {
    for (name, body) in recordings() {
        let mut cuts: Vec<usize> = (0..body.len()).step_by(body.len().div_ceil(20)).collect();
        // Every place in and around a key, or for the long ones every fifth.
        let step = if body.len() > 100_000 { 5 } else { 1 };
        for key in ["\"prompt_cache_key\"", "\"session_id\""] {
            let places = memchr::memmem::find_iter(&body, key);
            cuts.extend(
                places
                    .take(1)
                    .flat_map(|place| (place - 3..body.len().min(place + 70)).step_by(step)),
            );
        }
        let facts = check(&body, cuts).unwrap();
        assert!(facts.model.is_some() && !facts.content.input().is_empty(), "{name}");
    }
}

#[test]
fn a_recorded_conversation_keeps_its_content() {
    let read = |name: &str| {
        let body = fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/recordings")
                .join(name),
        )
        .unwrap();
        scan(RequestScanner::new(), [&body[..]]).unwrap()
    };
    let first = read("codex0.169-sse-turn1.body");
    let second = read("codex0.169-sse-turn2-resume.body");
    assert_eq!(first.content.input().len(), 4096);
    assert_eq!(first.content, second.content);
    assert_eq!(first.session_id, first.prompt_cache_key);
}

#[test]
fn a_conversation_keeps_its_content_as_it_grows() {
    let item =
        |role: &str, text: &str| json!({"type": "message", "role": role, "content": [{"text": text, "role": "user"}]});
    let of = |items: &[serde_json::Value]| {
        let body = json!({"instructions": "be brief", "input": items}).to_string();
        check_every_split(body.as_bytes()).unwrap().content
    };
    let (system, ask) = (item("developer", "obey"), item("user", "hi"));
    let first = of(&[system.clone(), ask.clone()]);
    let later = of(&[
        system.clone(),
        ask.clone(),
        item("assistant", "hello"),
        item("user", "bye"),
    ]);
    assert_eq!(first, later);
    assert_eq!(first.input(), format!("[{system},{ask}").as_bytes());
    assert_eq!(first.instructions(), b"\"be brief\"");
    assert_ne!(first, of(&[system, item("user", "ho")]));
    assert_ne!(first, of(&[item("developer", "do as you like"), ask]));
}

#[test]
fn content_is_bounded() {
    for length in [10, 4000, 4093, 4094, 4095, 4096, 5000, 100_000] {
        let text = "é".repeat(length / 2);
        for input in [
            json!(text),
            json!([{"role": "user", "content": text}]),
            json!([[text]]),
            json!({"a": text}),
        ] {
            let body = json!({"input": input, "instructions": text, "model": "m"}).to_string();
            let content = check(body.as_bytes(), [body.len() / 2]).unwrap().content;
            assert!(content.input().len() <= 4096 && content.instructions().len() <= 4096);
        }
    }
}

#[test]
fn sound_bodies_are_read_at_every_split() {
    for body in SOUND {
        for shift in [0, 1, 31, 50, 60] {
            let body = format!("{}{body}", " ".repeat(shift));
            check_every_split(body.as_bytes()).unwrap();
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for body in SOUND {
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
fn hostile_bodies_are_refused_alike_at_every_split_and_alignment() {
    for (body, problem, offset) in HOSTILE {
        let refusal = Refusal {
            problem: *problem,
            offset: *offset,
        };
        assert_eq!(check_every_split(body), Err(refusal), "{}", body.escape_ascii());
        // A byte order mark is one only at the very beginning, and a lead outside strings may be judged as either.
        if body.first().is_some_and(|byte| *byte >= 0x80) {
            continue;
        }
        for shift in 1..=64 {
            let shifted = [&b" ".repeat(shift), *body].concat();
            let refusal = Refusal {
                offset: offset + shift as u64,
                ..refusal
            };
            assert_eq!(
                check(&shifted, [shift]),
                Err(refusal),
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
    assert_eq!(oracle::read(&nested(128)), None);
    scan_all(&nested(128), [100, 200]).unwrap();
    let refusal = Refusal {
        problem: Problem::TooDeep,
        offset: 5 + 127,
    };
    assert_eq!(check(&nested(129), [100, 200]), Err(refusal));
    assert_eq!(
        scan_all(&b"{\"a\":".repeat(100_000), []).unwrap_err().problem,
        Problem::TooDeep
    );
    let siblings = format!("{{\"a\":[{}]}}", vec!["[[{}]]"; 1000].join(","));
    check(siblings.as_bytes(), []).unwrap();
}

#[test]
fn long_texts_are_refused_and_long_keys_are_nobodys() {
    for (length, fits) in [(4095, true), (4096, true), (4097, false), (100_000, false)] {
        let text = "k".repeat(length);
        let body = json!({"prompt_cache_key": text}).to_string();
        let answer = check(body.as_bytes(), [20, body.len() / 2]);
        let refusal = Refusal {
            problem: Problem::TooLong(Field::PromptCacheKey),
            offset: 20,
        };
        assert_eq!(
            answer.map(|facts| facts.prompt_cache_key),
            if fits { Ok(Some(text)) } else { Err(refusal) }
        );
    }
    let spelt = "previous_response_id"
        .bytes()
        .map(|byte| format!("\\u{byte:04x}"))
        .collect::<String>();
    let body = format!(r#"{{"{}":1,"{spelt}":"resp_1","{spelt}x":2}}"#, "model".repeat(1000));
    let facts = check(body.as_bytes(), [body.len() - 100]).unwrap();
    assert_eq!(facts.previous_response_id.as_deref(), Some("resp_1"));
}

#[test]
fn encrypted_content_is_found_wherever_it_stands() {
    let of = |text: &str| EncryptedContent::from_text(text.as_bytes());
    let text = "gAAAAAB".repeat(30);
    for shift in 0..64 {
        let said = r#"{"role":"user","content":"\"encrypted_content\":\"x\""}"#;
        let body = format!(
            r#"{{"input":[{{"encrypted_content":"first"}},{said},{}{{"id":"a","encrypted_content":"{text}"}},{{"encrypted_content":"c"}},
            {{"content":[{{"encrypted_content":"deep"}}],"encrypted_content" : null}},{{"encrypted_content" : "d"}}]}}"#,
            " ".repeat(shift)
        );
        let facts = check(body.as_bytes(), (0..body.len()).step_by(3)).unwrap();
        assert_eq!(facts.encrypted, [of("first"), of(&text), of("c"), of("d")]);
    }
}

#[test]
fn encrypted_content_is_the_same_however_it_is_spelled() {
    let read = |raw: &str| {
        let body = format!(r#"{{"input":[{{"role":"user"}},{{"encrypted_content":"{raw}"}}]}}"#);
        check(
            body.as_bytes(),
            [60, 300, body.len() / 2].map(|cut| cut.min(body.len())),
        )
        .unwrap()
        .encrypted
    };
    for length in [1, 31, 32, 33, 191, 192, 193, 5000] {
        let plain = "a/b".repeat(length / 3) + &"é"[..2 * (length % 2)];
        if plain.is_empty() {
            continue;
        }
        let spelled = |spell: fn(char) -> String| plain.chars().map(spell).collect::<String>();
        let expected = [EncryptedContent::from_text(plain.as_bytes())];
        assert_eq!(read(&plain), expected);
        assert_eq!(read(&plain.replace('/', "\\/")), expected);
        assert_eq!(read(&spelled(|c| format!("\\u{:04x}", u32::from(c)))), expected);
        assert_eq!(
            read(&spelled(|c| if c == 'b' {
                "\\u0062".to_owned()
            } else {
                c.to_string()
            })),
            expected
        );
    }
}

#[test]
fn the_last_encrypted_contents_are_kept() {
    for count in [0, 1, 7, 8, 9, 30] {
        let items: Vec<_> = (0..count)
            .map(|n| json!({"type": "reasoning", "encrypted_content": format!("e{n}")}))
            .collect();
        let body = json!({"input": items}).to_string();
        let facts = check(body.as_bytes(), [body.len() / 2]).unwrap();
        let kept = (0..count)
            .skip(count.max(8) - 8)
            .map(|n| EncryptedContent::from_text(format!("e{n}").as_bytes()));
        assert_eq!(facts.encrypted, kept.collect::<Vec<_>>());
    }
}

#[test]
fn refusals_say_what_and_where() {
    let refusal = check_every_split(br#"{"model":"a","model":"b"}"#).unwrap_err();
    assert_eq!(refusal.to_string(), "\"model\" stands twice at byte 13");
    let refusal = Refusal {
        problem: Problem::TooDeep,
        offset: 7,
    };
    assert_eq!(refusal.to_string(), "nested deeper than 128 at byte 7");
    let refusal = Refusal {
        problem: Problem::Twice(Field::SessionId),
        offset: 1,
    };
    assert_eq!(
        refusal.to_string(),
        "\"client_metadata.session_id\" stands twice at byte 1"
    );
}

#[test]
fn what_people_say_is_not_printed() {
    let facts = scan(RequestScanner::new(), [br#"{"input":"my secret"}"#.as_slice()]).unwrap();
    assert!(!format!("{facts:?}").contains("secret"));
}

#[test]
fn the_fuzz_corpus_agrees_with_the_oracle() {
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
    fn random_bodies_in_random_pieces_agree_with_the_oracle(body in body(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 4)) {
        let _ = check(&body, cuts.iter().map(|cut| cut.index(body.len() + 1)));
    }

    #[test]
    fn random_conversations_in_random_pieces_agree_with_the_oracle(body in conversation(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 4)) {
        let _ = check(&body, cuts.iter().map(|cut| cut.index(body.len() + 1)));
    }

    #[test]
    fn bodies_with_a_wrong_byte_agree_with_the_oracle(
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
