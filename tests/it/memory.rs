//! Memory that bodies have used comes back: the resident memory of the process returns to about what it was.

use std::{io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep},
};

use crate::kit::{
    STREAM,
    gateway::{Gateway, upstream_at},
    upstream::serve_connections,
    wire::{self, Wire},
};

const MIB: u64 = 1 << 20;
/// The number of bytes by which the memory may grow for good.
const GROWTH: u64 = 32 * MIB;
/// The time in which memory comes back.
const BACK: Duration = Duration::from_secs(30);
/// The size in bytes of a large body.
const LARGE: usize = 60_000_000;

/// Reads a request to its end. A stream stays open; any other request is answered with `answer` once `open` is true.
async fn serve(mut wire: Wire, mut open: watch::Receiver<bool>, answer: Arc<[u8]>) {
    let head = wire.head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut left = length
        .map_or(0, |digits| digits.parse::<usize>().expect("a length"))
        .saturating_sub(wire.rest().len());
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        match wire.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
    }
    if head.contains("x-stream") {
        wire.send(wire::EVENTS.to_owned() + &wire::chunk("data: {\"type\":\"response.output_text.delta\"}\n\n"))
            .await;
        wire.closing().await;
        return;
    }
    let _ = open.wait_for(|is_open| *is_open).await;
    let length = answer.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let _ = wire.stream.write_all(&[head.as_bytes(), &answer].concat()).await;
}

/// A gateway in front of an upstream, and the number of bytes that were resident after its first requests.
struct Measured {
    gateway: Arc<Gateway>,
    /// Whether the upstream answers.
    open: watch::Sender<bool>,
    before: u64,
}

impl Measured {
    async fn start(answer: impl Into<Arc<[u8]>>) -> Self {
        let (open, opened) = watch::channel(true);
        let answer = answer.into();
        let address = serve_connections(move |wire| serve(wire, opened.clone(), answer.clone())).await;
        let upstream = upstream_at("a", &format!("http://{address}/v1"), "");
        let head = "[server]\nbuffered_bodies = \"1GiB\"\n";
        let gateway = Arc::new(Gateway::configured(&(head.to_owned() + &upstream)).await);
        // Code and tables stay in memory after their first use.
        for _ in 0..4 {
            send(&gateway, &post("/v1/responses", "", &text(1000))).await;
        }
        let before = gateway.resident();
        Self { gateway, open, before }
    }

    /// Opens a stream that stays open, and whose memory lies between that of the bodies.
    async fn stream(&self) -> Wire {
        let mut wire = Wire::open(self.gateway.address).await;
        wire.send(wire::post("/v1/responses", STREAM).replace("host:", "x-stream: 1\r\nhost:"))
            .await;
        wire.head().await;
        wire
    }

    fn grown(&self) -> u64 {
        self.gateway.resident().saturating_sub(self.before)
    }

    /// Waits until the memory has come back.
    async fn assert_back(&self, what: &str) {
        let (begun, at_once) = (Instant::now(), self.grown());
        while self.grown() > GROWTH {
            let grown = self.grown();
            assert!(
                begun.elapsed() < BACK,
                "{what}: {at_once} bytes more, and {grown} after {BACK:?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
        let (left, took) = (self.grown() / MIB, begun.elapsed());
        eprintln!("{what}: {} MiB more, {left} MiB after {took:?}", at_once / MIB);
        // A large body counts until the last of its memory is free, which is shortly after its answer.
        self.gateway.metric_reaches("steadfast_buffered_bytes", 0.0).await;
    }
}

/// A JSON body of `size` bytes.
fn text(size: usize) -> Vec<u8> {
    let (begin, end) = ("{\"model\":\"gpt-5.2\",\"input\":\"", "\"}");
    format!("{begin}{}{end}", "x".repeat(size - begin.len() - end.len())).into_bytes()
}

fn post(path: &str, fields: &str, body: &[u8]) -> Bytes {
    let length = body.len();
    let kind = if path == "/v1/files" {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{fields}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat().into()
}

/// Sends a request, reads the response and returns its status. A debug build takes long for a large body, so there is no limit.
async fn send(gateway: &Gateway, request: &Bytes) -> u16 {
    let mut wire = Wire::open(gateway.address).await;
    wire.stream.write_all(request).await.expect("the gateway reads");
    // The wait for the head would have a limit.
    wire.stream.readable().await.expect("a response");
    let head = wire.head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    wire.take(length.and_then(|digits| digits.parse().ok()).expect("a length"))
        .await;
    head.get(9..12)
        .and_then(|digits| digits.parse().ok())
        .expect("a status")
}

/// Sends `count` requests, `at_once` of them at the same time.
async fn send_all(gateway: &Arc<Gateway>, request: &Bytes, count: usize, at_once: usize) {
    for _ in 0..count / at_once {
        let sending: Vec<_> = (0..at_once)
            .map(|_| {
                let (gateway, request) = (gateway.clone(), request.clone());
                tokio::spawn(async move { send(&gateway, &request).await })
            })
            .collect();
        for sent in sending {
            assert_eq!(sent.await.expect("a response"), 200);
        }
    }
}

#[tokio::test]
async fn the_memory_of_large_bodies_comes_back() {
    let measured = Measured::start(*b"{}").await;
    let request = post("/v1/responses", "", &text(LARGE));
    send_all(&measured.gateway, &request, 1, 1).await;
    measured.assert_back("one body of 60 MB").await;
    // The upstream is slow, and streams begin while the bodies are held.
    measured.open.send_replace(false);
    let mut streams = Vec::new();
    let hold = async {
        while measured.gateway.metric("steadfast_buffered_bytes").await < 8.0 * LARGE as f64 {
            streams.push(measured.stream().await);
            sleep(Duration::from_millis(200)).await;
        }
        assert!(measured.grown() > 8 * LARGE as u64 / 2, "the bodies are held");
        measured.open.send_replace(true);
    };
    tokio::join!(send_all(&measured.gateway, &request, 8, 8), hold);
    measured
        .assert_back("eight bodies of 60 MB, and streams that go on")
        .await;
}

#[tokio::test]
async fn the_memory_of_many_bodies_comes_back() {
    let measured = Measured::start(*b"{}").await;
    measured.open.send_replace(false);
    let opening = async {
        sleep(Duration::from_secs(2)).await;
        measured.open.send_replace(true);
    };
    let request = post("/v1/responses", "", &text(500_000));
    tokio::join!(send_all(&measured.gateway, &request, 400, 200), opening);
    measured.assert_back("bodies of 500 KB").await;
}

#[tokio::test]
async fn the_memory_of_uploads_bombs_and_large_answers_comes_back() {
    let measured = Measured::start(text(LARGE)).await;
    let small = post("/v1/responses", "", &text(1000));
    send_all(&measured.gateway, &small, 8, 8).await;
    measured.assert_back("answers of 60 MB").await;
    let upload = post("/v1/files", "", &vec![b'x'; LARGE]);
    send_all(&measured.gateway, &upload, 4, 4).await;
    measured.assert_back("uploads of 60 MB").await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(&text(20_000_000))
        .expect("writing to memory succeeds");
    let body = encoder.finish().expect("writing to memory succeeds");
    let bomb = post("/v1/responses", "content-encoding: gzip\r\n", &body);
    send_all(&measured.gateway, &bomb, 8, 8).await;
    measured.assert_back("bodies that expand 200 times").await;
}
