//! The objects that answers name.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{events, objects};
use crate::{ids::ObjectId, scan::ResponseReader};

/// The objects of a body that is read in these pieces. They are taken after each piece.
fn named<'a>(mut reader: ResponseReader, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<ObjectId> {
    let mut taken = Vec::new();
    for chunk in chunks {
        reader.feed(chunk);
        taken.extend(reader.drain_objects());
    }
    reader.finish();
    taken.extend(reader.drain_objects());
    taken
}

/// Checks the objects of a body at every split.
fn assert_named(make: fn() -> ResponseReader, body: &str, expected: &[&str]) {
    let (bytes, expected) = (body.as_bytes(), objects(expected));
    assert_eq!(named(make(), [bytes]), expected, "{body}");
    assert_eq!(named(make(), bytes.chunks(1)), expected, "{body}");
    for cut in 0..bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(named(make(), [head, tail]), expected, "{body} at {cut}");
    }
}

#[test]
fn the_objects_of_a_json_body_are_read() {
    for (body, expected) in [
        (r#"{"id":"resp_1","object":"response"}"#, &["resp_1"][..]),
        (
            r#"{"output":[],"response":{"id":"no"},"i\u0064":"resp\u005f2"}  "#,
            &["resp_2"],
        ),
        (r#"{"error":{"id":"x","message":"no"}}"#, &[]),
        (r#"{"id":5,"file":{"id":null},"conversation":7}"#, &[]),
        (r#"{"id":""}"#, &[]),
        (r#"["id","x"]"#, &[]),
        ("<html>\"id\":\"x\"", &[]),
        (
            r#"{"id":"r","output":[{"id":"rs_1","content":[{"id":"no"}]},{"id":"ci_1","container_id":"cntr_1"},["id"]]}"#,
            &["r", "rs_1", "ci_1", "cntr_1"],
        ),
        (
            r#"{"id":"r","output":[{"id":"rs_1"},{"container_id":"cntr_1"}],"store":false}"#,
            &["r", "cntr_1"],
        ),
        (r#"{"store":false,"output":[{"id":"rs_1"}],"id":"r"}"#, &["r"]),
        (
            r#"{"id":"r","conversation":{"id":"conv_1","x":{"id":"no"}}}"#,
            &["r", "conv_1"],
        ),
        (r#"{"id":"r","conversation":"conv_1"}"#, &["r", "conv_1"]),
        (
            r#"{"id":"batch_1","output_file_id":"f1","error_file_id":null,"metadata":{"id":"no"}}"#,
            &["batch_1", "f1"],
        ),
        (
            r#"{"result_files":["f1","f\u0032",3,{"id":"no"},["no"]],"id":"ftjob_1"}"#,
            &["ftjob_1", "f1", "f2"],
        ),
        (
            r#"{"id":"upload_1","file":{"object":"file","id":"f1"}}"#,
            &["upload_1", "f1"],
        ),
        (r#"{"id":"f1","vector_store_id":"vs_1"}"#, &["f1", "vs_1"]),
    ] {
        assert_named(ResponseReader::json, body, expected);
        assert_named(ResponseReader::object, body, expected);
    }
}

#[test]
fn the_elements_of_a_list_are_not_read() {
    let list = r#"{"object":"list","data":[{"id":"f1"}],"id":"late","output_file_id":"f2"}"#;
    assert_named(ResponseReader::object, list, &[]);
    assert_named(ResponseReader::json, list, &["late", "f2"]);
    let mut reader = ResponseReader::object();
    let pieces = [r#"{"id":"vs_1","data":[{"#, r#""x":1}],"output_file_id":"f1"}"#];
    assert_eq!(
        named(ResponseReader::object(), pieces.map(str::as_bytes)),
        objects(&["vs_1"])
    );
    // Only the beginning of an object is read.
    reader.feed(br#"{"id":"f1","text":""#);
    (0..70).for_each(|_| reader.feed(&[b'x'; 1 << 10]));
    reader.feed(br#"","output_file_id":"f2"}"#);
    reader.finish();
    assert_eq!(reader.drain_objects().collect::<Vec<_>>(), objects(&["f1"]));
}

#[test]
fn the_objects_of_a_stream_are_read() {
    let created = |id: &str, more: &str| format!(r#"{{"type":"response.created","response":{{"id":"{id}"{more}}}}}"#);
    let completed =
        |id: &str, more: &str| format!(r#"{{"type":"response.completed","response":{{"id":"{id}"{more}}}}}"#);
    let added = r#"{"type":"response.output_item.added","item":{"id":"msg_1","content":[{"id":"no"}]}}"#;
    let done = r#"{"type":"response.output_item.done","item":{"id":"msg_1"}}"#;
    let container = r#"{"type":"response.output_item.done","item":{"id":"ci_1","container_id":"cntr_1"}}"#;
    for (stream, expected) in [
        (vec![created("a", ""), completed("a", "")], &["a"][..]),
        (vec![created("a", ""), completed("b", "")], &["a", "b"]),
        (
            vec![completed("b", r#","conversation":{"id":"conv_1"}"#)],
            &["b", "conv_1"],
        ),
        (
            vec![created("a", ""), added.into(), done.into(), container.into()],
            &["a", "msg_1", "ci_1", "cntr_1"],
        ),
        (
            vec![
                created("a", r#","store":false"#),
                added.into(),
                done.into(),
                container.into(),
            ],
            &["a", "cntr_1"],
        ),
        (
            vec![
                created("a", ""),
                completed("a", r#","output":[{"id":"msg_1"},{"id":"msg_2"}]"#),
            ],
            &["a", "msg_1", "msg_2"],
        ),
        (
            vec![completed("a", r#","output":[{"id":"msg_1"}],"store":false"#)],
            &["a"],
        ),
        (
            vec![
                r#"{"id":"chatcmpl-1","choices":[]}"#.into(),
                r#"{"id":"chatcmpl-1"}"#.into(),
                "[DONE]".into(),
            ],
            &["chatcmpl-1"],
        ),
    ] {
        let data: Vec<&str> = stream.iter().map(String::as_str).collect();
        assert_named(ResponseReader::events, &events(&data), expected);
    }
}

#[test]
fn ids_may_be_long_and_the_number_of_objects_is_bounded() {
    for (length, is_known) in [(257, true), (64 << 10, true), ((64 << 10) + 1, false)] {
        let id = "a".repeat(length);
        let expected = if is_known { objects(&[&id]) } else { Vec::new() };
        let body = json!({"id": id}).to_string();
        assert_eq!(named(ResponseReader::json(), body.as_bytes().chunks(1000)), expected);
        let created = json!({"type": "response.created", "response": {"id": id}}).to_string();
        let stream = events(&[&created]);
        assert_eq!(named(ResponseReader::events(), [stream.as_bytes()]), expected);
    }
    let items: Vec<Value> = (0..1_000)
        .map(|number| json!({"id": format!("msg_{number}")}))
        .collect();
    let body = json!({"output": items}).to_string();
    let found = named(ResponseReader::json(), [body.as_bytes()]);
    assert_eq!(found.len(), 256);
}

#[test]
fn a_body_that_is_cut_names_the_objects_before_the_cut() {
    let long = "x".repeat(200);
    let body = format!(r#"{{"id":"resp_1","instructions":"{long}"#);
    assert_eq!(named(ResponseReader::json(), [body.as_bytes()]), objects(&["resp_1"]));
}

#[test]
fn a_response_says_whether_it_is_made_in_the_background() {
    for (body, expected) in [
        (r#"{"status":"queued"}"#, true),
        (r#"{"status":"in_progress","background":false}"#, true),
        (r#"{"status":"completed","background":true}"#, true),
        (r#"{"status":"completed","background":false}"#, false),
        (r#"{"background":null,"x":{"background":true},"status":null}"#, false),
    ] {
        let mut reader = ResponseReader::json();
        reader.feed(body.as_bytes());
        reader.finish();
        assert_eq!(reader.is_background(), expected, "{body}");
    }
    for (more, expected) in [(r#""background":true"#, true), (r#""status":"in_progress""#, false)] {
        let created = format!(r#"{{"type":"response.created","response":{{"id":"r",{more}}}}}"#);
        let mut reader = ResponseReader::events();
        reader.feed(events(&[&created]).as_bytes());
        assert_eq!(reader.is_background(), expected, "{more}");
    }
}

/// The ids that are members of these objects, as the reader finds them.
fn objects_of(body: &Value) -> Vec<ObjectId> {
    let object = |id: &Value| {
        id.as_str()
            .filter(|id| !id.is_empty())
            .map(|id| ObjectId::from_text(id.as_bytes()))
    };
    let mut found: Vec<ObjectId> = object(&body["id"]).into_iter().collect();
    let members = body.as_object().expect("an object");
    for (name, value) in members {
        match name.as_str() {
            "output_file_id" | "error_file_id" | "vector_store_id" => found.extend(object(value)),
            "file" => found.extend(object(&value["id"])),
            "conversation" => found.extend(object(value).or_else(|| object(&value["id"]))),
            "result_files" => found.extend(value.as_array().into_iter().flatten().filter_map(object)),
            "output" => {
                for item in value.as_array().into_iter().flatten().filter_map(Value::as_object) {
                    for (name, value) in item {
                        if name == "container_id" || name == "id" && body["store"] != json!(false) {
                            found.extend(object(value));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|id| format!("{id:?}"));
    found
}

fn values() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec!["a", "b\"\\", "é😀", "", "long id\n"]).prop_map(|id| json!(id));
    let leaf =
        prop_oneof![4 => id, 1 => Just(json!(null)), 1 => Just(json!(7)), 1 => any::<bool>().prop_map(|b| json!(b))];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let name = prop::sample::select(vec![
            "id",
            "container_id",
            "output",
            "output_file_id",
            "file",
            "conversation",
            "result_files",
            "store",
            "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_objects_are_read_as_by_the_oracle(
        members in prop::collection::btree_map(
            prop::sample::select(vec!["id", "output", "output_file_id", "file", "conversation", "result_files", "store", "x"])
                .prop_map(str::to_owned),
            values(),
            0..8,
        ),
        size in 1usize..100,
    ) {
        let body = Value::Object(members.into_iter().collect());
        let text = body.to_string();
        for reader in [ResponseReader::json(), ResponseReader::object()] {
            let mut found = named(reader, text.as_bytes().chunks(size));
            found.sort_by_key(|id| format!("{id:?}"));
            prop_assert_eq!(found, objects_of(&body), "{}", text);
        }
    }
}
