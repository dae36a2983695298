//! The request scanner against its oracle, over every split, with and without vector instructions.

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::json;

use super::{Field, Problem, Refusal, RequestFacts, RequestScanner, oracle};

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
    let facts = answer.clone().ok().map(|facts| oracle::Expected {
        instructions: facts.content.instructions().to_vec(),
        input: facts.content.input().to_vec(),
        model: facts.model,
        prompt_cache_key: facts.prompt_cache_key,
        stream: facts.stream,
        previous_response_id: facts.previous_response_id,
        session_id: facts.session_id,
    });
    assert_eq!(facts, oracle::read(body), "{answer:?} for {}", body.escape_ascii());
    if let Err(refusal) = answer {
        assert!(refusal.offset <= body.len() as u64, "{refusal}");
    }
    answer
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

/// Bodies that are fine, though not everybody would think so.
const SOUND: &[&str] = &[
    "{}",
    " \t\r\n{ } \n",
    r#"{"model":"gpt-5","stream":true}"#,
    r#"{"mod\u0065l":"gpt-\u0035","\u0073tream":false,"prompt_cache_key":"\ud83d\ude00\n\"\\"}"#,
    r#"{"model":null,"prompt_cache_key":null,"stream":null,"previous_response_id":null,"client_metadata":null,"input":null,"instructions":null}"#,
    r#"{"prompt_cache_key":7,"stream":"true","previous_response_id":["a"],"client_metadata":"session_id","instructions":{"a":[1]},"input":3}"#,
    r#"{"prompt_cache_key":{"prompt_cache_key":"inner"},"stream":[true],"client_metadata":[{"session_id":"no"}]}"#,
    r#"{"input":"{\"prompt_cache_key\":\"decoy\",\"model\":\"decoy\"}","model":"real","tools":[{"model":"x","prompt_cache_key":"x"}]}"#,
    r#"{"client_metadata":{"a":{"session_id":"no"},"session_id":"yes","model":"no"},"session_id":"no"}"#,
    r#"{"client_metadata":{"session_id":5},"metadata":{"session_id":"no"}}"#,
    r#"{"x":1,"x":2,"metadata":{"a":1,"a":2},"input":[{"role":"system","role":"user"},{"role":"user"}]}"#,
    r#"{"input":[{"content":[{"role":"user"}]},{"r\u006fle":"us\u0065r","x":[{},[]]} , {"role":"user"}]}"#,
    r#"{"input":["a",1,[{"role":"user"}],{"role":["user"]},{"role":"users"},{"role":"user"},2]}"#,
    r#"{"input":[],"instructions":""}"#,
    r#"{"":"","a":[0,-0,1.5e-7,1E+2,true,false,null,"\/\b\f\n\r\t"]}"#,
    "{\"a\":\"\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\u{feff}\"}",
];

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

