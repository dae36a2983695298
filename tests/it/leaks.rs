//! Secrets must not appear in any output: the log at the level `trace`, metrics, the admin API, errors and arguments.

use std::{fs, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Fixed, Point, Received, ScriptedAnswer};

use crate::kit::{
    canary::assert_none,
    client,
    gateway::{FILE, Gateway, scratch, steadfast},
    keys::{group, key, sha256_hex},
    secrets::{
        CALLER_KEY, CALLER_SECRETS, GATEWAY_SECRETS, LITERAL_KEY, TOKEN, UPSTREAM_TEXTS, ask_admin, canaries,
        configuration, request_head, session_body,
    },
    sims,
};

fn post(path: &str, body: &str) -> String {
    let lines = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    request_head(&format!("POST {path}"), &lines) + body
}

/// Returns requests of every kind: valid, refused, broken, and bytes that are not HTTP.
fn requests() -> Vec<String> {
    let whole = session_body(0).to_string();
    let with = |field: &str, value: Value| {
        let mut body = session_body(1);
        body[field] = value;
        body.to_string()
    };
    let twice = whole.replacen('{', r#"{"prompt_cache_key":"session-canary-8a","#, 1);
    vec![
        post("/v1/responses", &whole),
        post("/v1/responses", &session_body(1).to_string()),
        post("/v1/responses?api_key=query-canary-b3", &whole),
        post("/v1/responses", &with("previous_response_id", json!("resp_canary_6f"))),
        post("/v1/responses", &with("prompt_cache_key", json!(["session-canary-8a"]))),
        post("/v1/responses", &with("model", json!(17))),
        post("/v1/responses/compact", &whole),
        post("/v1/chat/completions", &whole),
        post("/v1/embeddings", &whole),
        post("/v1/files?key=query-canary-b3", "prompt canary/é \"5d\""),
        post("/v1/responses", &twice),
        post("/v1/responses", &whole[..whole.len() - 4]),
        post("/v1/responses", "{\"prompt canary/é \\\"5d\\\"\" session-canary-8a"),
        post("/v1/responses", "\"prompt canary/é \\\"5d\\\"\""),
        post("/v1/responses", &format!("{whole}session-canary-8a")),
        post(
            "/v1/responses",
            &with("input", json!("prompt canary/é \"5d\" ".repeat(200))),
        ),
        post("/nowhere/at/all?key=query-canary-b3", &whole),
        post("/v1/../v1/responses?key=query-canary-b3", &whole),
        request_head("POST /v1/responses", "content-encoding: gzip\r\ncontent-length: 20\r\n") + "session-canary-8a...",
        request_head("POST /v1/responses", "transfer-encoding: chunked\r\n")
            + "5;x=session-canary-8a\r\n{\"a\":\r\nsession-canary-8a\r\n",
        request_head(
            "POST /v1/responses",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        ),
        request_head("POST /v1/responses", "content-length: session-canary-8a\r\n"),
        request_head("POST /v1/responses", "host: session-canary-8a\r\n"),
        request_head("POST /v1/responses", "a field canary session-canary-8a\r\n"),
        request_head(
            "POST /v1/responses",
            &format!("x-long: {}\r\n", "session-canary-8a".repeat(5000)),
        ),
        request_head("GET /v1/responses", "upgrade: websocket\r\n"),
        request_head("GET /v1/responses/resp_in_the_path?key=query-canary-b3", ""),
        request_head("GET /v1/models?key=query-canary-b3", ""),
        request_head("BREW /v1/responses", ""),
        request_head("GET http://user:session-canary-8a@localhost/v1/models", ""),
        format!("session-canary-8a {CALLER_KEY}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nsession-canary-8a".to_owned(),
    ]
}

/// Returns headers of a response that echo the headers `received` of its request.
fn echoed_headers(received: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-said", HeaderValue::from_static("header-canary-1b"));
    for (number, value) in received.values().enumerate() {
        let name = format!("x-echo-{number}").parse::<http::HeaderName>().expect("a name");
        headers.insert(name, value.clone());
    }
    // The gateway logs the request id of a response, unless the id is a credential.
    if let Some(credential) = received.get("authorization") {
        headers.insert("x-request-id", credential.clone());
    }
    headers
}

/// Returns the acts of the upstreams, most of which are invalid. A response echoes the headers that the upstream
/// received where that is possible.
fn upstream_acts() -> Vec<Act> {
    let echo = |status: u16| {
        Act::answer(ScriptedAnswer::Custom(Arc::new(move |received: &Received| {
            let shown: Vec<String> = received
                .head
                .headers
                .values()
                .map(|value| format!("{value:?}"))
                .collect();
            let shown = shown.join(" and ");
            let message = format!("answer-canary-9e: no access with {shown}");
            let code = if status == 403 {
                "account_deactivated"
            } else {
                "invalid_api_key"
            };
            let error = json!({"error": {"message": message, "type": "error-canary-c4", "code": code, "param": null}});
            let headers = echoed_headers(&received.head.headers);
            let pieces = vec![error.to_string().into()];
            let status = StatusCode::from_u16(status).expect("a status");
            Fixed {
                status,
                headers,
                pieces,
            }
        })))
    };
    let raw = |text: &'static str| Act::answer(ScriptedAnswer::Raw(text.into()));
    let failed = json!({"type": "response.failed", "response": {"id": "resp_canary_6f", "status": "failed",
        "error": {"code": "server_is_overloaded", "message": "error-canary-c4"}}});
    // The list of models comes first, because the gateway caches its first result.
    let mut upstream_acts = vec![Act::reply(StatusCode::OK, &json!({"data": "answer-canary-9e"}))];
    upstream_acts.extend([200, 400, 401, 403, 404, 429, 500, 503].map(echo));
    upstream_acts.extend([
        Act::events(&[failed]),
        Act::answer(ScriptedAnswer::Close(Close::Reset)),
        Act::answer(ScriptedAnswer::Close(Close::Fin)),
        Act::cut(Point::Events(2), Close::Reset),
        Act::cut(Point::Bytes(40), Close::Fin),
        raw("answer-canary-9e\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nanswer-canary-9e\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\ncontent-length: answer-canary-9e\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nanswer-canary-9e\r\n"),
        raw("HTTP/1.1 101 answer-canary-9e\r\n\r\n"),
        Act::reply(StatusCode::OK, &json!("answer-canary-9e")),
    ]);
    upstream_acts
}

/// Returns invalid configuration files, with errors next to and inside secrets.
fn invalid_files(config: &str) -> Vec<String> {
    let literal = format!("api_key = \"{LITERAL_KEY}\"");
    assert!(config.contains(&literal), "the configuration has a literal key");
    let twice = format!("{literal}\n{literal}");
    let mut files: Vec<String> = [
        &format!("api_key = \"{LITERAL_KEY}"),
        &format!("api_key = {LITERAL_KEY}"),
        &format!("api_key = [\"{LITERAL_KEY}\"]"),
        &format!("api_key = {{ literal = \"{LITERAL_KEY}\" }}"),
        &format!("api_key = \"{LITERAL_KEY} with a space\""),
        &format!("api_key = \"${LITERAL_KEY}\""),
        &format!("api_key = \"env:{LITERAL_KEY}\""),
        &format!("api_key \"{LITERAL_KEY}\""),
        &format!("api_key = \"{LITERAL_KEY}\" \"{LITERAL_KEY}\""),
        &format!("api_kye = \"{LITERAL_KEY}\""),
        &format!("{literal}\nheaders = {{ \"authorization\" = \"Bearer {LITERAL_KEY}\" }}"),
        &format!("{literal}\nheaders = {{ \"x\" = \"{LITERAL_KEY}\\n\" }}"),
        &format!("{literal}\nheaders = {{ \"x\" = [\"{LITERAL_KEY}\"] }}"),
        &format!("{literal}\nheaders = \"{LITERAL_KEY}\""),
        &format!("{literal}\nbase_url = \"https://u:{LITERAL_KEY}@a.example/v1?key={LITERAL_KEY}\""),
        &twice,
    ]
    .map(|line| config.replacen(&literal, line, 1))
    .into();
    files.push(config.replacen("file:token", &format!("{TOKEN} {TOKEN}"), 1));
    files.push(config.replacen("\"file:token\"", &format!("[\"{TOKEN}\"]"), 1));
    files.push(config.replacen("[admin]", &format!("{LITERAL_KEY}\n[admin]"), 1));
    files
}

/// Sends eight sessions' requests and a request for the models. Returns the responses.
async fn responses_of_round(gateway: &Gateway, round: usize) -> String {
    let mut answered = String::new();
    for number in 8 * round..8 * (round + 1) {
        let asked = post("/v1/responses?key=query-canary-b3", &session_body(number).to_string());
        answered.push_str(&client::raw(gateway.address, asked.as_bytes()).await);
    }
    answered.push_str(&client::raw(gateway.address, request_head("GET /v1/models", "").as_bytes()).await);
    // Upstreams that were disabled by the responses are enabled again.
    for name in ["a", "b", "c", "h2"] {
        let path = format!("/api/upstreams/{name}/enable");
        answered.push_str(&ask_admin(gateway, Method::POST, &path, TOKEN).await);
    }
    answered
}

/// Reloads the invalid configuration `file` and runs each command with it. Returns all output.
async fn output_for_invalid_file(gateway: &Gateway, file: &str) -> String {
    gateway.write(file);
    let mut output = ask_admin(gateway, Method::POST, "/api/reload", TOKEN).await;
    assert!(output.contains("problems"), "the file was accepted: {output}\n{file}");
    let path = gateway.file();
    let path = path.to_str().expect("UTF-8 text");
    for arguments in [
        &["check", "-c", path][..],
        &["route", "k", "-c", path],
        &["serve", "-c", path],
    ] {
        let said = steadfast(arguments).await;
        assert!(!said.status.success());
        output.push_str(&String::from_utf8_lossy(&said.stderr));
        output.push_str(&String::from_utf8_lossy(&said.stdout));
    }
    output
}

/// Runs a gateway through all requests, responses and files. Returns its own output, with the log in the format
/// `format`, and the responses to its callers.
async fn run_gateway(format: &str, keys: &str) -> (String, String) {
    let (folder, sims) = (scratch(), sims(3).await);
    let config = configuration(&folder, &sims).await + keys;
    fs::write(folder.join(FILE), &config).expect("a writable folder");
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--log-level",
        "trace",
        "--log-format",
        format,
    ];
    let gateway = Gateway::over(folder.clone(), &flags).await;
    let mut output = fs::read_to_string(format!("/proc/{}/cmdline", gateway.pid())).expect("the program runs");
    let mut answered = String::new();
    for (round, act) in upstream_acts().into_iter().enumerate() {
        for sim in &sims {
            sim.script().clear();
            sim.script().always(act.clone());
        }
        answered.push_str(&responses_of_round(&gateway, round).await);
    }
    for sim in &sims {
        sim.script().clear();
    }
    for asked in requests() {
        answered.push_str(&client::raw(gateway.address, asked.as_bytes()).await);
    }
    for (method, path) in [
        (Method::GET, "/metrics"),
        (Method::GET, "/api/upstreams"),
        (Method::GET, "/api/route?key=x"),
        (Method::GET, "/livez"),
        (Method::GET, "/nothing"),
        (Method::POST, "/api/upstreams/unknown/drain"),
        (Method::POST, "/api/reload"),
    ] {
        for token in [TOKEN, "wrong", ""] {
            output.push_str(&ask_admin(&gateway, method.clone(), path, token).await);
        }
    }
    for file in invalid_files(&config) {
        output.push_str(&output_for_invalid_file(&gateway, &file).await);
    }
    client::raw(
        gateway.address,
        request_head("GET /v1/models/the-last-one", "").as_bytes(),
    )
    .await;
    let log = gateway.log_until("/v1/models/the-last-one").await.join("\n");
    assert_events_are_logged(&log);
    output.push_str(&log);
    output.push_str(&gateway.printed().join("\n"));
    (output, answered)
}

/// Checks that the log has the events in which a secret could be printed.
fn assert_events_are_logged(log: &str) {
    for event in [
        "cannot connect",
        "TLS failed",
        "the connection broke",
        "left out of the list",
        "stays in force",
        "ejected",
    ] {
        assert!(log.contains(event), "the log has no '{event}': {log}");
    }
}

#[tokio::test]
async fn no_secret_is_printed_or_returned() {
    let (own, all) = (
        canaries(&GATEWAY_SECRETS),
        canaries(&[&GATEWAY_SECRETS[..], &CALLER_SECRETS, &UPSTREAM_TEXTS].concat()),
    );
    // In the second run callers need a key. Their key is valid, and its hash is as secret as the key.
    let digest = sha256_hex(CALLER_KEY);
    let keyed = group("team", "requests_per_minute = 1000000") + &key("caller", CALLER_KEY, "team", "");
    for (format, keys) in [("text", ""), ("json", keyed.as_str())] {
        let (output, answered) = run_gateway(format, keys).await;
        assert_none(&all, &output, "the output of the program");
        assert!(!output.contains(&digest) && !answered.contains(&digest));
        assert_eq!(
            output.contains("\"key\":\"caller\""),
            !keys.is_empty(),
            "the log names the client key"
        );
        assert_none(&own, &answered, "a response to a caller");
        assert!(answered.contains("answer-canary-9e"), "the text of an upstream passes");
        assert!(
            answered.contains("Bearer ****"),
            "the key in it is masked: {answered:.3000}"
        );
    }
}
