//! The paths that the gateway serves, and the errors for all other paths.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, ScriptedAnswer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::kit::{
    client::{self, Reply, request},
    gateway::Gateway,
    sims, until, until_true,
};

/// Checks that `reply` is an error of the gateway with this status and code.
fn check_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(!reply.header("x-request-id").is_empty());
    let answer = reply.json();
    let error = answer["error"].as_object().expect("an error");
    let mut fields: Vec<&str> = error.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["code", "message", "param", "type"]);
    assert_eq!(error["code"], code, "{answer}");
    assert!(!error["type"].as_str().expect("a type").is_empty());
    assert!(error["message"].as_str().expect("a message").len() > 20);
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(1));
}

#[tokio::test]
async fn every_endpoint_answers_with_and_without_v1() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let body = json!({"model": "gpt-5.2", "input": "hi", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let made = client::send(gateway.address, client::post("/v1/responses", body.clone()))
        .await
        .json();
    let id = made["id"].as_str().expect("an id");
    for prefix in ["/v1", ""] {
        for (method, path, object) in [
            ("POST", "/responses", "response"),
            ("POST", "/responses/compact", "response.compaction"),
            ("GET", &format!("/responses/{id}"), "response"),
            ("GET", &format!("/responses/{id}/input_items"), "list"),
            ("POST", &format!("/responses/{id}/cancel"), "response"),
            ("POST", "/chat/completions", "chat.completion"),
            ("POST", "/embeddings", "list"),
            ("GET", "/models", "list"),
            ("GET", "/models/gpt-5.2", "model"),
        ] {
            let content = if method == "POST" && !path.ends_with("cancel") {
                body.clone()
            } else {
                String::new()
            };
            let method = method.parse().expect("a method");
            let reply = client::send(gateway.address, request(method, &format!("{prefix}{path}"), content)).await;
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["object"]),
                (200, &json!(object)),
                "{prefix}{path}"
            );
        }
    }
    let targets: Vec<String> = sims
        .iter()
        .flat_map(|sim| sim.requests())
        .map(|request| request.target)
        .collect();
    assert!(targets.iter().all(|target| target.starts_with("/v1/")), "{targets:?}");
}

#[tokio::test]
async fn an_unknown_path_names_the_path_that_was_probably_meant() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    for (path, meant) in [
        ("/", "/v1/responses"),
        ("/v1", "/v1/responses"),
        ("/v1/", "/v1/responses"),
        ("/response", "/v1/responses"),
        ("/v2/responses?x=1", "/v1/responses"),
        ("/openai/v1/responses", "/v1/responses"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/api/chat/completions", "/v1/chat/completions"),
        ("/v1beta/models", "/v1/models"),
        ("/compact", "/v1/responses/compact"),
        ("/V1/embeddings", "/v1/embeddings"),
        ("/files", "/v1/files"),
        ("/v1/v1/batches/batch_1", "/v1/batches"),
        ("/api/conversations", "/v1/conversations"),
    ] {
        for method in [Method::GET, Method::POST] {
            let reply = client::send(gateway.address, request(method, path, "")).await;
            check_error(&reply, 404, "unknown_path");
            let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
            let path = path.split('?').next().expect("a path");
            assert!(
                message.contains(&format!("{path}.")) && message.contains(&format!("{meant}?")),
                "{message}"
            );
        }
    }
    assert_eq!(sims[0].counts().requests, 0);
}

#[tokio::test]
async fn any_other_path_below_v1_passes_unchanged() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    for (method, target) in [
        ("GET", "/v1/files?limit=2&after=a%2Fb"),
        ("DELETE", "/v1/files/file-1"),
        ("PATCH", "/v1/x%20y/~z/@:!$&'()*+,="),
        ("PUT", "/v1/batches/b/"),
        ("POST", "/v1/conversations/conv_1/items?include=%5B%5D"),
        ("POST", "/v1/moderations"),
    ] {
        let content = if method == "GET" { "" } else { "{\"a\": 1}" };
        let reply = client::send(
            gateway.address,
            request(method.parse().expect("a method"), target, content),
        )
        .await;
        assert_eq!(
            reply.header("openai-organization"),
            "a",
            "the response of the upstream: {}",
            reply.text()
        );
        let arrived = sims[0].requests().pop().expect("a recorded request");
        assert_eq!(
            (arrived.method.as_str(), &*arrived.target, &*arrived.body),
            (method, target, content.as_bytes())
        );
    }
}