/// Bodies that are refused: what for, and at which byte.
const HOSTILE: &[(&[u8], Problem, u64)] = &[
    (b"", Problem::UnexpectedEnd, 0),
    (b" ", Problem::UnexpectedEnd, 1),
    (b"{\"a\":tru", Problem::UnexpectedEnd, 8),
    (b"{\"a\":\"", Problem::UnexpectedEnd, 6),
    (b"\xef\xbb\xbf{}", Problem::ByteOrderMark, 0),
    (b" \xef\xbb\xbf{}", Problem::RootNotObject, 1),
    (b"\xff\xfe{\0}\0", Problem::InvalidUtf8, 0),
    (b"[]", Problem::RootNotObject, 0),
    (b"\"a\"", Problem::RootNotObject, 0),
    (b"null", Problem::RootNotObject, 0),
    (b"7", Problem::RootNotObject, 0),
    (b"}", Problem::RootNotObject, 0),
    (b"{}x", Problem::TextAfterRoot, 2),
    (b"{} {}", Problem::TextAfterRoot, 3),
    (b"{}\0", Problem::TextAfterRoot, 2),
    (b"{}\x0c", Problem::TextAfterRoot, 2),
    (b"{}}", Problem::TextAfterRoot, 2),
    (b"{\"a\":1,}", Problem::ExpectedKey, 7),
    (b"{,}", Problem::ExpectedKey, 1),
    (b"{a:1}", Problem::ExpectedKey, 1),
    (b"{'a':1}", Problem::ExpectedKey, 1),
    (b"{\"a\"}", Problem::ExpectedColon, 4),
    (b"{\"a\" 1}", Problem::ExpectedColon, 5),
    (b"{\"a\":}", Problem::ExpectedValue, 5),
    (b"{\"a\"::1}", Problem::ExpectedValue, 5),
    (b"{\"a\":1 2}", Problem::ExpectedCommaOrBrace, 7),
    (b"{\"a\":1:2}", Problem::ExpectedCommaOrBrace, 6),
    (b"{\"a\":1\"b\":2}", Problem::ExpectedCommaOrBrace, 6),
    (b"{\"a\":\"b\"c}", Problem::ExpectedCommaOrBrace, 8),
    (b"{\"a\":{}]", Problem::ExpectedCommaOrBrace, 7),
    (b"{\"a\":[1}", Problem::ExpectedCommaOrBracket, 7),
    (b"{\"a\":[1,]}", Problem::ExpectedValue, 8),
    (b"{\"a\":[,1]}", Problem::ExpectedValue, 6),
    (b"{\"a\":[}", Problem::ExpectedValue, 6),
    (b"{\"a\":1,\x0b\"b\":2}", Problem::ExpectedKey, 7),
    (b"{\"a\":\xc2\xa01}", Problem::ExpectedValue, 5),
    (b"{\"a\":1/*c*/}", Problem::BadNumber, 6),
    (b"{\"a\":01}", Problem::BadNumber, 6),
    (b"{\"a\":-}", Problem::BadNumber, 6),
    (b"{\"a\":1.}", Problem::BadNumber, 7),
    (b"{\"a\":1e}", Problem::BadNumber, 7),
    (b"{\"a\":0x1}", Problem::BadNumber, 6),
    (b"{\"a\":.5}", Problem::ExpectedValue, 5),
    (b"{\"a\":+1}", Problem::ExpectedValue, 5),
    (b"{\"a\":NaN}", Problem::ExpectedValue, 5),
    (b"{\"a\":-Infinity}", Problem::BadNumber, 6),
    (b"{\"a\":1e999}", Problem::NumberOutOfRange, 10),
    (b"{\"a\":nulL}", Problem::BadLiteral, 8),
    (b"{\"a\":truefalse}", Problem::BadLiteral, 9),
    (b"{\"a\":True}", Problem::ExpectedValue, 5),
    (b"{\"a\\\":1}", Problem::UnexpectedEnd, 8),
    (b"{\\\"a\":1}", Problem::ExpectedKey, 1),
    (b"{\"a\":\\\"b\"}", Problem::ExpectedValue, 5),
    (b"{\"a\":\"\n\"}", Problem::ControlCharacter, 6),
    (b"{\"a\":\"\0\"}", Problem::ControlCharacter, 6),
    (b"{\"a\":\"\\x\"}", Problem::BadEscape, 7),
    (b"{\"a\":\"\\\n\"}", Problem::BadEscape, 7),
    (b"{\"a\":\"\\u12g4\"}", Problem::BadEscape, 10),
    (b"{\"a\":\"\\u12\"}", Problem::BadEscape, 10),
    (b"{\"a\":\"\\ud800\"}", Problem::LoneSurrogate, 6),
    (b"{\"a\":\"\\ud800\",\"model\":1}", Problem::LoneSurrogate, 6),
    (b"{\"a\":\"\\ud800x\\udc00\"}", Problem::LoneSurrogate, 6),
    (b"{\"a\":\"\\udc00\\ud800\"}", Problem::LoneSurrogate, 6),
    (b"{\"model\":\"\\uD800\\u0041\"}", Problem::LoneSurrogate, 10),
    (b"{\"a\":\"\xc0\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xe0\x80\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xed\xa0\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xf4\x90\x80\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xf0\x9f\x98\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"b\x80\"}", Problem::InvalidUtf8, 7),
    (b"{\"\xff\":1}", Problem::InvalidUtf8, 2),
    (b"{\"a\":\"\xe6\xbc", Problem::InvalidUtf8, 6),
    (b"{\"model\":\"a\",\"model\":\"a\"}", Problem::Twice(Field::Model), 13),
    (
        b"{\"model\":\"a\",\"mod\\u0065l\":\"b\"}",
        Problem::Twice(Field::Model),
        13,
    ),
    (
        b"{\"model\":null,\"\\u006dodel\":\"b\"}",
        Problem::Twice(Field::Model),
        14,
    ),
    (
        b"{\"prompt_cache_key\":1,\"prompt_cache_key\":1}",
        Problem::Twice(Field::PromptCacheKey),
        22,
    ),
    (b"{\"stream\":true,\"stream\":true}", Problem::Twice(Field::Stream), 15),
    (b"{\"input\":1,\"input\":1}", Problem::Twice(Field::Input), 11),
    (
        b"{\"instructions\":1,\"instructions\":1}",
        Problem::Twice(Field::Instructions),
        18,
    ),
    (
        b"{\"previous_response_id\":1,\"previous_response_id\":1}",
        Problem::Twice(Field::PreviousResponseId),
        26,
    ),
    (
        b"{\"client_metadata\":{},\"client_metadata\":{}}",
        Problem::Twice(Field::ClientMetadata),
        22,
    ),
    (
        b"{\"client_metadata\":{\"session_id\":1,\"session_id\":1}}",
        Problem::Twice(Field::SessionId),
        35,
    ),
    (b"{\"model\":5}", Problem::NotAString(Field::Model), 9),
    (b"{\"model\":[\"gpt-5\"]}", Problem::NotAString(Field::Model), 9),
    (b"{\"model\":true}", Problem::NotAString(Field::Model), 9),
];

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

