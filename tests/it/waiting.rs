//! Waiting for a slot: which requests wait for their own upstream, how long they wait, and which move to another
//! upstream.

use std::time::{Duration, Instant};

use serde_json::json;
use steadfast::sim::{Act, Rule, Sim};

use crate::kit::{
    gateway::{Gateway, upstream},
    sessions::{key_with_home, key_with_prefix, send_turn, usage_limit_reached},
    sims, until_true,
    wire::{self, Wire},
};

/// Starts a gateway in front of `a`, which has `slots` slots, and `b`, which has no limit.
async fn gateway_with_slots(sims: &[Sim], slots: u32) -> Gateway {
    let config = upstream(&sims[0], &format!("max_in_flight = {slots}")) + &upstream(&sims[1], "");
    Gateway::configured(&config).await
}

#[tokio::test]
async fn pinned_sessions_wait_for_a_slot_and_new_ones_move() {
    let sims = sims(2).await;
    let gateway = gateway_with_slots(&sims, 1).await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    let slow = Act::delay(Duration::from_millis(600));
    sims[0].script().add(Rule::new(slow).times(1));
    let (first, second) = tokio::join!(send_turn(&gateway, &key), async {
        gateway
            .metric_reaches("steadfast_in_flight_requests{upstream=\"a\"}", 1.0)
            .await;
        let (new, begun) = (key_with_prefix(&gateway, "a", &key).await, Instant::now());
        let (own, new) = tokio::join!(send_turn(&gateway, &key), send_turn(&gateway, &new));
        assert_eq!(new.routed(), ("b", "moved"), "{:?}", begun.elapsed());
        own
    });
    assert_eq!((first.routed(), second.routed()), (("a", "pin"), ("a", "pin")));
    let line = gateway.access_of(second.header("x-request-id")).await;
    assert!(line["waited_ms"].as_f64().is_some_and(|waited| waited > 50.0), "{line}");
    for metric in ["steadfast_in_flight_requests", "steadfast_waiting_requests"] {
        gateway.metric_reaches(metric, 0.0).await;
    }
}

#[tokio::test]
async fn a_session_waits_for_a_short_limit_and_moves_for_a_long_one() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    sims[0].script().once("/v1/responses", usage_limit_reached(1));
    let begun = Instant::now();
    let reply = send_turn(&gateway, &key).await;
    assert_eq!(reply.routed(), ("a", "pin"), "the session waits a second for its cache");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    sims[0].script().once("/v1/responses", usage_limit_reached(600));
    let begun = Instant::now();
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(
        send_turn(&gateway, &key).await.routed(),
        ("b", "pin"),
        "the session stays on its new upstream"
    );
}

#[tokio::test]
async fn a_waiting_client_that_disconnects_leaves_the_queue() {
    let sims = sims(1).await;
    let config = format!(
        "[affinity]\nwait = \"30s\"\n{}",
        upstream(&sims[0], "max_in_flight = 1")
    );
    let gateway = Gateway::configured(&config).await;
    sims[0]
        .script()
        .add(Rule::new(Act::delay(Duration::from_secs(15))).times(1));
    let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": "k"}).to_string();
    let mut holds = Wire::open(gateway.address).await;
    holds.send(wire::post("/v1/responses", &body)).await;
    gateway.metric_reaches("steadfast_in_flight_requests", 1.0).await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(wire::post("/v1/responses", &body)).await;
        waits.push(wire);
    }
    gateway.metric_reaches("steadfast_waiting_requests", 20.0).await;
    let last = waits.pop().expect("twenty waiting requests");
    drop(waits);
    gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
    drop(holds);
    let mut last = last;
    assert_eq!(last.answer().await.status, 200);
    until_true("all access log lines", || gateway.access().len() == 21).await;
}

#[tokio::test]
async fn aborted_requests_release_their_slots() {
    let sims = sims(1).await;
    let config = format!(
        "[affinity]\nwait = \"30s\"\n{}",
        upstream(&sims[0], "max_in_flight = 4")
    );
    let gateway = Gateway::configured(&config).await;
    sims[0].script().always(Act::delay(Duration::from_millis(5)));
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": "k"}).to_string();
    for round in 0..100 {
        let mut wires = Vec::new();
        for number in 0..20 {
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", &body)).await;
            if (round + number) % 7 == 0 {
                wire.head().await;
            }
            wires.push(wire);
        }
    }
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_waiting_requests",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
    sims[0].script().clear();
    assert_eq!(send_turn(&gateway, "k").await.status.as_u16(), 200);
}
