//! Turns while accounts are limited: every endpoint that generates waits, a limit without a reset is waited out or answered by
//! its kind, and requests that wait leave no trace when their clients leave.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, Sim};

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    sessions::{key_with_home, send_turn, usage_limit_reached},
    sims, until_true,
    wire::{self, Wire},
};

/// A 429 answer that names its reset in no way.
fn bare() -> Act {
    Act::reply(
        StatusCode::TOO_MANY_REQUESTS,
        &json!({"error": {"message": "slow down"}}),
    )
}

/// A 429 answer of a limit per minute, which resets in `seconds`.
fn rate_limited(seconds: u64) -> Act {
    let error = json!({"message": "slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded"});
    Act::reply(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": error }))
        .header(RETRY_AFTER, HeaderValue::from(seconds))
}

/// An answer that says that the credit is used up, and names no reset.
fn out_of_credit(status: u16) -> Act {
    let error = json!({
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota", "param": null, "code": "insufficient_quota",
    });
    Act::reply(
        StatusCode::from_u16(status).expect("a status"),
        &json!({ "error": error }),
    )
}

fn received(sims: &[Sim]) -> usize {
    sims.iter().map(|sim| sim.requests().len()).sum()
}

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-5.2", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

fn messages(stream: bool) -> Value {
    json!({"model": "claude", "stream": stream, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn every_endpoint_that_generates_waits_for_a_short_limit() {
    for act in [rate_limited(1), rate_limited(3), bare()] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        for (path, body) in [
            ("/v1/chat/completions", chat(false)),
            ("/v1/chat/completions", chat(true)),
            ("/v1/messages", messages(false)),
            ("/v1/messages", messages(true)),
            (
                "/v1/responses",
                json!({"model": "gpt-5.2", "input": "hi", "stream": true}),
            ),
        ] {
            for sim in &sims {
                sim.script().clear();
                let enable = client::post(&format!("/api/upstreams/{}/enable", sim.name()), "");
                client::send(gateway.admin, enable).await;
                sim.script().once(path, act.clone());
                sim.script().add(
                    Rule::new(Act::reply(StatusCode::OK, &json!({"served": true})))
                        .path("/v1/messages")
                        .times(1),
                );
            }
            let begun = Instant::now();
            let reply = client::post_json(gateway.address, path, &body).await;
            assert_eq!(reply.status, StatusCode::OK, "{path} {body}: {}", reply.text());
            assert!(begun.elapsed() >= Duration::from_millis(700), "{path}");
        }
    }
}

/// A stream that fails with this error before its first output.
fn failing_stream(path: &str, error: &Value) -> Act {
    match path {
        "/v1/responses" => Act::events(&[
            json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}),
            json!({"type": "response.in_progress", "response": {"id": "resp_1", "status": "in_progress"}}),
            json!({"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": error}}),
        ]),
        "/v1/chat/completions" => Act::events(&[
            json!({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            json!({ "error": error }),
        ]),
        _ => Act::events(&[
            json!({"type": "message_start", "message": {"id": "msg_1", "content": []}}),
            json!({"type": "error", "error": error}),
        ]),
    }
}

#[tokio::test]
async fn a_limit_that_a_stream_reports_before_its_first_output_is_waited_out_or_answered_by_its_kind() {
    let rate = json!({"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "Please try again in 2s."});
    let quota =
        json!({"type": "insufficient_quota", "code": "insufficient_quota", "message": "You exceeded your quota."});
    for (path, body) in [
        (
            "/v1/responses",
            json!({"model": "gpt-5.2", "input": "hi", "stream": true}),
        ),
        ("/v1/chat/completions", chat(true)),
        ("/v1/messages", messages(true)),
    ] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        for sim in &sims {
            sim.script().once(path, failing_stream(path, &rate));
            let served = Rule::new(Act::reply(StatusCode::OK, &json!({"served": true})));
            sim.script().add(served.path(path).times(1));
        }
        let begun = Instant::now();
        let reply = client::post_json(gateway.address, path, &body).await;
        assert_eq!(
            (reply.status, reply.text()),
            (StatusCode::OK, json!({"served": true}).to_string()),
            "{path}"
        );
        assert!(
            begun.elapsed() >= Duration::from_millis(1_900),
            "{path}: {:?}",
            begun.elapsed()
        );
        for sim in &sims {
            sim.script().clear();
            sim.script().always(failing_stream(path, &quota));
        }
        let before = received(&sims);
        for _ in 0..3 {
            let reply = client::post_json(gateway.address, path, &body).await;
            let error = &reply.json()["error"];
            assert_eq!(
                (reply.status.as_u16(), &error["type"]),
                (429, &json!("usage_limit_reached")),
                "{path}"
            );
            assert!(
                error["resets_in_seconds"].as_u64().is_some_and(|wait| wait > 200),
                "{path}: {error}"
            );
        }
        assert_eq!(received(&sims) - before, 2, "{path}");
    }
}

#[tokio::test]
async fn a_limit_without_a_reset_is_waited_out() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    sims[0].script().add(Rule::new(bare()).path("/v1/responses").times(3));
    let begun = Instant::now();
    let reply = send_turn(&gateway, "any").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(received(&sims), 4);
    let waited = begun.elapsed();
    assert!(
        waited > Duration::from_secs(5) && waited < Duration::from_secs(15),
        "{waited:?}"
    );
}

#[tokio::test]
async fn used_up_credit_is_told_at_once_and_from_memory_afterwards() {
    for status in [429, 402, 403] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        for sim in &sims {
            sim.script().always(out_of_credit(status));
        }
        let begun = Instant::now();
        for number in 0..10 {
            let reply = send_turn(&gateway, &format!("session-{number}")).await;
            let error = &reply.json()["error"];
            assert_eq!(
                (reply.status.as_u16(), &error["type"]),
                (429, &json!("usage_limit_reached")),
                "{status}"
            );
            let wait: u64 = reply.header("retry-after").parse().expect("seconds");
            assert!((200..=300).contains(&wait), "{status}: {wait}");
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.expect("a time after 1970").as_secs();
            let resets_in = error["resets_at"].as_u64().expect("a time") - now;
            assert!(resets_in.abs_diff(wait) <= 2, "{status}: {resets_in} {wait}");
            // A pause that is longer than the first cooldown of a limit of the rate.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert!(begun.elapsed() > Duration::from_millis(1_400));
        assert_eq!(received(&sims), 2, "{status}: each account was asked once");
    }
}

#[tokio::test]
async fn used_up_credit_of_one_account_moves_its_session_once() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    sims[0].script().always(out_of_credit(429));
    let begun = Instant::now();
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "pin"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_patience_no_request_waits() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[affinity]\nwait = \"0s\"\nwait_max = \"0s\"\n").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    for act in [rate_limited(2), usage_limit_reached(2)] {
        for sim in &sims {
            sim.script().always(act.clone());
            let enable = client::post(&format!("/api/upstreams/{}/enable", sim.name()), "");
            client::send(gateway.admin, enable).await;
        }
        let begun = Instant::now();
        for key in [&*key, "new"] {
            let reply = send_turn(&gateway, key).await;
            assert_eq!(reply.status.as_u16(), 429, "{}", reply.text());
            let wait: u64 = reply.header("retry-after").parse().expect("seconds");
            assert!((1..=2).contains(&wait), "{wait}");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        sims.iter().for_each(|sim| sim.script().clear());
    }
}

#[tokio::test]
async fn clients_that_leave_while_they_wait_for_a_reset_leave_no_trace() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    for sim in &sims {
        sim.script().once("/v1/responses", rate_limited(30));
    }
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true}).to_string();
    let mut waits = Vec::new();
    for waiting in 1..=10 {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(wire::post("/v1/responses", &body)).await;
        waits.push(wire);
        gateway
            .metric_reaches("steadfast_waiting_requests", f64::from(waiting))
            .await;
    }
    assert_eq!(received(&sims), 2);
    drop(waits);
    for metric in [
        "steadfast_waiting_requests",
        "steadfast_in_flight_requests",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
    until_true("all access log lines", || gateway.access().len() == 10).await;
    let enable = client::post("/api/upstreams/a/enable", "");
    client::send(gateway.admin, enable).await;
    assert_eq!(send_turn(&gateway, "later").await.routed().0, "a");
    assert_eq!(received(&sims), 3, "no request of the clients that left was sent");
}

