//! The usage of responses.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{events, read};
use crate::scan::{ResponseReader, Usage};

/// A usage of input, cached input, cache writes, output and reasoning.
fn usage(counts: [u64; 5]) -> Usage {
    let [
        input_tokens,
        cached_input_tokens,
        cache_write_tokens,
        output_tokens,
        reasoning_tokens,
    ] = counts;
    Usage {
        input_tokens,
        cached_input_tokens,
        cache_write_tokens,
        output_tokens,
        reasoning_tokens,
    }
}

/// The usage of a JSON body, which is read whole, byte by byte and in pieces of seven bytes.
fn usage_in(body: &str) -> Option<Usage> {
    let whole = |chunk: usize| {
        let mut reader = read(ResponseReader::json(), body.as_bytes().chunks(chunk));
        reader.finish();
        reader.usage()
    };
    assert_eq!(whole(1), whole(body.len()), "{body}");
    whole(7)
}

/// The usage of a stream, which is read in pieces of several sizes.
fn usage_in_stream(data: &[&str]) -> Option<Usage> {
    let stream = events(data);
    let by = |size| read(ResponseReader::events(), stream.as_bytes().chunks(size)).usage();
    assert_eq!([by(1), by(13)], [by(stream.len()), by(stream.len())], "{stream}");
    by(7)
}

