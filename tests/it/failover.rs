//! Failover: if an upstream fails before the first output of its response, the request is sent to another upstream, and
//! the caller does not notice.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, ScriptedAnswer, Sim};

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    sessions::{key_with_home, key_with_prefix, send_turn, usage_limit_reached},
    sims,
    wire::{self, End},
};

fn status(code: u16) -> StatusCode {
    code.try_into().expect("a status")
}

fn error(code: u16) -> Act {
    Act::reply(
        status(code),
        &json!({"error": {"message": "no", "type": "t", "param": null, "code": "c"}}),
    )
}

fn invalid_api_key() -> Act {
    let error = json!({"message": "no", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"});
    Act::reply(StatusCode::UNAUTHORIZED, &json!({ "error": error }))
}

fn failed_event(code: &str) -> Value {
    json!({"type": "response.failed", "sequence_number": 0, "response": {"id": "resp_f", "status": "failed", "error": {"code": code, "message": "no"}}})
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("the clock is after 1970").as_secs()
}

#[tokio::test]
async fn a_request_that_fails_on_one_upstream_is_served_by_the_next() {
    let acts = [
        ("fin", Act::answer(ScriptedAnswer::Close(Close::Fin))),
        ("reset", Act::answer(ScriptedAnswer::Close(Close::Reset))),
        ("429", usage_limit_reached(3600)),
        ("401", invalid_api_key()),
        ("500", error(500)),
        ("502", error(502)),
        ("503", error(503)),
        ("504", error(504)),
        ("529", error(529)),
        ("overloaded", Act::events(&[failed_event("server_is_overloaded")])),
        ("limit", Act::events(&[failed_event("rate_limit_exceeded")])),
        ("quota", Act::events(&[failed_event("insufficient_quota")])),
        ("failure", Act::events(&[failed_event("server_error")])),
        (
            "failure without a code",
            Act::events(&[json!({"type": "error", "message": "no", "code": null})]),
        ),
        ("cut before an event", Act::cut(Point::Events(0), Close::Fin)),
        ("cut before the first output", Act::cut(Point::Events(2), Close::Reset)),
    ];
    for (what, act) in acts {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_with_home(&gateway, "a").await;
        sims[0].script().once("/v1/responses", act);
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body.to_string())).await;
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{what}: {answer:?}");
        let text = answer.text();
        assert!(
            text.contains("event: response.completed") && !text.contains("response.failed"),
            "{what}: {text}"
        );
        assert_eq!(answer.header("x-steadfast-route"), Some("moved"), "{what}");
        let served = answer.header("x-steadfast-upstream").expect("a name").to_owned();
        assert_ne!(served, "a", "{what}");
        let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
        assert_eq!(line["attempts"], 2, "{what}: {line}");
        assert_eq!(gateway.metric("steadfast_failovers_total{reason=").await, 1.0, "{what}");
        // The session's cache is on the new upstream, so the session stays there.
        let reply = send_turn(&gateway, &key).await;
        assert_eq!(reply.routed(), (served.as_str(), "pin"), "{what}");
    }
}

#[tokio::test]
async fn an_unreachable_upstream_is_skipped() {
    let mut sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    sims.remove(0).stop().await;
    let reply = send_turn(&gateway, &key).await;
    let moved = reply.routed().0.to_owned();
    assert_eq!((reply.status.as_u16(), reply.routed().1), (200, "moved"));
    assert_eq!(send_turn(&gateway, &key).await.routed(), (moved.as_str(), "pin"));
    assert_eq!(
        gateway.metric("steadfast_sessions_moved_total{upstream=\"a\"}").await,
        1.0
    );
}

#[tokio::test]
async fn an_error_of_the_caller_is_not_retried() {
    for code in [400, 404, 413, 422] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_with_home(&gateway, "a").await;
        sims[0].script().once("/v1/responses", error(code));
        let reply = send_turn(&gateway, &key).await;
        assert_eq!((reply.status.as_u16(), reply.routed()), (code, ("a", "home")));
        assert_eq!(gateway.metric("steadfast_failovers_total").await, 0.0);
    }
}

#[tokio::test]
async fn a_request_is_not_retried_after_the_first_output() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    sims[0]
        .script()
        .once("/v1/responses", Act::cut(Point::Events(6), Close::Reset));
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body.to_string())).await;
    assert_eq!((answer.status, answer.end), (200, End::Cut), "{answer:?}");
    assert!(!answer.text().contains("response.completed"));
    assert_eq!(gateway.metric("steadfast_requests_total{").await, 1.0);
}

