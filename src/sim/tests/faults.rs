//! Tests of scripted faults, observed on the wire.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use http::header::RETRY_AFTER;

use super::super::{Accept, Act, After, Close, Ending, Fixed, Point, Read, Rule, ScriptedAnswer};
use super::*;

fn count(haystack: &[u8], needle: &str) -> usize {
    memchr::memmem::find_iter(haystack, needle.as_bytes()).count()
}

#[tokio::test]
async fn statuses_headers_and_bodies_are_as_scripted() {
    let sim = start_named("sim-a").await;
    let error = json!({"error": {"type": "usage_limit_reached", "message": "m"}});
    let act = Act::reply(StatusCode::TOO_MANY_REQUESTS, &error).header(RETRY_AFTER, "7".parse().unwrap());
    sim.script().once("/v1/responses", act);
    let reply = ask(&sim, &hello()).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (StatusCode::TOO_MANY_REQUESTS, "7")
    );
    assert_eq!(reply.json(), error);
    assert_eq!(
        ask(&sim, &hello()).await.status,
        StatusCode::OK,
        "the rule applies once"
    );

    let failed = json!({"type": "response.failed", "response": {"error": {"code": "server_is_overloaded"}}});
    sim.script().once(
        "/v1/responses",
        Act::events(&[json!({"type": "response.created"}), failed.clone()]),
    );
    assert_eq!(ask(&sim, &hello_stream()).await.events()[1], failed);

    let echo = ScriptedAnswer::Custom(Arc::new(|received| Fixed {
        status: StatusCode::ACCEPTED,
        headers: HeaderMap::from_iter([(HeaderName::from_static("x-echo"), received.head.headers["host"].clone())]),
        pieces: vec![received.body.clone()],
    }));
    sim.script().once("/v1/responses", Act::answer(echo));
    let reply = ask(&sim, &hello()).await;
    assert_eq!(
        (reply.status, reply.header("x-echo"), reply.json()),
        (StatusCode::ACCEPTED, "sim", hello())
    );
    sim.stop().await;
}

#[tokio::test]
async fn scripted_items_are_streamed_to_the_request_they_are_for() {
    let sim = start_named("sim-a").await;
    let call = json!({"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "call_1"});
    let act = Act::answer(ScriptedAnswer::Items(vec![call.clone()]));
    sim.script()
        .add(Rule::new(act).times(1).body(|body| body["input"] == "Say hello."));
    assert_eq!(
        ask(&sim, &json!({"model": "m", "input": "other"})).await.json()["output"][0]["type"],
        "message"
    );
    let events = ask(&sim, &hello_stream()).await.events();
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(
        (&output[0]["name"], &output[0]["status"]),
        (&call["name"], &json!("completed"))
    );
    sim.script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Items(vec![call])));
    get(&sim, "/v1/models").await;
    assert_eq!(ask(&sim, &hello()).await.json()["output"][0]["call_id"], "call_1");
    sim.stop().await;
}

#[tokio::test]
async fn a_cut_stream_ends_after_the_event_and_without_its_terminator() {
    let sim = start_named("sim-a").await;
    for events in [0, 1, 4] {
        sim.script()
            .once("/v1/responses", Act::cut(Point::Events(events), Close::Fin));
        let (seen, end) = read_all(&mut dial(&sim, &raw(&hello_stream())).await).await;
        assert!(seen.starts_with(b"HTTP/1.1 200 OK\r\n") && end.is_ok());
        assert_eq!(count(&seen, "event: "), events);
        assert!(!seen.ends_with(b"0\r\n\r\n"), "a cut stream must not look complete");
        sim.script()
            .once("/v1/responses", Act::cut(Point::Events(events), Close::Fin));
        assert!(
            send(&sim, request("POST", "/v1/responses", &[], hello_stream().to_string()))
                .await
                .is_err()
        );
    }
    assert!(sim.requests().iter().all(|request| request.ending == Ending::Cut));
    assert_eq!(sim.counts().aborted, 0);
    sim.stop().await;
}

#[tokio::test]
async fn a_body_can_be_cut_after_any_byte() {
    let sim = start_named("sim-a").await;
    for bytes in [0, 1, 100, 500] {
        sim.script()
            .once("/v1/responses", Act::cut(Point::Bytes(bytes), Close::Fin));
        let (seen, end) = read_all(&mut dial(&sim, &raw(&hello())).await).await;
        let head = memchr::memmem::find(&seen, b"\r\n\r\n").unwrap() + 4;
        assert!(count(&seen, "content-length: ") == 1 && end.is_ok());
        assert_eq!(seen.len() - head, bytes);
    }
    sim.stop().await;
}

