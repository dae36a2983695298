//! Upstreams that fail. The client receives an error if no byte of the response was sent, and otherwise a visibly
//! broken response.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use steadfast::sim::{Act, After, Close, Fixed, Point, Read, ScriptedAnswer, Sim, SimConfig};

use crate::kit::{
    STREAM, WHOLE, client,
    gateway::Gateway,
    gateway_with_sim, sim, until_true,
    wire::{self, End, Wire},
};

fn raw(text: &str) -> Act {
    Act::answer(ScriptedAnswer::Raw(Bytes::from(text.to_owned())))
}

/// Checks that an error response does not name the upstream, and that the log contains the cause.
async fn assert_reveals_nothing(answer: &wire::RawResponse, gateway: &Gateway, sim_address: &str) {
    let said = format!("{answer:?}");
    assert!(!said.contains(sim_address) && !said.contains("sk-upstream"), "{said}");
    let logged = || {
        gateway
            .log()
            .iter()
            .any(|line| line.contains("the upstream sent no valid response"))
    };
    until_true("a log line with the cause", logged).await;
    assert!(
        !gateway.log().iter().any(|line| line.contains("sk-upstream")),
        "{:?}",
        gateway.log()
    );
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_causes_a_502() {
    let (sim, gateway) = gateway_with_sim("").await;
    let address = sim.address().to_string();
    sim.stop().await;
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (502, "upstream_unreachable")
    );
    assert!(answer.header("retry-after").is_some());
    assert_reveals_nothing(&answer, &gateway, &address).await;
    let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!((&line["status"], &line["outcome"]), (&json!(502), &json!("refused")));
    assert!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"upstream\"}")
            .await
            >= 1.0
    );
    assert_eq!(gateway.metric("steadfast_in_flight_requests").await, 0.0);
}

#[tokio::test]
async fn an_upstream_that_sends_no_valid_head_causes_a_502() {
    let acts = [
        Act::answer(ScriptedAnswer::Close(Close::Fin)),
        Act::answer(ScriptedAnswer::Close(Close::Reset)),
        raw(""),
        raw("garbage\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\ncontent-type: text/pl"),
        raw("HTTP/1.1 99999 OK\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
        raw("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nhello!"),
        raw("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello!"),
        raw("SSH-2.0-OpenSSH_9.9\r\n"),
    ];
    for act in acts {
        let (sim, gateway) = gateway_with_sim("").await;
        let what = format!("{act:?}");
        sim.script().always(act);
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (502, "upstream_broken"),
            "{what}"
        );
        assert_reveals_nothing(&answer, &gateway, &sim.address().to_string()).await;
    }
}

/// Sends `body` to an upstream with the fault `act`, and checks that the response breaks visibly.
async fn assert_breaks(sim: &Sim, gateway: &Gateway, act: Act, body: &str) {
    let what = format!("{act:?} {body}");
    sim.script().once("/v1/responses", act);
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", body)).await;
    if answer.status == 502 {
        // The stream broke before its first event was whole, so the gateway had sent nothing yet.
        assert_eq!(answer.error_code(), "upstream_broken", "{what}");
        // Two such requests in a row would brake the session, unless one is served in between.
        let served = wire::ask(gateway.address, wire::post("/v1/responses", body)).await;
        assert_eq!(served.status, 200, "{what}");
        return;
    }
    assert_eq!(answer.status, 200, "{what}");
    assert!(matches!(answer.end, End::Cut | End::Reset), "{what}: {answer:?}");
    let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(line["outcome"], "upstream_broken", "{what}");
}

#[tokio::test]
async fn an_upstream_that_fails_midway_breaks_the_response() {
    let (sim, gateway) = gateway_with_sim("").await;
    for how in [Close::Fin, Close::Reset] {
        assert_breaks(&sim, &gateway, Act::cut(Point::Events(1), how), STREAM).await;
        assert_breaks(&sim, &gateway, Act::cut(Point::Events(3), how), STREAM).await;
        assert_breaks(&sim, &gateway, Act::cut(Point::Bytes(500), how), STREAM).await;
        assert_breaks(&sim, &gateway, Act::cut(Point::Bytes(100), how), WHOLE).await;
    }
    until_true("no request to be in flight", || sim.counts().in_flight == 0).await;
    assert_eq!(gateway.metric("steadfast_in_flight_requests").await, 0.0);
}