/// Names and texts that matter, plainly and in escapes, and some that do not.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model",
        "mod\\u0065l",
        "prompt_cache_key",
        "stream",
        "previous_response_id",
        "client_metadata",
        "session_id",
        "instructions",
        "input",
        "role",
        "user",
        "type",
        "",
        "x",
        "\\n",
        "\\\"",
        "é",
        "\\ud83d\\ude00",
        "text with spaces",
    ])
    .prop_map(str::to_owned)
}

/// A JSON value as text, with odd blanks.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "-1.5e3",
            "12345678901234567890123",
            "\"user\""
        ])
        .prop_map(str::to_owned),
        name().prop_map(|text| format!("\"{text}\"")),
        (name(), 0usize..200).prop_map(|(text, count)| format!("\"{}\"", text.repeat(count))),
    ];
    let blank = prop::sample::select(vec!["", "", "", " ", "\n\t"]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let items = prop::collection::vec((inner.clone(), blank.clone()), 0..6);
        let members = prop::collection::vec((name(), blank.clone(), inner), 0..6);
        prop_oneof![
            items.prop_map(|items| {
                let items: Vec<_> = items
                    .into_iter()
                    .map(|(item, blank)| format!("{blank}{item}{blank}"))
                    .collect();
                format!("[{}]", items.join(","))
            }),
            members.prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, &'static str, String)>) -> String {
    let members: Vec<_> = members
        .into_iter()
        .map(|(key, blank, value)| format!("{blank}\"{key}\"{blank}:{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let blank = prop::sample::select(vec!["", " ", "\r\n"]);
    prop::collection::vec((name(), blank, value()), 0..8).prop_map(|members| object(members).into_bytes())
}

proptest! {
    #[test]
    fn random_bodies_in_random_pieces_agree_with_the_oracle(body in body(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 4)) {
        let _ = check(&body, cuts.iter().map(|cut| cut.index(body.len() + 1)));
    }

    #[test]
    fn bodies_with_a_wrong_byte_agree_with_the_oracle(
        mut body in body(),
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
