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

/// A server that sends response bodies of `size` bytes. It never responds to POST.
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
    let handler = move |_, request: Request<RequestBody>| {
        let response = Response::new(Full::new(body.clone()));
        async move {
            if request.method() == http::Method::POST {
                return std::future::pending().await;
            }
            response
        }
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

/// Sends a request and reads its response, which has a body of two bytes.
async fn request(client: &mut TcpStream) {
    client.write_all(REQUEST).await.expect("the connection is open");
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\nxx") {
        response.push(client.read_u8().await.expect("a response"));
    }
}

/// Whether the server has closed the connection, in an orderly way.
fn is_closed(client: &TcpStream) -> bool {
    matches!(client.try_read(&mut [0]), Ok(0))
}

#[tokio::test(start_paused = true)]
async fn a_client_over_the_limit_waits_until_another_leaves_if_none_is_idle() {
    let (address, _phase) = serving_at_most(2, LARGE).await;
    let (mut first, mut second) = (client(address).await, client(address).await);
    for client in [&mut first, &mut second] {
        client.write_all(REQUEST).await.expect("written");
        client.readable().await.expect("a response begins");
    }
    let mut third = client(address).await;
    third.write_all(REQUEST).await.expect("the system accepts the bytes");
    let response = tokio::time::timeout(LIMITS.keep_alive, third.readable()).await;
    assert!(response.is_err(), "the limit is reached");
    drop(second);
    let begun = tokio::time::Instant::now();
    third.readable().await.expect("a response");
    assert!(begun.elapsed() < LIMITS.keep_alive / 4, "{:?}", begun.elapsed());
    assert!(
        read_to_end(&mut first).await.0 > LARGE,
        "the first response is complete"
    );
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_connection_is_closed_for_a_new_client() {
    let (address, _phase) = serving_at_most(3, 2).await;
    let mut clients = [client(address).await, client(address).await, client(address).await];
    for client in &mut clients {
        request(client).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The first has been used again, so that the second has been idle for longest.
    request(&mut clients[0]).await;
    let begun = tokio::time::Instant::now();
    let mut new = client(address).await;
    request(&mut new).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(read_to_end(&mut clients[1]).await.0, 0);
    request(&mut clients[0]).await;
    request(&mut clients[2]).await;
    request(&mut new).await;
}

#[tokio::test(start_paused = true)]
async fn silent_clients_and_slow_heads_give_way_after_idle_ones() {
    let (address, _phase) = serving_at_most(3, 2).await;
    let mut slow = client(address).await;
    slow.write_all(b"GET / HT").await.expect("written");
    let silent = client(address).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut idle = client(address).await;
    request(&mut idle).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut new = Vec::new();
    for (closed, open) in [(&idle, vec![&silent, &slow]), (&silent, vec![&slow]), (&slow, vec![])] {
        let mut next = client(address).await;
        request(&mut next).await;
        // From here on the new client is busy.
        next.write_all(b"POST / HTTP/1.1\r\nhost: it\r\n\r\n")
            .await
            .expect("written");
        new.push(next);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(is_closed(closed), "{} new clients", new.len());
        assert!(
            open.into_iter().all(|client| !is_closed(client)),
            "{} new clients",
            new.len()
        );
    }
}
