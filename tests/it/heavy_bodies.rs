//! A body that takes long to scan does not hold up the live streams of the same thread.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use tokio::{io::AsyncReadExt as _, sync::watch, task::JoinHandle, time::sleep};

use crate::kit::{
    STREAM,
    gateway::{Gateway, upstream_at},
    upstream::serve_connections,
    wire::{self, Wire},
};

/// The time between two events of a live stream.
const PACE: Duration = Duration::from_millis(5);
/// The size in bytes of a heavy body. A debug build scans some of them at 6 MB/s.
const SIZE: usize = 8 << 20;
/// The delay that nine of ten events must stay below. The delay is below 20 ms on an idle machine. It was up to six seconds when a body
/// was scanned without a break.
const LATE: Duration = Duration::from_millis(250);

/// A heavy request or response.
struct Heavy {
    name: &'static str,
    request: Vec<u8>,
    /// The body of the response.
    answer: Arc<[u8]>,
}

/// Returns `begin`, then `unit` until the text has `size` bytes, then `end`.
fn filled(begin: &str, unit: &str, end: &str) -> Vec<u8> {
    [begin, &unit.repeat(SIZE / unit.len()), end].concat().into_bytes()
}

fn post(body: &[u8], fields: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /v1/responses HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn heavy(name: &'static str, request: Vec<u8>) -> Heavy {
    let answer = b"{\"object\":\"response\"}"[..].into();
    Heavy { name, request, answer }
}

fn heavies() -> Vec<Heavy> {
    const JSON: &str = "content-type: application/json\r\n";
    let keys = filled("{", "\"a\":1,", "\"z\":1}");
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).expect("writing to memory succeeds");
        encoder.finish().expect("writing to memory succeeds")
    };
    // A body that expands a thousand times would be refused.
    let numbers: String = (0..SIZE / 14)
        .map(|number| format!("\"a\":{},", number % 100_000))
        .collect();
    let zstd = zstd::encode_all(format!("{{{numbers}\"z\":1}}").as_bytes(), 1).expect("memory");
    let boundary = "--lookalike";
    let form = filled(
        &format!(
            "{boundary}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n"
        ),
        "\r\n--lookalik",
        &format!("\r\n{boundary}--\r\n"),
    );
    let form_type = "content-type: multipart/form-data; boundary=lookalike\r\n";
    let form = String::from_utf8(post(&form, form_type))
        .expect("text")
        .replace("/v1/responses", "/v1/audio/transcriptions");
    let mut chunked = b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for byte in &keys[..SIZE / 16] {
        chunked.extend_from_slice(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
    }
    // The body ends in the middle, so it is refused.
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut answer = heavy(
        "an answer of short keys",
        wire::post("/v1/responses", "{\"model\":\"gpt-5.2\"}").into(),
    );
    answer.answer = keys.clone().into();
    vec![
        heavy("short keys", post(&keys, JSON)),
        heavy("arrays", post(&filled("{\"input\":[", "[[[[[[]]]]]],", "1]}"), JSON)),
        heavy("escapes", post(&filled("{\"input\":\"", "\\u0061", "\"}"), JSON)),
        heavy("gzip", post(&gzip(&keys), &format!("{JSON}content-encoding: gzip\r\n"))),
        heavy("zstd", post(&zstd, &format!("{JSON}content-encoding: zstd\r\n"))),
        heavy("a form with bytes like its boundary", form.into_bytes()),
        heavy("chunks of one byte", chunked),
        answer,
    ]
}

/// Serves one request: a live stream if its body asks for a stream, until `ended`; otherwise `answer`.
async fn serve(mut wire: Wire, begun: Instant, answer: watch::Receiver<Arc<[u8]>>) {
    let head = wire.head().await;
    if head.contains("x-live") {
        wire.send(wire::EVENTS).await;
        loop {
            let event = format!("data: {{\"type\":\"x\",\"sent\":{}.}}\n\n", begun.elapsed().as_micros());
            let chunk = wire::chunk(&event);
            if tokio::io::AsyncWriteExt::write_all(&mut wire.stream, chunk.as_bytes())
                .await
                .is_err()
            {
                return;
            }
            sleep(PACE).await;
        }
    }
    // The request may be cut short by a refusal.
    let mut buffer = vec![0; 256 << 10];
    let mut left = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |digits| digits.parse::<usize>().expect("a length"))
        .saturating_sub(wire.rest().len());
    while left > 0 {
        match wire.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
    }
    let body = answer.borrow().clone();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    wire.send([head.as_bytes(), &body].concat()).await;
}

