//! The first event of a stream.

use super::{events, read};
use crate::scan::{FirstEvent, ResponseReader};

/// Reads a stream whole, byte by byte and cut in two at many places. Returns the first event, which must not depend on
/// the cut: `None` while it is pending, and the data if it is a failure.
fn first_event(stream: &str) -> Option<Option<String>> {
    let answer_of = |reader: ResponseReader| match reader.first_event() {
        FirstEvent::Pending => None,
        FirstEvent::Other => Some(None),
        FirstEvent::Failure(data) => Some(Some(String::from_utf8(data.to_vec()).unwrap())),
    };
    let stream = stream.as_bytes();
    let first = answer_of(read(ResponseReader::events(), [stream]));
    assert_eq!(answer_of(read(ResponseReader::events(), stream.chunks(1))), first);
    let step = stream.len().div_ceil(1000).max(1);
    for cut in (0..stream.len()).step_by(step) {
        let (head, tail) = stream.split_at(cut);
        let shown = &stream[..stream.len().min(200)];
        assert_eq!(
            answer_of(read(ResponseReader::events(), [head, tail])),
            first,
            "{} at {cut}",
            shown.escape_ascii()
        );
    }
    first
}

#[test]
fn the_data_of_a_failed_first_event_is_kept() {
    for data in [
        r#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded","message":"no"}}}"#,
        r#" { "type" : "error", "code":"slow_down"}"#,
        r#"{"sequence_number":0,"type":"response.failed","response":{}}"#,
        r#"{"type":"err\u006fr"}"#,
        r#"{"error":{"message":"no","code":429}}"#,
        r#"{"type":null,"error":{}}"#,
        // The type counts, even though the JSON is broken.
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
fn a_first_event_that_is_not_a_failure_is_not_kept() {
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
fn the_first_event_is_pending_until_its_type_is_known() {
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
fn the_data_of_the_first_event_is_bounded() {
    for (length, kept) in [(FirstEvent::MAX_DATA, true), (FirstEvent::MAX_DATA + 1, false)] {
        let frame = r#"{"type":"error","message":""}"#.len();
        let data = format!(r#"{{"type":"error","message":"{}"}}"#, "x".repeat(length - frame));
        assert_eq!(first_event(&events(&[&data])), Some(kept.then_some(data)));
    }
}
