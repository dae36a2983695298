//! Edge cases of HTTP/1.1: early responses, slow readers, padded chunks, trickling heads.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use steadfast::sim::{Act, Point};

use crate::kit::{
    gateway::{self, Gateway},
    gateway_with_sim, tls, until_true,
    wire::{self, Wire},
};

const GET: &str = "GET /v1/files/x HTTP/1.1\r\nhost: localhost\r\n\r\n";
const MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// The time limit for one step of a test.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Starts a gateway in front of an upstream with a small receive buffer, which the test operates.
async fn upstream(head: &str) -> (TcpListener, Gateway) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = socket.listen(64).expect("the server accepts connections");
    let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
    let config = format!("{head}{}", gateway::upstream_at("a", &url, ""));
    (listener, Gateway::configured(&config).await)
}

/// Starts a gateway in front of an upstream that answers one request on each connection with `answer` and closes the
/// connection.
async fn gateway_with_response(answer: Vec<u8>) -> Gateway {
    let (listener, gateway) = upstream("").await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut wire = Wire::over(stream);
                wire.head().await;
                wire.send(answer).await;
            });
        }
    });
    gateway
}

fn response_of_size(size: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + size, b'x');
    answer
}

/// Reads slowly to the end of the connection. Returns the number of bytes, and whether the end was orderly.
async fn read_slowly(client: &mut TcpStream) -> (usize, bool) {
    let mut piece = vec![0; 64 << 10];
    let mut count = 0;
    loop {
        // This sleep models a slow client. Its unread bytes stay in the kernel.
        tokio::time::sleep(Duration::from_millis(5)).await;
        match client.read(&mut piece).await {
            Ok(0) => return (count, true),
            Ok(read) => count += read,
            Err(_) => return (count, false),
        }
    }
}

/// Sends `body` until the peer stops reading. Returns the number of bytes sent.
async fn send_until_blocked(client: &mut TcpStream, body: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(Ok(count)) = timeout(Duration::from_millis(300), client.write(&body[sent..])).await {
        sent += count;
    }
    sent
}

#[tokio::test]
async fn an_early_response_does_not_truncate_the_upload() {
    const SIZE: usize = 16 << 20;
    let (listener, gateway) = upstream("").await;
    let mut client = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {SIZE}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.expect("the peer reads");
    let body = vec![b'u'; SIZE];
    let sent = send_until_blocked(&mut client, &body).await;
    assert!(sent < SIZE, "the upload has to wait");

    let (stream, _) = listener.accept().await.expect("a connection");
    let mut early = Wire::over(stream);
    early.head().await;
    early.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
    let mut answer = vec![0; 15];
    client.read_exact(&mut answer).await.expect("the response begins");
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    // The upstream receives the rest of the upload during the response. Afterwards the connection is reused or closed,
    // but it never stays in the middle of the upload.
    let upload = tokio::spawn(async move {
        let _ = client.write_all(&body[sent..]).await;
        client
    });
    timeout(STEP_LIMIT, early.take(SIZE))
        .await
        .expect("the whole upload in time");
    early.send("ok").await;
    drop(upload.await);
    let next = tokio::spawn(async move { wire::ask(gateway.address, GET).await });
    let (stream, _) = tokio::select! {
        accepted = listener.accept() => accepted.expect("a connection"),
        head = early.head() => {
            assert!(head.starts_with("get /v1/files/x http/1.1\r\n"), "{head}");
            early.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            assert_eq!(next.await.expect("a response").status, 200);
            return;
        }
    };
    let mut other = Wire::over(stream);
    other.head().await;
    other.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(next.await.expect("a response").status, 200);
}

#[tokio::test]
async fn a_slow_reader_receives_the_whole_last_response() {
    const SIZE: usize = 4 << 20;
    let gateway = gateway_with_response(response_of_size(SIZE)).await;
    for head in [
        "GET /v1/files/x HTTP/1.0\r\nhost: localhost\r\n\r\n",
        "GET /v1/files/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        // Unread bytes after the last request must not turn the end into a reset.
        "GET /v1/files/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\nGET /v1/files/y HTTP/1.1\r\n",
    ] {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        let mut client = socket
            .connect(gateway.address)
            .await
            .expect("the server accepts connections");
        client.write_all(head.as_bytes()).await.expect("the peer reads");
        let (count, whole) = read_slowly(&mut client).await;
        assert!(whole && count > SIZE, "{head}: {count} of {SIZE}");
    }
}

