//! Compressed request bodies: looked into, bounded, and forwarded as they came.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::kit::{
    client::{self, Reply, post},
    gateway::Gateway,
    sims,
};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).expect("memory")
}

fn encoded(coding: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = post("/v1/responses", body);
    request
        .headers_mut()
        .insert("content-encoding", coding.parse().expect("a value"));
    request
}

async fn send(gateway: &Gateway, coding: &str, body: Vec<u8>) -> Reply {
    client::send(gateway.address, encoded(coding, body)).await
}

#[tokio::test]
async fn a_compressed_body_goes_home_as_it_came() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for number in 0..4 {
        let key = format!("session-{number}");
        let home = gateway.home(&key).await;
        let plain = json!({"model": "gpt-5.2", "input": "x".repeat(9000), "prompt_cache_key": key}).to_string();
        let plain = plain.as_bytes();
        for (coding, body) in [
            ("gzip", gzip(plain)),
            ("X-GZIP", gzip(plain)),
            ("deflate", deflate(plain)),
            ("zstd", zstd(plain)),
            ("identity", plain.to_vec()),
        ] {
            let reply = send(&gateway, coding, body.clone()).await;
            assert_eq!(
                (reply.status.as_u16(), reply.routed().0),
                (200, home.as_str()),
                "{coding}: {}",
                reply.text()
            );
            let sim = sims.iter().find(|sim| sim.name() == home).expect("one of them");
            let arrived = sim.requests().pop().expect("a request");
            assert_eq!(arrived.body, body, "{coding}");
            assert_eq!(arrived.headers["content-encoding"], coding);
        }
    }
}

#[tokio::test]
async fn an_unknown_coding_is_passed_on_and_keyed_by_headers() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for number in 0..4 {
        let key = format!("session-{number}");
        let home = gateway.home(&key).await;
        for coding in ["br", "gzip, zstd", "aes128gcm"] {
            let body = format!("\u{1}not to be read: {coding} {key}");
            let mut request = encoded(coding, body.clone());
            request
                .headers_mut()
                .insert("session-id", key.parse().expect("a value"));
            let reply = client::send(gateway.address, request).await;
            assert_eq!(reply.routed().0, home, "{coding}");
            let sim = sims.iter().find(|sim| sim.name() == home).expect("one of them");
            assert_eq!(sim.requests().pop().expect("a request").body, body);
        }
    }
}

#[tokio::test]
async fn what_does_not_decompress_is_refused() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    let plain = json!({"model": "gpt-5.2", "input": "x".repeat(2000)}).to_string();
    let plain = plain.as_bytes();
    for (coding, whole) in [
        ("gzip", gzip(plain)),
        ("deflate", deflate(plain)),
        ("zstd", zstd(plain)),
    ] {
        let cut = whole[..whole.len() - 2].to_vec();
        let mut followed = whole.clone();
        followed.extend_from_slice(b"more");
        for (what, body) in [("plain", plain.to_vec()), ("cut", cut), ("followed", followed)] {
            let reply = send(&gateway, coding, body).await;
            assert_eq!(reply.status, 400, "{coding} {what}");
            assert_eq!(reply.json()["error"]["code"], "undecodable_body", "{coding} {what}");
        }
        let twice = br#"{"model":"a","input":"","model":"b"}"#;
        let body = match coding {
            "gzip" => gzip(twice),
            "deflate" => deflate(twice),
            _ => zstd(twice),
        };
        let reply = send(&gateway, coding, body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (400, &json!("ambiguous_body"))
        );
        assert!(
            reply.text().contains("at byte 24"),
            "counted in the text: {}",
            reply.text()
        );
    }
    assert_eq!(sims[0].counts().requests, 0);
}

#[tokio::test]
async fn a_body_that_grows_beyond_all_bounds_is_refused() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "[server]\nmax_body = \"1MiB\"\n").await;
    let bomb = vec![b' '; 40 << 20];
    for (coding, body) in [
        ("gzip", gzip(&bomb)),
        ("deflate", deflate(&bomb)),
        ("zstd", zstd(&bomb)),
    ] {
        assert!(body.len() < 100_000, "small as sent");
        let reply = send(&gateway, coding, body).await;
        assert!(
            [400, 413].contains(&reply.status.as_u16()),
            "{coding}: {}",
            reply.text()
        );
    }
    assert!(gateway.resident() < 100 << 20, "it was not unpacked to memory");
    assert_eq!(sims[0].counts().requests, 0);
}
