//! Measures the scanners of request and response bodies, and compares them with other ways to find the session key.
//!
//! `cargo bench --bench scan` prints the throughput in bytes of body per second, on one core. Only the scanners check that a
//! body is valid and unambiguous. `serde_json` into `IgnoredAny` skips values without checking the strings in them,
//! `sonic-rs` stops at the key, and memchr only searches for quotes and backslashes, which is the least work that a search
//! byte by byte can do.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use sonic_rs::JsonValueTrait;
use steadfast::scan::{
    RequestFacts, RequestScanRules, RequestScanner, ResponseReader, testing::portable_request_scanner,
};

const CODEX: &[u8] = include_bytes!("../tests/fixtures/recordings/codex0.169-sse-turn1.body");
const CODEX_LONG: &[u8] = include_bytes!("../tests/fixtures/recordings/codex0.169-input-500KB.body");
const PYTHON: &[u8] = include_bytes!("../tests/fixtures/recordings/python-sdk-create-stream.body");

/// A conversation of about `size` bytes like those of Codex: it has an escape or quote about every 55 bytes, `word` in every
/// sentence, and the session key at the end.
fn conversation(size: usize, word: &str) -> Vec<u8> {
    let text = format!(
        "The function returns early when the buffer is empty.\nIt says \"no\" then, and the caller gives the\t{word}. "
    );
    let mut items = Vec::new();
    let mut length = 0;
    while length + 400 < size {
        let text = text.repeat(((size - length) / text.len()).clamp(1, 20));
        length += text.len() + text.len() / 40 + 90;
        items.push(json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}));
    }
    let key = "01a2069e-bb2c-76f3-b814-64a0c2fa928c";
    let input = serde_json::to_string(&items).unwrap();
    format!(r#"{{"model":"gpt-5","stream":true,"input":{input},"store":false,"prompt_cache_key":"{key}"}}"#)
        .into_bytes()
}

fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("200B", PYTHON.to_vec()),
        ("40KB-codex", CODEX.to_vec()),
        ("500KB-codex", CODEX_LONG.to_vec()),
        ("256KB", conversation(256 << 10, "result")),
        ("4MB", conversation(4 << 20, "result")),
        ("256KB-unicode", conversation(256 << 10, "résumé — 漢字")),
    ]
}

fn scan(mut scanner: RequestScanner<'_>, body: &[u8], chunk: usize) -> RequestFacts {
    for chunk in body.chunks(chunk) {
        scanner.feed(chunk).unwrap();
    }
    scanner.finish().unwrap()
}

fn requests(criterion: &mut Criterion) {
    for (name, body) in bodies() {
        let mut group = criterion.benchmark_group(format!("request/{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        let whole = body.len();
        for chunk in [whole, 64 << 10, 16 << 10] {
            if chunk > whole {
                continue;
            }
            let label = if chunk == whole {
                "whole".to_owned()
            } else {
                format!("{}KiB", chunk >> 10)
            };
            group.bench_with_input(BenchmarkId::new("scanner", &label), &body, |bencher, body| {
                bencher.iter(|| scan(RequestScanner::new(RequestScanRules::default()), black_box(body), chunk));
            });
        }
        group.bench_with_input("scanner-portable", &body, |bencher, body| {
            bencher.iter(|| {
                scan(
                    portable_request_scanner(RequestScanRules::default()),
                    black_box(body),
                    whole,
                )
            });
        });
        group.bench_with_input("serde_json-ignored", &body, |bencher, body| {
            bencher.iter(|| serde_json::from_slice::<serde::de::IgnoredAny>(black_box(body)).unwrap());
        });
        group.bench_with_input("serde_json-value", &body, |bencher, body| {
            bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(body)).unwrap());
        });
        group.bench_with_input("sonic-rs-get", &body, |bencher, body| {
            bencher.iter(|| {
                let key = sonic_rs::get(black_box(body.as_slice()), &["prompt_cache_key"]).unwrap();
                key.as_str().map(str::len)
            });
        });
        group.bench_with_input("memchr2", &body, |bencher, body| {
            bencher.iter(|| memchr::memchr2_iter(b'"', b'\\', black_box(body)).count());
        });
        group.finish();
    }
}

/// A stream of `count` text deltas as OpenAI sends them, of about 200 bytes each.
fn events(count: usize) -> Vec<u8> {
    let mut stream = String::new();
    let mut push = |kind: &str, rest: serde_json::Value| {
        let rest = rest.to_string();
        stream.push_str(&format!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\",{}\n\n",
            &rest[1..]
        ));
    };
    push(
        "response.created",
        json!({"response": {"id": "resp_0123456789", "instructions": "Be brief. ".repeat(200)}}),
    );
    for number in 0..count {
        let item = json!({"delta": " and then", "item_id": "msg_0123456789abcdef", "output_index": 0, "sequence_number": number});
        push("response.output_text.delta", item);
    }
    push(
        "response.completed",
        json!({"response": {"id": "resp_0123456789", "output": "text ".repeat(count)}}),
    );
    stream.into_bytes()
}

fn responses(criterion: &mut Criterion) {
    let stream = events(1000);
    let mut group = criterion.benchmark_group("response/1000-events");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    for chunk in [stream.len(), 200] {
        group.bench_with_input(BenchmarkId::new("reader", chunk), &stream, |bencher, stream| {
            bencher.iter(|| {
                let mut reader = ResponseReader::events();
                black_box(stream).chunks(chunk).for_each(|chunk| reader.feed(chunk));
                assert!(reader.is_terminal());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, requests, responses);
criterion_main!(benches);