#[tokio::test]
async fn a_head_that_has_begun_is_served_during_shutdown() {
    let (sim, mut gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send("GET /v1/mod").await;
    // A response on another connection shows that the first connection has been accepted.
    assert_eq!(wire::ask(gateway.address, MODELS).await.status, 200);
    gateway.signal("TERM").await;
    let is_stopping = || gateway.log().iter().any(|line| line.contains("stopping"));
    until_true("the gateway to begin its shutdown", is_stopping).await;
    for part in ["els HTTP/1.1\r\nho", "st: ", "localhost\r\n\r\n"] {
        wire.send(part).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.answer().await.status, 200);
    drop(wire);
    assert!(gateway.ended().await.success());
    assert!(!gateway.log().iter().any(|line| line.contains("panicked")));
    drop(sim);
}

#[tokio::test]
async fn chunks_with_padded_sizes_and_extensions_are_accepted() {
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..4_000 {
        answer.extend_from_slice(b"00000010;signature=0123456789abcdef\r\n0123456789abcdef\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    let gateway = gateway_with_response(answer).await;
    let answer = wire::ask(gateway.address, GET).await;
    assert_eq!((answer.body.len(), answer.end), (64_000, wire::End::Whole));
}

#[tokio::test]
async fn a_204_response_has_no_content_length() {
    let gateway = gateway_with_response(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n".to_vec()).await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send(GET).await;
    let head = wire.head().await;
    assert!(
        head.starts_with("http/1.1 204 ") && !head.contains("content-length"),
        "{head}"
    );
}

#[tokio::test]
async fn a_response_head_that_trickles_in_times_out() {
    for endless in ["HTTP/1.1 200 OK\r\nx: ", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (listener, gateway) = upstream("[timeouts]\nhead = \"500ms\"\n").await;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut wire = Wire::over(stream);
            wire.head().await;
            // This sleep models a slow upstream: each pause is shorter than the limit.
            for byte in endless.bytes().cycle() {
                if wire.stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let begun = Instant::now();
        let answer = timeout(STEP_LIMIT, wire::ask(gateway.address, GET))
            .await
            .expect("the gateway gives up in time");
        assert_eq!((answer.status, answer.error_code().as_str()), (504, "upstream_timeout"));
        assert!(begun.elapsed() >= Duration::from_millis(500));
    }
}

#[tokio::test]
async fn the_number_of_interim_responses_is_limited() {
    let gateway = gateway_with_response(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000)).await;
    let answer = wire::ask(gateway.address, GET).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "upstream_broken"));
}

#[tokio::test]
async fn an_upload_over_http2_continues_after_a_pause() {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, _connections) = tls::http2_upstream(&identity, |request: http::Request<Bytes>| {
        let (mut sender, body) = Channel::new(4);
        let said = Bytes::from(format!("got {}", request.body().len()));
        tokio::spawn(async move {
            let _ = sender.send_data(said).await;
        });
        body
    })
    .await;
    let lines = format!("ca = {:?}\nhttp2 = true", identity.ca);
    let config = gateway::upstream_at("a", &format!("https://{address}/v1"), &lines);
    let gateway = Gateway::configured(&config).await;
    for _ in 0..2 {
        let mut wire = Wire::open(gateway.address).await;
        let first = "a".repeat(600_000);
        let head =
            "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 600010\r\n\r\n";
        wire.send(format!("{head}{first}")).await;
        // This sleep models a slow client: the pause is longer than the interval at which the gateway checks for it.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        wire.send("0123456789").await;
        let answer = timeout(STEP_LIMIT, wire.answer()).await.expect("a response");
        assert_eq!((answer.status, answer.text().as_str()), (200, "got 600010"));
    }
}

#[tokio::test]
async fn an_empty_line_after_a_request_is_not_a_head() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"300ms\"\n").await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send(MODELS.to_owned() + "\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
    wire.send("\r\n").await;
    let mut byte = [0];
    let closed = timeout(Duration::from_secs(1), wire.stream.read(&mut byte)).await;
    assert!(closed.is_err(), "{closed:?}");
    wire.send(MODELS).await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn a_body_that_has_been_sent_holds_no_memory() {
    const STREAMS: u64 = 300;
    // The request may be sent again until the first output, or until the time to wait for it has passed.
    for (head, last) in [("", 5), ("[retry]\ndecide_within = \"10ms\"\n", 1)] {
        let (sim, gateway) = gateway_with_sim(head).await;
        sim.script().always(Act::stall(Point::Events(last)));
        let input = "a".repeat(250_000);
        let body = format!(r#"{{"model":"gpt-5.2","stream":true,"input":"{input}"}}"#);
        let before = gateway.resident();
        let mut held = Vec::new();
        for _ in 0..STREAMS {
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", &body)).await;
            wire.head().await;
            held.push(wire);
        }
        let each = || gateway.resident().saturating_sub(before) / STREAMS;
        // Less than the buffer for one head: neither the body nor the head is held any more.
        until_true("bodies and heads to be released", || each() < 50_000).await;
    }
}