#[tokio::test]
async fn head_and_options_requests_pass_through() {
    let sims = sims(1).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\nallow: GET, OPTIONS\r\nx-seen: 1\r\n\r\n";
    sims[0].script().always(Act::answer(ScriptedAnswer::Raw(answer.into())));
    let gateway = Gateway::before(&sims, "").await;
    let reply = client::send(gateway.address, request(Method::HEAD, "/v1/files/f/content", "")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-length"), reply.body.len()),
        (200, "12345", 0)
    );
    sims[0].script().clear();
    let empty = "HTTP/1.1 204 No Content\r\nallow: GET, OPTIONS\r\n\r\n";
    sims[0].script().always(Act::answer(ScriptedAnswer::Raw(empty.into())));
    let reply = client::send(gateway.address, request(Method::OPTIONS, "/v1/responses", "")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("allow"), reply.body.len()),
        (204, "GET, OPTIONS", 0)
    );
    let methods: Vec<String> = sims[0]
        .requests()
        .iter()
        .map(|request| request.method.to_string())
        .collect();
    assert_eq!(methods, ["HEAD", "OPTIONS"]);
    until_true("two log lines with the outcome complete", || {
        gateway
            .access()
            .iter()
            .filter(|line| line["outcome"] == "complete")
            .count()
            == 2
    })
    .await;
}

#[tokio::test]
async fn an_upload_is_streamed_and_not_buffered() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "[server]\nmax_body = \"1MiB\"\nbuffered_bodies = \"1MiB\"\n").await;
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let start = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n{\"prompt_cache_key\":";
    let end = "\r\n--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--b--\r\n";
    let rest = [vec![b'x'; 700_000], end.into()].concat();
    let length = start.len() + rest.len();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the peer reads");
    stream.write_all(start.as_bytes()).await.expect("the peer reads");
    until_true("the upstream to receive the beginning of the upload", || {
        sims[0].requests().iter().any(|request| request.body == start)
    })
    .await;
    assert_eq!(
        gateway.metric("steadfast_buffered_bytes").await,
        0.0,
        "the upload is not buffered"
    );
    stream.write_all(&rest).await.expect("the peer reads");
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer))
        .await
        .expect("data within the time limit")
        .expect("a response");
    assert_eq!(&answer, b"HTTP/1.1 200", "the upload is a complete form");
    let arrived = sims[0].requests().pop().expect("a recorded request");
    assert_eq!(
        (arrived.body.len(), &arrived.body[..start.len()]),
        (length, start.as_bytes())
    );
}

/// A rule that answers one request with `status`, `text` and `retry-after: 7`.
fn error_once(status: u16, text: &str) -> Rule {
    let mut headers = http::HeaderMap::new();
    headers.insert("retry-after", "7".parse().expect("a valid header value"));
    Rule::new(Act::answer(ScriptedAnswer::Fixed(steadfast::sim::Fixed {
        status: status.try_into().expect("a status"),
        headers,
        pieces: vec![Bytes::from(text.to_owned())],
    })))
    .times(1)
}

#[tokio::test]
async fn an_upstreams_error_is_returned_byte_for_byte() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "[affinity]\nwait = \"0s\"\nwait_max = \"0s\"\n").await;
    // Only the last status sets a limit, because of `retry-after`. Each request is a session of its own, because a session
    // that fails everywhere is braked.
    for status in [400, 401, 403, 404, 409, 413, 418, 422, 451, 500, 502, 504, 503] {
        let error =
            json!({"error": {"type": "invalid_request_error", "code": "odd", "message": "no"}, "x": [1.50, "é"]});
        let text = format!("{error:#}\n\n");
        sims[0].script().add(error_once(status, &text));
        let body = json!({"model": "gpt-5.2", "input": status.to_string(), "stream": true});
        let reply = client::post_json(gateway.address, "/v1/responses", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text(), reply.header("retry-after")),
            (status, text, "7")
        );
        assert_eq!(reply.routed().0, "a");
    }
}

