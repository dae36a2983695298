//! The usage of responses.

use super::{events, read};
use crate::scan::ResponseReader;

/// Input, cached input and output tokens.
fn usage_of(reader: ResponseReader) -> Option<(u64, u64, u64)> {
    let usage = reader.usage()?;
    Some((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens))
}

/// The usage of a JSON body, which is read whole, byte by byte and in pieces of seven bytes.
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
