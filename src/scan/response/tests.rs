//! The response reader, compared with a reader that parses each event.

mod encrypted;
mod objects;
mod opening;
mod usage;

use crate::{
    ids::ObjectId,
    scan::{ResponseReader, Terminal},
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The objects that a stream names, and how it ended.
type StreamOutcome = (Vec<ObjectId>, Option<Terminal>);

/// An event stream of events with these data.
fn events(data: &[&str]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

/// Feeds `chunks` to `reader`.
fn read<'a>(mut reader: ResponseReader, chunks: impl IntoIterator<Item = &'a [u8]>) -> ResponseReader {
    chunks.into_iter().for_each(|chunk| reader.feed(chunk));
    reader
}

/// The oracle: it parses the data of each event.
fn parse_each<'a>(events: impl IntoIterator<Item = &'a str>) -> StreamOutcome {
    let (mut ids, mut terminal) = (Vec::new(), None);
    let (mut response, mut completion): (Option<ObjectId>, Option<ObjectId>) = (None, None);
    for data in events {
        let Ok(Value::Object(event)) = serde_json::from_str(data) else {
            if data.starts_with("[DONE]") {
                terminal = Some(Terminal::Done);
            }
            continue;
        };
        let object = |id: &Value| id.as_str().map(|id| ObjectId::from_text(id.as_bytes()));
        let kind = match event.get("type").and_then(Value::as_str) {
            Some("response.created") => None,
            Some("response.completed") => Some(Terminal::Completed),
            Some("response.failed") => Some(Terminal::Failed),
            Some("response.incomplete") => Some(Terminal::Incomplete),
            None if completion.is_none() => {
                completion = event.get("id").and_then(object);
                ids.extend(completion);
                continue;
            }
            _ => continue,
        };
        terminal = kind.or(terminal);
        let found = event.get("response").and_then(|response| object(&response["id"]));
        if (kind.is_some() || response.is_none()) && found != response {
            ids.extend(found);
        }
        response = response.or(found);
    }
    (ids, terminal)
}

fn outcome<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> StreamOutcome {
    let mut reader = ResponseReader::events();
    chunks.into_iter().for_each(|chunk| reader.feed(chunk));
    assert_eq!(reader.is_terminal(), reader.terminal().is_some());
    let ids = reader.drain_objects().collect();
    (ids, reader.terminal())
}

/// The objects with these ids.
fn objects(ids: &[&str]) -> Vec<ObjectId> {
    ids.iter().map(|id| ObjectId::from_text(id.as_bytes())).collect()
}

fn created() -> String {
    json!({"response": {"instructions": "x".repeat(100), "id": "resp_1"}, "type": "response.created"}).to_string()
}

/// The data of the events of several streams.
fn streams() -> Vec<Vec<String>> {
    let stream = |events: &[&str]| events.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>();
    vec![
        stream(&[
            r#"{"type":"response.created","response":{"object":"response","id":"resp_a"}}"#,
            r#"{"type":"response.output_text.delta","delta":"response.completed"}"#,
            r#"{"type":"response.completed","response":{"id":"resp_b","usage":{}}}"#,
        ]),
        stream(&[
            r#" { "type" : "response.created" , "response" : { "id" : "resp_\u0061" } } "#,
            "[DONE]",
        ]),
        stream(&[
            &created(),
            r#"{"response":{"id":"no"},"sequence_number":4,"type":"response.failed"}"#,
        ]),
        stream(&[r#"{"type":"response.incomplete","response":{"id":"late"}}"#]),
        stream(&[r#"{"type":"response.creat\u0065d","response":{"id":"a"}}"#]),
        stream(&[
            r#"{"id":"chatcmpl-1","choices":[{"delta":{"content":"[DONE]"}}]}"#,
            "[DON",
            "[DONE]",
        ]),
        stream(&[
            r#"{"type":"response.created","response":{"id":7}}"#,
            "{\"type\":\"response.completed\"",
        ]),
        stream(&[r#"{"item":{"type":"response.completed","response":{"id":"decoy"}},"type":"response.created.x"}"#]),
        stream(&[
            "",
            "{",
            "{}",
            "[]",
            "null",
            "7",
            r#"{"type":null}"#,
            r#"{"type":"response.completed!"}"#,
        ]),
        stream(&[&format!("{{{}\"type\":\"response.failed\"}}", " ".repeat(100))]),
        stream(&[r#"{"response":{"response":{"id":"deep"},"id":"x"},"id":"top","type":"response.created"}"#]),
    ]
}

#[test]
fn streams_are_read_as_by_the_oracle_at_every_split() {
    for events in streams() {
        for (before, after) in [
            ("data: ", "\n\n"),
            ("event: x\r\ndata:", "\r\n\r\n"),
            (": c\rdata: ", "\r\r"),
        ] {
            let stream: String = events.iter().map(|data| format!("{before}{data}{after}")).collect();
            // The type of an event counts if the data begins with it, even if the JSON after it is broken.
            let mut expected = parse_each(events.iter().map(String::as_str));
            if events.iter().any(|data| data == "{\"type\":\"response.completed\"") {
                expected.1 = Some(Terminal::Completed);
            }
            let stream = stream.as_bytes();
            assert_eq!(outcome([stream]), expected, "{events:?}");
            assert_eq!(outcome(stream.chunks(1)), expected, "{events:?}");
            for cut in 0..stream.len() {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(outcome([head, tail]), expected, "{events:?} at {cut}");
            }
        }
    }
}

#[test]
fn several_data_lines_are_one_event() {
    let stream = b"data: {\"type\":\ndata: \"response.completed\",\ndata: \"response\":{\"id\":\"a\"}}\n\n";
    for size in [1, 5, 100] {
        assert_eq!(
            outcome(stream.chunks(size)),
            (objects(&["a"]), Some(Terminal::Completed))
        );
    }
}

#[test]
fn an_event_counts_when_it_is_complete() {
    let stream = b"data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\"}}\n\n";
    let mut reader = ResponseReader::events();
    for byte in stream {
        assert!(!reader.is_terminal());
        reader.feed(&[*byte]);
    }
    assert_eq!(reader.terminal(), Some(Terminal::Completed));
}

proptest! {
    #[test]
    fn random_streams_in_random_pieces_are_read_as_by_the_oracle(
        picks in prop::collection::vec((0usize..11, 0usize..8), 0..12),
        size in 1usize..200,
    ) {
        let all = streams();
        let events: Vec<&str> = picks.iter().filter_map(|(stream, event)| all[*stream].get(*event)).map(String::as_str)
            .filter(|data| *data != "{\"type\":\"response.completed\"").collect();
        let stream: String = events.iter().map(|data| format!("data: {data}\n\n")).collect();
        prop_assert_eq!(outcome(stream.as_bytes().chunks(size)), parse_each(events.iter().copied()));
    }
}
