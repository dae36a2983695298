//! Limits: slow clients, large bodies and many connections are limited, and other clients are not affected.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use steadfast::sim::{Act, Ending, Fixed, Rule, ScriptedAnswer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::kit::{
    STREAM, TIMEOUT,
    gateway::{self, Gateway},
    gateway_with_sim, until, until_true,
    upstream::{request, serve_connections},
    wire::{self, End, Wire},
};

/// The number of slow clients of each kind.
const SLOW_CLIENTS: usize = 200;
/// The time limit that applies to each of them.
const LIMIT: Duration = Duration::from_secs(5);
/// The additional time after the limit within which a client must be disconnected on a busy machine.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Sends a head that never ends: clients with an odd number pause in it, the others send a byte at a time.
async fn slow_head(address: SocketAddr, number: usize) {
    let mut wire = Wire::open(address).await;
    wire.send("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        .await;
    if number.is_multiple_of(2) {
        let mut dripping = tokio::time::interval(Duration::from_millis(100));
        // A write fails after the server has closed the connection.
        while wire.stream.try_write(b"x").is_ok() {
            dripping.tick().await;
        }
    }
    wire.closing().await;
    assert!(!wire.rest().contains(" 200 "), "{}", wire.rest());
}

/// Sends a body that never ends: half of these bodies are inspected, the others are streamed to the upstream.
async fn slow_body(address: SocketAddr, number: usize) {
    let path = if number.is_multiple_of(2) { "responses" } else { "files" };
    let mut wire = Wire::open(address).await;
    wire.send(format!(
        "POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    ))
    .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (408, "request_timeout"));
    wire.closing().await;
}

/// Opens a connection with a small receive buffer.
async fn connect_with_small_buffer(address: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    Wire::over(socket.connect(address).await.expect("the server accepts connections"))
}

/// Sends requests until `stop` is set. Returns the number of responses and the duration of the slowest.
async fn send_until_stopped(address: SocketAddr, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut served, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answer = wire::ask(address, wire::post("/v1/responses", STREAM)).await;
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
        served += 1;
        slowest = slowest.max(begun.elapsed());
    }
    (served, slowest)
}

/// Starts the slow clients: tasks that send slowly, and connections that request a large response and do not read it.
async fn start_slow_clients(gateway: &Gateway) -> (Vec<JoinHandle<()>>, Vec<Wire>) {
    let address = gateway.address;
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for number in 0..SLOW_CLIENTS {
        senders.push(tokio::spawn(slow_head(address, number)));
        senders.push(tokio::spawn(slow_body(address, number)));
        readers.push(connect_with_small_buffer(address).await);
        if number % 25 == 24 {
            // The listener's accept queue holds 128 connections.
            let connected = 3.0 * (number + 1) as f64;
            let all = || async { (gateway.metric("steadfast_connections").await >= connected).then_some(()) };
            until("all clients to be connected", all).await;
        }
    }
    // Each reader requests 64 MiB and reads nothing.
    for reader in &mut readers {
        reader
            .send(wire::post("/v1/responses", STREAM).replacen("\r\n", "\r\nx-slow: 1\r\n", 1))
            .await;
    }
    (senders, readers)
}

#[tokio::test]
async fn six_hundred_slow_clients_are_disconnected_while_others_are_served() {
    let limit = LIMIT.as_millis();
    let head = format!("[timeouts]\nclient_header = \"{limit}ms\"\nidle = \"{limit}ms\"\n");
    let (sim, gateway) = gateway_with_sim(&head).await;
    let endless = Fixed {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        pieces: vec![Bytes::from(vec![b'x'; 1 << 20]); 64],
    };
    let slow = Rule::new(Act::answer(ScriptedAnswer::Fixed(endless)));
    sim.script().add(slow.head(|head| head.headers.contains_key("x-slow")));

    let (address, begun) = (gateway.address, Instant::now());
    let (slow, readers) = start_slow_clients(&gateway).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served: Vec<_> = (0..4)
        .map(|_| tokio::spawn(send_until_stopped(address, stop.clone())))
        .collect();

    for client in slow {
        client.await.expect("the slow client is disconnected");
        assert!(begun.elapsed() < LIMIT + TOLERANCE, "{:?}", begun.elapsed());
    }
    let was_aborted = |ending| ending == Ending::Aborted;
    until_true("the slow readers' requests to be cancelled", || {
        let requests = sim.requests();
        let slow = requests.iter().filter(|seen| seen.headers.contains_key("x-slow"));
        slow.filter(|seen| was_aborted(seen.ending)).count() == SLOW_CLIENTS
    })
    .await;
    let took = begun.elapsed();
    assert!(took > LIMIT && took < LIMIT + TOLERANCE, "{took:?}");
    stop.store(true, Ordering::Relaxed);
    for client in served {
        let (served, slowest) = client.await.expect("whole responses");
        assert!(
            served > 10 && slowest < LIMIT + TOLERANCE,
            "{served} responses, the slowest after {slowest:?}"
        );
    }
    for metric in [
        "steadfast_connections",
        "steadfast_in_flight_requests",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
    for mut reader in readers {
        assert!(
            matches!(reader.answer().await.end, End::Cut | End::Reset),
            "the response is not whole"
        );
    }
}

/// The configured limit of buffered bodies, in bytes.
const BOUND: usize = 8 << 20;
const BODIES: &str = "[server]\nmax_body = \"8MiB\"\nbuffered_bodies = \"8MiB\"\n";

/// Returns a request with a body of `length` bytes.
fn request_of_size(length: usize) -> Bytes {
    let (begin, end) = (r#"{"model":"gpt-5.2","input":""#, r#""}"#);
    let input = "x".repeat(length - begin.len() - end.len());
    wire::post("/v1/responses", &format!("{begin}{input}{end}")).into()
}

/// Starts a gateway and one client that uses all of the body buffer; the last byte of the client's body is missing.
async fn full_buffer() -> (steadfast::sim::Sim, Gateway, Wire) {
    let (sim, gateway) = gateway_with_sim(BODIES).await;
    let request = request_of_size(BOUND);
    let mut holder = Wire::open(gateway.address).await;
    holder.send(&request[..request.len() - 1]).await;
    gateway.metric_reaches("steadfast_buffered_bytes", BOUND as f64).await;
    (sim, gateway, holder)
}

/// Sends `request` while the gateway reads it, and reads the response at the same time.
async fn send_while_reading(address: SocketAddr, request: Bytes) -> wire::RawResponse {
    let stream = Wire::open(address).await.stream.into_std().expect("a socket");
    let twin = stream.try_clone().expect("a socket");
    let mut sender = TcpStream::from_std(twin).expect("a socket");
    // The gateway stops reading when it refuses the request.
    let sending = tokio::spawn(async move { sender.write_all(&request).await });
    let answer = Wire::over(TcpStream::from_std(stream).expect("a socket"))
        .answer()
        .await;
    sending.abort();
    answer
}

#[tokio::test]
async fn bodies_wait_for_buffer_space() {
    let (sim, gateway, mut holder) = full_buffer().await;
    let request = request_of_size(100_000);
    let waiting: Vec<_> = (0..32)
        .map(|_| tokio::spawn(send_while_reading(gateway.address, request.clone())))
        .collect();
    gateway.metric_reaches("steadfast_connections", 33.0).await;
    // A request without a body does not wait.
    assert_eq!(crate::kit::client::get(gateway.address, "/v1/models").await.status, 200);
    assert_eq!(sim.counts().requests, 1);
    holder.send("}").await;
    assert_eq!(holder.answer().await.status, 200);
    for client in waiting {
        assert_eq!(client.await.expect("a response").status, 200);
    }
    assert_eq!(gateway.metric("steadfast_buffered_bytes").await, 0.0);
}

#[tokio::test]
async fn bodies_without_buffer_space_are_refused_and_take_no_memory() {
    let (sim, gateway, mut holder) = full_buffer().await;
    let before = gateway.resident();
    let (request, begun) = (request_of_size(BOUND), Instant::now());
    let waiting: Vec<_> = (0..32)
        .map(|_| tokio::spawn(send_while_reading(gateway.address, request.clone())))
        .collect();
    for client in waiting {
        let answer = client.await.expect("a response");
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "server_overloaded")
        );
        let after: u64 = answer
            .header("retry-after")
            .and_then(|text| text.parse().ok())
            .expect("seconds");
        assert!((1..=60).contains(&after), "{after}");
        // The clients send 256 MiB together. The gateway may hold one read buffer for each.
        let grown = gateway.resident().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes are held for refused bodies");
        assert!(gateway.metric("steadfast_buffered_bytes").await <= BOUND as f64);
    }
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "the clients waited before they were refused"
    );
    assert_eq!(sim.counts().requests, 0);
    holder.send("}").await;
    assert_eq!(holder.answer().await.status, 200, "the first client is served");
    assert_eq!(
        send_while_reading(gateway.address, request).await.status,
        200,
        "the buffer is free again"
    );
}

