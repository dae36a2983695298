//! TLS and HTTP/2 towards upstreams, and the Unix socket towards clients.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use steadfast::sim::{Accept, Act, Close, Point, Sim, SimConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::kit::{
    STREAM,
    gateway::{self, Gateway},
    sim,
    tls::{self, TestIdentity},
    until_true,
    wire::{self, End, Wire},
};

/// Starts an account with TLS. Returns it and the configuration lines that trust its authority.
async fn tls_account(identity: &TestIdentity) -> (Sim, String) {
    let config = SimConfig {
        name: "a".to_owned(),
        record: true,
        ..SimConfig::default()
    };
    let sim = Sim::start_tls(([127, 0, 0, 1], 0).into(), config, identity.config.clone())
        .await
        .expect("a free port");
    (sim, ca_line(identity))
}

fn ca_line(identity: &TestIdentity) -> String {
    format!("ca = {:?}", identity.ca)
}

#[tokio::test]
async fn tls_to_an_upstream_uses_its_host_name() {
    let identity = tls::identity(&["localhost"], &["http/1.1"]);
    let (sim, ca) = tls_account(&identity).await;
    let url = sim.base_url().replace("127.0.0.1", "localhost");
    let gateway = Gateway::configured(&gateway::upstream_at("a", &url, &ca)).await;
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..5 {
        wire.send(wire::post("/v1/responses", STREAM)).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
    }
    // A connection may not be ready for the next request just after its response, so there can be more than one.
    let asked = identity.server_names.lock().clone();
    assert!(asked.len() < 5, "connections are reused: {asked:?}");
    assert!(
        asked.iter().all(|name| name.as_deref() == Some("localhost")),
        "{asked:?}"
    );
    assert_eq!(
        sim.requests()[0].headers["host"],
        format!("localhost:{}", sim.address().port())
    );
}

#[tokio::test]
async fn tls_to_an_upstream_works_with_an_ip_address() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let (sim, ca) = tls_account(&identity).await;
    let gateway = Gateway::configured(&gateway::upstream(&sim, &ca)).await;
    assert_eq!(
        wire::ask(gateway.address, wire::post("/v1/responses", STREAM))
            .await
            .status,
        200
    );
    assert_eq!(
        *identity.server_names.lock(),
        [None],
        "an IP address is not sent as a server name"
    );
}

#[tokio::test]
async fn an_untrusted_certificate_causes_a_502_and_is_logged() {
    let other = tls::identity(&["127.0.0.1"], &[]);
    for (names, ca, reason) in [
        (["127.0.0.1"], Some(ca_line(&other)), "invalid peer certificate"),
        (["other.example"], None, "not valid for name"),
    ] {
        let identity = tls::identity(&names, &[]);
        let (sim, own) = tls_account(&identity).await;
        let gateway = Gateway::configured(&gateway::upstream(&sim, &ca.unwrap_or(own))).await;
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (502, "upstream_unreachable")
        );
        let said = format!("{answer:?}").to_lowercase();
        assert!(
            !["tls", "certificate", "issuer", "127.0.0.1"]
                .iter()
                .any(|word| said.contains(word)),
            "{said}"
        );
        let logged = || {
            gateway
                .log()
                .iter()
                .any(|line| line.contains("TLS failed") && line.contains(reason))
        };
        until_true(&format!("{reason} in {:?}", gateway.log()), logged).await;
        assert_eq!(sim.counts().requests, 0, "nothing was sent");
    }
}

#[tokio::test]
async fn a_hanging_handshake_ends_at_the_connect_timeout() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let (sim, ca) = tls_account(&identity).await;
    sim.script().accept(Accept::Delay(Duration::from_secs(60)));
    let config = format!("[timeouts]\nconnect = \"200ms\"\n{}", gateway::upstream(&sim, &ca));
    let gateway = Gateway::configured(&config).await;
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (502, "upstream_unreachable")
    );
}

#[tokio::test]
async fn a_close_without_close_notify_breaks_the_response() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let (sim, ca) = tls_account(&identity).await;
    let gateway = Gateway::configured(&gateway::upstream(&sim, &ca)).await;
    for how in [Close::Fin, Close::Reset] {
        sim.script().once("/v1/responses", Act::cut(Point::Events(3), how));
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert!(matches!(answer.end, End::Cut | End::Reset), "{how:?}: {answer:?}");
    }
}

/// The number of pieces of 64 KiB in a `flood` response.
const FLOOD: usize = 200;
const LAST: &str = "data: {\"type\":\"response.completed\"}\n\n";

