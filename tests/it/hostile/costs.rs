//! The cost of hostile requests: the memory and the number of metric series stay within bounds.

use std::{collections::BTreeSet, io::Write as _, time::Instant};

use flate2::{Compression, write::DeflateEncoder};
use tokio::io::AsyncWriteExt as _;

use super::kit::head;
use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    gateway_with_sim,
    keys::{ALICE, group, key, post_as, turn_body},
    sim,
    wire::{self, Wire},
};

const MIB: u64 = 1 << 20;
const LIMIT: &str = "[server]\nmax_body = \"16MiB\"\n";
const START: &[u8] = b"{\"model\":\"gpt-5.2\",\"input\":\"";

/// Returns the peak resident memory of the process, in bytes.
fn peak_memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("the gateway runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Returns a zstd frame (RFC 8878) of ten billion bytes: each block repeats one byte 131,072 times.
fn zstd_bomb() -> Vec<u8> {
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let block = |kind: u32, size: usize| {
        let bytes = (kind << 1 | (size as u32) << 3).to_le_bytes();
        [bytes[0], bytes[1], bytes[2]]
    };
    bomb.extend(block(0, START.len()));
    bomb.extend_from_slice(START);
    let repeated = [&block(1, 128 << 10)[..], b"x"].concat();
    bomb.extend(repeated.repeat(10_000_000_000 / (128 << 10)));
    bomb
}

/// Returns ten billion bytes as gzip (RFC 1952); deflate compresses at most about a thousandfold.
fn gzip_bomb() -> Vec<u8> {
    let flushed = |text: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder
            .write_all(text)
            .and_then(|()| encoder.flush())
            .expect("writing to memory succeeds");
        encoder.get_ref().clone()
    };
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bomb.extend(flushed(START));
    // The flushed block ends at a byte boundary and does not refer to earlier bytes, so it can be repeated.
    bomb.extend(flushed(&[b'x'; 1 << 20]).repeat(10_000));
    bomb
}

/// Sends a compressed body while the gateway reads it, and returns the response.
async fn send_compressed(gateway: &Gateway, coding: &str, bomb: &[u8]) -> wire::RawResponse {
    let coding = format!("content-encoding: {coding}");
    let length = format!("content-length: {}", bomb.len());
    let head = head(
        "POST /v1/responses HTTP/1.1",
        &["content-type: application/json", &coding, &length],
    );
    let mut wire = Wire::open(gateway.address).await;
    let stream = wire.stream.into_std().expect("a socket");
    let mut sender = tokio::net::TcpStream::from_std(stream.try_clone().expect("a socket")).expect("a socket");
    let bytes = [head.as_bytes(), bomb].concat();
    let sending = tokio::spawn(async move { sender.write_all(&bytes).await });
    wire = Wire::over(tokio::net::TcpStream::from_std(stream).expect("a socket"));
    let answer = wire.answer().await;
    sending.abort();
    answer
}

#[tokio::test]
async fn a_compression_bomb_takes_little_memory_and_reaches_no_upstream() {
    for (coding, bomb) in [("zstd", zstd_bomb()), ("gzip", gzip_bomb())] {
        let (sim, gateway) = gateway_with_sim(LIMIT).await;
        // This first request is not measured, because code and the buffers of each thread stay in memory after their
        // first use.
        send_compressed(&gateway, coding, b"x").await;
        let (before, begun) = (peak_memory(&gateway), Instant::now());
        let responses = tokio::join!(
            send_compressed(&gateway, coding, &bomb),
            send_compressed(&gateway, coding, &bomb),
            send_compressed(&gateway, coding, &bomb),
            send_compressed(&gateway, coding, &bomb)
        );
        for answer in [responses.0, responses.1, responses.2, responses.3] {
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (413, "request_too_large"),
                "{coding}"
            );
        }
        let (grown, took) = (peak_memory(&gateway) - before, begun.elapsed());
        eprintln!(
            "four {coding} bombs of {} bytes: {grown} bytes more, {took:?}",
            bomb.len()
        );
        assert!(grown < 16 * MIB, "{coding}: {grown} bytes for four of them");
        assert_eq!(sim.counts().requests, 0);
        assert_eq!(gateway.metric("steadfast_buffered_bytes").await, 0.0);
    }
}

