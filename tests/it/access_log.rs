//! The access log: one line for each request, and nothing secret in any line.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, ScriptedAnswer};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::kit::{
    client::{self, request},
    gateway::{Gateway, upstream},
    sessions::responses_request,
    sim, sims, wire,
};

fn with_id(mut request: Request<Full<Bytes>>, id: &str) -> Request<Full<Bytes>> {
    request
        .headers_mut()
        .insert("x-request-id", id.parse().expect("a valid header value"));
    request
}

/// Sends a request with the id `whole` and checks every field of its line.
async fn assert_line_of_a_whole_response(gateway: &Gateway) {
    let whole = client::send(
        gateway.address,
        with_id(
            responses_request(json!({"input": "hi", "prompt_cache_key": "k"}), &[]),
            "whole",
        ),
    )
    .await;
    let line = gateway.access_of("whole").await;
    for (field, value) in [
        ("method", json!("POST")),
        ("path", json!("/v1/responses")),
        ("endpoint", json!("responses")),
        ("status", json!(200)),
        ("outcome", json!("complete")),
        ("upstream", json!("a")),
        ("route", json!("home")),
        (
            "bytes_in",
            json!(r#"{"input":"hi","model":"gpt-5.2","prompt_cache_key":"k"}"#.len()),
        ),
        ("bytes_out", json!(whole.body.len())),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(
        line["duration_ms"].as_f64() >= line["first_byte_ms"].as_f64() && line["first_byte_ms"].as_f64() > Some(0.0)
    );
}

#[tokio::test]
async fn each_request_has_one_line_with_its_outcome() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "[timeouts]\nidle = \"300ms\"\n").await;
    assert_line_of_a_whole_response(&gateway).await;
    client::send(
        gateway.address,
        with_id(request(Method::POST, "/v1/responses", "[]"), "refused"),
    )
    .await;
    // The first five events include the first output, so the streams have begun for the client.
    sims[0]
        .script()
        .once("/v1/responses", Act::cut(Point::Events(5), Close::Reset));
    sims[0].script().once("/v1/responses", Act::stall(Point::Events(5)));
    for id in ["cut", "stalled"] {
        let streaming = client::open(
            gateway.address,
            with_id(responses_request(json!({"input": "hi", "stream": true}), &[]), id),
        )
        .await;
        streaming
            .into_body()
            .collect()
            .await
            .expect_err("a broken stream must not end like a complete one");
    }
    sims[0]
        .script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Never));
    let gone = client::open(
        gateway.address,
        with_id(responses_request(json!({"input": "hi"}), &[]), "gone"),
    );
    tokio::time::timeout(Duration::from_millis(100), gone)
        .await
        .expect_err("no response yet");
    for (id, outcome, status) in [
        ("refused", "refused", json!(400)),
        ("cut", "upstream_broken", json!(200)),
        ("stalled", "idle", json!(200)),
        ("gone", "client_gone", Value::Null),
    ] {
        let line = gateway.access_of(id).await;
        assert_eq!(
            (&line["outcome"], &line["status"]),
            (&json!(outcome), &status),
            "{line}"
        );
    }
    assert_eq!(gateway.access().len(), 5, "one line for each request");
}

#[tokio::test]
async fn bytes_of_a_streamed_upload_are_counted() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    let head = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nx-request-id: up\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";
    wire::exchange(gateway.address, [head, chunks]).await;
    assert_eq!(sims[0].requests()[0].body, "hello, world");
    let line = gateway.access_of("up").await;
    assert_eq!(line["bytes_in"], 12, "{line}");
}

#[tokio::test]
async fn no_secret_is_logged_or_returned() {
    let sims = sims(2).await;
    let (alive, dead) = (&sims[0], sim("dead").await);
    let lines = "headers = { \"x-second\" = \"env:STEADFAST_TEST_KEY\" }";
    let config = upstream(alive, lines) + &upstream(&sims[1], lines) + &upstream(&dead, lines);
    dead.stop().await;
    let gateway = Gateway::configured_with(&config, &["--log-level", "trace"]).await;
    let headers = [
        ("authorization", "Bearer sk-caller-canary"),
        ("x-api-key", "sk-caller-canary"),
        ("cookie", "c=sk-caller-canary"),
        ("session-id", "key-canary-header"),
    ];
    sims[1]
        .script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Close(Close::Reset)));
    let (mut answered, mut shown) = (String::new(), String::new());
    for number in 0..12 {
        let key = format!("key-canary-{number}");
        let fields = json!({"input": "body-canary", "prompt_cache_key": key, "stream": number % 2 == 0});
        let mut reply = client::send(gateway.address, responses_request(fields, &headers)).await;
        answered.push_str(&format!("{:?} {}", reply.headers, reply.text()));
        reply = client::send(
            gateway.address,
            responses_request(json!({"input": [1, "body-canary"], "model": 3}), &headers),
        )
        .await;
        answered.push_str(&reply.text());
    }
    for (path, body) in [
        ("/v1/files?key=key-canary-query", "body-canary"),
        ("/v1/responses", "{\"key-canary\" body-canary"),
    ] {
        let asked = with_id(request(Method::POST, path, body), "last");
        answered.push_str(&client::send(gateway.address, asked).await.text());
    }
    for path in ["/metrics", "/api/upstreams", "/api/route?key=x", "/", "/nothing"] {
        shown.push_str(&gateway.ask(path).await.text());
    }
    gateway.access_of("last").await;
    shown.push_str(&gateway.log().join("\n"));
    shown.push_str(&gateway.printed().join("\n"));
    let had_failover = gateway.access().iter().any(|line| line["attempts"] == 2);
    assert!(had_failover, "some request failed on its first upstream");
    for secret in ["key-canary", "body-canary", "sk-caller-canary", "sk-upstream-canary"] {
        let at = shown.find(secret);
        assert_eq!(
            at,
            None,
            "{secret} in: {}",
            &shown[at.unwrap_or(0).saturating_sub(200)..]
        );
    }
    for secret in ["sk-caller-canary", "sk-upstream-canary"] {
        assert!(!answered.contains(secret), "{secret} in an answer");
    }
}

