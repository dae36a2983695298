//! The memory for request bodies is shared fairly: slow or many uploads of one caller do not refuse those of others.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;
use steadfast::sim::{Act, ScriptedAnswer, Sim};
use tokio::{net::TcpSocket, task::JoinHandle};

use crate::kit::{
    TIMEOUT, WHOLE, encoders,
    gateway::{Gateway, upstream},
    gateway_with_sim,
    keys::{self, ALICE, BOB},
    sim, until, until_true,
    wire::{RawResponse, Wire},
};

/// The maximum size of a body.
const MAX_BODY: usize = 256 << 10;
/// The memory for bodies: eight of the maximum size. A share of a quarter is two of them.
const ALL: usize = 8 * MAX_BODY;
const SERVER: &str = "[server]\nmax_body = \"256KiB\"\nbuffered_bodies = \"2MiB\"\n";
/// The time within which another caller must be served.
const SOON: Duration = Duration::from_secs(1);

/// Returns a JSON body of `length` bytes.
fn body_of(length: usize) -> Vec<u8> {
    let (begin, end) = (r#"{"model":"gpt-5.2","input":""#, r#""}"#);
    format!("{begin}{}{end}", "x".repeat(length - begin.len() - end.len())).into_bytes()
}

/// A client of the gateway: where it connects from, and the client key that it sends.
#[derive(Clone, Copy)]
struct Client<'a> {
    gateway: SocketAddr,
    /// The last byte of its loopback address.
    host: u8,
    key: &'a str,
}

impl Client<'_> {
    async fn connect(self) -> Wire {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = SocketAddr::from(([127, 0, 0, self.host], 0));
        socket.bind(from).expect("a free port");
        Wire::over(
            socket
                .connect(self.gateway)
                .await
                .expect("the server accepts connections"),
        )
    }

    fn head(self, length: usize) -> String {
        let key = match self.key {
            "" => String::new(),
            key => format!("authorization: Bearer {key}\r\n"),
        };
        format!(
            "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\n{key}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    }

    /// Sends a body of `MAX_BODY` bytes, except for the last `left` bytes.
    async fn begin_upload(self, left: usize) -> Wire {
        let mut wire = self.connect().await;
        wire.send(self.head(MAX_BODY)).await;
        wire.send(&body_of(MAX_BODY)[..MAX_BODY - left]).await;
        wire
    }

    /// Sends a small request, the body after the head. Returns its status and its time.
    async fn ask(self) -> (u16, Duration) {
        let begun = Instant::now();
        let mut wire = self.connect().await;
        wire.send(self.head(WHOLE.len())).await;
        wire.send(WHOLE).await;
        (wire.answer().await.status, begun.elapsed())
    }

    async fn is_served_soon(self) {
        for _ in 0..5 {
            let (status, took) = self.ask().await;
            assert!(status == 200 && took < SOON, "{status} after {took:?}");
        }
    }
}

/// Continues with a byte at a time until the gateway answers. Returns the answer.
fn drip(mut wire: Wire) -> JoinHandle<RawResponse> {
    tokio::spawn(async move {
        let mut dripping = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                _ = dripping.tick() => { let _ = wire.stream.try_write(b"x"); }
                _ = wire.stream.readable() => return wire.answer().await,
            }
        }
    })
}

/// The number of bytes that the uploads leave out. They fit into the last step of reserved memory, and a byte every 50 ms
/// needs longer for them than a test.
const LEFT: usize = 12_000;

/// Starts eight uploads, which fill the memory, and then continue with a byte at a time.
async fn fill(gateway: &Gateway, clients: impl Iterator<Item = Client<'_>>) -> Vec<JoinHandle<RawResponse>> {
    let mut uploads = Vec::new();
    for client in clients {
        uploads.push(client.begin_upload(LEFT).await);
    }
    assert_eq!(uploads.len(), 8);
    gateway.metric_reaches("steadfast_buffered_bytes", ALL as f64).await;
    uploads.into_iter().map(drip).collect()
}

/// Checks that exactly `count` uploads have been refused, and that their connections are closed.
async fn refused(uploads: Vec<JoinHandle<RawResponse>>, count: usize) {
    until_true("the uploads to be refused", || {
        uploads.iter().filter(|upload| upload.is_finished()).count() >= count
    })
    .await;
    let mut answers = Vec::new();
    for upload in uploads {
        match upload.is_finished() {
            true => answers.push(upload.await.expect("an answer")),
            false => upload.abort(),
        }
    }
    assert_eq!(answers.len(), count);
    for answer in answers {
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "server_overloaded")
        );
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(
            answer.header("retry-after").is_some() && answer.text().contains("more slowly"),
            "{answer:?}"
        );
    }
}

