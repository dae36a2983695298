//! Bounds: whoever is slow, large or many is held or let go, at no one else's cost.

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
    time::timeout,
};

use crate::kit::{
    PATIENCE,
    gateway::{self, Gateway},
    house, until, until_true,
    upstream::{by_hand, request},
    wire::{self, End, Wire},
};

const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;

/// Of each kind of slowness at once.
const SLOW: usize = 200;
/// What each of them is given.
const LIMIT: Duration = Duration::from_secs(5);
/// How much later than its limit it may go where the machine is busy.
const LATE: Duration = Duration::from_secs(10);

/// Half of these pause in the middle of a head, half never end it.
async fn slow_head(address: SocketAddr, number: usize) {
    let mut wire = Wire::open(address).await;
    wire.send("GET /v1/models HTTP/1.1\r\nhost: it\r\nx-slow: ").await;
    if number.is_multiple_of(2) {
        let mut dripping = tokio::time::interval(Duration::from_millis(100));
        // A write fails once the other side has closed.
        while wire.stream.try_write(b"x").is_ok() {
            dripping.tick().await;
        }
    }
    wire.closing().await;
    assert!(!wire.rest().contains(" 200 "), "{}", wire.rest());
}

/// Half of these are looked into, half are passed on as they arrive.
async fn slow_body(address: SocketAddr, number: usize) {
    let path = if number.is_multiple_of(2) { "responses" } else { "files" };
    let mut wire = Wire::open(address).await;
    wire.send(format!(
        "POST /v1/{path} HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    ))
    .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (408, "request_timeout"));
    wire.closing().await;
}

/// A connection that takes little before it is read from.
async fn narrow(address: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    Wire::over(socket.connect(address).await.expect("it listens"))
}

/// Asks until told to stop; how many answers that made, and how long the slowest took.
async fn others(address: SocketAddr, stop: Arc<AtomicBool>) -> (usize, Duration) {
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

#[tokio::test]
async fn six_hundred_slow_clients_are_let_go_while_others_are_served() {
    let limit = LIMIT.as_millis();
    let head = format!("[timeouts]\nclient_header = \"{limit}ms\"\nidle = \"{limit}ms\"\n");
    let (sim, gateway) = house(&head).await;
    let endless = Fixed {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        pieces: vec![Bytes::from(vec![b'x'; 1 << 20]); 64],
    };
    let slow = Rule::new(Act::answer(ScriptedAnswer::Fixed(endless)));
    sim.script().add(slow.head(|head| head.headers.contains_key("x-slow")));

    let (address, begun) = (gateway.address, Instant::now());
    let metric = "steadfast_connections";
    let (mut slow, mut readers) = (Vec::new(), Vec::new());
    for number in 0..SLOW {
        slow.push(tokio::spawn(slow_head(address, number)));
        slow.push(tokio::spawn(slow_body(address, number)));
        readers.push(narrow(address).await);
        if number % 25 == 24 {
            // The system's queue has room for 128.
            let all = || async { (gateway.metric(metric).await >= 3.0 * (number + 1) as f64).then_some(()) };
            until("all are connected at once", all).await;
        }
    }
    // Each asks for 64 MiB and reads none of them.
    for reader in &mut readers {
        reader
            .send(wire::post("/v1/responses", STREAM).replacen("\r\n", "\r\nx-slow: 1\r\n", 1))
            .await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let served: Vec<_> = (0..4).map(|_| tokio::spawn(others(address, stop.clone()))).collect();

    for client in slow {
        client.await.expect("it is let go");
        assert!(begun.elapsed() < LIMIT + LATE, "{:?}", begun.elapsed());
    }
    let is_let_go = |ending| ending == Ending::Aborted;
    until_true("the slow readers' requests are cancelled", || {
        let requests = sim.requests();
        let slow = requests.iter().filter(|seen| seen.headers.contains_key("x-slow"));
        slow.filter(|seen| is_let_go(seen.ending)).count() == SLOW
    })
    .await;
    let took = begun.elapsed();
    assert!(took > LIMIT && took < LIMIT + LATE, "{took:?}");
    stop.store(true, Ordering::Relaxed);
    for client in served {
        let (served, slowest) = client.await.expect("whole answers");
        assert!(
            served > 10 && slowest < LIMIT + LATE,
            "{served} answers, one after {slowest:?}"
        );
    }
    for metric in [metric, "steadfast_in_flight_requests", "steadfast_buffered_bytes"] {
        until(metric, || async { (gateway.metric(metric).await == 0.0).then_some(()) }).await;
    }
    for mut reader in readers {
        assert!(
            matches!(reader.answer().await.end, End::Cut | End::Reset),
            "no whole answer"
        );
    }
}

const BOUND: usize = 8 << 20;
const BODIES: &str = "[server]\nmax_body = \"8MiB\"\nbuffered_bodies = \"8MiB\"\n";

/// A request whose body has `length` bytes.
fn sized(length: usize) -> Bytes {
    let (begin, end) = (r#"{"model":"gpt-5.2","input":""#, r#""}"#);
    let input = "x".repeat(length - begin.len() - end.len());
    wire::post("/v1/responses", &format!("{begin}{input}{end}")).into()
}

/// A gateway whose room for bodies one client has taken: it owes the last byte.
async fn full() -> (steadfast::sim::Sim, Gateway, Wire) {
    let (sim, gateway) = house(BODIES).await;
    let request = sized(BOUND);
    let mut holder = Wire::open(gateway.address).await;
    holder.send(&request[..request.len() - 1]).await;
    let metric = "steadfast_buffered_bytes";
    until("all room is taken", || async {
        (gateway.metric(metric).await == BOUND as f64).then_some(())
    })
    .await;
    (sim, gateway, holder)
}

/// Sends `request` for as long as it is read, and reads the answer meanwhile.
async fn push(address: SocketAddr, request: Bytes) -> wire::Answer {
    let stream = Wire::open(address).await.stream.into_std().expect("a socket");
    let twin = stream.try_clone().expect("a socket");
    let mut sender = TcpStream::from_std(twin).expect("a socket");
    // Turned away, it finds nobody reading.
    let sending = tokio::spawn(async move { sender.write_all(&request).await });
    let answer = Wire::over(TcpStream::from_std(stream).expect("a socket"))
        .answer()
        .await;
    sending.abort();
    answer
}

#[tokio::test]
async fn bodies_wait_for_room() {
    let (sim, gateway, mut holder) = full().await;
    let request = sized(100_000);
    let waiting: Vec<_> = (0..32)
        .map(|_| tokio::spawn(push(gateway.address, request.clone())))
        .collect();
    let connected = || async { (gateway.metric("steadfast_connections").await == 33.0).then_some(()) };
    until("all wait", connected).await;
    // What needs no room is not held up.
    assert_eq!(crate::kit::client::get(gateway.address, "/v1/models").await.status, 200);
    assert_eq!(sim.counts().requests, 1);
    holder.send("}").await;
    assert_eq!(holder.answer().await.status, 200);
    for client in waiting {
        assert_eq!(client.await.expect("an answer").status, 200);
    }
    assert_eq!(gateway.metric("steadfast_buffered_bytes").await, 0.0);
}

#[tokio::test]
async fn bodies_that_find_no_room_are_turned_away_and_take_none() {
    let (sim, gateway, mut holder) = full().await;
    let before = gateway.resident();
    let (request, begun) = (sized(BOUND), Instant::now());
    let waiting: Vec<_> = (0..32)
        .map(|_| tokio::spawn(push(gateway.address, request.clone())))
        .collect();
    for client in waiting {
        let answer = client.await.expect("an answer");
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "server_overloaded")
        );
        let after: u64 = answer
            .header("retry-after")
            .and_then(|text| text.parse().ok())
            .expect("seconds");
        assert!((1..=60).contains(&after), "{after}");
        // Together they send 256 MiB. One read each is what may lie here.
        let grown = gateway.resident().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes are held for what does not fit");
        assert!(gateway.metric("steadfast_buffered_bytes").await <= BOUND as f64);
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "they waited before");
    assert_eq!(sim.counts().requests, 0);
    holder.send("}").await;
    assert_eq!(holder.answer().await.status, 200, "who was first is served");
    assert_eq!(push(gateway.address, request).await.status, 200, "and who comes after");
}

const LARGE: usize = 200_000_000;

/// Sends `piece` again and again as one stream of events, as fast as it is read, and then ends it.
async fn pour(mut wire: Wire, piece: Arc<str>, total: watch::Receiver<usize>) {
    request(&mut wire).await;
    let chunk = wire::chunk(&piece);
    let mut sent = 0;
    let mut poured = wire.stream.write_all(wire::EVENTS.as_bytes()).await;
    while poured.is_ok() && sent < *total.borrow() {
        poured = wire.stream.write_all(chunk.as_bytes()).await;
        sent += piece.len();
    }
    let end = wire::chunk("data: {\"type\":\"response.completed\"}\n\n") + "0\r\n\r\n";
    // Where nobody takes it, the test says so.
    let _ = wire.stream.write_all(end.as_bytes()).await;
}

/// Reads to the end of an answer, and returns how long it was and how it ended.
async fn drink(wire: &mut Wire) -> (usize, Vec<u8>) {
    let (mut length, mut tail, mut buffer) = (0, Vec::new(), vec![0; 64 << 10]);
    while !tail.ends_with(b"\r\n0\r\n\r\n") {
        let read = timeout(PATIENCE, wire.stream.read(&mut buffer))
            .await
            .expect("more in time")
            .expect("more");
        assert!(read > 0, "cut after {length} bytes");
        length += read;
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(200));
    }
    (length, tail)
}

#[tokio::test]
async fn two_hundred_megabytes_for_a_client_that_does_not_read_take_no_memory() {
    let event = |length| format!("data: {{\"type\":\"x\",\"text\":\"{}\"}}\n\n", "x".repeat(length));
    // Many small events, large ones, and one that never ends.
    for (piece, length) in [
        (event(100).repeat(100), LARGE),
        (event(100_000), LARGE / 10),
        ("data: x".repeat(2000), LARGE / 10),
    ] {
        let piece: Arc<str> = piece.into();
        let (total, pouring) = watch::channel(4 << 20);
        let poured = piece.clone();
        let upstream = by_hand(move |wire| pour(wire, poured.clone(), pouring.clone())).await;
        let gateway = Gateway::configured(&gateway::upstream_at("a", &format!("http://{upstream}/v1"), "")).await;
        // What is touched once, code and buffers, stays.
        let mut client = Wire::open(gateway.address).await;
        client.send(wire::post("/v1/responses", STREAM)).await;
        drink(&mut client).await;
        let before = gateway.resident();
        let assert_small = |when: &str| {
            let grown = gateway.resident().saturating_sub(before);
            assert!(grown < 2 << 20, "{when}: {grown} bytes, events like {piece:.40}");
        };
        total.send_replace(length);
        client.send(wire::post("/v1/responses", STREAM)).await;
        // No wait for a state: that nothing happens for so long is the state.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_small("while nobody reads");
        }
        let (read, tail) = drink(&mut client).await;
        assert!(read > length, "{read}");
        assert!(String::from_utf8_lossy(&tail).contains("response.completed"));
        assert_small("when all has been read");
    }
}