const LARGE: usize = 200_000_000;

/// Sends `piece` repeatedly as one stream of events, as fast as it is read, until `total` bytes are sent; then ends
/// the stream.
async fn send_stream(mut wire: Wire, piece: Arc<str>, total: watch::Receiver<usize>) {
    request(&mut wire).await;
    let chunk = wire::chunk(&piece);
    let mut sent = 0;
    let mut poured = wire.stream.write_all(wire::EVENTS.as_bytes()).await;
    while poured.is_ok() && sent < *total.borrow() {
        poured = wire.stream.write_all(chunk.as_bytes()).await;
        sent += piece.len();
    }
    let end = wire::chunk("data: {\"type\":\"response.completed\"}\n\n") + "0\r\n\r\n";
    // The write may fail if the gateway does not read. In that case the assertion of the test fails.
    let _ = wire.stream.write_all(end.as_bytes()).await;
}

/// Reads a chunked response to its end. Returns its length and its last bytes.
async fn read_response(wire: &mut Wire) -> (usize, Vec<u8>) {
    let (mut length, mut tail, mut buffer) = (0, Vec::new(), vec![0; 64 << 10]);
    while !tail.ends_with(b"\r\n0\r\n\r\n") {
        let read = timeout(TIMEOUT, wire.stream.read(&mut buffer))
            .await
            .expect("more data in time")
            .expect("more data");
        assert!(read > 0, "the response was cut after {length} bytes");
        length += read;
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(200));
    }
    (length, tail)
}

