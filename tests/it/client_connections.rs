//! The connections of clients: pipelined requests, unreadable heads, and clients that disconnect.

use serde_json::{Value, json};
use steadfast::sim::{Act, Point, ScriptedAnswer};

use crate::kit::{
    STREAM, client, gateway_with_sim, until, until_true,
    wire::{self, Wire},
};

#[tokio::test]
async fn a_client_that_leaves_is_noticed_with_pipelined_requests() {
    let next = wire::post("/v1/responses", STREAM);
    for (what, together, then) in [
        ("a whole request in the same write", next.as_str(), vec![]),
        ("a byte in the same write", "P", vec![]),
        ("a request in a write of its own", "", vec![next.as_str()]),
        ("several writes", "GET", vec![next.as_str(), "P", next.as_str()]),
    ] {
        for act in [Act::answer(ScriptedAnswer::Never), Act::stall(Point::Events(2))] {
            let (sim, gateway) = gateway_with_sim("").await;
            sim.script().always(act);
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", STREAM) + together).await;
            until_true("the request to reach the upstream", || sim.counts().in_flight == 1).await;
            for piece in then.iter().copied() {
                wire.send(piece).await;
                // The admin listener runs on the same threads. So the gateway has most likely read the piece when the
                // metric arrives.
                gateway.metric("steadfast_connections").await;
            }
            drop(wire);
            until_true(&format!("the request to be cancelled: {what}"), || {
                sim.counts().aborted == 1
            })
            .await;
            gateway.metric_reaches("steadfast_connections", 0.0).await;
        }
    }
}

#[tokio::test]
async fn pipelined_requests_after_a_running_one_are_answered() {
    let (sim, gateway) = gateway_with_sim("").await;
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
    let (sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"250ms\"\n").await;
    let head = |fields: &str| format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
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
async fn a_client_without_a_request_is_not_a_refusal() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"250ms\"\n").await;
    // One client sends nothing until it is disconnected, one disconnects at once, and one disconnects in the middle of
    // a head.
    assert_eq!(client::raw(gateway.address, b"").await, "");
    drop(Wire::open(gateway.address).await);
    let mut wire = Wire::open(gateway.address).await;
    wire.send("GET /v1/mod").await;
    drop(wire);
    gateway.metric_reaches("steadfast_connections", 0.0).await;
    assert_eq!(gateway.metric("steadfast_rejected_requests_total").await, 0.0);
    assert!(gateway.access().is_empty());
}
