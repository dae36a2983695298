//! Message framing (RFC 9112): a request with ambiguous framing is refused and its connection is closed.

use crate::kit::{
    client, gateway_with_sim,
    wire::{self, End, Wire},
};

const JSON: &str = r#"{"model":"gpt-5.2","input":"hi","prompt_cache_key":"k"}"#;

/// Returns a request head with these lines in addition to `Host` and `Content-Type`.
fn head(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
    format!("POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}\r\n")
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_closes_the_connection() {
    let (sim, gateway) = gateway_with_sim("").await;
    let cases: &[&[&str]] = &[
        &["transfer-encoding: gzip, chunked"],
        &["transfer-encoding: chunked, chunked"],
        &["transfer-encoding: identity, chunked"],
        &["transfer-encoding: chunked", "transfer-encoding: chunked"],
        &["transfer-encoding: gzip", "transfer-encoding: chunked"],
        &["transfer-encoding: , chunked"],
        &["content-length: 5", "transfer-encoding: chunked"],
        &["transfer-encoding: chunked", "content-length: 5"],
        &["transfer-encoding: chunked", "content-length: 0"],
        &["Transfer-Encoding:\tChunked ", "Content-Length: 99"],
        &["transfer-encoding: identity", "content-length: 55"],
        &[
            "transfer-encoding: chunked",
            "connection: content-length",
            "content-length: 5",
        ],
        &[
            "transfer-encoding: chunked",
            "connection: transfer-encoding",
            "content-length: 5",
        ],
    ];
    for lines in cases {
        let mut wire = Wire::open(gateway.address).await;
        // The bytes after the request are never read as another request.
        let next = wire::post("/v1/responses", JSON);
        wire.send(head(lines) + &chunked(JSON) + &next).await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "bad_framing"),
            "{lines:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{lines:?}");
        wire.closing().await;
        assert_eq!(wire.rest(), "", "{lines:?}");
    }
    assert_eq!(sim.counts().requests, 0);
}

/// A name, a request, and the statuses that are allowed for it.
type Case = (&'static str, String, &'static [u16]);

