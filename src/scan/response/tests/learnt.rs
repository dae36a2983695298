//! First events, and encrypted content.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::reader::*;
use crate::ids::EncryptedContent;

fn events(data: &[&str]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

fn read<'a>(mut reader: ResponseReader, chunks: impl IntoIterator<Item = &'a [u8]>) -> ResponseReader {
    chunks.into_iter().for_each(|chunk| reader.feed(chunk));
    reader
}

/// Reads a stream whole, byte by byte and cut in two everywhere, and gives what its first event is every time.
fn first_event(stream: &str) -> Option<Option<String>> {
    let of = |reader: ResponseReader| match reader.first_event() {
        FirstEvent::Pending => None,
        FirstEvent::Other => Some(None),
        FirstEvent::Failure(data) => Some(Some(String::from_utf8(data.to_vec()).unwrap())),
    };
    let stream = stream.as_bytes();
    let first = of(read(ResponseReader::events(), [stream]));
    assert_eq!(of(read(ResponseReader::events(), stream.chunks(1))), first);
    let step = stream.len().div_ceil(1000).max(1);
    for cut in (0..stream.len()).step_by(step) {
        let (head, tail) = stream.split_at(cut);
        let shown = &stream[..stream.len().min(200)];
        assert_eq!(
            of(read(ResponseReader::events(), [head, tail])),
            first,
            "{} at {cut}",
            shown.escape_ascii()
        );
    }
    first
}

