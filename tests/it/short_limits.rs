//! Limits that reset soon: requests wait for the reset if no account can serve them, and what remains is answered by the
//! kind of the limit.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::Gateway,
    sessions::{key_with_home, send_turn, usage_limit_reached},
    sims,
};

/// A 429 answer of a limit per minute, which resets in `seconds`.
fn rate_limited(seconds: u64) -> Act {
    let error = json!({"message": "slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded"});
    Act::reply(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": error }))
        .header(RETRY_AFTER, HeaderValue::from(seconds))
}

/// Makes every account answer its next `times` requests with a limit.
fn limit_next(sims: &[Sim], act: &Act, times: u64) {
    for sim in sims {
        sim.script()
            .add(Rule::new(act.clone()).path("/v1/responses").times(times));
    }
}

async fn post(gateway: &Gateway, body: Value) -> Reply {
    client::post_json(gateway.address, "/v1/responses", &body).await
}

/// The input of a follow-up to `first`, with the encrypted items of its answer.
fn continued(first: &Reply) -> Vec<Value> {
    let mut input = vec![json!({"role": "user", "content": "think"})];
    input.extend(first.json()["output"].as_array().expect("items").iter().cloned());
    assert!(
        input.iter().any(|item| item["encrypted_content"].is_string()),
        "{input:?}"
    );
    input.push(json!({"role": "user", "content": "and now?"}));
    input
}

#[tokio::test]
async fn every_request_survives_a_short_limit_of_all_accounts() {
    for act in [rate_limited(1), rate_limited(2), usage_limit_reached(2)] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        let pinned = key_with_home(&gateway, "b").await;
        let think = json!({
            "model": "gpt-5.2", "input": [{"role": "user", "content": "think"}], "store": false,
            "include": ["reasoning.encrypted_content"], "prompt_cache_key": pinned,
        });
        let first = post(&gateway, think).await;
        assert_eq!(first.routed(), ("b", "home"));
        let response = send_turn(&gateway, &pinned).await.json()["id"].clone();
        for (what, body, owner) in [
            (
                "new",
                json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": "new"}),
                None,
            ),
            ("keyless", json!({"model": "gpt-5.2", "input": "hi"}), None),
            (
                "pinned",
                json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": pinned}),
                Some("b"),
            ),
            (
                "owned",
                json!({"model": "gpt-5.2", "input": "hi", "previous_response_id": response}),
                Some("b"),
            ),
            (
                "encrypted",
                json!({"model": "gpt-5.2", "input": continued(&first), "store": false}),
                Some("b"),
            ),
        ] {
            limit_next(&sims, &act, 1);
            let begun = Instant::now();
            let reply = post(&gateway, body).await;
            assert_eq!(reply.status, StatusCode::OK, "{what}: {}", reply.text());
            assert!(begun.elapsed() >= Duration::from_millis(500), "{what}");
            if let Some(owner) = owner {
                assert_eq!(reply.routed().0, owner, "{what}");
            }
            // The limits of accounts that this request did not ask do not disturb the next one.
            for sim in &sims {
                sim.script().clear();
                let enable = client::post(&format!("/api/upstreams/{}/enable", sim.name()), "");
                client::send(gateway.admin, enable).await;
            }
        }
    }
}

#[tokio::test]
async fn a_request_with_encrypted_items_waits_for_its_own_account_while_others_are_idle() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let ask = |input: Value| {
        json!({
            "model": "gpt-5.2", "input": input, "store": false, "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": key,
        })
    };
    let first = post(&gateway, ask(json!([{"role": "user", "content": "think"}]))).await;
    assert_eq!(first.routed(), ("a", "home"));
    limit_next(&sims[..1], &rate_limited(4), 1);
    let before: Vec<usize> = sims[1..].iter().map(|sim| sim.requests().len()).collect();
    let begun = Instant::now();
    let reply = post(&gateway, ask(json!(continued(&first)))).await;
    assert_eq!(
        (reply.status, reply.routed().0),
        (StatusCode::OK, "a"),
        "{}",
        reply.text()
    );
    assert!(begun.elapsed() >= Duration::from_millis(3_900), "{:?}", begun.elapsed());
    let after: Vec<usize> = sims[1..].iter().map(|sim| sim.requests().len()).collect();
    assert_eq!(before, after, "no other account has got the items");
}

#[tokio::test]
async fn three_short_limits_in_a_row_cost_no_attempt_while_patience_is_left() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[affinity]\nwait = \"20s\"\n[retry]\nattempts = 2\n").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    limit_next(&sims[..1], &rate_limited(1), 3);
    let reply = send_turn(&gateway, &key).await;
    assert_eq!((reply.status, reply.routed()), (StatusCode::OK, ("a", "pin")));
    let line = gateway.access_of(reply.header("x-request-id")).await;
    assert!(
        line["waited_ms"].as_f64().is_some_and(|waited| waited > 2_500.0),
        "{line}"
    );
    assert_eq!(sims[1].requests().len(), 0);
}

#[tokio::test]
async fn a_limit_that_outlasts_the_wait_is_answered_by_its_kind() {
    let quota = |status: u16| {
        let error = json!({"type": "usage_limit_reached", "message": "enough", "resets_in_seconds": 7_200});
        Act::reply(
            StatusCode::from_u16(status).expect("a status"),
            &json!({ "error": error }),
        )
    };
    for (what, act, code, seconds) in [
        ("per minute", rate_limited(100), "rate_limit_exceeded", 100),
        ("per minute, for long", rate_limited(301), "usage_limit_reached", 301),
        ("quota", quota(429), "usage_limit_reached", 7_200),
        ("payment", quota(402), "usage_limit_reached", 7_200),
        ("forbidden", quota(403), "usage_limit_reached", 7_200),
    ] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        limit_next(&sims, &act, u64::MAX);
        for round in ["asked", "from memory"] {
            let begun = Instant::now();
            let reply = send_turn(&gateway, "any").await;
            assert!(begun.elapsed() < Duration::from_secs(2), "{what}, {round}");
            let error = &reply.json()["error"];
            assert_eq!(reply.status.as_u16(), 429, "{what}, {round}: {error}");
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!(code), &json!(code)),
                "{what}, {round}"
            );
            let wait: u64 = reply.header("retry-after").parse().expect("seconds");
            assert!((seconds - 10..=seconds).contains(&wait), "{what}, {round}: {wait}");
            assert_eq!(
                error["resets_at"].is_u64(),
                code == "usage_limit_reached",
                "{what}: {error}"
            );
            if code == "rate_limit_exceeded" {
                let message = error["message"].as_str().expect("a message");
                assert!(message.contains(&format!("try again in {wait}s")), "{message}");
            }
        }
        let asked: usize = sims.iter().map(|sim| sim.requests().len()).sum();
        assert_eq!(asked, 3, "{what}: the second request is answered from memory");
    }
}

#[tokio::test]
async fn a_limited_account_among_others_does_not_end_the_callers_turn() {
    // One attempt only: the request may not be tried at the idle account. The limit outlasts the wait.
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[retry]\nattempts = 1\n").await;
    let key = key_with_home(&gateway, "a").await;
    limit_next(&sims[..1], &usage_limit_reached(3_600), u64::MAX);
    let reply = send_turn(&gateway, &key).await;
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status.as_u16(), &error["type"]),
        (429, &json!("rate_limit_exceeded"))
    );
    let wait: u64 = reply.header("retry-after").parse().expect("seconds");
    assert!(wait <= 2, "the idle account serves the next request: {wait}");
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
}