/// An account's own limit is no error of the request, whatever its status: callers get Steadfast's answer.
#[tokio::test]
async fn a_limit_of_the_account_is_not_returned_under_the_status_of_its_answer() {
    let error = json!({"error": {"type": "usage_limit_reached", "message": "no", "resets_in_seconds": 7}});
    for status in [401, 402, 403, 429] {
        let sims = sims(1).await;
        let gateway = Gateway::before(&sims, "[affinity]\nwait = \"0s\"\nwait_max = \"0s\"\n").await;
        sims[0].script().add(error_once(status, &error.to_string()));
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true});
        let reply = client::post_json(gateway.address, "/v1/responses", &body).await;
        assert_eq!(reply.status, 429, "{status}: {}", reply.text());
        assert_eq!(reply.json()["error"]["code"], "usage_limit_reached", "{status}");
        let resets_in: u64 = reply.header("retry-after").parse().expect("seconds");
        assert!((1..=7).contains(&resets_in), "{status}: {resets_in}");
    }
}

#[tokio::test]
async fn every_error_of_the_gateway_has_the_same_shape() {
    let sims = sims(1).await;
    let head = "[server]\nmax_body = \"2KiB\"\nbuffered_bodies = \"4KiB\"\n[timeouts]\nhead = \"300ms\"\n";
    let gateway = Gateway::before(&sims, head).await;
    let ask = |body: String| client::send(gateway.address, client::post("/v1/responses", body));
    let twice = ask(r#"{"model":"m","prompt_cache_key":"a","input":"","prompt_cache_\u006bey":"b"}"#.to_owned()).await;
    check_error(&twice, 400, "ambiguous_body");
    let message = twice.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(
        message.contains("prompt_cache_key") && message.contains("byte 47."),
        "the message names the field and the offset: {message}"
    );
    for body in ["[]", "{", " ", "null", "{}x", "\u{feff}{}", "{\"model\":\"\\ud800\"}"] {
        check_error(&ask(body.to_owned()).await, 400, "ambiguous_body");
    }
    check_error(&ask("x".repeat(3000)).await, 413, "request_too_large");
    let method = request("FOO".parse().expect("a method"), "/v1/responses", "");
    check_error(&client::send(gateway.address, method).await, 405, "method_not_allowed");
    let mut undecodable = client::post("/v1/responses", "{}");
    undecodable
        .headers_mut()
        .insert("content-encoding", "gzip".parse().expect("a valid header value"));
    check_error(
        &client::send(gateway.address, undecodable).await,
        400,
        "undecodable_body",
    );
    assert_eq!(sims[0].counts().requests, 0);
    sims[0]
        .script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Never));
    let valid = r#"{"model":"gpt-5.2","input":"hi"}"#.to_owned();
    let late = ask(valid.clone()).await;
    check_error(&late, 504, "upstream_timeout");
    assert!(late.headers.contains_key("retry-after"));
    sims[0].script().once(
        "/v1/responses",
        Act::answer(ScriptedAnswer::Close(steadfast::sim::Close::Fin)),
    );
    check_error(&ask(valid.clone()).await, 502, "upstream_broken");
    for sim in sims {
        sim.stop().await;
    }
    check_error(&ask(valid).await, 502, "upstream_unreachable");
}

#[tokio::test]
async fn a_get_of_all_responses_is_forwarded() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    let get = Request::get("/v1/responses")
        .body(Full::<Bytes>::default())
        .expect("a valid request");
    let reply = client::send(gateway.address, get).await;
    assert_eq!((reply.status.as_u16(), reply.header("openai-organization")), (405, "a"));
    let value: Value = reply.json();
    assert!(value["error"]["message"].is_string());
    until("the access log line", || async {
        gateway
            .access()
            .into_iter()
            .find(|line| line["endpoint"] == "responses" && line["status"] == 405)
    })
    .await;
}
