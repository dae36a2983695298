//! Streams: they are forwarded as they arrive, whole and in order, and no faster than the receiver reads.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use steadfast::sim::{Act, Fixed, Received, ScriptedAnswer};
use tokio::{net::TcpListener, time::timeout};

use crate::kit::{
    STREAM,
    gateway::{self, Gateway},
    gateway_with_sim, sim_with, until_true,
    wire::{self, End, Wire},
};

/// Starts a gateway in front of an upstream that the test operates byte by byte.
async fn gateway_before_listener() -> (TcpListener, Gateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let config = gateway::upstream_at("a", &format!("http://{address}/v1"), "");
    (listener, Gateway::configured(&config).await)
}

async fn accept(listener: &TcpListener) -> Wire {
    Wire::over(
        timeout(crate::kit::TIMEOUT, listener.accept())
            .await
            .expect("a connection in time")
            .expect("a connection")
            .0,
    )
}

#[tokio::test]
async fn events_are_forwarded_one_by_one() {
    let (listener, gateway) = gateway_before_listener().await;
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", STREAM)).await;
    let mut upstream = accept(&listener).await;
    upstream.skip_to(STREAM).await;
    upstream.send(wire::EVENTS).await;
    assert!(
        client.head().await.starts_with("http/1.1 200"),
        "the head is sent before the first event"
    );
    for number in 0..50 {
        let event = format!("data: {{\"type\":\"x\",\"n\":{number}}}\n\n");
        upstream.send(wire::chunk(&event)).await;
        // The next event is sent after the client has received this one.
        client.skip_to(&event).await;
    }
    // Half an event is forwarded at once as well.
    upstream.send(wire::chunk("data: {\"ha")).await;
    client.skip_to("data: {\"ha").await;
}

#[tokio::test]
async fn an_upload_is_forwarded_as_it_arrives() {
    let (listener, gateway) = gateway_before_listener().await;
    let mut client = Wire::open(gateway.address).await;
    client
        .send("POST /v1/files HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    assert!(upstream.head().await.contains("transfer-encoding: chunked"));
    for number in 0..50 {
        let piece = format!("piece {number};");
        client.send(wire::chunk(&piece)).await;
        upstream.skip_to(&piece).await;
    }
    client.send("0\r\n\r\n").await;
    upstream.skip_to("0\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test]
async fn the_sizes_of_pieces_do_not_change_a_stream() {
    let (sim, gateway) = gateway_with_sim("").await;
    let events: Vec<_> = (0..40)
        .map(|n| json!({"type": "response.x", "n": n, "text": "grüße 🎈"}))
        .collect();
    let events = [events, vec![json!({"type": "response.completed"})]].concat();
    let mut bodies = Vec::new();
    for split in [None, Some(1), Some(2), Some(3), Some(7), Some(64)] {
        let mut act = Act::events(&events);
        act.split = split;
        sim.script().once("/v1/responses", act);
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert_eq!(answer.end, End::Whole, "{split:?}");
        bodies.push(answer.text());
    }
    assert!(bodies[0].contains("grüße 🎈") && bodies[0].len() > 2000);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn ten_megabytes_pass_byte_for_byte_both_ways() {
    let (sim, gateway) = gateway_with_sim("").await;
    let echo = |received: &Received| Fixed {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            "application/json".parse().expect("a valid header value"),
        )]),
        pieces: vec![received.body.clone()],
    };
    sim.script().always(Act::answer(ScriptedAnswer::Custom(Arc::new(echo))));
    let text: String = (0..10 << 20)
        .map(|n: u32| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect();
    let body = json!({"model": "gpt-5.2", "input": text}).to_string();
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body)).await;
    assert!(answer.end == End::Whole && answer.body == body.as_bytes(), "by length");
    let pieces: String = body
        .as_bytes()
        .chunks(70_001)
        .map(|piece| wire::chunk(std::str::from_utf8(piece).expect("ASCII")))
        .collect();
    let head = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = wire::ask(gateway.address, format!("{head}{pieces}0\r\n\r\n")).await;
    assert!(answer.end == End::Whole && answer.body == body.as_bytes(), "chunked");
    assert!(sim.requests()[1].headers.contains_key("transfer-encoding"));
}

/// Writes until the peer stops reading. Returns the number of bytes written.
async fn write_until_blocked(wire: &Wire, limit: usize) -> usize {
    let piece = vec![b'x'; 64 << 10];
    let mut written = 0;
    while written < limit {
        if timeout(Duration::from_millis(700), wire.stream.writable())
            .await
            .is_err()
        {
            break;
        }
        written += wire.stream.try_write(&piece).unwrap_or(0);
    }
    written
}