#[tokio::test]
async fn a_million_levels_of_json_take_little_memory() {
    let (sim, gateway) = gateway_with_sim(LIMIT).await;
    client::send(gateway.address, client::post("/v1/responses", "[")).await;
    let before = peak_memory(&gateway);
    for deep in [
        "[".repeat(1_000_000),
        "{\"a\":".repeat(1_000_000),
        format!("{{\"a\":{}", "[{\"a\":".repeat(500_000)),
    ] {
        let answer = send_compressed(&gateway, "identity", deep.as_bytes()).await;
        // An array is refused at once, because the root must be an object.
        let code = if deep.starts_with('[') {
            "invalid_json"
        } else {
            "ambiguous_body"
        };
        assert_eq!((answer.status, answer.error_code().as_str()), (400, code));
    }
    let grown = peak_memory(&gateway) - before;
    eprintln!("a million levels: {grown} bytes more");
    assert!(grown < 4 * MIB, "{grown}");
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn a_hundred_thousand_chunks_of_a_byte_are_one_body() {
    let (sim, gateway) = gateway_with_sim(LIMIT).await;
    let body = format!(
        "{}{}\"}}",
        String::from_utf8_lossy(START),
        "x".repeat(100_000 - START.len() - 2)
    );
    let chunks: String = body.chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
    for (path, kind) in [("/v1/responses", "application/json"), ("/v1/files", "text/plain")] {
        let head = head(
            &format!("POST {path} HTTP/1.1"),
            &[&format!("content-type: {kind}"), "transfer-encoding: chunked"],
        );
        wire::ask(gateway.address, format!("{head}1\r\n{{\r\n0\r\n\r\n")).await;
        let (before, begun) = (peak_memory(&gateway), Instant::now());
        let answer = wire::ask(gateway.address, format!("{head}{chunks}0\r\n\r\n")).await;
        assert!(answer.status < 500, "{path}: {answer:?}");
        assert_eq!(sim.requests().pop().expect("a recorded request").body, body, "{path}");
        let (grown, took) = (peak_memory(&gateway) - before, begun.elapsed());
        eprintln!("100,000 chunks for {path}: {grown} bytes more, {took:?}");
        // One allocation for each piece would cost thousands of times the size of the pieces.
        assert!(grown < 4 * MIB, "{path}: {grown}");
    }
}

#[tokio::test]
async fn a_field_name_of_a_million_letters_is_refused_early() {
    let (sim, gateway) = gateway_with_sim("").await;
    wire::ask(gateway.address, head("GET /v1/files/x HTTP/1.1", &["x y: 1"])).await;
    let before = peak_memory(&gateway);
    for _ in 0..20 {
        let name = "x".repeat(1_000_000);
        let answer = wire::ask(
            gateway.address,
            head("GET /v1/files/x HTTP/1.1", &[&format!("{name}: 1")]),
        )
        .await;
        assert_eq!((answer.status, answer.error_code().as_str()), (431, "head_too_large"));
    }
    let grown = peak_memory(&gateway) - before;
    eprintln!("twenty names of a million letters: {grown} bytes more");
    assert!(grown < 4 * MIB, "{grown}");
    assert_eq!(sim.counts().requests, 0);
}

/// Returns the names and labels of all metric series.
async fn series(gateway: &Gateway) -> BTreeSet<String> {
    let text = client::get(gateway.admin, "/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

/// Returns one request of each kind. Every name in them that a caller can choose contains `number`; there are ten such
/// names.
fn of_each_kind(number: usize) -> String {
    let body = format!("{{\"model\":\"m-{number}\",\"prompt_cache_key\":\"k-{number}\",\"input\":\"hi\"}}");
    let fields =
        format!("host: host-{number}\r\nsession-id: s-{number}\r\nuser-agent: agent-{number}\r\nx-own-{number}: 1\r\n");
    let posted = format!(
        "POST /v1/responses HTTP/1.1\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let rest = [
        format!("GET /v1/files/f-{number} HTTP/1.1"),
        format!("GET /path-{number} HTTP/1.1"),
        format!("METHOD{number} /v1/files HTTP/1.1"),
        format!("GET /v1/responses/resp_{number} HTTP/1.1"),
    ];
    rest.iter()
        .fold(posted, |all, line| format!("{all}{line}\r\n{fields}\r\n"))
}

/// The number of requests that `of_each_kind` returns.
const KINDS: usize = 5;

async fn send_all(gateway: &Gateway, numbers: std::ops::Range<usize>) {
    let mut wire = Wire::open(gateway.address).await;
    let numbers: Vec<usize> = numbers.collect();
    for batch in numbers.chunks(20) {
        let requests: String = batch.iter().map(|number| of_each_kind(*number)).collect();
        wire.send(requests).await;
        for _ in 0..batch.len() * KINDS {
            wire.answer().await;
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_names_add_no_metric_series() {
    const EACH: usize = 10_000;
    let (recorder, gateway) = super::kit::recorded_gateway_with("allow_anonymous = true\n").await;
    send_all(&gateway, 0..2).await;
    let (known, begun) = (series(&gateway).await, Instant::now());
    tokio::join!(
        send_all(&gateway, 2..EACH / 4),
        send_all(&gateway, EACH / 4..EACH / 2),
        send_all(&gateway, EACH / 2..3 * EACH / 4),
        send_all(&gateway, 3 * EACH / 4..EACH)
    );
    eprintln!(
        "{} requests took {:?}, {} series",
        EACH * KINDS,
        begun.elapsed(),
        known.len()
    );
    assert!(recorder.take().len() >= 3 * EACH, "the requests reached the upstream");
    assert_eq!(series(&gateway).await, known);
}

/// Sends one request for each number, with a wrong client key of its own, on one connection.
async fn send_wrong_keys(gateway: &Gateway, numbers: std::ops::Range<usize>) {
    let mut wire = Wire::open(gateway.address).await;
    let numbers: Vec<usize> = numbers.collect();
    for batch in numbers.chunks(50) {
        let request: String = batch
            .iter()
            .map(|number| {
                let key = format!("authorization: Bearer sk-steadfast-{number:043}");
                head("GET /v1/models HTTP/1.1", &[&key])
            })
            .collect();
        wire.send(request).await;
        for _ in batch {
            let answer = wire.answer().await;
            assert_eq!((answer.status, answer.error_code().as_str()), (401, "invalid_api_key"));
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_wrong_keys_take_little_memory() {
    const EACH: usize = 25_000;
    let sim = sim("a").await;
    let config = group("team", "requests_per_minute = 10") + &key("alice", ALICE, "team", "") + &upstream(&sim, "");
    let gateway = Gateway::configured_with(&config, &["--log-level", "error"]).await;
    send_wrong_keys(&gateway, 0..100).await;
    let (known, before, begun) = (series(&gateway).await, peak_memory(&gateway), Instant::now());
    tokio::join!(
        send_wrong_keys(&gateway, 100..EACH),
        send_wrong_keys(&gateway, EACH..2 * EACH),
        send_wrong_keys(&gateway, 2 * EACH..3 * EACH),
        send_wrong_keys(&gateway, 3 * EACH..4 * EACH)
    );
    let grown = peak_memory(&gateway) - before;
    eprintln!("100,000 wrong keys: {grown} bytes more, {:?}", begun.elapsed());
    assert!(grown < 4 * MIB, "{grown}");
    assert_eq!(series(&gateway).await, known);
    assert_eq!(sim.counts().requests, 0);
    assert_eq!(post_as(&gateway, ALICE, &turn_body("s")).await.status, 200);
}