/// Sends the beginning of a stream, and its end once that is wanted; a held one never ends.
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
async fn of_five_hundred_streams_those_that_end_in_time_end_whole_and_the_rest_is_cut() {
    const GRACE: Duration = Duration::from_secs(5);
    let (end, ending) = watch::channel(false);
    let upstream = by_hand(move |wire| stream(wire, ending.clone())).await;
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
    until("nothing new is accepted", refused).await;
    end.send_replace(true);
    for mut wire in ends {
        wire.skip_to("response.completed\"}\n\n\r\n0\r\n\r\n").await;
        assert_eq!(wire.closing().await, End::Closed);
    }
    assert!(signalled.elapsed() < GRACE, "the others still run");
    for mut wire in held {
        wire.closing().await;
        assert!(signalled.elapsed() >= GRACE, "{:?}: cut too early", signalled.elapsed());
        assert!(!wire.rest().ends_with("0\r\n\r\n"), "{}", wire.rest());
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(signalled.elapsed() < GRACE + LATE, "{:?}", signalled.elapsed());
    let outcomes = |outcome: &str| {
        gateway
            .access()
            .iter()
            .filter(|line| line["outcome"] == outcome)
            .count()
    };
    until_true("250 lines of each", || {
        outcomes("complete") == 250 && gateway.access().len() == 500
    })
    .await;
}