#[test]
fn a_first_event_that_fails_is_kept() {
    for data in [
        r#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded","message":"no"}}}"#,
        r#" { "type" : "error", "code":"slow_down"}"#,
        r#"{"sequence_number":0,"type":"response.failed","response":{}}"#,
        r#"{"type":"err\u006fr"}"#,
        r#"{"error":{"message":"no","code":429}}"#,
        r#"{"type":null,"error":{}}"#,
        // By the type, whatever else is wrong with it.
        r#"{"type":"error""#,
    ] {
        for before in ["", ": ping\n\n", "event: x\nid: 1\n\n: y\r\n", "retry: 5\r\r"] {
            let stream = format!(
                "{before}{}{}",
                events(&[data]),
                events(&[r#"{"type":"response.created"}"#])
            );
            assert_eq!(first_event(&stream), Some(Some(data.to_owned())), "{data}");
        }
    }
    let lines = "data: {\"type\":\ndata: \"error\"}\n\n";
    assert_eq!(first_event(lines), Some(Some("{\"type\":\n\"error\"}".to_owned())));
}

#[test]
fn a_first_event_that_is_no_failure_is_another() {
    let failed = r#"{"type":"response.failed","response":{}}"#;
    for data in [
        r#"{"type":"response.created","response":{"error":{"code":"x"}}}"#,
        r#"{"type":"response.output_text.delta","error":{}}"#,
        r#"{"delta":"x","error":{},"type":"response.output_text.delta"}"#,
        r#"{"id":"chatcmpl-1","choices":[{"error":{}}],"error":null}"#,
        r#"{"error":"text"}"#,
        r#"{"error":{}"#,
        "[DONE]",
        "error",
        "",
    ] {
        assert_eq!(first_event(&events(&[data, failed])), Some(None), "{data}");
    }
    assert_eq!(
        read(ResponseReader::json(), [failed.as_bytes()]).first_event(),
        FirstEvent::Other
    );
}

#[test]
fn a_first_event_is_awaited_no_longer_than_need_be() {
    for nothing in [
        "",
        ": ping\n\n: ping\n\n",
        "event: error\n\n",
        "data: ",
        "data: {\"type\":\"response.fail",
    ] {
        assert_eq!(first_event(nothing), None, "{nothing}");
    }
    assert_eq!(
        first_event("data: {\"type\":\"response.failed\",\"response\":{}}\n"),
        None
    );
    assert_eq!(first_event("data: {\"type\":\"response.created\""), Some(None));
}

#[test]
fn a_first_event_is_kept_up_to_its_bound() {
    for (length, kept) in [(FirstEvent::MAX_DATA, true), (FirstEvent::MAX_DATA + 1, false)] {
        let frame = r#"{"type":"error","message":""}"#.len();
        let data = format!(r#"{{"type":"error","message":"{}"}}"#, "x".repeat(length - frame));
        assert_eq!(first_event(&events(&[&data])), Some(kept.then_some(data)));
    }
}

fn contents(texts: &[&str]) -> Vec<EncryptedContent> {
    texts
        .iter()
        .map(|text| EncryptedContent::from_text(text.as_bytes()))
        .collect()
}

/// What encrypted content there is, taken after each piece.
fn encrypted<'a>(mut reader: ResponseReader, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<EncryptedContent> {
    let mut taken = Vec::new();
    for chunk in chunks {
        reader.feed(chunk);
        taken.extend(reader.take_encrypted());
    }
    reader.finish();
    taken.extend(reader.take_encrypted());
    assert_eq!(reader.take_encrypted(), []);
    taken
}

fn encrypted_at_every_split(make: fn() -> ResponseReader, body: &str, expected: &[&str]) {
    let (body, expected) = (body.as_bytes(), contents(expected));
    assert_eq!(encrypted(make(), [body]), expected, "{}", body.escape_ascii());
    assert_eq!(encrypted(make(), body.chunks(1)), expected);
    for cut in 0..body.len() {
        let (head, tail) = body.split_at(cut);
        assert_eq!(
            encrypted(make(), [head, tail]),
            expected,
            "{} at {cut}",
            body.escape_ascii()
        );
    }
}

const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"x","item":{"encrypted_content":"no"}}"#;
const CREATED: &str = r#"{"type":"response.created","response":{"id":"resp_1","output":[]}}"#;
const COMPLETED: &str = concat!(
    r#"{"type":"response.completed","response":{"id":"resp_1","x":[{"encrypted_content":"no"}],"output":["#,
    r#"{"id":"rs_1","encrypted_content":"a"},{"content":[{"encrypted_content":"no"}]},{"encrypted_content":"b"}],"#,
    r#""encrypted_content":"no"},"encrypted_content":"no"}"#
);

#[test]
fn a_stream_tells_the_encrypted_content_of_its_items() {
    let item = |text: &str| {
        format!(
            r#"{{"type":"response.output_item.done","item":{{"id":"rs_1","summary":[{{"encrypted_content":"no"}}],"encrypted_content":"{text}"}},"output_index":0}}"#
        )
    };
    let added = item("no").replace("done", "added");
    let escaped = r#"{"item":{"encrypted_content":"c"},"type":"response.output\u005fitem.done"}"#;
    let bare = r#"{"type":"response.output_item.done","item":{"type":"message","encrypted_content":null}}"#;
    for (data, expected) in [
        (
            vec![CREATED, &added, &item("a"), DELTA, bare, &item("b"), COMPLETED],
            ["a", "b"].as_slice(),
        ),
        (vec![CREATED, COMPLETED], &["a", "b"]),
        (vec![&*COMPLETED.replace("completed", "incomplete")], &["a", "b"]),
        (vec![CREATED, escaped, COMPLETED], &["c"]),
        (vec![CREATED, bare, COMPLETED], &[]),
        (vec![CREATED, DELTA, "[DONE]"], &[]),
    ] {
        encrypted_at_every_split(ResponseReader::events, &events(&data), expected);
    }
}

#[test]
fn a_json_body_tells_the_encrypted_content_of_its_output() {
    let long = "gAAAAAB/".repeat(100);
    let slashed = long.replace('/', "\\/");
    let compaction = format!(
        r#"{{"id":"resp_1","object":"response.compaction","output":[{{"type":"message","content":[{{"encrypted_content":"no"}}]}},
        {{"type":"compaction","encrypted_content":"{slashed}"}}],"usage":{{}}}}"#
    );
    let late =
        r#"{"output":[{"encrypted_content":"x"},{"encrypted_content" : "y"}],"id":"resp_1","encrypted_content":"no"}"#;
    let none = r#"{"id":"resp_1","output":"encrypted_content","input":[{"encrypted_content":"no"}],"item":7}"#;
    for make in [ResponseReader::json, ResponseReader::json_to_end] {
        encrypted_at_every_split(make, &compaction, &[&long]);
        encrypted_at_every_split(make, late, &["x", "y"]);
        encrypted_at_every_split(make, none, &[]);
    }
    // Of what is cut, what was whole.
    let cut = format!("{}{}", &late[..late.len() - 10], " ".repeat(64));
    assert_eq!(
        encrypted(ResponseReader::json(), [cut.as_bytes()]),
        contents(&["x", "y"])
    );
}

#[test]
fn encrypted_content_that_nobody_takes_is_bounded() {
    let items: Vec<_> = (0..200).map(|n| json!({"encrypted_content": n.to_string()})).collect();
    let body = json!({"output": items, "id": "resp_1"}).to_string();
    assert_eq!(
        read(ResponseReader::json(), [body.as_bytes()]).take_encrypted().len(),
        64
    );
    let item = |n: &Value| events(&[&json!({"item": n, "type": "response.output_item.done"}).to_string()]);
    let stream: String = items.iter().map(item).collect();
    assert_eq!(
        read(ResponseReader::events(), [stream.as_bytes()])
            .take_encrypted()
            .len(),
        64
    );
    assert_eq!(
        encrypted(ResponseReader::events(), stream.as_bytes().chunks(100)).len(),
        200
    );
}

/// The texts that count of `items`.
fn slow(items: &[Value]) -> Vec<EncryptedContent> {
    let texts = items.iter().filter_map(|item| item.get("encrypted_content")?.as_str());
    contents(&texts.collect::<Vec<_>>())
}

fn random_item() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(json!(null)),
        Just(json!(3)),
        "[a-z/\\\\\"é]{0,300}".prop_map(Value::from)
    ];
    let inner = text.clone().prop_map(|text| json!({"encrypted_content": text}));
    (text, inner, any::<bool>()).prop_map(|(text, inner, is_first)| match is_first {
        true => json!({"a": inner, "encrypted_content": text, "z": [inner, "encrypted_content"]}),
        false => json!({"content": [inner], "id": text}),
    })
}

