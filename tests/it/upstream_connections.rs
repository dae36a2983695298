//! Connections to upstreams: their reuse, the retry of requests, and the framing of bodies on them.

use std::time::Duration;

use steadfast::sim::{Act, Close, Read, Rule, ScriptedAnswer, Sim};

use crate::kit::{
    WHOLE,
    gateway::Gateway,
    gateway_with_sim,
    wire::{self, Wire},
};

fn raw(text: &'static str) -> Act {
    Act::answer(ScriptedAnswer::Raw(text.into()))
}

/// Makes the account apply `act` to the request number `nth` of each connection.
fn on_nth(sim: &Sim, nth: u64, act: Act) {
    sim.script().add(Rule::new(act).head(move |head| head.nth == nth));
}

/// Sends a request with an inspected body and returns the status of the response.
async fn request_status(wire: &mut Wire) -> u16 {
    wire.send(wire::post("/v1/responses", WHOLE)).await;
    wire.answer().await.status
}

/// Checks that the second request of a connection fails with `act` and is sent only once.
async fn assert_sent_once(sim: &Sim, gateway: &Gateway, act: Act) {
    let what = format!("{act:?}");
    on_nth(sim, 2, act);
    let before = sim.counts().requests;
    let mut wire = Wire::open(gateway.address).await;
    assert_eq!(request_status(&mut wire).await, 200, "{what}");
    assert_eq!(request_status(&mut wire).await, 502, "{what}");
    assert_eq!(sim.counts().requests, before + 2, "{what}");
    sim.script().clear();
}

#[tokio::test]
async fn a_request_is_not_retried_after_the_response_has_begun() {
    let (sim, gateway) = gateway_with_sim("").await;
    assert_sent_once(&sim, &gateway, raw("HTTP/1.1 200 OK\r\ncontent-ty")).await;
    assert_sent_once(&sim, &gateway, raw("H")).await;
}

#[tokio::test]
async fn a_request_that_the_upstream_may_have_processed_is_not_retried() {
    let (sim, gateway) = gateway_with_sim("").await;
    for how in [Close::Fin, Close::Reset] {
        let act = Act {
            delay: Duration::from_millis(1200),
            ..Act::answer(ScriptedAnswer::Close(how))
        };
        assert_sent_once(&sim, &gateway, act).await;
    }
}

#[tokio::test]
async fn a_request_on_a_stale_connection_is_retried() {
    let (sim, gateway) = gateway_with_sim("").await;
    for how in [Close::Fin, Close::Reset] {
        on_nth(&sim, 2, Act::answer(ScriptedAnswer::Close(how)));
        let mut wire = Wire::open(gateway.address).await;
        for _ in 0..10 {
            assert_eq!(request_status(&mut wire).await, 200);
        }
        sim.script().clear();
    }
}

#[tokio::test]
async fn a_streamed_body_is_not_sent_on_a_possibly_stale_connection() {
    let (sim, gateway) = gateway_with_sim("").await;
    let act = Act {
        read: Read::Never,
        ..Act::answer(ScriptedAnswer::Close(Close::Fin))
    };
    on_nth(&sim, 2, act);
    let mut wire = Wire::open(gateway.address).await;
    let file = wire::post("/v1/files", "any text").replace("application/json", "text/plain");
    for _ in 0..10 {
        assert_eq!(request_status(&mut wire).await, 200);
        wire.send(&file).await;
        let answer = wire.answer().await;
        assert_ne!(answer.status, 502, "{answer:?}");
    }
}

#[tokio::test]
async fn a_chunked_body_stays_chunked_for_every_method_and_size() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    for (kind, text) in [
        ("application/json", "{}"),
        ("text/plain", "some text"),
        ("text/plain", ""),
        ("application/json", ""),
    ] {
        for method in ["POST", "DELETE", "GET", "HEAD"] {
            let mut body = wire::chunk(text).repeat(usize::from(!text.is_empty()));
            body.push_str("0\r\n\r\n");
            wire.send(format!(
                "{method} /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n{body}"
            ))
            .await;
            wire.answer_to(method).await;
            let seen = sim.requests().pop().expect("a recorded request");
            let what = format!("{method} {kind} {text:?}: {:?}", seen.headers);
            assert_eq!(
                (seen.method.as_str(), &seen.body[..]),
                (method, text.as_bytes()),
                "{what}"
            );
            assert_eq!(seen.headers.get("transfer-encoding").expect(&what), "chunked");
            assert!(!seen.headers.contains_key("content-length"), "{what}");
        }
    }
}

/// Sends an upload that takes longer than the time limit for the upstream's head.
async fn upload_slowly(wire: &mut Wire) {
    let pieces = 8;
    wire.send(format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {pieces}\r\n\r\n"
    ))
    .await;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..pieces {
        pace.tick().await;
        wire.send("x").await;
    }
}

#[tokio::test]
async fn the_time_limit_for_the_head_starts_at_the_end_of_the_request() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nhead = \"300ms\"\n").await;
    let mut wire = Wire::open(gateway.address).await;
    upload_slowly(&mut wire).await;
    let answer = wire.answer().await;
    assert!(!matches!(answer.status, 502..=504), "{answer:?}");
    assert_eq!(sim.requests().pop().expect("a recorded request").body, "x".repeat(8));
    sim.script().always(Act::answer(ScriptedAnswer::Never));
    upload_slowly(&mut wire).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (504, "upstream_timeout"));
}
