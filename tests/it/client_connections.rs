//! Clients' connections themselves: what is on them beside one request and its answer.

use serde_json::{Value, json};
use steadfast::sim::{Act, Point, ScriptedAnswer};

use crate::kit::{
    client, house, until, until_true,
    wire::{self, Wire},
};

const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;

#[tokio::test]
async fn a_client_that_goes_is_missed_whatever_it_asked_for_next() {
    let next = wire::post("/v1/responses", STREAM);
    for (what, together, then) in [
        ("a whole request in the same write", next.as_str(), vec![]),
        ("a byte in the same write", "P", vec![]),
        ("a request in a write of its own", "", vec![next.as_str()]),
        ("several writes", "GET", vec![next.as_str(), "P", next.as_str()]),
    ] {
        for act in [Act::answer(ScriptedAnswer::Never), Act::stall(Point::Events(2))] {
            let (sim, gateway) = house("").await;
            sim.script().always(act);
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", STREAM) + together).await;
            until_true("the upstream works on it", || sim.counts().in_flight == 1).await;
            for piece in then.iter().copied() {
                wire.send(piece).await;
                // Its admin side answers from the same threads: by then the piece has most likely been seen.
                gateway.metric("steadfast_connections").await;
            }
            drop(wire);
            until_true(&format!("cancelled: {what}"), || sim.counts().aborted == 1).await;
            let gone = || async { (gateway.metric("steadfast_connections").await == 0.0).then_some(()) };
            until("the connection is closed", gone).await;
        }
    }
}

#[tokio::test]
async fn requests_behind_one_that_runs_are_still_answered() {
    let (sim, gateway) = house("").await;
    let event = json!({"type": "response.in_progress", "response": {}});
    sim.script().once("/v1/responses", Act::events(&vec![event; 3]));
    let mut wire = Wire::open(gateway.address).await;
    let request = wire::post("/v1/responses", STREAM);
    wire.send(request.repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(wire.answer().await.end, wire::End::Whole);
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_counted_and_logged() {
    let (sim, gateway) = house("[timeouts]\nclient_header = \"250ms\"\n").await;
    let head = |fields: &str| format!("GET /v1/models HTTP/1.1\r\nhost: it\r\n{fields}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(65_534));
    let cases = [
        (head("no colon\r\n"), json!(400), "bad_head"),
        (
            head("content-length: 5\r\ncontent-length: 6\r\n"),
            json!(400),
            "bad_framing",
        ),
        (head(&"x: y\r\n".repeat(101)), json!(431), "head_too_large"),
        (long, json!(431), "head_too_large"),
        ("GET /v1/models HTTP/1.1\r\nhost:".to_owned(), Value::Null, "slow_head"),
    ];
    for (before, (sent, status, reason)) in cases.iter().enumerate() {
        let answer = client::raw(gateway.address, sent.as_bytes()).await;
        match status.as_u64() {
            Some(status) => {
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
                assert!(answer.contains(&format!("\"code\":\"{reason}\"")), "{reason}: {answer}");
                assert!(answer.contains("\r\nx-request-id: req_"), "{reason}: {answer}");
            }
            None => assert_eq!(answer, "", "{reason}"),
        }
        let line = until(reason, || std::future::ready(gateway.access().into_iter().nth(before))).await;
        assert_eq!((&line["status"], &line["reason"]), (status, &json!(reason)), "{line}");
        assert_eq!(line["outcome"], "refused", "{line}");
    }
    let metric = "steadfast_rejected_requests_total{reason=\"head\"}";
    assert_eq!(gateway.metric(metric).await, cases.len() as f64);
    assert_eq!((gateway.access().len(), sim.counts().requests), (cases.len(), 0));
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_is_no_refusal() {
    let (_sim, gateway) = house("[timeouts]\nclient_header = \"250ms\"\n").await;
    // Cut for its silence, gone by itself, gone in the middle of a head.
    assert_eq!(client::raw(gateway.address, b"").await, "");
    drop(Wire::open(gateway.address).await);
    let mut wire = Wire::open(gateway.address).await;
    wire.send("GET /v1/mod").await;
    drop(wire);
    let gone = || async { (gateway.metric("steadfast_connections").await == 0.0).then_some(()) };
    until("all are gone", gone).await;
    assert_eq!(gateway.metric("steadfast_rejected_requests_total").await, 0.0);
    assert!(gateway.access().is_empty());
}