proptest! {
    #[test]
    fn random_items_are_found_as_by_parsing(items in prop::collection::vec(random_item(), 0..5), size in 1usize..300) {
        let of_events = |data: &[Value]| {
            let data: Vec<_> = data.iter().map(Value::to_string).collect();
            let stream = events(&data.iter().map(String::as_str).collect::<Vec<_>>());
            encrypted(ResponseReader::events(), stream.as_bytes().chunks(size))
        };
        let expected = slow(&items);
        // With the type first, and not.
        let done: Vec<_> = items.iter().map(|item| json!({"item": item, "type": "response.output_item.done"})).collect();
        prop_assert_eq!(&of_events(&done), &expected);
        let plain: Vec<_> = items.iter().map(|item| json!({"type": "response.output_item.done", "x": item})).collect();
        prop_assert_eq!(of_events(&plain), []);
        let completed = json!({"type": "response.completed", "response": {"a": items, "output": items, "z": items}});
        prop_assert_eq!(&of_events(&[completed]), &expected);
        let body = json!({"a": items, "id": "resp_1", "output": items, "z": items}).to_string();
        for reader in [ResponseReader::json(), ResponseReader::json_to_end()] {
            prop_assert_eq!(&encrypted(reader, body.as_bytes().chunks(size)), &expected);
        }
    }
}

fn usage_of(reader: ResponseReader) -> Option<(u64, u64, u64)> {
    let usage = reader.usage()?;
    Some((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens))
}

/// Reads a JSON body whole and byte by byte.
fn usage_in(body: &str) -> Option<(u64, u64, u64)> {
    let whole = |chunk: usize| {
        let mut reader = read(ResponseReader::json(), body.as_bytes().chunks(chunk));
        reader.finish();
        usage_of(reader)
    };
    assert_eq!(whole(1), whole(body.len()), "{body}");
    whole(7)
}

#[test]
fn usage_is_read_in_every_form() {
    for (usage, expected) in [
        (
            r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":7,"total_tokens":107}"#,
            Some((100, 60, 7)),
        ),
        (
            r#"{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"audio_tokens":1,"cached_tokens":60}}"#,
            Some((100, 60, 7)),
        ),
        (r#"{"prompt_tokens":3,"total_tokens":3}"#, Some((3, 0, 0))),
        (
            r#" { "output_tokens" : 7 , "x":{"input_tokens":1}, "input_tokens_details":{"a":{"cached_tokens":9},"cached_tokens": 4}, "input_tokens":5 } "#,
            Some((5, 4, 7)),
        ),
        (r#"{"input_tokens":"5"}"#, None),
        (r#"{"input_tokens":-5}"#, None),
        (r#"{"input_tokens":1.5}"#, None),
        (r#"{"input_tokens":1e3}"#, None),
        (r#"{"input_tokens":99999999999999999999}"#, None),
        (r#"{}"#, None),
        ("null", None),
        ("[100]", None),
    ] {
        for body in [
            format!(r#"{{"id":"resp_1","output":[{{"usage":{{"input_tokens":1}}}}],"usage":{usage}}}"#),
            format!(r#"{{"usage":{usage},"data":[0.1,-2],"id":"x","output":[]}}"#),
        ] {
            assert_eq!(usage_in(&body), expected, "{body}");
        }
        let last = format!(
            r#"{{"type":"response.completed","response":{{"id":"r","output":[{{"usage":{{"input_tokens":9}}}}],"usage":{usage}}},"usage":3}}"#
        );
        let chunk = format!(r#"{{"id":"chatcmpl","choices":[],"usage":{usage}}}"#);
        for stream in [
            events(&[
                r#"{"type":"response.created","response":{"id":"r","usage":null}}"#,
                &last,
            ]),
            events(&[
                r#"{"id":"chatcmpl","choices":[{"delta":{}}],"usage":null}"#,
                &chunk,
                "[DONE]",
            ]),
        ] {
            for size in [1, 13, stream.len()] {
                let reader = read(ResponseReader::events(), stream.as_bytes().chunks(size));
                assert_eq!(usage_of(reader), expected, "{stream} by {size}");
            }
        }
    }
}

#[test]
fn recorded_items_are_not_learnt_twice() {
    let item = r#"{"type":"reasoning","encrypted_content":"gAAAAA"}"#;
    let stream = events(&[
        r#"{"type":"response.created","response":{"id":"r","output":[]}}"#,
        &format!(r#"{{"type":"response.output_item.done","item":{item}}}"#),
        &format!(
            r#"{{"type":"response.completed","response":{{"id":"r","output":[{item}],"usage":{{"input_tokens":1}}}}}}"#
        ),
    ]);
    let mut reader = read(ResponseReader::events(), [stream.as_bytes()]);
    assert_eq!(reader.take_encrypted().len(), 1);
    assert_eq!(usage_of(reader), Some((1, 0, 0)));
}