/// Reads a live stream, and returns when each event was sent and how late it was. Ends when `ended` is set.
fn read_stream(
    gateway: &Gateway,
    begun: Instant,
    mut ended: watch::Receiver<bool>,
) -> JoinHandle<Vec<(Duration, Duration)>> {
    let address = gateway.address;
    tokio::spawn(async move {
        let mut wire = Wire::open(address).await;
        wire.send(wire::post("/v1/responses", STREAM).replace("host:", "x-live: 1\r\nhost:"))
            .await;
        wire.head().await;
        let (mut events, mut text) = (Vec::new(), String::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = tokio::select! {
                read = wire.stream.read(&mut buffer) => read.expect("the stream goes on"),
                _ = ended.wait_for(|is_ended| *is_ended) => return events,
            };
            let now = begun.elapsed();
            text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
            while let Some(end) = text.find(".}") {
                let micros = text[..end].rsplit(':').next().and_then(|digits| digits.parse().ok());
                // After a long delay, a chunk may end within a number.
                if let Some(micros) = micros {
                    let sent = Duration::from_micros(micros);
                    events.push((sent, now.saturating_sub(sent)));
                }
                text.drain(..end + 2);
            }
        }
    })
}

/// The delay that nine of ten events stay below which were sent from `from` to `to`, and the longest delay.
fn delays(events: &[(Duration, Duration)], from: Duration, to: Duration) -> (Duration, Duration) {
    let mut delays: Vec<Duration> = events
        .iter()
        .filter(|(sent, _)| (from..to).contains(sent))
        .map(|(_, late)| *late)
        .collect();
    assert!(!delays.is_empty(), "no event was sent");
    delays.sort_unstable();
    let at = |part: usize| {
        delays
            .get(delays.len() * part / 10)
            .or(delays.last())
            .copied()
            .unwrap_or_default()
    };
    (at(9), at(10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_streams_are_on_time_beside_a_heavy_body() {
    let begun = Instant::now();
    let (answer, answered) = watch::channel(Arc::from(&b"{}"[..]));
    let address = serve_connections(move |wire| serve(wire, begun, answered.clone())).await;
    let gateway = Gateway::configured(&upstream_at("a", &format!("http://{address}/v1"), "")).await;
    let (end, ended) = watch::channel(false);
    // The gateway distributes its connections evenly, so each of its threads has a stream.
    let threads = std::thread::available_parallelism().expect("a number").get();
    let streams: Vec<_> = (0..threads)
        .map(|_| read_stream(&gateway, begun, ended.clone()))
        .collect();
    gateway
        .metric_reaches("steadfast_in_flight_requests", threads as f64)
        .await;
    let mut spans = Vec::new();
    for heavy in heavies() {
        answer.send_replace(heavy.answer);
        let from = begun.elapsed();
        let response = wire::ask(gateway.address, &heavy.request).await;
        spans.push((heavy.name, from, begun.elapsed(), response.status));
    }
    sleep(PACE * 4).await;
    end.send_replace(true);
    let mut events = Vec::new();
    for stream in streams {
        events.extend(stream.await.expect("a whole stream"));
    }
    let mut late = Vec::new();
    for (name, from, to, status) in spans {
        let (most, worst) = delays(&events, from, to);
        let took = to - from;
        eprintln!("{name}: {status}, {took:?}, nine of ten events late by {most:?}, the worst by {worst:?}");
        assert!(matches!(status, 200 | 400), "{name}: {status}");
        if most >= LATE {
            late.push((name, most));
        }
    }
    assert!(late.is_empty(), "late by more than {LATE:?}: {late:?}");
}
