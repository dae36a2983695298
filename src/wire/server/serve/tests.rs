//! Time passes by itself here: whenever nothing else is left to do, it jumps to the next timer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::*;
use crate::wire::{Address, Capacity, ServeLimits};

const LIMITS: ServeLimits = ServeLimits {
    client_header: Duration::from_secs(15),
    keep_alive: Duration::from_secs(75),
    stall: Duration::from_secs(300),
};
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: it\r\n\r\n";
/// More than the buffers of both sides of a socket hold.
const LARGE: usize = 16 << 20;

/// A server whose every answer has a body of this size.
async fn serving(size: usize) -> (SocketAddr, watch::Sender<Phase>) {
    serving_at_most(100, size).await
}

async fn serving_at_most(clients: usize, size: usize) -> (SocketAddr, watch::Sender<Phase>) {
    let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()))
        .await
        .expect("a free port");
    let Address::Tcp(address) = *listener.address() else {
        unreachable!("bound to TCP")
    };
    let (phase, shutdown) = watch::channel(Phase::Running);
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

/// A client that takes little before it reads.
async fn client(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    socket.connect(address).await.expect("it listens")
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
async fn a_slow_reader_gets_the_tail_of_its_answer() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(REQUEST).await.expect("it reads");
    client.readable().await.expect("an answer begins");
    tokio::time::sleep(LIMITS.keep_alive * 2).await;
    let (count, end) = read_to_end(&mut client).await;
    assert!(count > LARGE, "{count} bytes, then {end:?}");
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_slow_answer_begins_at_its_end() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    for _ in 0..2 {
        client.write_all(REQUEST).await.expect("it still listens");
        tokio::time::sleep(LIMITS.keep_alive * 2).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a head"));
        }
        let mut body = vec![0; LARGE];
        client.read_exact(&mut body).await.expect("a whole body");
        tokio::time::sleep(LIMITS.keep_alive / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_at_all_is_let_go() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(REQUEST).await.expect("it reads");
    tokio::time::sleep(LIMITS.stall * 2).await;
    let (count, _) = read_to_end(&mut client).await;
    assert!(count < LARGE, "{count} bytes");
}

/// Its end is the only mark of the answer's end.
#[tokio::test(start_paused = true)]
async fn an_answer_to_http_1_0_whose_tail_is_given_up_ends_in_a_reset() {
    let (address, _phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
    tokio::time::sleep(LIMITS.stall * 2).await;
    let (count, end) = read_to_end(&mut client).await;
    assert!(count < LARGE && end.is_err(), "{count} bytes, then {end:?}");
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_a_limit_of_its_own() {
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
        client.write_all(sent.as_bytes()).await.expect("it reads");
        let _ = read_to_end(&mut client).await;
        let waited = begun.elapsed();
        assert!(
            waited >= limit && waited < limit + Duration::from_secs(3),
            "{what}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_by_draining_and_a_busy_one_is_not() {
    let (address, phase) = serving(LARGE).await;
    let (mut idle, mut busy) = (client(address).await, client(address).await);
    busy.write_all(REQUEST).await.expect("it reads");
    busy.readable().await.expect("an answer begins");
    phase.send_replace(Phase::Draining);
    let begun = tokio::time::Instant::now();
    assert_eq!(read_to_end(&mut idle).await.0, 0);
    assert!(begun.elapsed() < LIMITS.client_header, "at once: {:?}", begun.elapsed());
    assert!(read_to_end(&mut busy).await.0 > LARGE);
}

#[tokio::test(start_paused = true)]
async fn stopping_cuts_what_is_busy() {
    let (address, phase) = serving(LARGE).await;
    let mut client = client(address).await;
    client.write_all(REQUEST).await.expect("it reads");
    client.readable().await.expect("an answer begins");
    phase.send_replace(Phase::Draining);
    phase.send_replace(Phase::Stopping);
    phase.closed().await;
    assert!(read_to_end(&mut client).await.0 < LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_client_too_many_waits_until_one_goes() {
    let (address, _phase) = serving_at_most(2, 2).await;
    let (mut first, mut second) = (client(address).await, client(address).await);
    for client in [&mut first, &mut second] {
        client.write_all(REQUEST).await.expect("it reads");
        client.readable().await.expect("an answer");
    }
    let mut third = client(address).await;
    third.write_all(REQUEST).await.expect("the system reads");
    let answered = tokio::time::timeout(LIMITS.keep_alive / 2, third.readable()).await;
    assert!(answered.is_err(), "there is no room for it");
    drop(second);
    let begun = tokio::time::Instant::now();
    third.readable().await.expect("an answer");
    assert!(begun.elapsed() < LIMITS.keep_alive / 4, "{:?}", begun.elapsed());
    first.write_all(REQUEST).await.expect("and the first goes on");
}
