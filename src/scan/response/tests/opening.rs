//! The opening of a stream, and the events that report its failure.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{events, read};
use crate::scan::{Opening, ResponseReader, StreamFailure};

/// The opening, the data of an `error` event, and the data of the failure that ended the stream.
type Found = (Opening, Option<String>, Option<String>);

const PENDING: Found = (Opening::Pending, None, None);
const OUTPUT: Found = (Opening::Output, None, None);

fn found<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let reader = read(ResponseReader::events(), chunks);
    let text = |data: Option<&[u8]>| data.map(|data| String::from_utf8(data.to_vec()).expect("UTF-8 text"));
    let failure = reader.failure();
    (
        reader.opening(),
        failure.and_then(|failure| text(failure.error)),
        failure.and_then(|failure| text(failure.last)),
    )
}

/// Reads a stream whole, byte by byte and cut in two at many places. The result must not depend on the cut.
fn opening(stream: &str) -> Found {
    let stream = stream.as_bytes();
    let whole = found([stream]);
    assert_eq!(found(stream.chunks(1)), whole);
    let step = stream.len().div_ceil(1000).max(1);
    for cut in (0..stream.len()).step_by(step) {
        let (head, tail) = stream.split_at(cut);
        let shown = &stream[..stream.len().min(200)];
        assert_eq!(found([head, tail]), whole, "{} at {cut}", shown.escape_ascii());
    }
    whole
}

fn failed(data: &str) -> Found {
    (Opening::Failed, None, Some(data.to_owned()))
}

fn suspected(data: &str) -> Found {
    (Opening::Pending, Some(data.to_owned()), None)
}

/// Events that say nothing about the success of the response.
const LIFECYCLE: &[&str] = &[
    r#"{"type":"response.created","response":{"id":"resp_1","error":null}}"#,
    r#"{"type":"response.queued","response":{}}"#,
    r#"{"type":"response.in_progress","response":{"error":{"code":"x"}}}"#,
    r#"{"sequence_number":1,"response":{"instructions":"long"},"type":"response.in_progress"}"#,
    r#" { "type" : "codex.rate_limits", "rate_limits":{}}"#,
    r#"{"type":"response.metadata","headers":{}}"#,
    r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":3}}}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"keepalive","sequence_number":3}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    r#"{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
    r#"{"choices":[],"prompt_filter_results":[{"x":{"delta":{"content":"x"}}}]}"#,
    r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[],"refusal":null,"function_call":{}},"logprobs":{"content":[{"token":"x"}]}}],"error":null}"#,
    r#"{"choices":[{"delta":{"role":"assistant"}},{"finish_reason":"","delta":{"content":""},"index":1}]}"#,
    r#"{"choices":[{"text":"","index":0,"finish_reason":null}]}"#,
    "",
];

/// Events that are output, or that end a response without a failure.
const OUTPUTS: &[&str] = &[
    r#"{"type":"response.output_item.added","item":{}}"#,
    r#"{"type":"response.output_text.delta","error":{}}"#,
    r#"{"delta":"x","error":{},"type":"response.output_text.delta"}"#,
    r#"{"type":"response.output_item.done","item":{}}"#,
    r#"{"type":"response.completed","response":{"error":null}}"#,
    r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"content_filter"}}}"#,
    r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}"#,
    r#"{"type":"message_stop"}"#,
    r#"{"type":"unknown"}"#,
    r#"{"choices":[{"delta":{"content":"x"}}]}"#,
    r#"{"choices":[{"delta":{"content":""}},{"delta":{"content":"\u0078"}}]}"#,
    r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}"#,
    r#"{"choices":[{"delta":{"content":[{"type":"text","text":"x"}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}"#,
    r#"{"choices":[{"delta":{"function_call":{"name":"f"}}}]}"#,
    r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"choices":[{"text":"x","index":0}]}"#,
    r#"{"choices":[{"message":{"role":"assistant","content":"x"}}]}"#,
    r#"{"usage":{}}"#,
    r#"{"error":""}"#,
    r#"{"error":{}"#,
    "error",
    "[]",
    "[DONE]",
];

/// Events that end a response with a failure.
const FAILURES: &[&str] = &[
    r#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded","message":"no"}}}"#,
    r#"{"sequence_number":0,"type":"response.failed","response":{}}"#,
    r#" { "response":{"status":"failed","error":null} , "type" : "response.f\u0061iled" } "#,
    r#"{"error":{"message":"no","code":429}}"#,
    r#"{"id":"gen-1","choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502}}"#,
    r#"{"error":"text"}"#,
    r#"{"type":null,"error":{}}"#,
];

