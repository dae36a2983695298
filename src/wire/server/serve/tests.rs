//! Tests of the server with a paused clock: whenever all tasks are idle, the clock jumps to the next timer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::*;
use crate::wire::server::{capacity::Capacity, listen::Address, service::ServeLimits};

const LIMITS: ServeLimits = ServeLimits {
    client_header: Duration::from_secs(15),
    keep_alive: Duration::from_secs(75),
    stall: Duration::from_secs(300),
};
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: it\r\n\r\n";
/// More bytes than the buffers of both sides of a socket hold.
const LARGE: usize = 16 << 20;

/// A server that sends response bodies of `size` bytes.
async fn serving(size: usize) -> (SocketAddr, watch::Sender<ShutdownPhase>) {
    serving_at_most(100, size).await
}

async fn serving_at_most(clients: usize, size: usize) -> (SocketAddr, watch::Sender<ShutdownPhase>) {
    let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()))
        .await
        .expect("a free port");
    let Address::Tcp(address) = *listener.address() else {
        unreachable!("bound to TCP")
    };
    let (phase, shutdown) = watch::channel(ShutdownPhase::Running);
    let body = Bytes::from(vec![b'x'; size]);
    let handler = move |_, _| {
        let response = Response::new(Full::new(body.clone()));
        async move { response }
    };
    let service = Service {
        limits: LIMITS,
        capacity: Arc::new(Capacity::new(clients, Arc::default())),
        workers: None,
    };
    tokio::spawn(serve(listener, service, shutdown, handler, |_, _| None));
    (address, phase)
}

/// A client with a small receive buffer.
async fn client(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    socket.connect(address).await.expect("the server listens")
}

async fn read_to_end(client: &mut TcpStream) -> (usize, std::io::Result<()>) {
    let mut piece = vec![0; 64 << 10];
    let mut count = 0;
    loop {
        match client.read(&mut piece).await {
            Ok(0) => return (count, Ok(())),
            Ok(read) => count += read,
            Err(error) => return (count, Err(error)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_receives_the_end_of_its_response() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(REQUEST).await.expect("written");
    client.readable().await.expect("a response begins");
    tokio::time::sleep(LIMITS.keep_alive * 2).await;
    let (count, end) = read_to_end(&mut client).await;
    assert!(count > LARGE, "{count} bytes, then {end:?}");
}

#[tokio::test(start_paused = true)]
async fn the_keep_alive_time_after_a_slow_response_begins_at_its_end() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    for _ in 0..2 {
        client.write_all(REQUEST).await.expect("the connection is still open");
        tokio::time::sleep(LIMITS.keep_alive * 2).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a head"));
        }
        let mut body = vec![0; LARGE];
        client.read_exact(&mut body).await.expect("a complete body");
        tokio::time::sleep(LIMITS.keep_alive / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_disconnected() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(REQUEST).await.expect("written");
    tokio::time::sleep(LIMITS.stall * 2).await;
    let (count, _) = read_to_end(&mut client).await;
    assert!(count < LARGE, "{count} bytes");
}

/// Over HTTP/1.0, an orderly close would mark the end of the response.
#[tokio::test(start_paused = true)]
async fn a_cut_response_to_http_1_0_ends_in_a_reset() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
    tokio::time::sleep(LIMITS.stall * 2).await;
    let (count, end) = read_to_end(&mut client).await;
    assert!(count < LARGE && end.is_err(), "{count} bytes, then {end:?}");
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_wait_has_its_own_limit() {
    let (address, _phase) = serving(2).await;
    for (what, sent, limit) in [
        ("a first byte", "", LIMITS.client_header),
        ("the rest of a head", "GET / HT", LIMITS.client_header),
        (
            "another request",
            "GET / HTTP/1.1\r\nhost: it\r\n\r\n",
            LIMITS.keep_alive,
        ),
    ] {
        let mut client = client(address).await;
        let begun = tokio::time::Instant::now();
        client.write_all(sent.as_bytes()).await.expect("written");
        let _ = read_to_end(&mut client).await;
        let waited = begun.elapsed();
        assert!(
            waited >= limit && waited < limit + Duration::from_secs(3),
            "{what}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_and_not_busy_ones() {
    let (address, phase) = serving(LARGE).await;
    let (mut idle, mut busy) = (client(address).await, client(address).await);
    busy.write_all(REQUEST).await.expect("written");
    busy.readable().await.expect("a response begins");
    phase.send_replace(ShutdownPhase::Draining);
    let begun = tokio::time::Instant::now();
    assert_eq!(read_to_end(&mut idle).await.0, 0);
    assert!(begun.elapsed() < LIMITS.client_header, "at once: {:?}", begun.elapsed());
    assert!(read_to_end(&mut busy).await.0 > LARGE);
}

#[tokio::test(start_paused = true)]
async fn stopping_closes_busy_connections() {
    let (address, phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(REQUEST).await.expect("written");
    client.readable().await.expect("a response begins");
    phase.send_replace(ShutdownPhase::Draining);
    phase.send_replace(ShutdownPhase::Stopping);
    phase.closed().await;
    assert!(read_to_end(&mut client).await.0 < LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_client_over_the_limit_waits_until_another_leaves() {
    let (address, _phase) = serving_at_most(2, 2).await;
    let (mut first, mut second) = (client(address).await, client(address).await);
    for client in [&mut first, &mut second] {
        client.write_all(REQUEST).await.expect("written");
        client.readable().await.expect("a response");
    }
    let mut third = client(address).await;
    third.write_all(REQUEST).await.expect("the system accepts the bytes");
    let response = tokio::time::timeout(LIMITS.keep_alive / 2, third.readable()).await;
    assert!(response.is_err(), "the limit is reached");
    drop(second);
    let begun = tokio::time::Instant::now();
    third.readable().await.expect("a response");
    assert!(begun.elapsed() < LIMITS.keep_alive / 4, "{:?}", begun.elapsed());
    first.write_all(REQUEST).await.expect("the first connection stays open");
}
