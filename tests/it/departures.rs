//! Clients that disconnect. Their upstream requests are cancelled at once, and the access log tells whether the client
//! had received the whole response.

use std::time::Duration;

use serde_json::json;
use steadfast::sim::{Act, Ending, Point, ScriptedAnswer, Sim};

use crate::kit::{
    STREAM,
    gateway::Gateway,
    gateway_with_sim, sim_with, until, until_true,
    wire::{self, Wire},
};

/// Checks that the upstream's request has been cancelled and that the gateway has released everything.
async fn assert_cancelled(sim: &Sim, gateway: &Gateway) {
    until_true("the upstream request to be cancelled", || sim.counts().aborted == 1).await;
    assert_eq!(sim.requests()[0].ending, Ending::Aborted);
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
    let line = until("an access log line", || std::future::ready(gateway.access().pop())).await;
    assert_eq!(line["outcome"], "client_gone", "{line}");
}

/// Waits until the request has reached the upstream.
async fn until_in_flight(sim: &Sim) {
    until_true("the request to reach the upstream", || sim.counts().in_flight == 1).await;
}

#[tokio::test]
async fn a_client_that_closes_before_the_head_cancels_its_request() {
    let (sim, gateway) = gateway_with_sim("").await;
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    until_in_flight(&sim).await;
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_resets_cancels_its_request() {
    let (sim, gateway) = gateway_with_sim("").await;
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    until_in_flight(&sim).await;
    wire.stream.set_zero_linger().expect("a socket");
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_closes_during_a_stream_cancels_its_request() {
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
async fn a_client_that_closes_during_a_silent_stream_cancels_its_request() {
    let (sim, gateway) = gateway_with_sim("").await;
    sim.script().always(Act::stall(Point::Events(2)));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    wire.skip_to("response.in_progress").await;
    drop(wire);
    assert_cancelled(&sim, &gateway).await;
}

#[tokio::test]
async fn a_client_that_closes_during_an_upload_cancels_its_request() {
    for framing in [
        "content-length: 1000\r\n\r\nbegun",
        "transfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n",
    ] {
        let (sim, gateway) = gateway_with_sim("").await;
        let mut wire = Wire::open(gateway.address).await;
        wire.send(format!("POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{framing}"))
            .await;
        until_in_flight(&sim).await;
        until_true("the first bytes of the body at the upstream", || {
            sim.requests()[0].body == "begun"
        })
        .await;
        drop(wire);
        until_true("the upstream request to be cancelled", || sim.counts().aborted == 1).await;
        let metric = "steadfast_in_flight_requests";
        gateway.metric_reaches(metric, 0.0).await;
    }
}

#[tokio::test]
async fn half_of_an_inspected_body_is_discarded() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    let body = wire::post("/v1/responses", STREAM);
    wire.send(body.get(..body.len() - 5).expect("long enough")).await;
    let metric = "steadfast_buffered_bytes";
    until("the body to be buffered", || async {
        (gateway.metric(metric).await > 0.0).then_some(())
    })
    .await;
    drop(wire);
    gateway.metric_reaches(metric, 0.0).await;
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn a_client_that_closes_after_the_last_event_is_complete() {
    for last in ["response.completed", "response.failed", "response.incomplete"] {
        let (sim, gateway) = gateway_with_sim("").await;
        let created = json!({"type": "response.created", "response": {"id": "resp_1"}});
        let mut act = Act::events(&[created, json!({"type": last, "response": {"id": "resp_1"}})]);
        // The last chunk of the body never arrives.
        act.stall = Some(Point::Events(2));
        sim.script().always(act);
        let mut wire = Wire::open(gateway.address).await;
        wire.send(wire::post("/v1/responses", STREAM)).await;
        wire.skip_to(&format!("\"type\":\"{last}\"}}")).await;
        drop(wire);
        let line = until("an access log line", || std::future::ready(gateway.access().pop())).await;
        assert_eq!(line["outcome"], "complete", "{last}: {line}");
    }
}

#[tokio::test]
async fn clients_that_disconnect_leave_no_resources_behind() {
    let (sim, gateway) = gateway_with_sim("").await;
    sim.script().always(Act::stall(Point::Events(1)));
    for _ in 0..3 {
        let mut wires = Vec::new();
        for _ in 0..30 {
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", STREAM)).await;
            wires.push(wire);
        }
        until_true("all requests to be in flight", || sim.counts().in_flight == 30).await;
        drop(wires);
        until_true("all requests to be cancelled", || sim.counts().in_flight == 0).await;
    }
    until_true("the upstream connections to be closed", || {
        sim.counts().open_connections == 0
    })
    .await;
    assert_eq!(sim.counts().aborted, 90);
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
}

#[tokio::test]
async fn a_stream_cut_after_its_last_event_is_aborted_but_complete() {
    let (sim, gateway) = gateway_with_sim("").await;
    let event = wire::chunk("data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}\n\n");
    sim.script().always(Act::answer(ScriptedAnswer::Raw(
        format!("{}{event}", wire::EVENTS).into(),
    )));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    wire.skip_to("response.completed").await;
    assert_ne!(wire.closing().await, wire::End::Whole);
    let line = until("an access log line", || std::future::ready(gateway.access().pop())).await;
    assert_eq!(line["outcome"], "complete", "{line}");
}
