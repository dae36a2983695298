//! The response reader, compared with a reader that parses each event.

mod encrypted;
mod opening;
mod usage;

use crate::scan::{ResponseReader, Terminal};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The id of a response, and how it ended.
type StreamOutcome = (Option<String>, Option<Terminal>);

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
    let (mut id, mut terminal) = (None, None);
    for data in events {
        let Ok(Value::Object(event)) = serde_json::from_str(data) else {
            if data.starts_with("[DONE]") {
                terminal = Some(Terminal::Done);
            }
            continue;
        };
        let kind = match event.get("type").and_then(Value::as_str) {
            Some("response.created") => None,
            Some("response.completed") => Some(Terminal::Completed),
            Some("response.failed") => Some(Terminal::Failed),
            Some("response.incomplete") => Some(Terminal::Incomplete),
            _ => continue,
        };
        terminal = kind.or(terminal);
        let found = event.get("response").and_then(|response| response["id"].as_str());
        id = id.or(found.map(str::to_owned));
    }
    (id, terminal)
}

fn outcome<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> StreamOutcome {
    let mut reader = ResponseReader::events();
    chunks.into_iter().for_each(|chunk| reader.feed(chunk));
    assert_eq!(reader.is_terminal(), reader.terminal().is_some());
    (reader.response_id().map(str::to_owned), reader.terminal())
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
            (Some("a".to_owned()), Some(Terminal::Completed))
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

#[test]
fn an_id_that_is_too_long_is_ignored() {
    for (length, known) in [(256, true), (257, false)] {
        let id = "a".repeat(length);
        let body = json!({"id": id, "object": "response"}).to_string();
        let mut reader = ResponseReader::json();
        reader.feed(body.as_bytes());
        reader.finish();
        assert_eq!(reader.response_id().is_some(), known);
        let created = format!(
            "data: {}\n\n",
            json!({"type": "response.created", "response": {"id": id}})
        );
        assert_eq!(outcome([created.as_bytes()]).0.is_some(), known);
    }
}

#[test]
fn the_top_level_id_of_a_json_body_is_read_at_every_split() {
    let bodies = [
        (
            r#"{"id":"resp_1","object":"response","output":[{"id":"msg"}]}"#,
            Some("resp_1"),
        ),
        (
            r#"{"output":[{"id":"msg"}],"response":{"id":"no"},"i\u0064":"resp_2"}  "#,
            Some("resp_2"),
        ),
        (r#"{"error":{"id":"x","message":"no"}}"#, None),
        (r#"{"id":5}"#, None),
        (r#"["id","x"]"#, None),
        ("<html>\"id\":\"x\"", None),
    ];
    for (body, id) in bodies {
        for cut in 0..=body.len() {
            let (head, tail) = body.as_bytes().split_at(cut);
            let mut reader = ResponseReader::json();
            reader.feed(head);
            reader.feed(tail);
            reader.finish();
            assert_eq!(reader.response_id(), id, "{body} at {cut}");
            assert!(!reader.is_terminal());
        }
    }
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