const ERRORS: &[&str] = &[
    r#" { "type" : "error", "code":"slow_down"}"#,
    r#"{"type":"err\u006fr"}"#,
    r#"{"error":{"type":"overloaded_error"},"type":"error"}"#,
    // The type counts, even though the JSON is broken.
    r#"{"type":"error""#,
];

#[test]
fn the_opening_lasts_as_long_as_only_lifecycle_events_have_come() {
    for data in LIFECYCLE {
        assert_eq!(opening(&events(&[data])), PENDING, "{data}");
    }
    assert_eq!(opening(&events(LIFECYCLE)), PENDING);
    for nothing in ["", ": ping\n\n: ping\n\n", "event: error\n\n", "data: ", "data\n\n"] {
        assert_eq!(opening(nothing), PENDING, "{nothing}");
    }
    assert_eq!(opening("data: {\"type\":\"response.fail"), PENDING);
    assert_eq!(
        opening("data: {\"type\":\"response.failed\",\"response\":{}}\n"),
        PENDING
    );
}

#[test]
fn output_or_a_successful_end_ends_the_opening() {
    for data in OUTPUTS {
        for before in [&[][..], LIFECYCLE] {
            let stream = events(before) + &events(&[data]);
            assert_eq!(opening(&stream), OUTPUT, "{data}");
            // A failure that follows does not change the opening.
            let later = found([(stream + &events(&FAILURES[..1])).as_bytes()]);
            assert_eq!(later, (Opening::Output, None, Some(FAILURES[0].to_owned())), "{data}");
        }
    }
    assert_eq!(opening("data: {\"type\":\"response.output_text.delta\""), OUTPUT);
    let body = read(ResponseReader::json(), [FAILURES[0].as_bytes()]);
    assert_eq!((body.opening(), body.failure()), (Opening::Output, None));
}

#[test]
fn the_data_of_a_failure_is_kept() {
    for data in FAILURES {
        for before in ["", ": ping\n\n", "event: x\nid: 1\n\n: y\r\n", "retry: 5\r\r"] {
            let stream = events(LIFECYCLE) + before + &events(&[data, OUTPUTS[0]]);
            assert_eq!(opening(&stream), failed(data), "{data}");
            assert_eq!(
                opening(&format!("{before}data: {data}\r\n\r\n")),
                failed(data),
                "{data}"
            );
        }
    }
    let lines = "data: {\"type\":\ndata: \"response.failed\"}\n\n";
    assert_eq!(opening(lines), failed("{\"type\":\n\"response.failed\"}"));
}

#[test]
fn an_error_does_not_end_the_opening_but_is_kept() {
    for data in ERRORS {
        let stream = events(&[LIFECYCLE[0], data, LIFECYCLE[4]]);
        assert_eq!(opening(&stream), suspected(data), "{data}");
        let both = (Opening::Failed, Some((*data).to_owned()), Some(FAILURES[0].to_owned()));
        assert_eq!(opening(&(stream.clone() + &events(&FAILURES[..1]))), both, "{data}");
        // If the stream goes on, the error has not ended it.
        assert_eq!(opening(&(stream.clone() + &events(&OUTPUTS[..1]))), OUTPUT, "{data}");
        let done = (Opening::Failed, Some((*data).to_owned()), None);
        assert_eq!(opening(&(stream + &events(&["[DONE]"]))), done, "{data}");
    }
}

/// An event of the given length.
fn long(data: &Value, length: usize) -> String {
    let frame = data.to_string().len();
    data.to_string().replace("PAD", &"x".repeat(length + 3 - frame))
}