/// Objects `usage`, and their counts in the order of [`usage`].
const DIALECTS: &[(&str, Option<[u64; 5]>)] = &[
    // Responses
    (
        r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":7,"total_tokens":107}"#,
        Some([100, 60, 0, 7, 0]),
    ),
    (
        r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":60,"cache_write_tokens":30},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5}}"#,
        Some([100, 60, 30, 7, 5]),
    ),
    (
        r#"{"input_tokens":100,"input_tokens_details":{"cache_write_tokens":{"ttl_30m_tokens":10,"ttl_12h_tokens":20}}}"#,
        Some([100, 0, 30, 0, 0]),
    ),
    (
        r#"{"input_tokens":100,"input_tokens_details":{"cache_write_tokens":30,"cache_write_tokens_details":{"ttl_30m_tokens":30,"ttl_12h_tokens":0}}}"#,
        Some([100, 0, 30, 0, 0]),
    ),
    (
        r#"{"input_tokens":100,"input_tokens_details":{"ttl_30m_tokens":11,"ttl_12h_tokens":20}}"#,
        Some([100, 0, 31, 0, 0]),
    ),
    // Chat completions
    (
        r#"{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"audio_tokens":1,"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":3}}"#,
        Some([100, 60, 0, 7, 3]),
    ),
    (r#"{"prompt_tokens":3,"total_tokens":3}"#, Some([3, 0, 0, 0, 0])),
    (
        r#"{"prompt_tokens":20,"completion_tokens":7,"prompt_cache_hit_tokens":12,"prompt_cache_miss_tokens":8}"#,
        Some([20, 12, 0, 7, 0]),
    ),
    (
        r#"{"prompt_cache_hit_tokens":6500,"prompt_cache_miss_tokens":100,"completion_tokens":50}"#,
        Some([6600, 6500, 0, 50, 0]),
    ),
    (
        r#"{"prompt_tokens":90,"completion_tokens":7,"cached_tokens":64}"#,
        Some([90, 64, 0, 7, 0]),
    ),
    (
        r#"{"prompt_tokens":29567.0,"completion_tokens":1e3,"prompt_tokens_details":{"cached_tokens":2.0E1}}"#,
        Some([29567, 20, 0, 1000, 0]),
    ),
    // Messages
    (
        r#"{"input_tokens":10,"cache_read_input_tokens":60,"cache_creation_input_tokens":30,"output_tokens":7}"#,
        Some([100, 60, 30, 7, 0]),
    ),
    (
        r#"{"input_tokens":10,"cache_read_input_tokens":null,"cache_creation_input_tokens":0,"output_tokens":7}"#,
        Some([10, 0, 0, 7, 0]),
    ),
    // Gateways that add the counts of one dialect to another
    (
        r#"{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":60,"cache_creation_tokens":30},"cache_read_input_tokens":60,"cache_creation_input_tokens":30,"completion_tokens":7}"#,
        Some([100, 60, 30, 7, 0]),
    ),
    (
        r#"{"prompt_tokens":100,"input_tokens":0,"completion_tokens":7,"output_tokens":0}"#,
        Some([100, 0, 0, 7, 0]),
    ),
    // Values that are no counts
    (
        r#" { "output_tokens" : 7 , "x":{"input_tokens":1}, "input_tokens_details":{"a":{"cached_tokens":9},"cached_tokens": 4}, "input_tokens":5 } "#,
        Some([5, 4, 0, 7, 0]),
    ),
    (r#"{"input_tokens":"5"}"#, None),
    (r#"{"input_tokens":-5}"#, None),
    (r#"{"input_tokens":1.5}"#, None),
    (r#"{"input_tokens":99999999999999999999}"#, None),
    (
        r#"{"input_tokens":18446744073709551614,"output_tokens":7}"#,
        Some([0, 0, 0, 7, 0]),
    ),
    (r#"{"input_tokens":9007199254740993}"#, None),
    (r#"{"input_tokens":1e300}"#, None),
    (r#"{}"#, None),
    ("null", None),
    ("[100]", None),
];

#[test]
fn usage_is_read_in_every_dialect() {
    for (text, expected) in DIALECTS {
        let expected = expected.map(usage);
        for body in [
            format!(r#"{{"id":"resp_1","output":[{{"usage":{{"input_tokens":1}}}}],"usage":{text}}}"#),
            format!(r#"{{"usage":{text},"data":[0.1,-2],"id":"x","output":[]}}"#),
            format!(r#"{{"choices":[{{"message":{{"usage":{{"input_tokens":1}}}},"usage":{text}}}]}}"#),
            format!(r#"{{"choices":[],"x_groq":{{"id":"req_1","usage":{text}}},"usage":{{"prompt_time":0.1}}}}"#),
        ] {
            assert_eq!(usage_in(&body), expected, "{body}");
        }
        let last = format!(
            r#"{{"type":"response.completed","response":{{"id":"r","output":[{{"usage":{{"input_tokens":9}}}}],"usage":{text}}},"usage":3}}"#
        );
        let created =
            r#"{"type":"response.created","response":{"id":"r","usage":{"input_tokens":0,"output_tokens":0}}}"#;
        assert_eq!(usage_in_stream(&[created, &last]), expected, "{last}");
        let first = r#"{"id":"chatcmpl","choices":[{"delta":{"content":"a"}}],"usage":null}"#;
        for chunk in [
            format!(r#"{{"id":"chatcmpl","choices":[],"usage":{text}}}"#),
            format!(r#"{{"id":"chatcmpl","choices":[{{"delta":{{}},"usage":{text}}}]}}"#),
            format!(r#"{{"id":"chatcmpl","choices":[],"x_groq":{{"usage":{text}}}}}"#),
        ] {
            assert_eq!(usage_in_stream(&[first, &chunk, "[DONE]"]), expected, "{chunk}");
        }
    }
}

#[test]
fn of_a_count_that_stands_in_several_places_the_largest_counts() {
    let body = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":21,"completion_tokens":31}},"usage":{"prompt_tokens":0,"completion_tokens":31}}"#;
    assert_eq!(usage_in(body), Some(usage([21, 0, 0, 31, 0])));
}

#[test]
fn the_usage_of_a_messages_stream_comes_in_two_events() {
    let start = r#"{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":10,"cache_read_input_tokens":60,"cache_creation_input_tokens":30,"output_tokens":1}}}"#;
    let block = r#"{"type":"content_block_delta","delta":{"text":"a"},"usage":{"output_tokens":99}}"#;
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":5}}"#;
    let last = r#"{"type":"message_delta","usage":{"input_tokens":11,"output_tokens":8}}"#;
    let stop = r#"{"type":"message_stop"}"#;
    // The beginning alone does not tell what the output costs.
    assert_eq!(usage_in_stream(&[start, block]), None);
    assert_eq!(
        usage_in_stream(&[start, block, delta]),
        Some(usage([100, 60, 30, 5, 0]))
    );
    assert_eq!(
        usage_in_stream(&[start, block, delta, last, stop]),
        Some(usage([101, 60, 30, 8, 0]))
    );
}

#[test]
fn the_usage_of_an_unfinished_response_is_not_known() {
    for (status, expected) in [
        ("queued", None),
        ("in_progress", None),
        ("completed", Some(usage([5, 0, 0, 0, 0]))),
        ("incomplete", Some(usage([5, 0, 0, 0, 0]))),
    ] {
        let body = json!({"id": "r", "status": status, "usage": {"input_tokens": 5}}).to_string();
        assert_eq!(usage_in(&body), expected, "{status}");
    }
}

/// The oracle: the usage that a `usage` object describes.
fn usage_of(usage: &Value) -> Option<Usage> {
    let at = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    let any = |paths: &[&str]| paths.iter().filter_map(|path| at(path)).max();
    let read = any(&[
        "/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/input_tokens_details/cached_tokens",
        "/prompt_tokens_details/cached_tokens",
    ]);
    let prompt = at("/prompt_tokens");
    let missed = at("/prompt_cache_miss_tokens").map(|missed| missed + read.unwrap_or(0));
    let (other_read, other_write) = (at("/cache_read_input_tokens"), at("/cache_creation_input_tokens"));
    let output = any(&["/output_tokens", "/completion_tokens"]);
    let all = any(&["/prompt_tokens", "/input_tokens"]).or(missed);
    if all.is_none() && output.is_none() {
        return None;
    }
    let is_messages = prompt.is_none() && read.is_none();
    let excluded = if is_messages {
        other_read.unwrap_or(0) + other_write.unwrap_or(0)
    } else {
        0
    };
    let written = any(&[
        "/cache_write_tokens",
        "/input_tokens_details/cache_write_tokens",
        "/prompt_tokens_details/cache_write_tokens",
    ]);
    Some(Usage {
        input_tokens: all.unwrap_or(0) + excluded,
        cached_input_tokens: read.or(other_read).unwrap_or(0),
        cache_write_tokens: written.or(other_write).unwrap_or(0),
        output_tokens: output.unwrap_or(0),
        reasoning_tokens: any(&[
            "/reasoning_tokens",
            "/output_tokens_details/reasoning_tokens",
            "/completion_tokens_details/reasoning_tokens",
        ])
        .unwrap_or(0),
    })
}

fn usages() -> impl Strategy<Value = Value> {
    let count = || prop_oneof![4 => (0u64..1 << 40).prop_map(|count| json!(count)), 1 => Just(json!(null)), 1 => Just(json!("7")), 1 => Just(json!([1]))];
    let details = prop::collection::btree_map(
        prop::sample::select(vec![
            "cached_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
            "audio_tokens",
        ])
        .prop_map(str::to_owned),
        count(),
        0..4,
    )
    .prop_map(|members| Value::Object(members.into_iter().collect()));
    let names = |names: &[&'static str]| prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    let counts = prop::collection::btree_map(
        names(&[
            "input_tokens",
            "prompt_tokens",
            "output_tokens",
            "completion_tokens",
            "cached_tokens",
            "total_tokens",
            "prompt_cache_hit_tokens",
            "prompt_cache_miss_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        ]),
        count(),
        0..8,
    );
    let details = prop::collection::btree_map(
        names(&[
            "input_tokens_details",
            "prompt_tokens_details",
            "output_tokens_details",
            "completion_tokens_details",
            "x",
        ]),
        details,
        0..4,
    );
    (counts, details).prop_map(|(counts, details)| Value::Object(counts.into_iter().chain(details).collect()))
}

proptest! {
    #[test]
    fn random_usages_are_read_as_by_the_oracle(usage in usages(), size in 1usize..80) {
        let expected = usage_of(&usage);
        let body = json!({"id": "x", "choices": [], "usage": usage}).to_string();
        let mut reader = read(ResponseReader::json(), body.as_bytes().chunks(size));
        reader.finish();
        prop_assert_eq!(reader.usage(), expected);
        let last = json!({"type": "response.completed", "response": {"usage": usage}}).to_string();
        let stream = events(&[&last]);
        prop_assert_eq!(read(ResponseReader::events(), stream.as_bytes().chunks(size)).usage(), expected);
    }
}
