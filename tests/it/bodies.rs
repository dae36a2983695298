//! Request bodies: which bodies are refused, with which message, and which bodies pass byte for byte.

use std::io::Read as _;

use http::Method;
use serde_json::json;

use crate::kit::{
    client,
    encoders::{Encoder, gzip, zlib, zstd},
    gateway::Gateway,
    gateway_with_sim, sims,
    wire::{self, Wire},
};

/// A content coding and its encoder.
type Coding = (&'static str, Encoder);

const CODINGS: [Coding; 4] = [
    ("identity", |plain| plain.to_vec()),
    ("gzip", gzip),
    ("deflate", zlib),
    ("zstd", zstd),
];

fn post(coding: &str, body: Vec<u8>) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = client::post("/v1/responses", body);
    request
        .headers_mut()
        .insert("content-encoding", coding.parse().expect("a valid header value"));
    request
}

/// Returns invalid bodies, each with a text of the error message and the offset of the offending byte.
fn invalid_bodies() -> Vec<(Vec<u8>, &'static str, usize)> {
    let deep = format!("{{\"input\":{}", "[".repeat(200));
    let mut cases: Vec<(Vec<u8>, &'static str, usize)> = vec![
        (b" ".to_vec(), "unexpected end", 1),
        (b"[]".to_vec(), "not an object", 0),
        (b"\"text\"".to_vec(), "not an object", 0),
        (b"null".to_vec(), "not an object", 0),
        (b"{} {}".to_vec(), "after the root object", 3),
        (b"\xef\xbb\xbf{}".to_vec(), "byte order mark", 0),
        (b"{\"input\":\"\xff\"}".to_vec(), "UTF-8", 10),
        (b"{\"input\":\"\xed\xa0\x80\"}".to_vec(), "UTF-8", 10),
        (b"{\"ignored\":\"\xc0\xaf\"}".to_vec(), "UTF-8", 12),
        (br#"{"model":"a","model":"b"}"#.to_vec(), "duplicate field `model`", 13),
        (
            br#"{"model":"a","mod\u0065l":"b"}"#.to_vec(),
            "duplicate field `model`",
            13,
        ),
        (
            br#"{"prompt_cache_key":"a","prompt_cache_key":"a"}"#.to_vec(),
            "duplicate field `prompt_cache_key`",
            24,
        ),
        (br#"{"model":1}"#.to_vec(), "`model`", 9),
        (br#"{"model":"\ud800"}"#.to_vec(), "lone surrogate", 10),
        (br#"{"a":01}"#.to_vec(), "number", 5),
        (br#"{"a":tru}"#.to_vec(), "true", 8),
        (b"{\"a\":\"\n\"}".to_vec(), "control character", 6),
        (br#"{"a":1,}"#.to_vec(), "key", 7),
        (br#"{'a':1}"#.to_vec(), "key", 1),
        (br#"{"a":1"#.to_vec(), "unexpected end", 6),
        (br#"{"a":NaN}"#.to_vec(), "value", 5),
    ];
    cases.push((deep.into_bytes(), "deeper than 128", 9 + 127));
    cases
}

/// The code of an error whose message contains `names`.
fn code_of(names: &str) -> &'static str {
    let ambiguities = ["duplicate", "`model`", "lone surrogate", "byte order mark", "deeper"];
    match ambiguities.iter().any(|ambiguity| names.contains(ambiguity)) {
        true => "ambiguous_body",
        false => "invalid_json",
    }
}

#[tokio::test]
async fn an_invalid_body_is_refused_with_the_reason_and_the_offset() {
    let (sim, gateway) = gateway_with_sim("").await;
    for (body, names, offset) in invalid_bodies() {
        for (coding, encode) in CODINGS {
            let what = format!("{coding} {}", String::from_utf8_lossy(&body));
            let reply = client::send(gateway.address, post(coding, encode(&body))).await;
            let error = &reply.json()["error"];
            assert_eq!(
                (reply.status.as_u16(), &error["code"]),
                (400, &json!(code_of(names))),
                "{what}: {error}"
            );
            let message = error["message"].as_str().expect("a string");
            assert!(message.contains(names), "{what}: {message}");
            let place = message
                .split(" at byte ")
                .nth(1)
                .and_then(|rest| rest.split(['.', ':']).next());
            let place: usize = place.and_then(|digits| digits.parse().ok()).expect("an offset");
            assert!(place.abs_diff(offset) <= 1, "{what}: {message}, not {offset}");
        }
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn compression_bombs_and_broken_codings_reach_no_upstream() {
    let (sim, gateway) = gateway_with_sim("[server]\nmax_body = \"8MiB\"\n").await;
    let plain = format!("{{\"input\":\"{}\"}}", "x".repeat(16 << 20)).into_bytes();
    let fine = br#"{"model":"gpt-5.2","input":"hi"}"#;
    for (coding, encode) in CODINGS.into_iter().skip(1) {
        let reply = client::send(gateway.address, post(coding, encode(&plain))).await;
        assert!(matches!(reply.status.as_u16(), 400 | 413), "{coding}: {}", reply.text());
        let whole = encode(fine);
        let cut = whole.get(..whole.len() - 3).expect("long enough").to_vec();
        let twice = [encode(fine), encode(fine)].concat();
        for body in [cut, twice, fine.to_vec()] {
            let reply = client::send(gateway.address, post(coding, body)).await;
            let code = reply.json()["error"]["code"].clone();
            // Deflate has no signature. So any bytes may decompress to a text that is not JSON.
            let is_refused = code == "undecodable_body" || coding == "deflate" && code == "invalid_json";
            assert!(reply.status.as_u16() == 400 && is_refused, "{coding}: {}", reply.text());
        }
    }
    assert_eq!(sim.counts().requests, 0);
    assert!(gateway.resident() < 200 << 20, "{}", gateway.resident());
}

#[tokio::test]
async fn a_compressed_body_is_keyed_by_its_text_and_forwarded_unchanged() {
    let sims = sims(4).await;
    let gateway = Gateway::before(&sims, "").await;
    for (coding, encode) in CODINGS {
        for key in ["k1", "k2", "k3", "k4"] {
            let body = encode(
                json!({"model": "gpt-5.2", "input": coding, "prompt_cache_key": key})
                    .to_string()
                    .as_bytes(),
            );
            let reply = client::send(gateway.address, post(coding, body.clone())).await;
            assert_eq!(
                (reply.status.as_u16(), reply.routed().0),
                (200, gateway.home(key).await.as_str()),
                "{coding}"
            );
            let sim = sims
                .iter()
                .find(|sim| sim.name() == reply.routed().0)
                .expect("one of the accounts");
            let seen = sim.requests().pop().expect("a recorded request");
            assert_eq!(
                (&seen.body[..], &seen.headers["content-encoding"]),
                (&body[..], &coding.parse().expect("a valid header value"))
            );
        }
    }
}

#[tokio::test]
async fn a_body_with_an_unknown_coding_is_keyed_by_headers_and_forwarded() {
    let sims = sims(4).await;
    let gateway = Gateway::before(&sims, "").await;
    for coding in ["br", "gzip, zstd", "x-own"] {
        for key in ["k1", "k2", "k3", "k4"] {
            let mut request = post(coding, b"\0\x01 not to be read {".to_vec());
            request
                .headers_mut()
                .insert("session-id", key.parse().expect("a valid header value"));
            let reply = client::send(gateway.address, request).await;
            assert_eq!(reply.routed().0, gateway.home(key).await, "{coding}");
            let sim = sims
                .iter()
                .find(|sim| sim.name() == reply.routed().0)
                .expect("one of the accounts");
            assert_eq!(
                sim.requests().pop().expect("a recorded request").body,
                &b"\0\x01 not to be read {"[..]
            );
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let (sim, gateway) = gateway_with_sim("[server]\nmax_body = \"64KiB\"\n").await;
    for path in ["/v1/responses", "/v1/files"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 65537\r\n\r\n");
        let answer = wire::ask(gateway.address, head).await;
        // The first response is the refusal, not a 100 Continue.
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (413, "request_too_large"),
            "{path}"
        );
    }
    let long = "x".repeat(70_000);
    for length in [
        "content-length: 70000\r\n\r\n".to_owned() + &long,
        format!("transfer-encoding: chunked\r\n\r\n{}", wire::chunk(&long)),
    ] {
        for path in ["/v1/files", "/v1/responses"] {
            let answer = wire::ask(
                gateway.address,
                format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{length}0\r\n\r\n"),
            )
            .await;
            assert!(matches!(answer.status, 413 | 400), "{path} {answer:?}");
        }
    }
    until_idle(&sim).await;
    let fits = json!({"model": "gpt-5.2", "input": "x".repeat(60_000)}).to_string();
    assert_eq!(
        wire::ask(gateway.address, wire::post("/v1/responses", &fits))
            .await
            .status,
        200
    );
}

async fn until_idle(sim: &steadfast::sim::Sim) {
    crate::kit::until_true("no request to be in flight", || sim.counts().in_flight == 0).await;
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_a_413() {
    let (sim, gateway) = gateway_with_sim("[server]\nmax_body = \"64KiB\"\n").await;
    for (path, json) in [("/v1/responses", true), ("/v1/files", false)] {
        let kind = if json { "application/json" } else { "text/plain" };
        let mut wire = Wire::open(gateway.address).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        wire.send(head + &wire::chunk("{\"input\":\"")).await;
        for _ in 0..5 {
            wire.send(wire::chunk(&"x".repeat(16 << 10))).await;
        }
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (413, "request_too_large"),
            "{path}"
        );
    }
    until_idle(&sim).await;
}

#[tokio::test]
async fn expect_100_continue_is_answered_after_a_valid_head() {
    let (sim, gateway) = gateway_with_sim("").await;
    let body = r#"{"model":"gpt-5.2","input":"hi"}"#;
    let (head, body) = wire::post("/v1/responses", body)
        .replacen("\r\n", "\r\nexpect: 100-continue\r\n", 1)
        .split_once("\r\n\r\n")
        .map(|(head, body)| (format!("{head}\r\n\r\n"), body.to_owned()))
        .expect("a head");
    let mut wire = Wire::open(gateway.address).await;
    wire.send(head.clone()).await;
    assert_eq!(wire.answer().await.status, 100);
    wire.send(body).await;
    assert_eq!(wire.answer().await.status, 200);
    assert!(!sim.requests()[0].headers.contains_key("expect"));
    let refused = wire::ask(gateway.address, head.replace("/v1/responses", "/v1//responses")).await;
    assert_eq!(refused.status, 400, "no 100 Continue precedes it");
}

#[tokio::test]
async fn every_kind_of_body_keeps_its_framing_and_its_bytes() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut bytes = vec![0_u8; 100_000];
    std::io::repeat(0xa7).read_exact(&mut bytes).expect("an endless source");
    for method in [Method::POST, Method::PUT, Method::PATCH] {
        let mut request = client::request(method.clone(), "/v1/files", bytes.clone());
        request.headers_mut().insert(
            "content-type",
            "application/octet-stream".parse().expect("a valid header value"),
        );
        client::send(gateway.address, request).await;
        let seen = sim.requests().pop().expect("a recorded request");
        assert_eq!((&seen.method, &seen.body[..]), (&method, &bytes[..]));
        assert_eq!(seen.headers["content-length"], "100000");
        assert!(!seen.headers.contains_key("transfer-encoding"));
    }
}
