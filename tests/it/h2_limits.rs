//! HTTP/2 towards clients: slow and hostile clients are disconnected, and other clients are not affected.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{Full, channel::Channel};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use steadfast::sim::Act;
use tokio::{net::TcpStream, time::timeout};

use crate::kit::{
    frames::{CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS, fields},
    gateway_with_sim,
    h2::{PLAIN, Sender, connect_h2c, post, read_whole, request, start_http2},
};

#[tokio::test]
async fn long_bodies_are_refused_early_and_slow_bodies_time_out() {
    let (sim, gateway) =
        gateway_with_sim("[server]\nmax_body = \"2KiB\"\nbuffered_bodies = \"4KiB\"\n[timeouts]\nidle = \"300ms\"\n")
            .await;
    let stream = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let mut sender: Sender<Channel<Bytes, std::io::Error>> = start_http2(stream).await;
    let head = |length: Option<u64>| {
        let head = Request::post("http://localhost/v1/responses").header("content-type", "application/json");
        match length {
            Some(length) => head.header("content-length", length),
            None => head,
        }
    };
    // The gateway refuses the request by its length, before any byte of the body is sent.
    let (_unsent, body) = Channel::new(1);
    let response = sender
        .send_request(head(Some(3000)).body(body).expect("a valid request"))
        .await
        .expect("a response");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // One body is too long, and one body pauses.
    let (mut long, body) = Channel::new(8);
    let response = sender.send_request(head(None).body(body).expect("a valid request"));
    for _ in 0..4 {
        let _ = long.send_data(vec![b' '; 1000].into()).await;
    }
    assert_eq!(
        response.await.expect("a response").status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let (mut slow, body) = Channel::new(8);
    let response = sender.send_request(head(Some(100)).body(body).expect("a valid request"));
    let _ = slow.send_data("{".into()).await;
    assert_eq!(
        response.await.expect("a response").status(),
        StatusCode::REQUEST_TIMEOUT
    );
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn a_stream_that_the_client_does_not_read_times_out() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"700ms\"\n").await;
    let answer = "x".repeat(1 << 20);
    sim.script()
        .always(Act::reply(StatusCode::OK, &serde_json::json!({"output": answer})));
    let stream = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    let response = sender.send_request(post(PLAIN)).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    gateway.metric_reaches("steadfast_in_flight_requests", 0.0).await;
    drop(response);
    // The connection is still usable.
    let again = sender
        .send_request(request(Method::GET, "/v1/nope-at-all", ""))
        .await
        .expect("a response");
    assert!(again.status().is_client_error() || again.status().is_success());
}

/// A client with an empty flow-control window cannot receive any response, not even an error. Without a limit it would
/// hold its connection forever.
#[tokio::test]
async fn a_client_with_an_empty_window_is_disconnected() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"300ms\"\n").await;
    let mut silent = Frames::open(gateway.address).await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    silent.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let nowhere = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/nope"),
    ]);
    for stream in [1, 3] {
        silent.send(HEADERS, END_HEADERS | END_STREAM, stream, &nowhere).await;
    }
    silent.until_closed().await;
}

#[tokio::test]
async fn a_client_without_a_request_is_disconnected() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"300ms\"\n").await;
    let silent = Frames::open(gateway.address).await;
    silent.until_closed().await;
}

fn get_fields() -> Vec<u8> {
    fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/v1/files"),
    ])
}

#[tokio::test]
async fn floods_end_the_connection_and_do_not_affect_other_clients() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let before = gateway.resident();
    // Rapid reset (CVE-2023-44487).
    let mut reset = Frames::open(gateway.address).await;
    for number in 0..200_000_u32 {
        let stream = 2 * number + 1;
        let alive = reset
            .send(HEADERS, END_HEADERS | END_STREAM, stream, &get_fields())
            .await
            && reset.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await;
        if !alive {
            break;
        }
    }
    reset.until_closed().await;
    // A head without an end (CVE-2024-27316).
    let mut endless = Frames::open(gateway.address).await;
    endless.send(HEADERS, END_STREAM, 1, &get_fields()).await;
    let more = fields(&[("x-more", &"y".repeat(100))]).repeat(100);
    for _ in 0..10_000 {
        if !endless.send(CONTINUATION, 0, 1, &more).await {
            break;
        }
    }
    endless.until_closed().await;
    // The client sends pings and does not read the responses.
    let mut pings = Frames::open(gateway.address).await;
    for number in 0..200_000_u64 {
        let sent = timeout(
            Duration::from_millis(500),
            pings.send(PING, 0, 0, &number.to_be_bytes()),
        )
        .await;
        if sent != Ok(true) {
            break;
        }
    }
    let (status, _) = read_whole(
        connect_h2c(&gateway)
            .await
            .send_request(post(PLAIN))
            .await
            .expect("a response"),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}