const LARGE_BODY: usize = 100 << 20;
/// The maximum size of the kernel's buffers of four sockets and of the program's own buffers, in bytes.
const MAX_BUFFERED: usize = 48 << 20;

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_upstream_down() {
    let (listener, gateway) = gateway_before_listener().await;
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", STREAM)).await;
    let mut upstream = accept(&listener).await;
    upstream.skip_to(STREAM).await;
    let before = gateway.resident();
    upstream
        .send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE_BODY}\r\n\r\n"))
        .await;
    let written = write_until_blocked(&upstream, LARGE_BODY).await;
    assert!(
        written < MAX_BUFFERED,
        "{written} bytes went to a client that reads nothing"
    );
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "the gateway holds {grown} bytes");
    // When the client reads, it receives everything.
    let rest = vec![b'x'; LARGE_BODY - written];
    let (answer, ()) = tokio::join!(client.answer(), upstream.send(&rest));
    assert_eq!((answer.end, answer.body.len()), (End::Whole, LARGE_BODY));
    assert!(gateway.resident().saturating_sub(before) < 8 << 20);
}

#[tokio::test]
async fn an_upstream_that_does_not_read_slows_its_client_down() {
    let (listener, gateway) = gateway_before_listener().await;
    let mut client = Wire::open(gateway.address).await;
    let before = gateway.resident();
    let length = 60 << 20;
    client
        .send(format!(
            "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
    let mut upstream = accept(&listener).await;
    upstream.head().await;
    let written = write_until_blocked(&client, length).await;
    assert!(
        written < MAX_BUFFERED,
        "{written} bytes went to an upstream that reads nothing"
    );
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "the gateway holds {grown} bytes");
    let rest = vec![b'x'; length - written];
    tokio::join!(client.send(&rest), upstream.take(length));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.text(), "ok");
}

/// Requests one stream and checks that it is whole, in order, and not the stream of another request.
async fn request_one_stream(address: SocketAddr, number: usize) {
    let input = format!("stream number {number}");
    let body = json!({"model": "gpt-5.2", "input": input, "stream": true, "prompt_cache_key": number.to_string()});
    let answer = wire::ask(address, wire::post("/v1/responses", &body.to_string())).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole), "{number}");
    let text = answer.text();
    let numbers: Vec<u64> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.strip_prefix("data: ")?).ok())
        .map(|event| event["sequence_number"].as_u64().expect("a number"))
        .collect();
    assert!(
        numbers.len() > 10 && numbers.iter().copied().eq(0..numbers.len() as u64),
        "{number}: {numbers:?}"
    );
    assert!(text.contains("event: response.completed"), "{number}");
    assert!(
        text.contains(&format!("\"prompt_cache_key\":\"{number}\"")),
        "{number}: the stream of another request"
    );
}

#[tokio::test]
async fn three_hundred_concurrent_streams_are_whole_and_leak_nothing() {
    let sim = sim_with("a", |config| {
        config.pace = Duration::from_millis(50);
        config.deltas = 40;
        config.record = false;
    })
    .await;
    // The upstream closes its connections, because pooled connections would hide a leak.
    sim.script().always(Act {
        after: steadfast::sim::After::Announced,
        ..Act::default()
    });
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    request_one_stream(gateway.address, 0).await;
    until_true("the upstream connection to be closed", || {
        sim.counts().open_connections == 0
    })
    .await;
    let (descriptors, resident) = (gateway.descriptors(), gateway.resident());
    for _ in 0..2 {
        let streams: Vec<_> = (0..300)
            .map(|number| tokio::spawn(request_one_stream(gateway.address, number)))
            .collect();
        until_true("all streams to run at once", || sim.counts().in_flight == 300).await;
        for stream in streams {
            stream.await.expect("the stream is whole");
        }
        until_true("file descriptors to be released", || {
            gateway.descriptors() <= descriptors
        })
        .await;
    }
    // 600 leaked streams would take over 16 MiB. Code and tables stay in memory after their first use.
    until_true("memory to be released", || gateway.resident() < resident + (8 << 20)).await;
    assert_eq!(gateway.metric("steadfast_in_flight_requests").await, 0.0);
}

#[tokio::test]
async fn a_stalled_stream_does_not_block_another() {
    let (sim, gateway) = gateway_with_sim("").await;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let fixed = Fixed {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        pieces: vec![large; 64],
    };
    let mut stuck = Vec::new();
    for _ in 0..8 {
        sim.script()
            .once("/v1/responses", Act::answer(ScriptedAnswer::Fixed(fixed.clone())));
        let mut wire = Wire::open(gateway.address).await;
        wire.send(wire::post("/v1/responses", STREAM)).await;
        wire.head().await;
        stuck.push(wire);
    }
    for _ in 0..10 {
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert_eq!((answer.status, answer.end), (200, End::Whole));
    }
    assert_eq!(sim.counts().in_flight, 8);
}