#[tokio::test]
async fn an_upstream_that_fails_after_its_head_breaks_the_response() {
    let (sim, gateway) = gateway_with_sim("").await;
    for how in [Close::Fin, Close::Reset] {
        sim.script().once("/v1/responses", Act::cut(Point::Events(0), how));
        let request = wire::post("/v1/responses", STREAM).replacen("\r\n", "\r\nconnection: close\r\n", 1);
        let answer = client::raw(gateway.address, request.as_bytes()).await;
        // Depending on the timing, the gateway may have sent the head.
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }
    until_true("two access log lines", || gateway.access().len() == 2).await;
    for line in gateway.access() {
        assert!(
            line["outcome"] == "upstream_broken" || line["reason"] == "upstream_broken",
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_invalid_body_breaks_the_response() {
    let (sim, gateway) = gateway_with_sim("").await;
    let event = "event: response.created\ndata: {\"type\":\"response.created\"}\n\n";
    let chunked = format!("{}{}", wire::EVENTS, wire::chunk(event));
    let to_the_end = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let cases = [
        chunked.clone(),
        format!("{chunked}zz\r\n"),
        format!("{chunked}5\r\nhel"),
        format!("{chunked}5\r\nhello!!"),
        format!("{chunked}0\r\n"),
        // Only a terminal event could show that these responses are whole.
        format!("{to_the_end}{event}"),
        format!("{}{event}", to_the_end.replace("/1.1", "/1.0")),
        format!("{to_the_end}event: response.completed\ndata: {{\"type\":\"response.comp"),
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"a\"".to_owned(),
    ];
    for text in &cases {
        assert_breaks(&sim, &gateway, raw(text), STREAM).await;
    }
}

/// An HTTP/1.0 client takes a closed connection for the end of the response. Only a reset shows that the response is
/// broken.
#[tokio::test]
async fn a_broken_stream_is_reset_for_an_http_1_0_client() {
    let (sim, gateway) = gateway_with_sim("").await;
    for act in [
        Act::cut(Point::Events(3), Close::Fin),
        Act::cut(Point::Events(3), Close::Reset),
    ] {
        sim.script().once("/v1/responses", act);
        let request = wire::post("/v1/responses", STREAM).replace("HTTP/1.1", "HTTP/1.0");
        let answer = wire::ask(gateway.address, request).await;
        assert_eq!((answer.status, answer.end), (200, End::Reset), "{answer:?}");
    }
    let whole = wire::ask(
        gateway.address,
        wire::post("/v1/responses", STREAM).replace("HTTP/1.1", "HTTP/1.0"),
    )
    .await;
    assert_eq!(whole.end, End::Closed, "a whole response ends without a reset");
    assert!(whole.text().contains("event: response.completed"));
}

#[tokio::test]
async fn a_stream_that_ends_by_close_is_whole_after_its_last_event() {
    let (sim, gateway) = gateway_with_sim("").await;
    let events = "data: {\"type\":\"response.created\"}\n\ndata: {\"type\":\"response.completed\"}\n\n";
    let act = raw(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}"
    ));
    sim.script().always(act);
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert_eq!((answer.end, answer.text().as_str()), (End::Whole, events));
    let line = gateway.access_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(line["outcome"], "complete");
}

#[tokio::test]
async fn stale_pooled_connections_cause_no_errors() {
    let (sim, gateway) = gateway_with_sim("").await;
    sim.script().always(Act {
        after: After::Silent,
        ..Act::default()
    });
    let mut wire = Wire::open(gateway.address).await;
    for number in 0..100 {
        let body = if number % 2 == 0 { WHOLE } else { STREAM };
        wire.send(wire::post("/v1/responses", body)).await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.end),
            (200, End::Whole),
            "request {number}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn an_upstream_that_restarts_is_used_again() {
    let (mut sim, gateway) = gateway_with_sim("").await;
    let address = sim.address();
    let mut wire = Wire::open(gateway.address).await;
    for round in 0..5 {
        for _ in 0..3 {
            wire.send(wire::post("/v1/responses", WHOLE)).await;
            assert_eq!(wire.answer().await.status, 200, "round {round}");
        }
        sim.stop().await;
        let config = SimConfig {
            name: "a".to_owned(),
            ..SimConfig::default()
        };
        sim = Sim::start(address, config)
            .await
            .expect("the address can be bound again");
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_is_returned() {
    let (sim, gateway) = gateway_with_sim("").await;
    let early = Fixed {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        headers: HeaderMap::new(),
        pieces: vec![Bytes::from_static(b"too large for me")],
    };
    sim.script().always(Act {
        read: Read::Never,
        answer: ScriptedAnswer::Fixed(early),
        ..Act::default()
    });
    // The upstream resets the connection while the gateway is sending the body.
    let body = json!({"model": "gpt-5.2", "input": "x".repeat(10 << 20)}).to_string();
    for _ in 0..10 {
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body)).await;
        assert_eq!((answer.status, answer.text().as_str()), (413, "too large for me"));
    }
    // The upstream does the same while the client is still sending the body.
    let mut wire = Wire::open(gateway.address).await;
    wire.send("POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nbegun")
        .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "too large for me"));
}

#[tokio::test]
async fn a_failing_upstream_does_not_affect_the_sessions_of_another() {
    let sims = [sim("a").await, sim("b").await];
    let gateway = Gateway::before(&sims, "").await;
    sims[0]
        .script()
        .always(Act::answer(ScriptedAnswer::Close(Close::Reset)));
    let mut seen = [0, 0];
    for number in 0..20 {
        let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": format!("k{number}")}).to_string();
        let home = gateway.home(&format!("k{number}")).await;
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body)).await;
        if home == "b" {
            assert_eq!(answer.status, 200);
        }
        seen[usize::from(home == "b")] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[tokio::test]
async fn a_json_response_that_ends_by_close_must_be_complete_json() {
    let (sim, gateway) = gateway_with_sim("").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    for (body, is_whole) in [
        (r#"{"id":"resp_1","outp"#, false),
        (r#"{"id":"resp_1","output":[]}"#, true),
    ] {
        sim.script().once(
            "/v1/responses",
            Act::answer(ScriptedAnswer::Raw(format!("{head}{body}").into())),
        );
        let answer = wire::ask(
            gateway.address,
            wire::post("/v1/responses", r#"{"model":"gpt-5.2","input":"hi"}"#),
        )
        .await;
        assert_eq!(answer.end == wire::End::Whole, is_whole, "{answer:?}");
    }
}