async fn assert_refused(cases: Vec<Case>) {
    let (sim, gateway) = gateway_with_sim("").await;
    for (what, request, statuses) in cases {
        let answer = client::raw(gateway.address, request.as_bytes()).await;
        let status = answer
            .get(9..12)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0_u16);
        assert!(statuses.contains(&status), "{what}: {answer}");
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn an_invalid_length_or_coding_is_refused() {
    let lengths = [
        ("a negative length", "-1"),
        ("a signed length", "+5"),
        ("a hexadecimal length", "0x5"),
        ("a length over 64 bits", "99999999999999999999"),
        ("an empty length", ""),
        ("a list of lengths that differ", "5, 6"),
        ("two lengths that differ", "5\r\ncontent-length: 6"),
    ];
    let codings = [
        ("a coding after chunked", "chunked, gzip"),
        ("an unknown coding", "xchunked"),
        ("a control character after a coding", "chunked\u{b}"),
        ("a control character before a coding", "\u{c}chunked"),
        ("a folded coding", "\r\n chunked"),
    ];
    let lengths = lengths.map(|(what, value)| (what, head(&[&format!("content-length: {value}")]) + "hello!"));
    let codings = codings.map(|(what, value)| (what, head(&[&format!("transfer-encoding: {value}")]) + &chunked(JSON)));
    let cases = lengths.into_iter().chain(codings);
    assert_refused(cases.map(|(what, request)| (what, request, &[400_u16][..])).collect()).await;
}

#[tokio::test]
async fn an_invalid_head_is_refused() {
    let many = "x-filler: 1\r\n".repeat(101);
    let long = "x".repeat(200_000);
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
    let models = "/v1/models";
    assert_refused(vec![
        ("a folded line", get(models, "x-a: 1\r\n folded\r\n"), &[400]),
        ("space before a colon", get(models, "x-a : 0\r\n"), &[400]),
        ("NUL in a value", get(models, "x-a: a\0b\r\n"), &[400]),
        ("a bare CR in a value", get(models, "x-a: a\rb\r\n"), &[400]),
        ("over a hundred headers", get(models, &many), &[431]),
        (
            "an oversized head",
            get(models, &format!("x-filler: {long}\r\n")),
            &[431],
        ),
        ("an oversized target", get(&format!("/v1/{long}"), ""), &[414, 431]),
        ("a fragment", get("/v1/files/x#/../secret", ""), &[400]),
        ("no version", get(models, "").replace(" HTTP/1.1", ""), &[400]),
        (
            "another version",
            get(models, "").replace("HTTP/1.1", "HTTP/3.0"),
            &[400],
        ),
        (
            "TLS on a plain port",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(),
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_transfer_coding_on_http_1_0_is_refused() {
    let (sim, gateway) = gateway_with_sim("").await;
    let request = head(&["transfer-encoding: chunked"]).replace("HTTP/1.1", "HTTP/1.0") + &chunked(JSON);
    let answer = client::raw(gateway.address, request.as_bytes()).await;
    assert_eq!(answer.get(9..12), Some("400"), "{answer}");
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn an_invalid_chunk_is_refused() {
    let (sim, gateway) = gateway_with_sim("").await;
    let chunks: &[(&str, &str)] = &[
        ("no number", "zz\r\nhello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("over 64 bits", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("data longer than its size", "3\r\nhello\r\n0\r\n\r\n"),
        ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ];
    for (what, chunks) in chunks {
        let answer = client::raw(
            gateway.address,
            (head(&["transfer-encoding: chunked"]) + chunks).as_bytes(),
        )
        .await;
        assert!(
            answer.is_empty() || answer.get(9..12) == Some("400"),
            "{what}: {answer}"
        );
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn trailers_are_not_forwarded() {
    let (sim, gateway) = gateway_with_sim("").await;
    let trailers = "content-length: 3\r\nauthorization: Bearer sk-smuggled\r\nx-after: 1\r\n";
    for path in ["/v1/responses", "/v1/files"] {
        let head = head(&[
            "transfer-encoding: chunked",
            "trailer: authorization, x-after",
            "te: trailers",
        ]);
        let head = head
            .replace("/v1/responses", path)
            .replace("application/json", "text/plain");
        let body = format!("{:x}\r\n{JSON}\r\n0\r\n{trailers}\r\n", JSON.len());
        wire::ask(gateway.address, head + &body).await;
    }
    let seen = sim.requests();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.body, JSON);
        assert_eq!(request.headers["authorization"], "Bearer sk-upstream-canary");
        for name in ["content-length", "x-after", "trailer", "te"] {
            assert!(!request.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn headers_named_by_connection_are_not_forwarded() {
    let (sim, gateway) = gateway_with_sim("").await;
    let lines = [
        "connection: x-hop, X-Other",
        "connection: keep-alive, host, content-length",
        "x-hop: 1",
        "x-other: 2",
        "x-stays: 3",
        "keep-alive: timeout=5",
        "proxy-connection: keep-alive",
        "proxy-authorization: Basic abc",
        "upgrade: h2c",
        "te: trailers",
        &format!("content-length: {}", JSON.len()),
    ];
    let answer = wire::ask(gateway.address, head(&lines) + JSON).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = sim.requests().remove(0);
    assert_eq!(seen.body, JSON);
    assert_eq!(seen.headers["x-stays"], "3");
    assert_eq!(seen.headers["content-length"], JSON.len().to_string());
    let gone = [
        "x-hop",
        "x-other",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "te",
    ];
    for name in gone {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

/// `Connection: content-encoding` removes that header from the forwarded request, so the upstream reads the body as
/// plain JSON. The gateway must inspect it as plain JSON as well.
#[tokio::test]
async fn an_encoding_named_by_connection_does_not_hide_the_body() {
    let (sim, gateway) = gateway_with_sim("").await;
    let twice = r#"{"model":"gpt-5.2","input":"hi","model":"gpt-5-mini"}"#;
    for coding in ["br", "gzip"] {
        let coding = format!("content-encoding: {coding}");
        let length = format!("content-length: {}", twice.len());
        let lines = ["connection: content-encoding", &coding, &length];
        let answer = wire::ask(gateway.address, head(&lines) + twice).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "ambiguous_body"),
            "{coding}"
        );
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (sim, gateway) = gateway_with_sim("").await;
    let bodies: Vec<String> = (0..20)
        .map(|i| JSON.replace("\"hi\"", &format!("\"hi {i}\"")))
        .collect();
    let all: String = bodies.iter().map(|body| wire::post("/v1/responses", body)).collect();
    let mut wire = Wire::open(gateway.address).await;
    wire.send(all).await;
    let mut ids = Vec::new();
    for _ in &bodies {
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.end), (200, End::Whole));
        ids.push(answer.header("x-request-id").expect("an id").to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), bodies.len());
    let seen: Vec<_> = sim.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(seen, bodies);
}

#[tokio::test]
async fn a_refusal_by_the_head_keeps_the_connection_usable() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    // The body of the refused request looks like a request. The gateway must skip it.
    let smuggled = wire::post("/v1/responses", JSON);
    wire.send(wire::post("/v1//responses", &smuggled) + &wire::post("/v1/responses", JSON))
        .await;
    assert_eq!(wire.answer().await.error_code(), "ambiguous_target");
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(sim.counts().requests, 1);
}

#[tokio::test]
async fn a_request_that_arrives_byte_by_byte_is_served() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    for byte in (head(&["transfer-encoding: chunked"]) + &chunked(JSON)).bytes() {
        wire.send([byte]).await;
    }
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(sim.requests()[0].body, JSON);
}