async fn with_keys() -> (Sim, Gateway) {
    let sim = sim("a").await;
    let gateway = keys::two_groups(std::slice::from_ref(&sim), "", "").await;
    let head = std::fs::read_to_string(gateway.file()).expect("a file");
    drop(gateway);
    (sim, Gateway::configured(&format!("{SERVER}{head}")).await)
}

#[tokio::test]
async fn slow_uploads_of_one_key_do_not_refuse_another_key() {
    let (_sim, gateway) = with_keys().await;
    // The key counts, and not the address.
    let client = |host, key| Client {
        gateway: gateway.address,
        host,
        key,
    };
    let uploads = fill(&gateway, (2..10).map(|host| client(host, ALICE))).await;
    client(2, BOB).is_served_soon().await;
    // One body gave way, and its memory is enough for the others.
    refused(uploads, 1).await;
    assert_eq!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"buffers_full\"}")
            .await,
        1.0
    );
    gateway.metric_reaches("steadfast_buffered_bytes", 0.0).await;
}

#[tokio::test]
async fn slow_uploads_of_one_address_do_not_refuse_another_address() {
    let (_sim, gateway) = gateway_with_sim(SERVER).await;
    let client = |host| Client {
        gateway: gateway.address,
        host,
        key: "",
    };
    let uploads = fill(&gateway, (0..8).map(|_| client(2))).await;
    client(3).is_served_soon().await;
    refused(uploads, 1).await;
}

#[tokio::test]
async fn slow_uploads_of_many_addresses_do_not_refuse_a_fast_request() {
    let (_sim, gateway) = gateway_with_sim(SERVER).await;
    let client = |host| Client {
        gateway: gateway.address,
        host,
        key: "",
    };
    let uploads = fill(&gateway, (2..10).map(client)).await;
    client(10).is_served_soon().await;
    refused(uploads, 1).await;
}

#[tokio::test]
async fn slow_uploads_of_an_address_give_way_to_fast_requests_of_the_same_address() {
    let (_sim, gateway) = gateway_with_sim(SERVER).await;
    let client = Client {
        gateway: gateway.address,
        host: 2,
        key: "",
    };
    let uploads = fill(&gateway, (0..8).map(|_| client)).await;
    assert_eq!(client.ask().await.0, 200);
    refused(uploads, 1).await;
}

#[tokio::test]
async fn a_fast_large_upload_gets_the_memory_of_slow_ones() {
    let (_sim, gateway) = with_keys().await;
    let client = |key| Client {
        gateway: gateway.address,
        host: 2,
        key,
    };
    let uploads = fill(&gateway, (0..8).map(|_| client(ALICE))).await;
    // Two large bodies are Bob's share.
    let large = || async {
        let mut wire = client(BOB).begin_upload(1).await;
        wire.send("}").await;
        wire.answer().await.status
    };
    assert_eq!(tokio::join!(large(), large()), (200, 200));
    for upload in &uploads {
        upload.abort();
    }
}

#[tokio::test]
async fn the_slowest_upload_gives_way_first() {
    let (_sim, gateway) = with_keys().await;
    let client = |key| Client {
        gateway: gateway.address,
        host: 2,
        key,
    };
    let mut uploads = Vec::new();
    for _ in 0..8 {
        uploads.push(client(ALICE).begin_upload(LEFT).await);
    }
    gateway.metric_reaches("steadfast_buffered_bytes", ALL as f64).await;
    let rest = body_of(MAX_BODY).split_off(MAX_BODY - LEFT);
    let mut stalled = uploads.remove(3);
    // The others go on for some seconds. They are still arriving when another caller wants memory.
    for piece in rest[..LEFT - 1].chunks(100) {
        for upload in &mut uploads {
            upload.send(piece).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client(BOB).is_served_soon().await;
    let answer = stalled.answer().await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "server_overloaded")
    );
    for upload in &mut uploads {
        upload.send("}").await;
        assert_eq!(upload.answer().await.status, 200);
    }
}

