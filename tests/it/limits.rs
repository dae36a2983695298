//! Rate limits of client keys: exact limits, exact waiting times, and the headers that report them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use serde_json::json;
use steadfast::sim::{Act, Sim};

use crate::kit::{
    client,
    gateway::Gateway,
    keys::{ALICE, BOB, get_as, group, key, post_as, with_key},
    sim, until,
};

fn config_with_limits(lines: &str) -> String {
    group("team", lines) + &key("alice", ALICE, "team", "") + &key("bob", BOB, "team", "")
}

fn turn(number: usize) -> serde_json::Value {
    json!({"model": "gpt-5.2", "input": "hello", "prompt_cache_key": format!("s{number}")})
}

/// Parses a duration in OpenAI's notation, such as `1m30s` or `20ms`, into seconds.
fn seconds(written: &str) -> f64 {
    match written.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().expect("a number") / 1000.0,
        None => {
            let (minutes, seconds) = written
                .trim_end_matches('s')
                .split_once('m')
                .unwrap_or(("0", written.trim_end_matches('s')));
            minutes.parse::<f64>().expect("a number") * 60.0 + seconds.parse::<f64>().expect("a number")
        }
    }
}

#[tokio::test]
async fn two_hundred_callers_get_exactly_the_allowed_requests() {
    let sim = sim("a").await;
    let gateway = Arc::new(
        Gateway::before(
            std::slice::from_ref(&sim),
            &config_with_limits("requests_per_minute = 300"),
        )
        .await,
    );
    let (served, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let began = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..200 {
        let (gateway, served, refused) = (gateway.clone(), served.clone(), refused.clone());
        callers.spawn(async move {
            for _ in 0..4 {
                let reply = post_as(&gateway, ALICE, &turn(caller)).await;
                match reply.status {
                    StatusCode::OK => served.fetch_add(1, Ordering::SeqCst),
                    StatusCode::TOO_MANY_REQUESTS => refused.fetch_add(1, Ordering::SeqCst),
                    other => panic!("{other}: {}", reply.text()),
                };
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("the caller finishes");
    }
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(60),
        "{took:?}: the requests must fit into one window"
    );
    assert_eq!(
        (served.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)),
        (300, 500)
    );
    assert_eq!(sim.requests().len(), 300);
    // Each key has its own limits.
    assert_eq!(post_as(&gateway, BOB, &turn(0)).await.status, StatusCode::OK);
    assert_eq!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"rate_limited\"}")
            .await,
        500.0
    );
    assert_eq!(
        gateway.metric("steadfast_group_requests_total{group=\"team\"").await,
        801.0
    );
}

#[tokio::test]
async fn responses_report_the_remaining_limits_and_refusals_when_to_retry() {
    let sim = sim("a").await;
    let upstream_reply = Act::reply(StatusCode::OK, &json!({"id": "r", "output": []})).header(
        http::HeaderName::from_static("x-ratelimit-remaining-requests"),
        http::HeaderValue::from_static("4711"),
    );
    sim.script().once("/v1/responses", upstream_reply);
    let gateway = Gateway::before(
        std::slice::from_ref(&sim),
        &config_with_limits("requests_per_minute = 3\ntokens_per_minute = 5000"),
    )
    .await;
    let first = post_as(&gateway, ALICE, &turn(0)).await;
    assert_eq!(first.header("x-ratelimit-limit-requests"), "3");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "2");
    assert_eq!(first.header("x-ratelimit-limit-tokens"), "5000");
    assert!(seconds(first.header("x-ratelimit-reset-requests")) > 55.0);
    let listed = get_as(&gateway, ALICE, "/v1/models").await;
    assert_eq!(listed.header("x-ratelimit-remaining-requests"), "1");
    let bad = post_as(&gateway, ALICE, &json!(["no object"])).await;
    assert_eq!(
        (bad.status.as_u16(), bad.header("x-ratelimit-remaining-requests")),
        (400, "0")
    );
    let refused = post_as(&gateway, ALICE, &turn(0)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let error = &refused.json()["error"];
    assert_eq!(
        (&error["code"], &error["type"]),
        (&json!("rate_limit_exceeded"), &json!("requests"))
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("3 requests per minute")),
        "{error}"
    );
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((50..=60).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
}

#[tokio::test]
async fn tokens_are_estimated_and_corrected_by_the_reported_usage() {
    let sim = sim("a").await;
    let used = |input: u64, output: u64| {
        let usage =
            json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": output});
        Act::reply(StatusCode::OK, &json!({"id": "r", "output": [], "usage": usage}))
    };
    let gateway = Gateway::before(
        std::slice::from_ref(&sim),
        &config_with_limits("tokens_per_minute = 1000"),
    )
    .await;
    let remaining = async || tokens_left(&gateway).await;
    assert_eq!(remaining().await, 1000);
    // About 2,000 bytes are estimated as 500 tokens; the upstream reports 30.
    let long = json!({"model": "gpt-5.2", "input": "x".repeat(1900), "prompt_cache_key": "s"});
    sim.script().once("/v1/responses", used(20, 10));
    let reply = post_as(&gateway, ALICE, &long).await;
    let estimated: u64 = reply.header("x-ratelimit-remaining-tokens").parse().expect("a number");
    assert!((480..530).contains(&estimated), "{estimated}");
    until("the estimate to be corrected", async || {
        (remaining().await == 970).then_some(())
    })
    .await;
    // A failed request costs no tokens.
    sim.script().once(
        "/v1/responses",
        Act::reply(StatusCode::BAD_REQUEST, &json!({"error": {}})),
    );
    assert_eq!(post_as(&gateway, ALICE, &long).await.status, StatusCode::BAD_REQUEST);
    until("the tokens to be returned", async || {
        (remaining().await == 970).then_some(())
    })
    .await;
    // A request that used more tokens than were left makes the next requests wait.
    sim.script().once("/v1/responses", used(5000, 0));
    assert_eq!(post_as(&gateway, ALICE, &long).await.status, StatusCode::OK);
    until("no tokens to be left", async || (remaining().await == 0).then_some(())).await;
    let refused = post_as(&gateway, ALICE, &turn(0)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.json()["error"]["type"], "tokens");
    assert_usage_is_read_from_other_endpoints(&gateway, &sim).await;
    let totals = ["input", "cached_input", "output"]
        .map(|kind| format!("steadfast_group_{kind}_tokens_total{{group=\"team\"}}"));
    assert_eq!(gateway.metric(&totals[0]).await, 5034.0);
    assert_eq!(gateway.metric(&totals[1]).await, 2.0);
    assert_eq!(gateway.metric(&totals[2]).await, 17.0);
    assert_eq!(gateway.metric("steadfast_input_tokens_total{").await, 5034.0);
}