#[tokio::test]
async fn when_all_upstreams_are_limited_the_caller_learns_until_when() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for (sim, seconds) in sims.iter().zip([5000, 3000, 4000]) {
        sim.script().always(usage_limit_reached(seconds));
    }
    for _ in 0..2 {
        let before = unix_now();
        let reply = send_turn(&gateway, "any").await;
        assert_eq!(reply.status.as_u16(), 429, "{}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("usage_limit_reached"), &json!("usage_limit_reached"))
        );
        let seconds = error["resets_in_seconds"].as_u64().expect("a number");
        assert!((2990..=3000).contains(&seconds), "{error}");
        let at = error["resets_at"].as_u64().expect("a number");
        assert!((before + 2990..=unix_now() + 3001).contains(&at), "{error}");
        assert_eq!(reply.header("retry-after"), seconds.to_string());
    }
    let upstreams = gateway.ask("/api/upstreams").await.json();
    for upstream in upstreams["upstreams"].as_array().expect("a list") {
        assert_eq!(
            (&upstream["state"], &upstream["reason"]),
            (&json!("cooling"), &json!("limit_named"))
        );
        assert!(
            upstream["until"]
                .as_u64()
                .is_some_and(|until| until > unix_now() + 2900)
        );
        assert_eq!(upstream["in_flight"], 0);
    }
    assert_eq!(gateway.metric("steadfast_upstream_state{state=\"cooling\"").await, 3.0);
    assert!(gateway.metric("steadfast_upstream_cooldown_seconds").await > 8900.0);
}

#[tokio::test]
async fn when_all_upstreams_fail_the_last_response_is_returned_unchanged() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    sims[0].script().always(usage_limit_reached(3000));
    for sim in &sims[1..] {
        sim.script().always(error(503));
    }
    let reply = send_turn(&gateway, &key).await;
    assert_eq!(reply.status.as_u16(), 503);
    let own = json!({"error": {"message": "no", "type": "t", "param": null, "code": "c"}});
    assert_eq!(reply.json(), own);
    let line = gateway.access_of(reply.header("x-request-id")).await;
    assert_eq!(line["attempts"], 3, "{line}");
}

#[tokio::test]
async fn the_number_of_attempts_is_limited() {
    let sims = sims(4).await;
    let gateway = Gateway::before(&sims, "[retry]\nattempts = 2\n").await;
    for sim in &sims {
        sim.script().always(error(500));
    }
    let reply = send_turn(&gateway, "any").await;
    assert_eq!(reply.status.as_u16(), 500);
    assert_eq!(gateway.metric("steadfast_failovers_total").await, 1.0);
}

#[tokio::test]
async fn when_no_upstream_is_reachable_the_caller_learns_when_to_retry() {
    let mut sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[health]\nmax_ejected = 1\n").await;
    for sim in sims.drain(..) {
        sim.stop().await;
    }
    for number in 0..12 {
        let reply = send_turn(&gateway, &format!("any-{number}")).await;
        assert!([502, 503].contains(&reply.status.as_u16()), "{}", reply.text());
        assert!(!reply.header("retry-after").is_empty());
    }
    let upstreams = gateway.ask("/api/upstreams").await.json();
    assert_eq!(upstreams["upstreams"][0]["state"], "ejected");
    assert_eq!(upstreams["upstreams"][0]["reason"], "consecutive_failures");
    assert!(
        gateway
            .log()
            .iter()
            .any(|line| line.contains("ejected after 5 failures"))
    );
}

#[tokio::test]
async fn a_refused_credential_disables_the_upstream_until_a_reload() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    sims[0].script().once("/v1/responses", invalid_api_key());
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
    let line = gateway.log_until("refuses the credential").await;
    assert!(
        line.iter()
            .any(|line| line.contains("ERROR") && line.contains("refuses the credential"))
    );
    let other = format!("{key}-2");
    assert_eq!(send_turn(&gateway, &other).await.routed().0, "b");
    gateway.write(&format!(
        "{}{}# again\n",
        upstream(&sims[0], ""),
        upstream(&sims[1], "")
    ));
    gateway.signal("HUP").await;
    gateway.log_until("reloaded").await;
    let fresh = key_with_prefix(&gateway, "a", "fresh").await;
    assert_eq!(send_turn(&gateway, &fresh).await.routed(), ("a", "home"));
}

#[tokio::test]
async fn an_operator_can_drain_and_enable_an_upstream() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    let act = |action: &'static str| {
        let request = client::post(&format!("/api/upstreams/a/{action}"), "");
        client::send(gateway.admin, request)
    };
    assert_eq!(act("drain").await.json()["state"], "draining");
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
    assert_eq!(act("enable").await.json()["state"], "ready");
    let fresh = key_with_prefix(&gateway, "a", "fresh").await;
    assert_eq!(send_turn(&gateway, &fresh).await.routed(), ("a", "home"));
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "pin"));
    let unknown = client::send(gateway.admin, client::post("/api/upstreams/x/drain", "")).await;
    assert_eq!(unknown.status.as_u16(), 404);
    assert!(unknown.text().contains("a, b"));
    assert_eq!(gateway.ask("/api/upstreams/a/drain").await.status.as_u16(), 405);
}

#[tokio::test]
async fn a_cooldown_ends_at_the_time_that_the_upstream_named() {
    let sims: Vec<Sim> = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    sims[0].script().once("/v1/responses", usage_limit_reached(1));
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
    let ready = || async {
        let upstreams = gateway.ask("/api/upstreams").await.json();
        (upstreams["upstreams"][0]["state"] == "ready").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(5), crate::kit::until("ready", ready))
        .await
        .expect("the cooldown ends in time");
    gateway.log_until("cooldown over").await;
    let fresh = key_with_prefix(&gateway, "a", "fresh").await;
    assert_eq!(send_turn(&gateway, &fresh).await.routed(), ("a", "home"));
}