#[tokio::test]
async fn a_response_to_a_client_that_does_not_read_takes_no_memory() {
    let event = |length| format!("data: {{\"type\":\"x\",\"text\":\"{}\"}}\n\n", "x".repeat(length));
    // Many small events, large events, and one event that never ends.
    for (piece, length) in [
        (event(100).repeat(100), LARGE),
        (event(100_000), LARGE / 10),
        ("data: x".repeat(2000), LARGE / 10),
    ] {
        let piece: Arc<str> = piece.into();
        let (total, pouring) = watch::channel(4 << 20);
        let poured = piece.clone();
        let upstream = serve_connections(move |wire| send_stream(wire, poured.clone(), pouring.clone())).await;
        let gateway = Gateway::configured(&gateway::upstream_at("a", &format!("http://{upstream}/v1"), "")).await;
        // This first request is not measured, because code and buffers stay in memory after their first use.
        let mut client = Wire::open(gateway.address).await;
        client.send(wire::post("/v1/responses", STREAM)).await;
        read_response(&mut client).await;
        let before = gateway.resident();
        let assert_small = |when: &str| {
            let grown = gateway.resident().saturating_sub(before);
            assert!(grown < 2 << 20, "{when}: {grown} bytes, events like {piece:.40}");
        };
        total.send_replace(length);
        client.send(wire::post("/v1/responses", STREAM)).await;
        // This sleep does not wait for a state. The test is that the memory does not grow during this time.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_small("while the client does not read");
        }
        let (read, tail) = read_response(&mut client).await;
        assert!(read > length, "{read}");
        assert!(String::from_utf8_lossy(&tail).contains("response.completed"));
        assert_small("after everything has been read");
    }
}

/// Sends the beginning of a stream, and its end when `end` becomes true. A request with `x-hold` never receives the
/// end.
async fn stream(mut wire: Wire, mut end: watch::Receiver<bool>) {
    let head = request(&mut wire).await;
    let begun = wire::chunk("data: {\"type\":\"response.created\"}\n\n");
    wire.send(format!("{}{begun}", wire::EVENTS)).await;
    if head.contains("x-hold") {
        wire.closing().await;
        return;
    }
    let _ = end.wait_for(|ends| *ends).await;
    let ended = wire::chunk("data: {\"type\":\"response.completed\"}\n\n");
    wire.send(format!("{ended}0\r\n\r\n")).await;
    wire.closing().await;
}

#[tokio::test]
async fn at_shutdown_streams_that_end_in_time_are_whole_and_the_rest_are_cut() {
    const GRACE: Duration = Duration::from_secs(5);
    let (end, ending) = watch::channel(false);
    let upstream = serve_connections(move |wire| stream(wire, ending.clone())).await;
    let config = gateway::upstream_at("a", &format!("http://{upstream}/v1"), "");
    let mut gateway = Gateway::configured(&format!("[server]\ngrace = \"5s\"\n{config}")).await;
    let (mut ends, mut held) = (Vec::new(), Vec::new());
    for number in 0..500 {
        let request = wire::post("/v1/responses", STREAM);
        let mut wire = Wire::open(gateway.address).await;
        if number % 2 == 0 {
            wire.send(request).await;
            ends.push(wire);
        } else {
            wire.send(request.replacen("\r\n", "\r\nx-hold: 1\r\n", 1)).await;
            held.push(wire);
        }
    }
    for wire in ends.iter_mut().chain(&mut held) {
        wire.skip_to("response.created").await;
    }
    let signalled = Instant::now();
    gateway.signal("TERM").await;
    let refused = || async { TcpStream::connect(gateway.address).await.is_err().then_some(()) };
    until("new connections to be refused", refused).await;
    end.send_replace(true);
    for mut wire in ends {
        wire.skip_to("response.completed\"}\n\n\r\n0\r\n\r\n").await;
        assert_eq!(wire.closing().await, End::Closed);
    }
    assert!(signalled.elapsed() < GRACE, "the other streams still run");
    for mut wire in held {
        wire.closing().await;
        assert!(signalled.elapsed() >= GRACE, "{:?}: cut too early", signalled.elapsed());
        assert!(!wire.rest().ends_with("0\r\n\r\n"), "{}", wire.rest());
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(signalled.elapsed() < GRACE + TOLERANCE, "{:?}", signalled.elapsed());
    let outcomes = |outcome: &str| {
        gateway
            .access()
            .iter()
            .filter(|line| line["outcome"] == outcome)
            .count()
    };
    until_true("250 log lines of each outcome", || {
        outcomes("complete") == 250 && gateway.access().len() == 500
    })
    .await;
}
