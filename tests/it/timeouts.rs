//! Timeouts: a slow client or upstream is disconnected. The client receives an error response if one can still be sent.

use std::time::{Duration, Instant};

use serde_json::json;
use steadfast::sim::{Act, Point, ScriptedAnswer};

use crate::kit::{
    STREAM,
    gateway::Gateway,
    gateway_with_sim, sim_with, until_true,
    wire::{self, End, Wire},
};

#[tokio::test]
async fn an_upstream_without_a_timely_head_causes_a_504() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nhead = \"200ms\"\n").await;
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (504, "upstream_timeout"));
    assert!(answer.header("retry-after").is_some());
    until_true("the upstream request to be cancelled", || sim.counts().aborted == 1).await;
    sim.script().clear();
    wire.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(
        wire.answer().await.status,
        200,
        "the client's connection is still usable"
    );
}

#[tokio::test]
async fn a_stalled_stream_is_aborted() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"200ms\"\n").await;
    sim.script().always(Act::stall(Point::Events(2)));
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert_eq!((answer.status, answer.end), (200, End::Cut));
    assert!(answer.text().contains("response.in_progress"));
    until_true("the upstream request to be cancelled", || sim.counts().aborted == 1).await;
    let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(line["outcome"], "idle");
}

#[tokio::test]
async fn a_slow_stream_is_not_aborted() {
    let sim = sim_with("a", |config| config.pace = Duration::from_millis(120)).await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "[timeouts]\nidle = \"900ms\"\n").await;
    let begun = Instant::now();
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert!(
        begun.elapsed() > Duration::from_millis(900),
        "the stream takes longer than the idle limit"
    );
    assert_eq!(answer.end, End::Whole);
    assert!(answer.text().contains("event: response.completed"));
}

#[tokio::test]
async fn a_body_that_pauses_for_too_long_causes_a_408() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"200ms\"\n").await;
    let json = "content-type: application/json\r\n";
    for (what, request) in [
        (
            "inspected, with a length",
            format!("responses HTTP/1.1\r\n{json}content-length: 100\r\n\r\n{{"),
        ),
        (
            "inspected, chunked",
            format!("responses HTTP/1.1\r\n{json}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n"),
        ),
        (
            "streamed, with a length",
            "files HTTP/1.1\r\ncontent-length: 100\r\n\r\nx".to_owned(),
        ),
        (
            "streamed, chunked",
            "files HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n".to_owned(),
        ),
    ] {
        let begun = Instant::now();
        let mut wire = Wire::open(gateway.address).await;
        wire.send(format!(
            "POST /v1/{}",
            request.replacen("\r\n", "\r\nhost: localhost\r\n", 1)
        ))
        .await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (408, "request_timeout"),
            "{what}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{what}: {:?}",
            begun.elapsed()
        );
        wire.closing().await;
    }
    until_true("the upstream requests to be cancelled", || sim.counts().in_flight == 0).await;
}

#[tokio::test]
async fn an_incomplete_head_times_out() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"250ms\"\n").await;
    for begun in ["", "G", "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(begun).await;
        wire.closing().await;
    }
    // The limit applies to later requests of a connection as well.
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(wire.answer().await.status, 200);
    wire.send("GET /v1/models HT").await;
    wire.closing().await;
    assert_eq!(sim.counts().requests, 1);
}

#[tokio::test]
async fn a_head_that_arrives_byte_by_byte_times_out() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"300ms\"\n").await;
    let wire = Wire::open(gateway.address).await;
    let begun = Instant::now();
    let mut dripping = tokio::time::interval(Duration::from_millis(40));
    // A write fails after the server has closed the connection.
    loop {
        dripping.tick().await;
        let written = wire.stream.try_write(b"x");
        if written.is_err() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "still open");
    }
}

#[tokio::test]
async fn a_connection_may_be_idle_between_requests() {
    let (_sim, gateway) =
        gateway_with_sim("[timeouts]\nclient_header = \"100ms\"\nidle = \"100ms\"\nhead = \"5s\"\n").await;
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..2 {
        wire.send(wire::post("/v1/responses", STREAM)).await;
        assert_eq!(wire.answer().await.end, End::Whole);
        // This sleep models an idle client: the connection must survive a pause that is longer than both limits.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    wire.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(wire.answer().await.end, End::Whole);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"400ms\"\n").await;
    let large = json!({"type": "response.output_text.delta", "delta": "x".repeat(1 << 20)});
    sim.script().always(Act::events(&vec![large; 64]));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    until_true("the upstream request to be cancelled", || sim.counts().aborted == 1).await;
    let answer = wire.answer().await;
    assert!(matches!(answer.end, End::Cut | End::Reset), "the response is not whole");
}
