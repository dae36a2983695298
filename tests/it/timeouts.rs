//! Time limits: whoever keeps others waiting is let go, with an answer where one can still be given.

use std::time::{Duration, Instant};

use serde_json::json;
use steadfast::sim::{Act, Point, ScriptedAnswer};

use crate::kit::{
    gateway::Gateway,
    house, sim_with, until_true,
    wire::{self, End, Wire},
};

const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;

#[tokio::test]
async fn an_upstream_without_a_head_in_time_is_a_504() {
    let (sim, gateway) = house("[timeouts]\nhead = \"200ms\"\n").await;
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (504, "upstream_timeout"));
    assert!(answer.header("retry-after").is_some());
    until_true("the upstream's request is cancelled", || sim.counts().aborted == 1).await;
    sim.script().clear();
    wire.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(wire.answer().await.status, 200, "the client's connection goes on");
}

#[tokio::test]
async fn a_stream_that_stalls_is_broken_off() {
    let (sim, gateway) = house("[timeouts]\nidle = \"200ms\"\n").await;
    sim.script().always(Act::stall(Point::Events(2)));
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert_eq!((answer.status, answer.end), (200, End::Cut));
    assert!(answer.text().contains("response.in_progress"));
    until_true("the upstream's request is cancelled", || sim.counts().aborted == 1).await;
    let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(line["outcome"], "idle");
}

#[tokio::test]
async fn a_stream_that_is_slow_but_alive_is_not() {
    let sim = sim_with("a", |config| config.pace = Duration::from_millis(120)).await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "[timeouts]\nidle = \"900ms\"\n").await;
    let begun = Instant::now();
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert!(
        begun.elapsed() > Duration::from_millis(900),
        "it takes longer than a pause may"
    );
    assert_eq!(answer.end, End::Whole);
    assert!(answer.text().contains("event: response.completed"));
}

#[tokio::test]
async fn a_body_that_pauses_for_too_long_is_a_408_at_once() {
    let (sim, gateway) = house("[timeouts]\nidle = \"200ms\"\n").await;
    let json = "content-type: application/json\r\n";
    for (what, request) in [
        (
            "looked into, by length",
            format!("responses HTTP/1.1\r\n{json}content-length: 100\r\n\r\n{{"),
        ),
        (
            "looked into, chunked",
            format!("responses HTTP/1.1\r\n{json}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n"),
        ),
        (
            "passed on, by length",
            "files HTTP/1.1\r\ncontent-length: 100\r\n\r\nx".to_owned(),
        ),
        (
            "passed on, chunked",
            "files HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n".to_owned(),
        ),
    ] {
        let begun = Instant::now();
        let mut wire = Wire::open(gateway.address).await;
        wire.send(format!("POST /v1/{}", request.replacen("\r\n", "\r\nhost: it\r\n", 1)))
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
    until_true("the upstream is rid of them", || sim.counts().in_flight == 0).await;
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_cut_off() {
    let (sim, gateway) = house("[timeouts]\nclient_header = \"250ms\"\n").await;
    for begun in ["", "G", "GET /v1/models HTTP/1.1\r\nhost: it\r\n"] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(begun).await;
        wire.closing().await;
    }
    // Also where a connection has been of use before.
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(wire.answer().await.status, 200);
    wire.send("GET /v1/models HT").await;
    wire.closing().await;
    assert_eq!(sim.counts().requests, 1);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off_too() {
    let (_sim, gateway) = house("[timeouts]\nclient_header = \"300ms\"\n").await;
    let wire = Wire::open(gateway.address).await;
    let begun = Instant::now();
    let mut dripping = tokio::time::interval(Duration::from_millis(40));
    // A write fails once the other side has closed.
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
async fn a_connection_may_rest_between_requests() {
    let (_sim, gateway) = house("[timeouts]\nclient_header = \"100ms\"\nidle = \"100ms\"\nhead = \"5s\"\n").await;
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..2 {
        wire.send(wire::post("/v1/responses", STREAM)).await;
        assert_eq!(wire.answer().await.end, End::Whole);
        // No wait for a state: the pause itself, longer than both limits, is what the connection must survive.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    wire.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(wire.answer().await.end, End::Whole);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let (sim, gateway) = house("[timeouts]\nidle = \"400ms\"\n").await;
    let large = json!({"type": "response.output_text.delta", "delta": "x".repeat(1 << 20)});
    sim.script().always(Act::events(&vec![large; 64]));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    until_true("the upstream's request is cancelled", || sim.counts().aborted == 1).await;
    let answer = wire.answer().await;
    assert!(
        matches!(answer.end, End::Cut | End::Reset),
        "what it finds when it comes back is no whole answer"
    );
}