#[tokio::test]
async fn a_hundred_requests_that_wait_for_a_reset_are_all_served_and_spread() {
    for lines in ["max_in_flight = 12", ""] {
        check_hundred_requests(lines).await;
    }
}

/// Sends a hundred requests to accounts with these lines of configuration, all of which are limited for a short time.
async fn check_hundred_requests(lines: &str) {
    let sims = sims(3).await;
    let config: String = sims.iter().map(|sim| upstream(sim, lines)).collect();
    let gateway = Gateway::configured(&config).await;
    for sim in &sims {
        sim.script().once("/v1/responses", rate_limited(4));
    }
    let begun = Instant::now();
    let mut tasks = vec![];
    for number in 0..100 {
        let address = gateway.address;
        tasks.push(tokio::spawn(async move {
            let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": format!("session-{number}")});
            client::post_json(address, "/v1/responses", &body).await
        }));
        // The first request finds that every account is limited.
        if number == 0 {
            gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
            for sim in &sims {
                sim.script().always(Act::delay(Duration::from_millis(40)));
            }
        }
    }
    let mut served = [0; 3];
    for task in tasks {
        let reply = task.await.expect("no panic");
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let at = ["a", "b", "c"].iter().position(|name| *name == reply.routed().0);
        served[at.expect("a known account")] += 1;
    }
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    assert!(served.iter().all(|count| *count >= 10), "{served:?}");
}

#[tokio::test]
async fn a_session_waits_for_its_own_account_if_all_limits_end_at_about_the_same_time() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let mut keys = Vec::new();
    for home in ["a", "b", "c"] {
        let key = key_with_home(&gateway, home).await;
        assert_eq!(send_turn(&gateway, &key).await.routed(), (home, "home"));
        keys.push((home, key));
    }
    for sim in &sims {
        sim.script().once("/v1/responses", rate_limited(5));
    }
    let ((), replies) = tokio::join!(
        async { assert_eq!(send_turn(&gateway, "new").await.status, StatusCode::OK) },
        async {
            gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
            let [a, b, c] = [0, 1, 2].map(|at| send_turn(&gateway, &keys[at].1));
            let (a, b, c) = tokio::join!(a, b, c);
            [a, b, c]
        }
    );
    for ((home, _), reply) in keys.iter().zip(replies) {
        assert_eq!(reply.routed(), (*home, "pin"), "{}", reply.text());
    }
}
