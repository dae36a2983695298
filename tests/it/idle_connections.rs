//! Idle connections are closed for new clients when the maximum number of connections is open, and busy ones are not.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use steadfast::sim::{Act, Point, Sim};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::kit::{
    STREAM, TIMEOUT, client,
    frames::{Frames, GOAWAY},
    gateway::{self, Gateway},
    gateway_with_sim,
    h2::{PLAIN, post, read_whole, start_http2},
    sim, tls, until, until_true,
    wire::{self, End, Wire},
};

/// The number of descriptors of a gateway with few connections, and a number of connections that exceeds its limit.
const DESCRIPTORS: u64 = 150;
const CLIENTS: usize = 80;
/// The maximum number of connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 64;
/// The time in which a probe must be answered. The machine of the tests may be busy.
const PROBE_TIME: Duration = Duration::from_millis(500);

const SHED: &str = "steadfast_client_connections_shed_total";
const MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Starts an account, and a gateway in front of it whose public listener allows about 50 connections.
async fn small_gateway(head: &str) -> (Sim, Gateway) {
    let sim = sim("a").await;
    let config = format!("{head}{}", gateway::upstream(&sim, ""));
    let gateway = Gateway::with_descriptors(&config, (DESCRIPTORS, DESCRIPTORS), &[]).await;
    (sim, gateway)
}

/// Opens a connection, and reads the response to its first request.
async fn open_idle(address: SocketAddr) -> Wire {
    let mut wire = Wire::open(address).await;
    wire.send(MODELS).await;
    assert_eq!(wire.answer().await.status, 200);
    wire
}