#[tokio::test]
async fn an_unread_log_does_not_block_requests() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--log-level",
            "info",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut address = None;
    while address.is_none() {
        let line = said.next_line().await.expect("readable").expect("an address");
        address = line
            .strip_prefix("Steadfast listens on http://")
            .and_then(|address| address.parse().ok());
    }
    let address = address.expect("the printed address");
    // A pipe buffers 64 KiB, and each of these requests makes the gateway write about 200 bytes to the log.
    for _ in 0..1_000 {
        assert_eq!(client::get(address, "/nowhere").await.status, 404);
    }
}

/// Characters that change how a terminal shows a line, as an escape of JSON and as UTF-8.
const HOSTILE: [(&str, char); 8] = [
    ("\\u001b", '\u{1b}'),
    ("\\u000a", '\n'),
    ("\\u007f", '\u{7f}'),
    ("\\u009b", '\u{9b}'),
    ("\\u202e", '\u{202e}'),
    ("\\u2066", '\u{2066}'),
    ("\\u2028", '\u{2028}'),
    ("\\ufeff", '\u{feff}'),
];

#[tokio::test]
async fn no_line_contains_a_character_that_a_terminal_obeys() {
    for format in ["text", "json"] {
        let sim = sim("a").await;
        let gateway =
            Gateway::configured_with(&upstream(&sim, ""), &["--log-format", format, "--log-level", "trace"]).await;
        for (number, (escape, raw)) in HOSTILE.into_iter().enumerate() {
            // In the path and in fields of requests, as far as HTTP allows it.
            let name = if raw.is_ascii() { String::new() } else { raw.to_string() };
            let body = format!(r#"{{"model":"m{escape}m","input":"hi{escape}","prompt_cache_key":"{escape}"}}"#);
            let length = body.len();
            let head = format!(
                "POST /v1/responses{name}?{name} HTTP/1.1\r\nhost: localhost\r\nuser-agent: {name}\r\nx-request-id: r{name}\r\n\
                 session-id: s{name}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            wire::ask(gateway.address, head.clone()).await;
            wire::ask(
                gateway.address,
                head.replacen(&format!("/v1/responses{name}?{name}"), "/v1/responses", 1),
            )
            .await;
            // In the answer of the upstream: as a valid one, and as one that is not HTTP.
            let error =
                json!({"error": {"message": format!("try{raw}"), "type": format!("t{raw}"), "code": raw.to_string()}});
            for act in [
                Act::reply(http::StatusCode::TOO_MANY_REQUESTS, &error),
                Act::reply(http::StatusCode::UNAUTHORIZED, &error),
                Act::answer(ScriptedAnswer::Raw(
                    format!("HTTP/1.1 2{raw}0 {raw}\r\nx{raw}: {raw}\r\n\r\n").into(),
                )),
            ] {
                sim.script().once("/v1/responses", act);
                wire::ask(gateway.address, wire::post("/v1/responses", crate::kit::WHOLE)).await;
            }
            let last = wire::post(&format!("/v1/end-{number}"), "{}");
            wire::ask(gateway.address, last).await;
            gateway.log_until(&format!("/v1/end-{number}")).await;
        }
        for line in gateway.log() {
            let is_shown = |next: char| next == '\u{fffd}' || matches!(next, ' '..='~');
            assert!(line.chars().all(is_shown), "{line:?}");
            if format == "json" {
                let told: Value = serde_json::from_str(&line).expect("JSON");
                assert!(told["timestamp"].is_string(), "{line}");
            } else {
                assert!(line.starts_with("20"), "each line begins with its time: {line}");
            }
        }
    }
}
