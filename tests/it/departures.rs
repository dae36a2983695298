//! Clients that go: what was done for them ends at once, and the record says whether they had everything.

use std::time::Duration;

use serde_json::json;
use steadfast::sim::{Act, Ending, Point, ScriptedAnswer, Sim};

use crate::kit::{
    gateway::Gateway,
    house, sim_with, until, until_true,
    wire::{self, Wire},
};

const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;

/// The upstream's work has been broken off, and nothing of it is left here.
async fn assert_cancelled(sim: &Sim, gateway: &Gateway) {
    until_true("the upstream's request is cancelled", || sim.counts().aborted == 1).await;
    assert_eq!(sim.requests()[0].ending, Ending::Aborted);
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        until(metric, || async { (gateway.metric(metric).await == 0.0).then_some(()) }).await;
    }
    let line = until("a line", || std::future::ready(gateway.access().pop())).await;
    assert_eq!(line["outcome"], "client_gone", "{line}");
}

async fn working(sim: &Sim) {
    until_true("the upstream works on it", || sim.counts().in_flight == 1).await;
}

#[tokio::test]
async fn a_client_that_goes_before_the_head_cancels() {
    let (sim, gateway) = house("").await;
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    working(&sim).await;
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_resets_cancels() {
    let (sim, gateway) = house("").await;
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    working(&sim).await;
    wire.stream.set_zero_linger().expect("a socket");
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_goes_midway_through_a_lively_stream_cancels() {
    let sim = sim_with("a", |config| {
        config.pace = Duration::from_millis(10);
        config.deltas = 10_000;
    })
    .await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    wire.skip_to("response.output_text.delta").await;
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_goes_while_nothing_arrives_cancels() {
    let (sim, gateway) = house("").await;
    sim.script().always(Act::stall(Point::Events(2)));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    wire.skip_to("response.in_progress").await;
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_goes_during_an_upload_cancels() {
    for framing in [
        "content-length: 1000\r\n\r\nbegun",
        "transfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n",
    ] {
        let (sim, gateway) = house("").await;
        let mut wire = Wire::open(gateway.address).await;
        wire.send(format!("POST /v1/files HTTP/1.1\r\nhost: it\r\n{framing}"))
            .await;
        working(&sim).await;
        until_true("its first bytes are there", || sim.requests()[0].body == "begun").await;
        drop(wire);
        until_true("the upstream's request is cancelled", || sim.counts().aborted == 1).await;
        let metric = "steadfast_in_flight_requests";
        until(metric, || async { (gateway.metric(metric).await == 0.0).then_some(()) }).await;
    }
}

#[tokio::test]
async fn half_a_body_that_is_looked_into_reaches_nobody_and_is_let_go() {
    let (sim, gateway) = house("").await;
    let mut wire = Wire::open(gateway.address).await;
    let body = wire::post("/v1/responses", STREAM);
    wire.send(body.get(..body.len() - 5).expect("long enough")).await;
    let metric = "steadfast_buffered_bytes";
    until("it is held", || async {
        (gateway.metric(metric).await > 0.0).then_some(())
    })
    .await;
    drop(wire);
    until("it is let go", || async {
        (gateway.metric(metric).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn a_client_that_closes_after_the_last_event_has_everything() {
    for last in ["response.completed", "response.failed", "response.incomplete"] {
        let (sim, gateway) = house("").await;
        let created = json!({"type": "response.created", "response": {"id": "resp_1"}});
        let mut act = Act::events(&[created, json!({"type": last, "response": {"id": "resp_1"}})]);
        // The chunk that ends the body never comes.
        act.stall = Some(Point::Events(2));
        sim.script().always(act);
        let mut wire = Wire::open(gateway.address).await;
        wire.send(wire::post("/v1/responses", STREAM)).await;
        wire.skip_to(&format!("\"type\":\"{last}\"}}")).await;
        drop(wire);
        let line = until("a line", || std::future::ready(gateway.access().pop())).await;
        assert_eq!(line["outcome"], "complete", "{last}: {line}");
    }
}

#[tokio::test]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let (sim, gateway) = house("").await;
    sim.script().always(Act::stall(Point::Events(1)));
    for _ in 0..3 {
        let mut wires = Vec::new();
        for _ in 0..30 {
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", STREAM)).await;
            wires.push(wire);
        }
        until_true("all are being answered", || sim.counts().in_flight == 30).await;
        drop(wires);
        until_true("all are cancelled", || sim.counts().in_flight == 0).await;
    }
    until_true("their connections are closed", || sim.counts().open_connections == 0).await;
    assert_eq!(sim.counts().aborted, 90);
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        until(metric, || async { (gateway.metric(metric).await == 0.0).then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_stream_cut_behind_its_last_event_is_aborted_but_was_complete() {
    let (sim, gateway) = house("").await;
    let event = wire::chunk("data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}\n\n");
    sim.script().always(Act::answer(ScriptedAnswer::Raw(
        format!("{}{event}", wire::EVENTS).into(),
    )));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    wire.skip_to("response.completed").await;
    assert_ne!(wire.closing().await, wire::End::Whole);
    let line = until("a line", || std::future::ready(gateway.access().pop())).await;
    assert_eq!(line["outcome"], "complete", "{line}");
}
