//! Tests of Anthropic's Messages API.

use super::*;
use crate::secret::Secret;

fn first_turn() -> Value {
    json!({"model": "claude-x", "max_tokens": 100, "system": "Be brief. ".repeat(40),
        "messages": [{"role": "user", "content": "Remember the number seventeen."}]})
}

#[tokio::test]
async fn a_conversation_of_messages_finds_its_history_cached() {
    let sim = start_named("sim-a").await;
    let first = post(&sim, "/v1/messages", &first_turn()).await.json();
    assert_eq!(
        (&first["type"], &first["stop_reason"]),
        (&json!("message"), &json!("end_turn"))
    );
    let usage = |message: &Value, field: &str| message["usage"][field].as_u64().unwrap();
    assert_eq!(usage(&first, "cache_read_input_tokens"), 0);
    assert_eq!(usage(&first, "input_tokens"), 4);
    let known = usage(&first, "cache_creation_input_tokens") + 4 + usage(&first, "output_tokens");
    let mut second = first_turn();
    // Clients move the mark of the cache from turn to turn, and send the system prompt as text or as blocks.
    second["system"] = json!([{"type": "text", "text": second["system"], "cache_control": {"type": "ephemeral"}}]);
    let more = [
        json!({"role": "assistant", "content": first["content"]}),
        json!({"role": "user", "content": "Which?"}),
    ];
    second["messages"].as_array_mut().unwrap().extend(more);
    let answer = post(&sim, "/v1/messages", &second).await.json();
    assert!(
        usage(&answer, "cache_read_input_tokens").abs_diff(known) <= 1,
        "{} of {known}",
        answer["usage"]
    );
    let counted = post(&sim, "/v1/messages/count_tokens", &second).await.json();
    let sum =
        ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"].map(|field| usage(&answer, field));
    assert_eq!(counted["input_tokens"], sum.iter().sum::<u64>());
    sim.stop().await;
}

#[tokio::test]
async fn a_stream_of_messages_has_usage_at_both_ends() {
    let sim = start_named("sim-a").await;
    let mut body = first_turn();
    body["stream"] = json!(true);
    let events = post(&sim, "/v1/messages", &body).await.events();
    assert_eq!(events[0]["message"]["usage"]["cache_read_input_tokens"], 0);
    let delta = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert!(delta["usage"]["output_tokens"].as_u64().unwrap() > 1);
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    let again = post(&sim, "/v1/messages", &body).await.events();
    assert!(
        again[0]["message"]["usage"]["cache_read_input_tokens"]
            .as_u64()
            .unwrap()
            > 0
    );
    sim.stop().await;
}

#[tokio::test]
async fn images_count_at_a_fixed_figure() {
    let sim = start_named("sim-a").await;
    let source = json!({"type": "base64", "media_type": "image/png", "data": "QUJD".repeat(300_000)});
    let content = json!([{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]);
    let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
    let counted = post(&sim, "/v1/messages/count_tokens", &body).await.json();
    assert!(
        (1100..1120).contains(&counted["input_tokens"].as_u64().unwrap()),
        "{counted}"
    );
    sim.stop().await;
}

#[tokio::test]
async fn credentials_are_read_from_both_headers_and_errors_have_the_shape_of_the_api() {
    let config = SimConfig {
        api_key: Some(Secret::new("sk-1")),
        only_models: true,
        ..SimConfig::default()
    };
    let sim = start(config).await;
    let call = async |headers: &[(&str, &str)], model: &str| {
        let mut body = first_turn();
        body["model"] = json!(model);
        send(&sim, request("POST", "/v1/messages", headers, body.to_string()))
            .await
            .unwrap()
    };
    assert_eq!(call(&[("x-api-key", "sk-1")], "gpt-5.2").await.status, StatusCode::OK);
    assert_eq!(
        call(&[("authorization", "Bearer sk-1")], "gpt-5.2").await.status,
        StatusCode::OK
    );
    let leaked = [("authorization", "Bearer sk-1"), ("x-api-key", "sk-caller")];
    for (headers, model, status, kind) in [
        (&[][..], "gpt-5.2", StatusCode::UNAUTHORIZED, "authentication_error"),
        (&leaked, "gpt-5.2", StatusCode::UNAUTHORIZED, "authentication_error"),
        (&leaked[..1], "gpt-9", StatusCode::NOT_FOUND, "not_found_error"),
        (&leaked[..1], "", StatusCode::BAD_REQUEST, "invalid_request_error"),
    ] {
        let refused = call(headers, model).await;
        let error = refused.json();
        assert_eq!((refused.status, &error["type"]), (status, &json!("error")));
        assert_eq!(error["error"]["type"], kind);
        assert!(error["error"]["message"].is_string());
        assert_eq!(error["request_id"], refused.header("request-id"));
    }
    sim.stop().await;
}