#[tokio::test]
async fn a_scripted_reset_is_a_tcp_reset() {
    let sim = start_named("sim-a").await;
    sim.script()
        .once("/v1/responses", Act::cut(Point::Events(2), Close::Reset));
    let mut tcp = dial(&sim, &raw(&hello_stream())).await;
    assert_eq!(
        read_all(&mut tcp).await.1.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    sim.script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Close(Close::Reset)));
    let (seen, end) = read_all(&mut dial(&sim, &raw(&hello())).await).await;
    assert_eq!(
        (seen.len(), end.unwrap_err().kind()),
        (0, std::io::ErrorKind::ConnectionReset)
    );
    sim.stop().await;
}

#[tokio::test]
async fn connections_can_close_before_the_head_or_send_other_bytes_than_http() {
    let sim = start_named("sim-a").await;
    sim.script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Close(Close::Fin)));
    let (seen, end) = read_all(&mut dial(&sim, &raw(&hello())).await).await;
    assert!(seen.is_empty() && end.is_ok());
    let garbage = Bytes::from_static(b"HTTP/1.1 two hundred\r\n\r\n");
    sim.script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Raw(garbage.clone())));
    assert_eq!(read_all(&mut dial(&sim, &raw(&hello())).await).await.0, garbage);
    sim.script().accept(Accept::Close(Close::Fin));
    assert!(read_all(&mut dial(&sim, b"").await).await.0.is_empty());
    sim.script().clear();
    assert_eq!(ask(&sim, &hello()).await.status, StatusCode::OK);
    sim.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_every_stage_of_the_request() {
    let sim = start_named("sim-a").await;
    let acts = [
        (Act::stall(Point::Events(3)), "event: response.output_item.added"),
        (Act::stall(Point::Bytes(10)), "\r\n\r\n"),
        (Act::answer(ScriptedAnswer::Never), ""),
        (Act::delay(PATIENCE), ""),
    ];
    for (n, (act, marker)) in acts.into_iter().enumerate() {
        sim.script().once("/v1/responses", act);
        let mut tcp = dial(&sim, &raw(&hello_stream())).await;
        until(&sim, |counts| counts.in_flight == 1).await;
        read_until(&mut tcp, marker).await;
        assert_eq!(sim.requests()[n].ending, Ending::Open);
        drop(tcp);
        until(&sim, |counts| counts.in_flight == 0 && counts.open_connections == 0).await;
        assert_eq!(
            (sim.counts().aborted, sim.requests()[n].ending),
            (n as u64 + 1, Ending::Aborted)
        );
    }
    sim.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_sends_its_body_is_noticed() {
    let sim = start_named("sim-a").await;
    let whole = raw(&hello());
    let tcp = dial(&sim, whole.get(..whole.len() - 5).unwrap()).await;
    until(&sim, |counts| counts.in_flight == 1).await;
    drop(tcp);
    until(&sim, |counts| counts.open_connections == 0).await;
    let recorded = &sim.requests()[0];
    assert_eq!((recorded.ending, sim.counts().aborted), (Ending::Aborted, 1));
    assert!(whole.get(..whole.len() - 5).unwrap().ends_with(&recorded.body));
    sim.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_event_does_not_count_as_aborted() {
    let sim = start_named("sim-a").await;
    let act = Act {
        stall: Some(Point::Events(16)),
        ..Act::default()
    };
    sim.script().once("/v1/responses", act);
    let mut tcp = dial(&sim, &raw(&hello_stream())).await;
    read_until(&mut tcp, "event: response.completed").await;
    drop(tcp);
    until(&sim, |counts| counts.open_connections == 0).await;
    assert_eq!((sim.requests()[0].ending, sim.counts().aborted), (Ending::Complete, 0));
    sim.stop().await;
}

#[tokio::test]
async fn connections_close_with_or_without_announcement() {
    let sim = start_named("sim-a").await;
    for (after, stream) in [
        (After::Announced, false),
        (After::Announced, true),
        (After::Silent, false),
        (After::Silent, true),
    ] {
        sim.script().once(
            "/v1/responses",
            Act {
                after,
                ..Act::default()
            },
        );
        let body = if stream { hello_stream() } else { hello() };
        let (seen, end) = read_all(&mut dial(&sim, &raw(&body)).await).await;
        assert!(end.is_ok());
        assert_eq!(count(&seen, "connection: close") == 1, after == After::Announced);
        let complete = if stream {
            seen.ends_with(b"0\r\n\r\n")
        } else {
            seen.ends_with(b"}")
        };
        assert!(complete, "{}", String::from_utf8_lossy(&seen));
    }
    assert!(sim.requests().iter().all(|request| request.ending == Ending::Complete));
    sim.stop().await;
}

#[tokio::test]
async fn a_reused_connection_can_be_treated_differently() {
    let sim = start_named("sim-a").await;
    sim.script()
        .add(Rule::new(Act::answer(ScriptedAnswer::Close(Close::Fin))).head(|head| head.nth > 1));
    let mut tcp = dial(&sim, &raw(&hello_stream())).await;
    read_until(&mut tcp, "0\r\n\r\n").await;
    tcp.write_all(&raw(&hello())).await.unwrap();
    assert!(read_all(&mut tcp).await.0.is_empty());
    let recorded = sim.requests();
    assert_eq!(
        (recorded.len(), recorded[0].connection, recorded[1].connection),
        (2, 1, 1)
    );
    assert_eq!(ask(&sim, &hello()).await.status, StatusCode::OK);
    sim.stop().await;
}

#[tokio::test]
async fn events_can_be_split_at_any_byte() {
    let sim = start_named("sim-a").await;
    let whole = ask(&sim, &hello_stream()).await;
    sim.script().once(
        "/v1/responses",
        Act {
            split: Some(7),
            ..Act::default()
        },
    );
    let (seen, _) = {
        let mut tcp = dial(&sim, &raw(&hello_stream())).await;
        (read_until(&mut tcp, "\r\n0\r\n\r\n").await, ())
    };
    assert!(count(&seen, "\r\n7\r\n") > 50, "chunks of seven bytes");
    sim.script().once(
        "/v1/responses",
        Act {
            split: Some(1),
            ..Act::default()
        },
    );
    let split = ask(&sim, &hello_stream()).await;
    let types =
        |reply: &TestResponse| -> Vec<Value> { reply.events().iter().map(|event| event["type"].clone()).collect() };
    assert_eq!(types(&split), types(&whole));
    sim.stop().await;
}

#[tokio::test]
async fn bodies_are_read_slowly_or_not_at_all() {
    let sim = start_named("sim-a").await;
    let slow = Read::Slow {
        bytes: 16,
        every: Duration::from_millis(5),
    };
    sim.script().once(
        "/v1/responses",
        Act {
            read: slow,
            ..Act::default()
        },
    );
    let began = Instant::now();
    assert_eq!(
        ask(&sim, &json!({"model": "m", "input": "x".repeat(160)})).await.status,
        StatusCode::OK
    );
    assert!(began.elapsed() >= Duration::from_millis(50));

    sim.script().once(
        "/v1/responses",
        Act {
            read: Read::Never,
            ..Act::default()
        },
    );
    let big = raw(&json!({"model": "m", "input": "x".repeat(8 << 20)}));
    let mut tcp = TcpStream::connect(sim.address()).await.unwrap();
    let stuck = timeout(Duration::from_millis(200), tcp.write_all(&big)).await;
    assert!(stuck.is_err(), "back-pressure reaches the sender");
    assert_eq!(sim.requests().last().unwrap().body.len(), 0);
    drop(tcp);

    let refuse = Act::reply(StatusCode::PAYLOAD_TOO_LARGE, &json!({}));
    sim.script().once(
        "/v1/responses",
        Act {
            read: Read::Never,
            ..refuse
        },
    );
    let mut tcp = dial(&sim, big.get(..200).unwrap()).await;
    read_until(&mut tcp, "HTTP/1.1 413").await;
    sim.stop().await;
}

#[tokio::test]
async fn answers_and_streams_take_the_configured_time() {
    let pace = Duration::from_millis(10);
    let sim = start(SimConfig {
        pace,
        deltas: 5,
        ..SimConfig::default()
    })
    .await;
    for body in [hello(), hello_stream()] {
        let began = Instant::now();
        assert_eq!(ask(&sim, &body).await.status, StatusCode::OK);
        assert!(began.elapsed() >= pace * 5);
    }
    sim.script().once("/v1/responses", Act::delay(pace * 20));
    sim.script().accept(Accept::Delay(pace * 10));
    let began = Instant::now();
    ask(&sim, &hello()).await;
    assert!(began.elapsed() >= pace * 30);
    sim.stop().await;
}
