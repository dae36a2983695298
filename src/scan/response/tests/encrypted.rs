//! The encrypted content of responses.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{events, read};
use crate::{ids::EncryptedContent, scan::ResponseReader};

fn contents(texts: &[&str]) -> Vec<EncryptedContent> {
    texts
        .iter()
        .map(|text| EncryptedContent::from_text(text.as_bytes()))
        .collect()
}

/// The encrypted content of a body. It is taken after each piece.
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
fn the_encrypted_content_of_the_items_of_a_stream_is_found() {
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
fn the_encrypted_content_of_the_output_of_a_json_body_is_found() {
    let long = "gAAAAAB/".repeat(100);
    let slashed = long.replace('/', "\\/");
    let compaction = format!(
        r#"{{"id":"resp_1","object":"response.compaction","output":[{{"type":"message","content":[{{"encrypted_content":"no"}}]}},
        {{"type":"compaction","encrypted_content":"{slashed}"}}],"usage":{{}}}}"#
    );
    let late =
        r#"{"output":[{"encrypted_content":"x"},{"encrypted_content" : "y"}],"id":"resp_1","encrypted_content":"no"}"#;
    let none = r#"{"id":"resp_1","output":"encrypted_content","input":[{"encrypted_content":"no"}],"item":7}"#;
    for make in [ResponseReader::json, ResponseReader::object] {
        encrypted_at_every_split(make, &compaction, &[&long]);
        encrypted_at_every_split(make, late, &["x", "y"]);
        encrypted_at_every_split(make, none, &[]);
    }
    // Only the complete contents of a truncated body are found.
    let cut = format!("{}{}", &late[..late.len() - 10], " ".repeat(64));
    assert_eq!(
        encrypted(ResponseReader::json(), [cut.as_bytes()]),
        contents(&["x", "y"])
    );
}

#[test]
fn encrypted_content_that_is_not_taken_is_bounded() {
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

#[test]
fn items_that_the_last_event_repeats_are_not_read_twice() {
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
    assert_eq!(reader.usage().map(|usage| usage.input_tokens), Some(1));
}

/// The encrypted content of `items`, found by parsing.
fn expected_of(items: &[Value]) -> Vec<EncryptedContent> {
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
    fn the_encrypted_content_of_random_items_is_found_as_by_parsing(items in prop::collection::vec(random_item(), 0..5), size in 1usize..300) {
        let of_events = |data: &[Value]| {
            let data: Vec<_> = data.iter().map(Value::to_string).collect();
            let stream = events(&data.iter().map(String::as_str).collect::<Vec<_>>());
            encrypted(ResponseReader::events(), stream.as_bytes().chunks(size))
        };
        let expected = expected_of(&items);
        // The type is written after the item, and before it.
        let done: Vec<_> = items.iter().map(|item| json!({"item": item, "type": "response.output_item.done"})).collect();
        prop_assert_eq!(&of_events(&done), &expected);
        let plain: Vec<_> = items.iter().map(|item| json!({"type": "response.output_item.done", "x": item})).collect();
        prop_assert_eq!(of_events(&plain), []);
        let completed = json!({"type": "response.completed", "response": {"a": items, "output": items, "z": items}});
        prop_assert_eq!(&of_events(&[completed]), &expected);
        let body = json!({"a": items, "id": "resp_1", "output": items, "z": items}).to_string();
        for reader in [ResponseReader::json(), ResponseReader::object()] {
            prop_assert_eq!(&encrypted(reader, body.as_bytes().chunks(size)), &expected);
        }
    }
}
