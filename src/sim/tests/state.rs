//! Tests of the state of one account: its cache, and the state that it issued.

use super::*;

#[tokio::test]
async fn a_repeated_prefix_is_cached_even_when_it_is_small() {
    let sim = start_named("sim-a").await;
    assert_eq!(ask(&sim, &hello()).await.cached(), 0);
    assert_eq!(ask(&sim, &hello()).await.cached(), 3);
    let stream = ask(&sim, &hello_stream()).await.events();
    assert_eq!(
        stream.last().unwrap()["response"]["usage"]["input_tokens_details"]["cached_tokens"],
        3
    );
    let other = start_named("sim-b").await;
    assert_eq!(
        ask(&other, &hello()).await.cached(),
        0,
        "each account has a cache of its own"
    );
    sim.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_conversation_finds_its_history_cached() {
    let sim = start_named("sim-a").await;
    let mut history = vec![json!({"role": "user", "content": "Remember the number seventeen."})];
    let body = |history: &[Value]| json!({"model": "m", "instructions": "Be brief.", "input": history});
    let first = ask(&sim, &body(&history)).await.json();
    let usage = &first["usage"];
    history.extend(first["output"].as_array().unwrap().iter().cloned());
    history.push(json!({"role": "user", "content": "Which number was it?"}));
    let second = ask(&sim, &body(&history)).await;
    let known = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert!(
        second.cached().abs_diff(known) <= 1,
        "input and output are cached: {} of {known}",
        second.cached()
    );
    assert!(second.cached() < second.json()["usage"]["input_tokens"].as_u64().unwrap());
    sim.stop().await;
}

#[tokio::test]
async fn previous_responses_continue_a_conversation_on_their_own_account_only() {
    let (a, b) = (start_named("sim-a").await, start_named("sim-b").await);
    let first = ask(&a, &hello()).await.json();
    let next = json!({"model": "gpt-5.2", "input": "And again?", "previous_response_id": first["id"]});
    let known = first["usage"]["input_tokens"].as_u64().unwrap() + first["usage"]["output_tokens"].as_u64().unwrap();
    let second = ask(&a, &next).await;
    assert!(second.cached().abs_diff(known) <= 1);
    assert_eq!(second.json()["previous_response_id"], first["id"]);
    let refused = ask(&b, &next).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let id = first["id"].as_str().unwrap();
    assert_eq!(
        refused.json(),
        json!({"error": {"message": format!("Previous response with id '{id}' not found."),
            "type": "invalid_request_error", "param": "previous_response_id", "code": "previous_response_not_found"}})
    );
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn encrypted_items_are_read_by_their_issuer_only() {
    let (a, b) = (start_named("sim-a").await, start_named("sim-b").await);
    let ask_for = json!({"model": "m", "input": "x", "store": false, "include": ["reasoning.encrypted_content"]});
    let made = ask(&a, &ask_for).await.json();
    assert_eq!(made["output"][0]["type"], "reasoning");
    assert!(
        made["usage"]["output_tokens_details"]["reasoning_tokens"]
            .as_u64()
            .unwrap()
            > 0
    );
    let replay = json!({"model": "m", "input": made["output"]});
    assert_eq!(ask(&a, &replay).await.status, StatusCode::OK);
    let refused = ask(&b, &replay).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::BAD_REQUEST, "invalid_encrypted_content")
    );
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("Encrypted content organization_id did not match the target organization."));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn compaction_works_in_both_wire_forms() {
    let (a, b) = (start_named("sim-a").await, start_named("sim-b").await);
    let user = json!({"role": "user", "content": "x"});
    let by_trigger = json!({"model": "m", "stream": true, "input": [user, {"type": "compaction_trigger"}]});
    let events = ask(&a, &by_trigger).await.events();
    let item = &events[events.len() - 2]["item"];
    assert_eq!(item["type"], "compaction");
    let whole = post(&a, "/v1/responses/compact", &json!({"model": "m", "input": [user]}))
        .await
        .json();
    assert_eq!(whole["object"], "response.compaction");
    assert_eq!(
        (&whole["output"][0]["content"][0]["text"], &whole["output"][1]["type"]),
        (&json!("x"), &json!("compaction"))
    );
    for compacted in [json!([item]), whole["output"].clone()] {
        let next = json!({"model": "m", "input": compacted});
        assert_eq!(ask(&a, &next).await.status, StatusCode::OK);
        assert_eq!(ask(&b, &next).await.code(), "invalid_encrypted_content");
        assert_eq!(
            post(&b, "/v1/responses/compact", &next).await.code(),
            "invalid_encrypted_content"
        );
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn turn_states_come_back_to_their_issuer_only() {
    let (a, b) = (start_named("sim-a").await, start_named("sim-b").await);
    let first = ask(&a, &hello()).await;
    let state = first.header("x-codex-turn-state");
    assert_eq!(state, "sim-a-1");
    let with_state = || {
        request(
            "POST",
            "/v1/responses",
            &[("x-codex-turn-state", state)],
            hello().to_string(),
        )
    };
    let second = send(&a, with_state()).await.unwrap();
    assert_eq!(
        (second.status, second.header("x-codex-turn-state")),
        (StatusCode::OK, "")
    );
    assert_eq!(send(&b, with_state()).await.unwrap().code(), "invalid_turn_state");
    assert_eq!(
        b.requests()[0].headers["x-codex-turn-state"],
        "sim-a-1",
        "a turn state that leaked to another account is recorded"
    );
    let lax = SimConfig {
        turn_state: false,
        refuse_foreign: false,
        ..SimConfig::default()
    };
    let lax = start(lax).await;
    assert_eq!(send(&lax, with_state()).await.unwrap().status, StatusCode::OK);
    assert_eq!(ask(&lax, &hello()).await.header("x-codex-turn-state"), "");
    a.stop().await;
    b.stop().await;
    lax.stop().await;
}

/// Requests of real clients, as they were recorded.
#[tokio::test]
async fn recorded_requests_are_answered() {
    let lax = start(SimConfig {
        refuse_foreign: false,
        ..SimConfig::default()
    })
    .await;
    let strict = start(SimConfig::default()).await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let encoding = if name.ends_with(".body.zst") {
            "zstd"
        } else {
            "identity"
        };
        if !name.ends_with(".body") && !name.ends_with(".body.zst") {
            continue;
        }
        let target = if name.contains("compact.body") {
            "/v1/responses/compact"
        } else {
            "/v1/responses"
        };
        let body = Bytes::from(std::fs::read(&path).unwrap());
        let sent = || request("POST", target, &[("content-encoding", encoding)], body.clone());
        assert_eq!(send(&lax, sent()).await.unwrap().status, StatusCode::OK, "{name}");
        let foreign = memchr::memmem::find(&body, b"\"encrypted_content\":\"").is_some();
        let expected = if foreign {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        };
        assert_eq!(send(&strict, sent()).await.unwrap().status, expected, "{name}");
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} recordings found");
    lax.stop().await;
    strict.stop().await;
}
