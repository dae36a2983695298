//! Which requests have the same beginning of the conversation.

use serde_json::{Value, json};

use super::{check, rules, scan};
use crate::{ids::ContentDigest, scan::RequestScanner};

fn digest(body: &str) -> ContentDigest {
    let facts = check(body.as_bytes(), [body.len() / 3, body.len() / 2]).expect(body);
    facts.content.expect("the body has a conversation")
}

/// Asserts that all `same` bodies have one beginning, and that no body of `others` has it.
fn assert_same(same: &[Value], others: &[Value]) {
    let first = digest(&same[0].to_string());
    for body in same {
        assert_eq!(digest(&body.to_string()), first, "{body}");
        assert_eq!(
            digest(&serde_json::to_string_pretty(body).unwrap()),
            first,
            "{body} in lines"
        );
    }
    for body in others {
        assert_ne!(digest(&body.to_string()), first, "{body}");
    }
}

#[test]
fn the_wire_forms_of_a_responses_conversation_have_the_same_beginning() {
    let user = json!({"role": "user", "content": "hi"});
    let parts =
        json!({"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": "hi"}]});
    let answer = json!({"role": "assistant", "content": [{"type": "output_text", "text": "yes", "annotations": [{"text": "a"}]}]});
    assert_same(
        &[
            json!({"instructions": "obey", "input": "hi"}),
            json!({"instructions": "obey", "input": [user]}),
            json!({"instructions": "obey", "input": [parts]}),
            json!({"instructions": "obey", "input": [parts, answer, {"role": "user", "content": "more"}]}),
        ],
        &[
            json!({"instructions": "obey", "input": "ho"}),
            json!({"instructions": "obey!", "input": "hi"}),
            json!({"input": "hi"}),
            json!({"input": [{"role": "developer", "content": "obey"}, user]}),
        ],
    );
    let [one, other] = [
        r#"{"instructions":"obey","input":[{"role":"user","content":"hi"}]}"#,
        r#"{"input":[{"content":"hi","role":"user"}],"instructions":"obey"}"#,
    ]
    .map(digest);
    assert_eq!(one, other, "the order of the members does not matter");
}

#[test]
fn a_mark_for_the_cache_that_moves_does_not_change_the_beginning_of_messages() {
    let mark = json!({"type": "ephemeral"});
    let question = |content: Value| json!({"role": "user", "content": content});
    let text = |text: &str| json!({"type": "text", "text": text});
    let marked = |words: &str| json!({"type": "text", "text": words, "cache_control": mark});
    assert_same(
        &[
            json!({"system": "obey", "messages": [question(json!("hi"))]}),
            json!({"system": [text("obey")], "messages": [question(json!([text("hi")]))]}),
            json!({"system": [marked("obey")], "messages": [question(json!([marked("hi")]))]}),
            json!({"system": [marked("obey")], "messages": [question(json!([text("hi")])), {"role": "assistant", "content": "a"}, question(json!([marked("b")]))]}),
        ],
        &[
            json!({"system": "obey", "messages": [question(json!("ho"))]}),
            json!({"system": [text("ob"), text("ey")], "messages": [question(json!("hi"))]}),
            json!({"system": "obey", "messages": [question(json!([text("h"), text("i")]))]}),
        ],
    );
}

#[test]
fn media_tell_conversations_apart_by_their_data_or_their_id() {
    let data = |last: &str| format!("data:image/png;base64,iVBORw0KGgo{}{last}", "A".repeat(5000));
    let ask = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    let chat =
        |part: Value| json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [part]}]});
    let pairs = ["B", "C"].map(|last| {
        [
            ask(json!({"type": "input_image", "image_url": data(last)})),
            ask(json!({"type": "input_file", "file_data": data(last)})),
            ask(json!({"type": "input_file", "file_id": format!("file-{last}")})),
            ask(json!({"type": "input_file", "file_url": format!("https://a.example/{last}")})),
            chat(json!({"type": "image_url", "image_url": {"url": data(last)}})),
            chat(json!({"type": "input_audio", "input_audio": {"format": "wav", "data": data(last)}})),
            chat(json!({"type": "file", "file": {"file_data": data(last)}})),
            chat(json!({"type": "file", "file": {"file_id": format!("file-{last}")}})),
            chat(json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data(last)}})),
        ]
    });
    for (one, other) in pairs[0].iter().zip(&pairs[1]) {
        assert_same(std::slice::from_ref(one), std::slice::from_ref(other));
    }
}

#[test]
fn tool_calls_before_the_first_question_belong_to_the_beginning() {
    let call =
        |arguments: &str| json!({"type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments});
    let body = |arguments: &str, later: &[Value]| {
        let mut input = vec![
            call(arguments),
            json!({"type": "function_call_output", "call_id": "call_1", "output": "1"}),
        ];
        input.push(json!({"role": "user", "content": "hi"}));
        input.extend_from_slice(later);
        json!({"input": input})
    };
    assert_same(
        &[body("{}", &[]), body("{}", &[call("{\"a\":1}")])],
        &[body("{\"b\":1}", &[])],
    );
}

#[test]
fn a_body_without_a_conversation_has_no_beginning() {
    for body in [
        r#"{"input":[]}"#,
        r#"{"messages":[]}"#,
        r#"{"input":null,"instructions":null}"#,
        r#"{"prompt":{"id":"p"}}"#,
    ] {
        assert_eq!(check(body.as_bytes(), [3]).unwrap().content, None, "{body}");
    }
}

#[test]
fn a_long_prompt_does_not_hide_the_question_in_pieces_of_any_size() {
    for length in [6 * 1024, 600 * 1024] {
        let prompt = "p".repeat(length);
        let read = |question: &str, size: usize| {
            let body =
                json!({"messages": [{"role": "system", "content": prompt}, {"role": "user", "content": question}]});
            let body = body.to_string();
            scan(RequestScanner::new(rules()), body.as_bytes().chunks(size))
                .unwrap()
                .content
        };
        assert_ne!(read("a", 4096), read("b", 4096));
        assert_eq!(read("a", 4096), read("a", 1_000_003));
        assert_eq!(read("a", 61), read("a", 1_000_003));
    }
}
