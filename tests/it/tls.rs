//! TLS towards upstreams, HTTP/2 where it was asked for, and the Unix socket towards clients.

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
    gateway::{self, Gateway},
    sim,
    tls::{self, TestIdentity},
    until_true,
    wire::{self, End, Wire},
};

const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;

/// An account behind TLS, and the lines that trust its authority.
async fn account(identity: &TestIdentity) -> (Sim, String) {
    let config = SimConfig {
        name: "a".to_owned(),
        record: true,
        ..SimConfig::default()
    };
    let sim = Sim::start_tls(([127, 0, 0, 1], 0).into(), config, identity.config.clone())
        .await
        .expect("a free port");
    (sim, trusting(identity))
}

fn trusting(identity: &TestIdentity) -> String {
    format!("ca = {:?}", identity.ca)
}

#[tokio::test]
async fn an_https_upstream_is_called_by_its_name() {
    let identity = tls::identity(&["localhost"], &["http/1.1"]);
    let (sim, ca) = account(&identity).await;
    let url = sim.base_url().replace("127.0.0.1", "localhost");
    let gateway = Gateway::configured(&gateway::upstream_at("a", &url, &ca)).await;
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..5 {
        wire.send(wire::post("/v1/responses", STREAM)).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
    }
    // A connection whose last answer has ended this very moment may not be free yet, so there can be more than one.
    let asked = identity.server_names.lock().clone();
    assert!(asked.len() < 5, "connections are used again: {asked:?}");
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
async fn an_https_upstream_may_be_called_by_its_address() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let (sim, ca) = account(&identity).await;
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
        "an address is no name to ask for"
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_a_502_and_the_log_says_why() {
    let other = tls::identity(&["127.0.0.1"], &[]);
    for (names, ca, reason) in [
        (["127.0.0.1"], Some(trusting(&other)), "invalid peer certificate"),
        (["other.example"], None, "not valid for name"),
    ] {
        let identity = tls::identity(&names, &[]);
        let (sim, own) = account(&identity).await;
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
async fn a_handshake_that_hangs_ends_with_the_connect_limit() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let (sim, ca) = account(&identity).await;
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
async fn a_cut_without_close_notify_breaks_the_answer() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let (sim, ca) = account(&identity).await;
    let gateway = Gateway::configured(&gateway::upstream(&sim, &ca)).await;
    for how in [Close::Fin, Close::Reset] {
        sim.script().once("/v1/responses", Act::cut(Point::Events(3), how));
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert!(matches!(answer.end, End::Cut | End::Reset), "{how:?}: {answer:?}");
    }
}

/// Pieces of 64 KiB that a flood has.
const FLOOD: usize = 200;
const LAST: &str = "data: {\"type\":\"response.completed\"}\n\n";

/// Streams twenty events and the last one; a body that says `stall` gets one event and nothing more, a body that says
/// `flood` more than anyone takes in without reading.
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

fn asking(input: &str) -> String {
    wire::post(
        "/v1/responses",
        &json!({"model": "gpt-5.2", "input": input, "stream": true}).to_string(),
    )
}

/// A gateway before an upstream that speaks HTTP/2 only.
async fn over_http2(head: &str) -> (Gateway, std::sync::Arc<parking_lot::Mutex<usize>>) {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, connections) = tls::http2_upstream(&identity, events).await;
    let lines = format!("{}\nhttp2 = true", trusting(&identity));
    let table = gateway::upstream_at("a", &format!("https://{address}/v1"), &lines);
    (Gateway::configured(&format!("{head}{table}")).await, connections)
}

#[tokio::test]
async fn streams_share_a_connection_of_http2_and_a_stalled_one_holds_up_none() {
    let (gateway, connections) = over_http2("").await;
    assert!(wire::ask(gateway.address, asking("x")).await.text().ends_with(LAST));
    let mut stuck = Vec::new();
    for input in ["stall", "flood", "flood", "flood"] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(asking(input)).await;
        assert!(wire.head().await.starts_with("http/1.1 200"));
        stuck.push(wire);
    }
    let asked: Vec<_> = (0..30)
        .map(|_| tokio::spawn(wire::ask(gateway.address, asking("x"))))
        .collect();
    for answer in asked {
        let answer = answer.await.expect("a response");
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
        assert!(answer.text().ends_with(LAST) && answer.text().len() == 20 * 10 + LAST.len());
    }
    assert_eq!(*connections.lock(), 1);
    // One that was held back goes on once it is read.
    let mut wire = stuck.pop().expect("a held stream");
    wire.take(64 * FLOOD * 1024).await;
    wire.skip_to("response.completed").await;
}

#[tokio::test]
async fn a_burst_shares_what_it_dials() {
    let (gateway, connections) = over_http2("").await;
    let address = gateway.address;
    let burst: Vec<_> = (0..150)
        .map(|_| {
            tokio::spawn(async move {
                let mut wire = Wire::open(address).await;
                wire.send(asking("stall")).await;
                assert!(wire.head().await.starts_with("http/1.1 200"));
                wire
            })
        })
        .collect();
    let mut open = Vec::new();
    for wire in burst {
        open.push(wire.await.expect("a head"));
    }
    assert_eq!(*connections.lock(), 2, "of a hundred streams each");
}

#[tokio::test]
async fn a_stream_of_http2_that_is_reset_breaks_the_answer() {
    let (gateway, _connections) = over_http2("").await;
    let answer = wire::ask(gateway.address, asking("abort")).await;
    assert!(matches!(answer.end, End::Cut | End::Reset), "{answer:?}");
    let whole = wire::ask(gateway.address, asking("x")).await;
    assert_eq!(whole.end, End::Whole, "its neighbours live on");
}

#[tokio::test]
async fn a_stream_of_http2_that_stalls_is_broken_off() {
    let (gateway, connections) = over_http2("[timeouts]\nidle = \"300ms\"\n").await;
    let answer = wire::ask(gateway.address, asking("stall")).await;
    assert_eq!(answer.end, End::Cut, "{answer:?}");
    assert_eq!(wire::ask(gateway.address, asking("x")).await.end, End::Whole);
    assert_eq!(*connections.lock(), 1);
}

#[tokio::test]
async fn an_upstream_without_http2_is_called_over_http_1_1() {
    let identity = tls::identity(&["127.0.0.1"], &["http/1.1"]);
    let (sim, ca) = account(&identity).await;
    let gateway = Gateway::configured(&gateway::upstream(&sim, &format!("{ca}\nhttp2 = true"))).await;
    assert_eq!(wire::ask(gateway.address, asking("x")).await.status, 200);
}

#[tokio::test]
async fn clients_may_come_over_a_unix_socket() {
    let sim = sim("a").await;
    let path = gateway::scratch().join("s.sock");
    let socket = format!("unix:{}", path.display());
    let mut gateway = Gateway::configured_with(&gateway::upstream(&sim, ""), &["--listen", &socket]).await;
    let mut stream = UnixStream::connect(&path)
        .await
        .expect("the server accepts connections");
    let request = asking("x").replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.expect("the peer reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("UTF-8 text");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(!path.exists(), "it cleans up behind itself");
}