/// Sends probes on new connections, each of which must be answered at once.
async fn assert_probes_pass(gateway: &Gateway, what: &str) {
    for path in ["/livez", "/readyz", "/livez", "/readyz", "/livez"] {
        let begun = Instant::now();
        let reply = client::get(gateway.admin, path).await;
        assert_eq!(reply.status, StatusCode::OK, "{what}: {path}");
        assert!(
            begun.elapsed() < PROBE_TIME,
            "{what}: {path} after {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn new_clients_are_served_while_idle_connections_fill_the_listener() {
    let (_sim, gateway) = small_gateway("").await;
    let mut kept = Vec::new();
    for _ in 0..CLIENTS {
        let begun = Instant::now();
        kept.push(open_idle(gateway.address).await);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let open = gateway.metric("steadfast_connections").await;
    let shed = gateway.metric(SHED).await;
    assert!(
        open < CLIENTS as f64 && shed >= CLIENTS as f64 - open,
        "{open} are open, {shed} are shed"
    );
    // The first clients were closed in an orderly way, and the last ones are served.
    let shed = shed as usize;
    for (number, mut wire) in kept.into_iter().enumerate() {
        if number < shed {
            assert_eq!(wire.closing().await, End::Closed, "client {number} of {shed}");
        } else if number >= CLIENTS - 10 {
            wire.send(MODELS).await;
            assert_eq!(wire.answer().await.status, 200, "client {number}");
        }
    }
    gateway.log_until("idle ones are closed for new clients").await;
}

#[tokio::test]
async fn busy_connections_survive_a_flood_of_idle_ones() {
    let (sim, gateway) = small_gateway("").await;
    sim.script().once("/v1/responses", Act::stall(Point::Events(2)));
    let mut streaming = Wire::open(gateway.address).await;
    streaming.send(wire::post("/v1/responses", STREAM)).await;
    streaming.skip_to("response.").await;
    let http2 = TcpStream::connect(gateway.address).await.expect("the gateway listens");
    let mut http2: crate::kit::h2::Sender = start_http2(http2).await;
    sim.script().once("/v1/responses", Act::stall(Point::Events(2)));
    let mut http2_stream = http2.send_request(post(STREAM)).await.expect("a response").into_body();
    http2_stream.frame().await.expect("an event").expect("an event");
    let mut uploading = Wire::open(gateway.address).await;
    let upload = wire::post("/v1/responses", PLAIN);
    let (begin, end) = upload.split_at(upload.len() - 5);
    uploading.send(begin).await;

    let mut flood = Vec::new();
    for number in 0..CLIENTS * 2 {
        let mut wire = Wire::open(gateway.address).await;
        match number % 3 {
            0 => wire.send(MODELS).await,
            1 => wire.send("GET /v1/mod").await,
            _ => {}
        }
        flood.push(wire);
    }
    until("idle connections to be shed", || async {
        (gateway.metric(SHED).await > CLIENTS as f64).then_some(())
    })
    .await;
    uploading.send(end).await;
    assert_eq!(uploading.answer().await.status, 200);
    assert_eq!(sim.counts().in_flight, 2, "both streams still run");
    while let Ok(more) = timeout(Duration::from_millis(100), http2_stream.frame()).await {
        more.expect("the stream has not ended").expect("no error");
    }
    while let Ok(more) = timeout(Duration::from_millis(100), streaming.stream.read_u8()).await {
        more.expect("the stream has not ended");
    }
}

#[tokio::test]
async fn a_client_with_one_kept_connection_keeps_it_in_a_flood_from_another_address() {
    let (_sim, gateway) = small_gateway("").await;
    let local = TcpSocket::new_v4().expect("a socket");
    local.bind(([127, 0, 0, 2], 0).into()).expect("a loopback address");
    let mut kept = Wire::over(local.connect(gateway.address).await.expect("the gateway listens"));
    kept.send(MODELS).await;
    assert_eq!(kept.answer().await.status, 200);
    let mut flood = Vec::new();
    for _ in 0..CLIENTS * 2 {
        flood.push(Wire::open(gateway.address).await);
    }
    until("silent connections to be shed", || async {
        (gateway.metric(SHED).await > CLIENTS as f64).then_some(())
    })
    .await;
    kept.send(MODELS).await;
    assert_eq!(kept.answer().await.status, 200);
}

#[tokio::test]
async fn idle_http2_connections_are_told_to_go_away() {
    let (_sim, gateway) = small_gateway("").await;
    let tcp = TcpStream::connect(gateway.address).await.expect("the gateway listens");
    let mut used: crate::kit::h2::Sender = start_http2(tcp).await;
    let (status, _) = read_whole(used.send_request(post(PLAIN)).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK);
    let mut unused = Frames::open(gateway.address).await;
    let mut kept = Vec::new();
    for _ in 0..CLIENTS {
        kept.push(open_idle(gateway.address).await);
    }
    let mut has_goaway = false;
    while let Some((kind, ..)) = unused.frame().await {
        has_goaway |= kind == GOAWAY;
    }
    assert!(has_goaway);
    until("the used connection to close", || async {
        used.is_closed().then_some(())
    })
    .await;
}

#[tokio::test]
async fn idle_connections_of_another_listener_give_way_and_tls_closes_with_a_message() {
    let sim = sim("a").await;
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let path = gateway::scratch().join("s.sock");
    let config = format!("[server]\n{}{}", identity.server_table(), gateway::upstream(&sim, ""));
    let socket = format!("unix:{}", path.display());
    let gateway = Gateway::with_descriptors(&config, (DESCRIPTORS, DESCRIPTORS), &["--listen", &socket]).await;
    let mut secure = tls::connect(gateway.address, &identity.offering(&["http/1.1"]))
        .await
        .expect("a handshake");
    secure.write_all(MODELS.as_bytes()).await.expect("the gateway reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") && !answer.ends_with(b"}\n") {
        secure.read_buf(&mut answer).await.expect("a response");
    }
    let mut others = Vec::new();
    for _ in 0..CLIENTS {
        let mut unix = tokio::net::UnixStream::connect(&path)
            .await
            .expect("the gateway listens");
        unix.write_all(MODELS.as_bytes()).await.expect("the gateway reads");
        unix.read_u8().await.expect("a response");
        others.push(unix);
    }
    // All connections on the Unix socket count as one address, which has more than the TLS client. So that one is kept.
    secure.write_all(MODELS.as_bytes()).await.expect("the gateway reads");
    answer.clear();
    secure.read_buf(&mut answer).await.expect("a response");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    drop(others);
    // Connections that are accepted by one listener are closed for clients of the other one.
    let mut flood = Vec::new();
    for _ in 0..CLIENTS {
        flood.push(TcpStream::connect(gateway.address).await.expect("the gateway listens"));
    }
    let mut unix = tokio::net::UnixStream::connect(&path)
        .await
        .expect("the gateway listens");
    unix.write_all(MODELS.as_bytes()).await.expect("the gateway reads");
    let status = timeout(TIMEOUT, unix.read_u8()).await.expect("a response in time");
    status.expect("a response");
    answer.clear();
    // rustls reports an end without a closing message as an error.
    let end = timeout(TIMEOUT, secure.read_to_end(&mut answer))
        .await
        .expect("a close in time");
    end.expect("a closing message");
}

#[tokio::test]
async fn probes_are_answered_while_silent_clients_hold_all_admin_connections() {
    const TOKEN: &str = "[admin]\ntoken = \"env:STEADFAST_TEST_KEY\"\n";
    let head = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (what, sent) in [
        ("nothing", String::new()),
        ("a part of a head", head("GET", "/met")),
        ("a request without the token", head("GET", "/metrics") + "\r\n"),
        ("a probe", head("GET", "/livez") + "\r\n"),
        (
            "a part of a body",
            head("POST", "/api/reload") + "content-length: 1000000\r\n\r\n{",
        ),
        (
            "the beginning of HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
        ),
        ("a part of the preface of HTTP/2", "PRI * HTTP/2".to_owned()),
    ] {
        let (_sim, gateway) = gateway_with_sim(TOKEN).await;
        let mut clients = Vec::new();
        for _ in 0..ADMIN_CONNECTIONS + 10 {
            let mut client = TcpStream::connect(gateway.admin).await.expect("the gateway listens");
            client.write_all(sent.as_bytes()).await.expect("the gateway reads");
            clients.push(client);
        }
        assert_probes_pass(&gateway, what).await;
    }
}

#[tokio::test]
async fn probes_are_answered_while_slow_clients_drip_heads_and_bodies() {
    let (_sim, gateway) = gateway_with_sim("[admin]\ntoken = \"env:STEADFAST_TEST_KEY\"\n").await;
    let body = "POST /api/reload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut dripping = Vec::new();
    for (begin, drip) in [("GET /metrics HTTP/1.1\r\nx-slow: ", "x"), (body, "1\r\nx\r\n")] {
        for _ in 0..ADMIN_CONNECTIONS {
            let mut client = TcpStream::connect(gateway.admin).await.expect("the gateway listens");
            dripping.push(tokio::spawn(async move {
                client.write_all(begin.as_bytes()).await.expect("the gateway reads");
                // A write fails after the server has closed the connection.
                while client.try_write(drip.as_bytes()).is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }));
        }
        assert_probes_pass(&gateway, begin).await;
    }
    for client in dripping {
        timeout(TIMEOUT, client)
            .await
            .expect("no slow client keeps its connection for ever")
            .expect("no panic");
    }
}

#[tokio::test]
async fn probes_are_answered_while_http2_clients_hold_all_admin_connections() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let mut clients = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS {
        let tcp = TcpStream::connect(gateway.admin).await.expect("the gateway listens");
        let mut client = start_http2::<Full<Bytes>, _>(tcp).await;
        let request = crate::kit::h2::request(http::Method::GET, "/livez", "");
        let (status, _) = read_whole(client.send_request(request).await.expect("a response")).await;
        assert_eq!(status, StatusCode::OK);
        clients.push(client);
    }
    assert_probes_pass(&gateway, "well-behaved clients").await;
    assert!(
        clients.iter().filter(|client| client.is_closed()).count() < 10,
        "only a few are closed"
    );
    drop(clients);
    // These clients read nothing, and so they do not acknowledge that the server closes.
    let mut mute = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS {
        let mut client = Frames::open(gateway.admin).await;
        let fields = [
            (":method", "GET"),
            (":path", "/livez"),
            (":scheme", "http"),
            (":authority", "localhost"),
        ];
        client
            .send_fields(crate::kit::frames::END_STREAM, &crate::kit::frames::fields(&fields))
            .await;
        mute.push(client);
    }
    assert_probes_pass(&gateway, "clients that do not read").await;
}

#[tokio::test]
async fn a_request_that_arrives_when_its_connection_is_shed_is_answered_or_not_begun() {
    let (sim, gateway) = small_gateway("").await;
    let address = gateway.address;
    // More clients than connections, each of which pauses between its requests.
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(async move {
                let mut answered: u64 = 0;
                for _ in 0..4 {
                    let mut wire = Wire::open(address).await;
                    for _ in 0..5 {
                        tokio::time::sleep(Duration::from_millis(40 + number as u64 % 30)).await;
                        let request = wire::post("/v1/responses", PLAIN);
                        if wire.stream.write_all(request.as_bytes()).await.is_err() {
                            break;
                        }
                        let Some(answer) = wire.answer_if_any().await else {
                            break;
                        };
                        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
                        answered += 1;
                    }
                }
                answered
            })
        })
        .collect();
    let mut answered: u64 = 0;
    for client in clients {
        answered += client.await.expect("no panic");
    }
    assert!(answered > CLIENTS as u64);
    assert!(gateway.metric(SHED).await > 0.0, "connections were shed");
    // A request that was begun was also answered.
    until_true("all requests to end", || sim.counts().in_flight == 0).await;
    assert_eq!(sim.counts().requests, answered);
}
