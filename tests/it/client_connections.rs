//! Clients' connections themselves: what is on them beside one request and its answer.

use serde_json::json;
use steadfast::sim::{Act, Answer, Point};

use crate::kit::{
    house, until, until_true,
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
        for act in [Act::answer(Answer::Never), Act::stall(Point::Events(2))] {
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