/// Streams twenty events and a terminal event. For the input `stall` it sends one event only. For `flood` it sends more
/// data than the buffers between upstream and client hold.
fn events(request: Request<Bytes>) -> Channel<Bytes, std::io::Error> {
    let (mut sender, body) = Channel::new(1);
    let asked: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    assert!(request.uri().path() == "/v1/responses" && !request.headers().contains_key("host"));
    tokio::spawn(async move {
        let piece = if asked["input"] == "flood" {
            "x".repeat(64 << 10)
        } else {
            "data: {}\n\n".to_owned()
        };
        let count = if asked["input"] == "flood" { FLOOD } else { 20 };
        for _ in 0..count {
            if sender.send_data(Bytes::from(piece.clone())).await.is_err() {
                return;
            }
            if asked["input"] == "stall" {
                std::future::pending::<()>().await;
            }
        }
        match asked["input"].as_str() {
            Some("abort") => sender.abort(std::io::ErrorKind::Other.into()),
            _ => drop(sender.send_data(Bytes::from_static(LAST.as_bytes())).await),
        }
    });
    body
}

fn request_with_input(input: &str) -> String {
    wire::post(
        "/v1/responses",
        &json!({"model": "gpt-5.2", "input": input, "stream": true}).to_string(),
    )
}

/// Starts a gateway in front of an upstream that uses HTTP/2 only. Returns it and the upstream's counter of
/// connections.
async fn over_http2(head: &str) -> (Gateway, std::sync::Arc<parking_lot::Mutex<usize>>) {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, connections) = tls::http2_upstream(&identity, events).await;
    let lines = format!("{}\nhttp2 = true", ca_line(&identity));
    let table = gateway::upstream_at("a", &format!("https://{address}/v1"), &lines);
    (Gateway::configured(&format!("{head}{table}")).await, connections)
}

#[tokio::test]
async fn http2_streams_share_a_connection_and_a_stalled_one_blocks_no_other() {
    let (gateway, connections) = over_http2("").await;
    assert!(
        wire::ask(gateway.address, request_with_input("x"))
            .await
            .text()
            .ends_with(LAST)
    );
    let mut stuck = Vec::new();
    for input in ["stall", "flood", "flood", "flood"] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(request_with_input(input)).await;
        assert!(wire.head().await.starts_with("http/1.1 200"));
        stuck.push(wire);
    }
    let asked: Vec<_> = (0..30)
        .map(|_| tokio::spawn(wire::ask(gateway.address, request_with_input("x"))))
        .collect();
    for answer in asked {
        let answer = answer.await.expect("a response");
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
        assert!(answer.text().ends_with(LAST) && answer.text().len() == 20 * 10 + LAST.len());
    }
    assert_eq!(*connections.lock(), 1);
    // A stream that was held back continues when the client reads it.
    let mut wire = stuck.pop().expect("a held stream");
    wire.take(64 * FLOOD * 1024).await;
    wire.skip_to("response.completed").await;
}

#[tokio::test]
async fn a_burst_of_requests_shares_connections() {
    let (gateway, connections) = over_http2("").await;
    let address = gateway.address;
    let burst: Vec<_> = (0..150)
        .map(|_| {
            tokio::spawn(async move {
                let mut wire = Wire::open(address).await;
                wire.send(request_with_input("stall")).await;
                assert!(wire.head().await.starts_with("http/1.1 200"));
                wire
            })
        })
        .collect();
    let mut open = Vec::new();
    for wire in burst {
        open.push(wire.await.expect("a head"));
    }
    assert_eq!(*connections.lock(), 2, "a connection carries at most a hundred streams");
}

#[tokio::test]
async fn a_reset_http2_stream_breaks_the_response() {
    let (gateway, _connections) = over_http2("").await;
    let answer = wire::ask(gateway.address, request_with_input("abort")).await;
    assert!(matches!(answer.end, End::Cut | End::Reset), "{answer:?}");
    let whole = wire::ask(gateway.address, request_with_input("x")).await;
    assert_eq!(whole.end, End::Whole, "other streams of the connection continue");
}

#[tokio::test]
async fn a_stalled_http2_stream_is_aborted() {
    let (gateway, connections) = over_http2("[timeouts]\nidle = \"300ms\"\n").await;
    let answer = wire::ask(gateway.address, request_with_input("stall")).await;
    assert_eq!(answer.end, End::Cut, "{answer:?}");
    assert_eq!(
        wire::ask(gateway.address, request_with_input("x")).await.end,
        End::Whole
    );
    assert_eq!(*connections.lock(), 1);
}

#[tokio::test]
async fn an_upstream_without_http2_is_used_over_http_1_1() {
    let identity = tls::identity(&["127.0.0.1"], &["http/1.1"]);
    let (sim, ca) = tls_account(&identity).await;
    let gateway = Gateway::configured(&gateway::upstream(&sim, &format!("{ca}\nhttp2 = true"))).await;
    assert_eq!(wire::ask(gateway.address, request_with_input("x")).await.status, 200);
}

#[tokio::test]
async fn clients_can_connect_over_a_unix_socket() {
    let sim = sim("a").await;
    let path = gateway::scratch().join("s.sock");
    let socket = format!("unix:{}", path.display());
    let mut gateway = Gateway::configured_with(&gateway::upstream(&sim, ""), &["--listen", &socket]).await;
    let mut stream = UnixStream::connect(&path)
        .await
        .expect("the server accepts connections");
    let request = request_with_input("x").replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.expect("the peer reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("UTF-8 text");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(!path.exists(), "the socket file is removed at exit");
}
