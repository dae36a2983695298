//! Responses without a body, interim responses, and the reuse of connections.

use bytes::Bytes;
use serde_json::json;
use steadfast::sim::{Act, ScriptedAnswer, Sim};

use crate::kit::{
    WHOLE, gateway_with_sim, until_true,
    wire::{self, End, Wire},
};

/// Lets the account answer every request with the bytes of `text`.
fn respond_with(sim: &Sim, text: &str) {
    sim.script()
        .always(Act::answer(ScriptedAnswer::Raw(Bytes::from(text.to_owned()))));
}

#[tokio::test]
async fn interim_responses_are_skipped() {
    let (sim, gateway) = gateway_with_sim("").await;
    respond_with(
        &sim,
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await;
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.end),
        (200, "ok", End::Whole)
    );
    assert_eq!(answer.header("link"), None);
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_head() {
    for (method, status, head) in [
        ("GET", 204, "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"),
        (
            "GET",
            304,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\netag: \"x\"\r\n\r\n",
        ),
        ("DELETE", 204, "HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ] {
        let (sim, gateway) = gateway_with_sim("").await;
        respond_with(&sim, head);
        let mut wire = Wire::open(gateway.address).await;
        for _ in 0..2 {
            wire.send(format!("{method} /v1/files/x HTTP/1.1\r\nhost: localhost\r\n\r\n"))
                .await;
            let answer = wire.answer_to(method).await;
            assert_eq!((answer.status, wire.rest().as_str()), (status, ""), "{method} {head}");
            if method == "HEAD" && head.contains("1234") {
                assert_eq!(answer.header("content-length"), Some("1234"));
            }
            let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
            assert_eq!(line["outcome"], "complete", "{method} {head}");
        }
        assert!(sim.requests().iter().all(|request| request.method == method));
    }
}

#[tokio::test]
async fn an_error_for_a_head_request_has_no_body() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..2 {
        wire.send("HEAD /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let answer = wire.answer_to("HEAD").await;
        assert_eq!((answer.status, wire.rest().as_str()), (404, ""));
    }
}

/// If a response has both `Content-Length` and `Transfer-Encoding`, the chunks determine the body (RFC 9112 section
/// 6.3).
#[tokio::test]
async fn a_response_with_a_length_beside_a_coding_is_framed_anew() {
    let (sim, gateway) = gateway_with_sim("").await;
    respond_with(
        &sim,
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await;
    assert_eq!(
        (answer.text().as_str(), answer.end),
        ("hello", End::Whole),
        "{answer:?}"
    );
    assert_eq!(answer.header("content-length"), None);
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_response_are_dropped() {
    let (sim, gateway) = gateway_with_sim("").await;
    respond_with(
        &sim,
        "HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=1\r\nupgrade: h2c\r\n\
         x-codex-primary-used-percent: 12\r\ncontent-length: 2\r\n\r\nok",
    );
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..2 {
        wire.send(wire::post("/v1/responses", WHOLE)).await;
        let answer = wire.answer().await;
        assert_eq!(answer.header("x-codex-primary-used-percent"), Some("12"));
        for name in ["connection", "x-hop", "keep-alive", "upgrade"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn connections_are_reused_on_both_sides() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    for number in 0..50 {
        let body = json!({"model": "gpt-5.2", "input": format!("{number}"), "stream": number % 2 == 1}).to_string();
        wire.send(wire::post("/v1/responses", &body)).await;
        assert_eq!(wire.answer().await.end, End::Whole);
    }
    // A connection may not be ready for the next request just after its response, so there can be more than one.
    let counts = sim.counts();
    assert!(counts.requests == 50 && counts.connections <= 3, "{counts:?}");
    assert_eq!(gateway.metric("steadfast_connections").await, 1.0);
    drop(wire);
    gateway.metric_reaches("steadfast_connections", 0.0).await;
}

#[tokio::test]
async fn a_connection_that_the_upstream_closes_is_not_reused() {
    let (sim, gateway) = gateway_with_sim("").await;
    sim.script().always(Act {
        after: steadfast::sim::After::Announced,
        ..Act::default()
    });
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..10 {
        wire.send(wire::post("/v1/responses", WHOLE)).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    assert_eq!(sim.counts().connections, 10);
    until_true("the upstream connections to be closed", || {
        sim.counts().open_connections == 0
    })
    .await;
}