/// Complete bodies that an upstream uses count towards the share, and are not taken away. So those of a caller over its
/// share leave one share free: the last ones wait, and give way like arriving bodies.
#[tokio::test]
async fn complete_bodies_keep_their_memory_and_leave_a_share_to_other_callers() {
    let (sim, gateway) = with_keys().await;
    let client = |key| Client {
        gateway: gateway.address,
        host: 2,
        key,
    };
    for _ in 0..8 {
        sim.script().once("/v1/responses", Act::answer(ScriptedAnswer::Never));
    }
    let mut complete = Vec::new();
    for count in 1..=8 {
        let mut wire = client(ALICE).begin_upload(1).await;
        wire.send("}").await;
        complete.push(wire);
        until_true("the requests at the upstream", || sim.counts().requests == count.min(6)).await;
    }
    gateway.metric_reaches("steadfast_buffered_bytes", ALL as f64).await;
    let waiting = complete.split_off(6);
    let waiting: Vec<_> = waiting
        .into_iter()
        .map(|mut wire| tokio::spawn(async move { wire.answer().await }))
        .collect();
    for count in [7, 8] {
        let mut bob = client(BOB).begin_upload(1).await;
        bob.send("}").await;
        complete.push(bob);
        until_true("Bob's request at the upstream", || sim.counts().requests == count).await;
    }
    refused(waiting, 2).await;
    drop(complete);
    gateway.metric_reaches("steadfast_buffered_bytes", 0.0).await;
    assert_eq!(client(ALICE).ask().await.0, 200);
}

#[tokio::test]
async fn a_compressed_body_holds_the_memory_of_its_compressed_bytes() {
    let (sim, gateway) = gateway_with_sim(SERVER).await;
    sim.script().once("/v1/responses", Act::answer(ScriptedAnswer::Never));
    let compressed = encoders::gzip(&body_of(MAX_BODY - 100));
    assert!(compressed.len() < 16 << 10);
    let mut wire = Wire::open(gateway.address).await;
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        compressed.len()
    );
    wire.send(head).await;
    wire.send(&compressed).await;
    until_true("the request at the upstream", || sim.counts().requests == 1).await;
    assert_eq!(gateway.metric("steadfast_buffered_bytes").await, 16_384.0);
}

/// Many small bodies that never end are as little of a problem as a few large ones.
#[tokio::test]
async fn many_small_uploads_give_way_too() {
    let (_sim, gateway) = gateway_with_sim("[server]\nmax_body = \"64KiB\"\nbuffered_bodies = \"1MiB\"\n").await;
    let client = |host| Client {
        gateway: gateway.address,
        host,
        key: "",
    };
    let mut uploads = Vec::new();
    for _ in 0..64 {
        let mut wire = client(2).connect().await;
        wire.send(client(2).head(1000)).await;
        wire.send("{").await;
        uploads.push(wire);
    }
    gateway
        .metric_reaches("steadfast_buffered_bytes", f64::from(1 << 20))
        .await;
    client(3).is_served_soon().await;
    let mut large = client(3).connect().await;
    large.send(client(3).head(60_000)).await;
    large.send(body_of(60_000)).await;
    assert_eq!(large.answer().await.status, 200);
}

/// A reload changes the share and the limit while bodies are held.
#[tokio::test]
async fn a_reload_changes_the_share() {
    let sim = sim("a").await;
    let config = |share: f64, all: &str| {
        format!(
            "[server]\nmax_body = \"64KiB\"\nbuffered_bodies = \"{all}\"\nbuffered_share = {share}\n{}",
            upstream(&sim, "")
        )
    };
    let gateway = Gateway::configured(&config(1.0, "256KiB")).await;
    let client = |host| Client {
        gateway: gateway.address,
        host,
        key: "",
    };
    let begin = || async {
        let mut wire = client(2).connect().await;
        wire.send(client(2).head(65_000)).await;
        wire.send(&body_of(65_000)[..65_000 - LEFT]).await;
        wire
    };
    let uploads = [begin().await, begin().await, begin().await, begin().await];
    gateway
        .metric_reaches("steadfast_buffered_bytes", f64::from(256 << 10))
        .await;
    gateway.write(&config(0.25, "128KiB"));
    until("the reload", || async {
        let applied = gateway.metric("steadfast_reloads_total{outcome=\"applied\"}").await;
        (applied == 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("steadfast_buffered_bytes").await, f64::from(256 << 10));
    // The address holds four bodies. Three of them give way, so that the lower limit leaves memory for another.
    let uploads: Vec<_> = uploads.into_iter().map(drip).collect();
    client(3).is_served_soon().await;
    refused(uploads, 3).await;
    let body = json!({"model": "gpt-5.2", "input": "hello"}).to_string();
    let answer = tokio::time::timeout(
        TIMEOUT,
        crate::kit::wire::ask(gateway.address, crate::kit::wire::post("/v1/responses", &body)),
    );
    assert_eq!(answer.await.expect("an answer").status, 200);
}
