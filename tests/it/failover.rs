//! Upstreams that fail before the first byte of their answer: the request goes on, and its caller sees nothing of it.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::{Gateway, upstream},
    sims,
    wire::{self, End},
};

/// A session key that lives at the upstream `home`.
pub async fn key_at(gateway: &Gateway, home: &str) -> String {
    for number in 0..200 {
        let key = format!("session-{number}");
        let answer = gateway.ask(&format!("/api/route?key={key}")).await.json();
        if answer["upstreams"][0]["name"] == home {
            return key;
        }
    }
    panic!("no key lives at {home}");
}

/// Sends one request of the session `key`.
pub async fn turn(gateway: &Gateway, key: &str) -> Reply {
    let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": key});
    client::post_json(gateway.address, "/v1/responses", &body).await
}

fn status(code: u16) -> StatusCode {
    code.try_into().expect("a status")
}

/// `429`, with a reset in so many seconds.
pub fn limited(seconds: u64) -> Act {
    let error = json!({"type": "usage_limit_reached", "message": "enough", "resets_in_seconds": seconds});
    Act::reply(status(429), &json!({ "error": error }))
}

fn error(code: u16) -> Act {
    Act::reply(
        status(code),
        &json!({"error": {"message": "no", "type": "t", "param": null, "code": "c"}}),
    )
}

fn failed_event(code: &str) -> Value {
    json!({"type": "response.failed", "sequence_number": 0, "response": {"id": "resp_f", "status": "failed", "error": {"code": code, "message": "no"}}})
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

#[tokio::test]
async fn what_an_upstream_fails_the_next_one_serves() {
    let acts = [
        ("fin", Act::answer(ScriptedAnswer::Close(Close::Fin))),
        ("reset", Act::answer(ScriptedAnswer::Close(Close::Reset))),
        ("429", limited(3600)),
        ("401", error(401)),
        ("500", error(500)),
        ("502", error(502)),
        ("503", error(503)),
        ("504", error(504)),
        ("529", error(529)),
        ("overloaded", Act::events(&[failed_event("server_is_overloaded")])),
        ("limit", Act::events(&[failed_event("rate_limit_exceeded")])),
        ("quota", Act::events(&[failed_event("insufficient_quota")])),
        ("cut before an event", Act::cut(Point::Events(0), Close::Fin)),
    ];
    for (what, act) in acts {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_at(&gateway, "a").await;
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
        // Its cache is there now, so there it stays.
        let reply = turn(&gateway, &key).await;
        assert_eq!(reply.routed(), (served.as_str(), "pin"), "{what}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_passed_over() {
    let mut sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_at(&gateway, "a").await;
    assert_eq!(turn(&gateway, &key).await.routed(), ("a", "home"));
    sims.remove(0).stop().await;
    let reply = turn(&gateway, &key).await;
    let moved = reply.routed().0.to_owned();
    assert_eq!((reply.status.as_u16(), reply.routed().1), (200, "moved"));
    assert_eq!(turn(&gateway, &key).await.routed(), (moved.as_str(), "pin"));
    assert_eq!(
        gateway.metric("steadfast_sessions_moved_total{upstream=\"a\"}").await,
        1.0
    );
}

#[tokio::test]
async fn what_the_caller_did_is_never_tried_elsewhere() {
    for code in [400, 404, 413, 422] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_at(&gateway, "a").await;
        sims[0].script().once("/v1/responses", error(code));
        let reply = turn(&gateway, &key).await;
        assert_eq!((reply.status.as_u16(), reply.routed()), (code, ("a", "home")));
        assert_eq!(gateway.metric("steadfast_failovers_total").await, 0.0);
    }
}

#[tokio::test]
async fn nothing_is_sent_again_once_the_caller_saw_a_byte() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_at(&gateway, "a").await;
    sims[0]
        .script()
        .once("/v1/responses", Act::cut(Point::Events(2), Close::Reset));
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body.to_string())).await;
    assert_eq!((answer.status, answer.end), (200, End::Cut), "{answer:?}");
    assert!(!answer.text().contains("response.completed"));
    assert_eq!(gateway.metric("steadfast_requests_total{").await, 1.0);
}