/// Checks that the usage of chat completions, embeddings and completions is added to the 5,020 input tokens before.
async fn assert_usage_is_read_from_other_endpoints(gateway: &Gateway, sim: &Sim) {
    let chat = json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": "x"}]});
    for (path, usage, total) in [
        (
            "/v1/chat/completions",
            json!({"prompt_tokens": 7, "completion_tokens": 2}),
            5027.0,
        ),
        ("/v1/embeddings", json!({"prompt_tokens": 3, "total_tokens": 3}), 5030.0),
        (
            "/v1/completions",
            json!({"prompt_tokens": 4, "completion_tokens": 5}),
            5034.0,
        ),
    ] {
        let answer = json!({"id": "x", "data": [0.5], "choices": [], "usage": usage});
        sim.script().once(path, Act::reply(StatusCode::OK, &answer));
        let request = client::post(path, chat.to_string());
        let reply = client::send(gateway.address, with_key(request, BOB)).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let counted = "steadfast_group_input_tokens_total{group=\"team\"}";
        gateway.metric_reaches(counted, total).await;
    }
}

#[tokio::test]
async fn concurrency_slots_are_released_however_a_request_ends() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), &config_with_limits("max_concurrent = 1")).await;
    let stream = json!({"model": "gpt-5.2", "input": "x", "stream": true, "prompt_cache_key": "s"});
    sim.script()
        .once("/v1/responses", Act::stall(steadfast::sim::Point::Events(2)));
    let request = client::post("/v1/responses", stream.to_string());
    let open = client::open(gateway.address, with_key(request, ALICE)).await;
    assert_eq!(open.status(), StatusCode::OK);
    let refused = post_as(&gateway, ALICE, &turn(0)).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    assert_eq!(refused.json()["error"]["type"], "concurrent_requests");
    assert_eq!(post_as(&gateway, BOB, &turn(0)).await.status, StatusCode::OK);
    drop(open);
    until("the slot to be free", async || {
        (post_as(&gateway, ALICE, &turn(0)).await.status == 200).then_some(())
    })
    .await;
    for body in [json!([1]), json!({"model": 1})] {
        assert_eq!(post_as(&gateway, ALICE, &body).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(post_as(&gateway, ALICE, &turn(0)).await.status, StatusCode::OK);
}

/// Returns the number of tokens that Alice has left. This request costs no tokens.
async fn tokens_left(gateway: &Gateway) -> u64 {
    let reply = get_as(gateway, ALICE, "/v1/models").await;
    reply.header("x-ratelimit-remaining-tokens").parse().expect("a number")
}

#[tokio::test]
async fn a_client_that_leaves_early_pays_the_estimate() {
    let sim = sim("a").await;
    let gateway = Gateway::before(
        std::slice::from_ref(&sim),
        &config_with_limits("tokens_per_minute = 1000"),
    )
    .await;
    sim.script()
        .once("/v1/responses", Act::delay(Duration::from_secs(3600)));
    let long = json!({"model": "gpt-5.2", "input": "x".repeat(1900)});
    let request = with_key(client::post("/v1/responses", long.to_string()), ALICE);
    let caller = tokio::spawn(client::send(gateway.address, request));
    until("the request to reach the upstream", async || {
        (sim.requests().len() == 1).then_some(())
    })
    .await;
    caller.abort();
    gateway.log_until("client_gone").await;
    let left = tokens_left(&gateway).await;
    assert!((480..530).contains(&left), "{left}");
}

#[tokio::test]
async fn a_stream_without_usage_is_charged_by_its_size() {
    let sim = sim("a").await;
    let gateway = Gateway::before(
        std::slice::from_ref(&sim),
        &config_with_limits("tokens_per_minute = 1000"),
    )
    .await;
    let chunk = json!({"id": "c", "choices": [{"delta": {"content": "x".repeat(2560)}}]});
    sim.script().once("/v1/chat/completions", Act::events(&vec![chunk; 10]));
    let chat = json!({"model": "gpt-5.2", "stream": true, "messages": []});
    let request = with_key(client::post("/v1/chat/completions", chat.to_string()), ALICE);
    let reply = client::send(gateway.address, request).await;
    assert_eq!(reply.status, StatusCode::OK);
    gateway.log_until("chat_completions").await;
    let left = tokens_left(&gateway).await;
    assert!((850..900).contains(&left), "{left}");
}