#[test]
fn events_of_any_length_are_followed_in_the_opening() {
    let created = long(
        &json!({"response": {"instructions": "PAD"}, "type": "response.created"}),
        60 << 10,
    );
    let reversed = created.replacen('{', r#"{"sequence_number":0,"#, 1);
    let failed_event = long(
        &json!({"response": {"instructions": "PAD"}, "type": "response.failed"}),
        300 << 10,
    );
    assert_eq!(opening(&events(&[&created, &reversed])), PENDING);
    assert_eq!(opening(&events(&[&created, &failed_event])), failed(&failed_event));
}

#[test]
fn the_data_of_a_late_failure_is_bounded() {
    for (length, is_kept) in [(StreamFailure::MAX_LATE, true), (StreamFailure::MAX_LATE + 1, false)] {
        for kind in ["response.failed", "error"] {
            let data = format!("{{\"type\":\"{kind}\",\"message\":\"PAD\"}}");
            let data = data.replace("PAD", &"x".repeat(length + 3 - data.len()));
            let stream = events(&[OUTPUTS[0], &data, LIFECYCLE[0]]);
            let (opening, error, last) = found(stream.as_bytes().chunks(1000));
            let kept = Some(if is_kept { data } else { String::new() });
            let expected = if kind == "error" { (kept, None) } else { (None, kept) };
            assert_eq!((opening, (error, last)), (Opening::Output, expected));
        }
    }
}

#[test]
fn the_opening_ends_when_the_stream_is_passed_on() {
    let mut reader = read(ResponseReader::events(), [events(LIFECYCLE).as_bytes()]);
    reader.end_opening();
    assert_eq!(reader.opening(), Opening::Output);
    reader.feed(events(&[ERRORS[0]]).as_bytes());
    assert_eq!(reader.opening(), Opening::Output);
    assert!(reader.failure().is_some_and(|failure| failure.last.is_none()));
    reader.feed(events(&[OUTPUTS[0]]).as_bytes());
    assert_eq!(reader.failure(), None, "the stream goes on");
}

#[test]
fn responses_and_messages_streams_must_have_an_end() {
    for (stream, lacks_end) in [
        (vec![LIFECYCLE[0]], true),
        (vec![LIFECYCLE[2], OUTPUTS[1]], true),
        (vec![LIFECYCLE[0], OUTPUTS[4]], false),
        (vec![LIFECYCLE[0], OUTPUTS[5]], false),
        (vec![LIFECYCLE[0], FAILURES[0]], false),
        (vec![LIFECYCLE[6], OUTPUTS[6]], true),
        (vec![LIFECYCLE[6], OUTPUTS[6], OUTPUTS[7]], false),
        (vec![LIFECYCLE[9], OUTPUTS[9]], false),
        (vec![], false),
    ] {
        let reader = read(ResponseReader::events(), [events(&stream).as_bytes()]);
        assert_eq!(reader.lacks_end(), lacks_end, "{stream:?}");
    }
}

/// The oracle: it parses the data of each event.
fn parse_opening(data: &[&str]) -> Found {
    let (mut opening, mut error, mut last) = PENDING;
    for data in data {
        let event: Value = serde_json::from_str(data).unwrap_or_default();
        let kind = event["type"].as_str().unwrap_or_default();
        let is_chunk = event.is_object() && !event["type"].is_string();
        let is_error = kind == "error" || data.starts_with(r#"{"type":"error""#);
        let has_failed = kind == "response.failed"
            || is_chunk && (event["error"].is_object() || event["error"].as_str().is_some_and(|text| !text.is_empty()));
        if is_error || has_failed {
            let slot = if is_error { &mut error } else { &mut last };
            slot.get_or_insert((*data).to_owned());
            if has_failed && opening == Opening::Pending {
                opening = Opening::Failed;
            }
        } else if *data == "[DONE]" && error.is_some() {
            if opening == Opening::Pending {
                opening = Opening::Failed;
            }
        } else if OUTPUTS.contains(data) || is_chunk && opening != Opening::Pending {
            // After the opening, every chunk of a chat completion counts as output.
            let is_end =
                *data == "[DONE]" || matches!(kind, "response.completed" | "response.incomplete" | "message_stop");
            if opening == Opening::Pending {
                opening = Opening::Output;
            }
            if last.is_none() && !is_end {
                error = None;
            }
        }
    }
    (opening, error, last)
}

proptest! {
    #[test]
    fn random_streams_have_the_same_opening_in_any_pieces(
        picks in prop::collection::vec((0usize..9, any::<prop::sample::Index>()), 0..8),
        ends in prop::sample::select(vec!["\n\n", "\r\n\r\n", "\r\r"]),
        size in 1usize..300,
    ) {
        let pick = |(list, index): &(usize, prop::sample::Index)| match list {
            0..6 => LIFECYCLE[index.index(LIFECYCLE.len())],
            6 => OUTPUTS[index.index(OUTPUTS.len())],
            7 => FAILURES[index.index(FAILURES.len())],
            _ => ERRORS[index.index(ERRORS.len())],
        };
        let data: Vec<&str> = picks.iter().map(pick).collect();
        let stream: String = data.iter().map(|data| format!("event: x\ndata: {data}{ends}: c{ends}")).collect();
        prop_assert_eq!(found(stream.as_bytes().chunks(size)), parse_opening(&data));
    }
}