#[tokio::test]
async fn when_all_are_limited_the_caller_is_told_until_when() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for (sim, seconds) in sims.iter().zip([5000, 3000, 4000]) {
        sim.script().always(limited(seconds));
    }
    for _ in 0..2 {
        let before = unix_now();
        let reply = turn(&gateway, "any").await;
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
async fn else_the_last_upstreams_own_words_come_back_untouched() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_at(&gateway, "a").await;
    sims[0].script().always(limited(3000));
    for sim in &sims[1..] {
        sim.script().always(error(503));
    }
    let reply = turn(&gateway, &key).await;
    assert_eq!(reply.status.as_u16(), 503);
    let own = json!({"error": {"message": "no", "type": "t", "param": null, "code": "c"}});
    assert_eq!(reply.json(), own);
    let line = gateway.access_of(reply.header("x-request-id")).await;
    assert_eq!(line["attempts"], 3, "{line}");
}

#[tokio::test]
async fn attempts_are_bounded() {
    let sims = sims(4).await;
    let gateway = Gateway::before(&sims, "[retry]\nattempts = 2\n").await;
    for sim in &sims {
        sim.script().always(error(500));
    }
    let reply = turn(&gateway, "any").await;
    assert_eq!(reply.status.as_u16(), 500);
    assert_eq!(gateway.metric("steadfast_failovers_total").await, 1.0);
}

#[tokio::test]
async fn where_nobody_can_be_reached_the_caller_is_told_when_to_come_again() {
    let mut sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    for sim in sims.drain(..) {
        sim.stop().await;
    }
    for _ in 0..12 {
        let reply = turn(&gateway, "any").await;
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
async fn a_refused_credential_disables_loudly_and_a_reload_probes_it() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_at(&gateway, "a").await;
    sims[0].script().once("/v1/responses", error(401));
    assert_eq!(turn(&gateway, &key).await.routed(), ("b", "moved"));
    let line = gateway.log_until("refuses the credential").await;
    assert!(
        line.iter()
            .any(|line| line.contains("ERROR") && line.contains("refuses the credential"))
    );
    let other = format!("{key}-2");
    assert_eq!(turn(&gateway, &other).await.routed().0, "b");
    gateway.write(&format!(
        "{}{}# again\n",
        upstream(&sims[0], ""),
        upstream(&sims[1], "")
    ));
    gateway.signal("HUP").await;
    gateway.log_until("reloaded").await;
    let fresh = fresh_key_at(&gateway, "a").await;
    assert_eq!(turn(&gateway, &fresh).await.routed(), ("a", "home"));
}

/// A key that lives at `home` and was never used.
async fn fresh_key_at(gateway: &Gateway, home: &str) -> String {
    for number in 0..200 {
        let key = format!("fresh-{number}");
        let answer = gateway.ask(&format!("/api/route?key={key}")).await.json();
        if answer["upstreams"][0]["name"] == home {
            return key;
        }
    }
    panic!("no key lives at {home}");
}

#[tokio::test]
async fn an_operator_can_drain_and_enable() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_at(&gateway, "a").await;
    assert_eq!(turn(&gateway, &key).await.routed(), ("a", "home"));
    let act = |action: &'static str| {
        let request = client::post(&format!("/api/upstreams/a/{action}"), "");
        client::send(gateway.admin, request)
    };
    assert_eq!(act("drain").await.json()["state"], "draining");
    assert_eq!(turn(&gateway, &key).await.routed(), ("b", "moved"));
    assert_eq!(act("enable").await.json()["state"], "ready");
    let fresh = fresh_key_at(&gateway, "a").await;
    assert_eq!(turn(&gateway, &fresh).await.routed(), ("a", "home"));
    assert_eq!(turn(&gateway, &key).await.routed(), ("b", "pin"));
    let unknown = client::send(gateway.admin, client::post("/api/upstreams/x/drain", "")).await;
    assert_eq!(unknown.status.as_u16(), 404);
    assert!(unknown.text().contains("a, b"));
    assert_eq!(gateway.ask("/api/upstreams/a/drain").await.status.as_u16(), 405);
}

#[tokio::test]
async fn a_cooldown_ends_when_it_was_named_to() {
    let sims: Vec<Sim> = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_at(&gateway, "a").await;
    sims[0].script().once("/v1/responses", limited(1));
    assert_eq!(turn(&gateway, &key).await.routed(), ("b", "moved"));
    let ready = || async {
        let upstreams = gateway.ask("/api/upstreams").await.json();
        (upstreams["upstreams"][0]["state"] == "ready").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(5), crate::kit::until("ready", ready))
        .await
        .expect("soon");
    gateway.log_until("cooldown over").await;
    let fresh = fresh_key_at(&gateway, "a").await;
    assert_eq!(turn(&gateway, &fresh).await.routed(), ("a", "home"));
}
