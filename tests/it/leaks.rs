//! What is secret shows up nowhere: not in the log at its most talkative, not in metrics, the admin side, errors or arguments.

use std::{fs, path::Path, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use steadfast::sim::{Act, Close, Fixed, Point, Received, ScriptedAnswer, Sim};

use crate::access::{group, key};
use crate::kit::{
    canary::{Canary, assert_none},
    client::{self, request},
    gateway::{FILE, Gateway, scratch, steadfast, upstream, upstream_at},
    sims, tls,
    upstream::by_hand,
};

const FILE_KEY: &str = "sk-file-canary-77aa";
pub const LITERAL_KEY: &str = "sk-literal-canary-1f0c";
const HEADER_KEY: &str = "azure-canary-53c1";
const TOKEN: &str = "admin-token-canary-9b1d";
/// Ours: the upstreams', and the operator's.
pub const OWN: [&str; 5] = ["sk-upstream-canary", FILE_KEY, LITERAL_KEY, HEADER_KEY, TOKEN];

const CALLERS_KEY: &str = "sk-steadfast-CANARY_0123456789abcdefghijklmnopqrstuvwxyz-A";
/// The callers': what they show, and what they say.
pub const CALLERS: [&str; 11] = [
    CALLERS_KEY,
    "sk-x-api-key-canary-0c",
    "cookie-canary-41",
    "session-canary-8a",
    "session-id-canary-2e",
    "prompt canary/é \"5d\"",
    "metadata-canary-77",
    "resp_canary_6f",
    "query-canary-b3",
    "org-canary-d0d0",
    "user-canary-3434",
];
/// What upstreams say.
pub const SAID: [&str; 3] = ["answer-canary-9e", "error-canary-c4", "header-canary-1b"];

pub fn canaries(secrets: &[&str]) -> Vec<Canary> {
    secrets.iter().map(|secret| Canary::new(secret)).collect()
}

/// A head with every credential that a caller may show, and with `lines`.
pub fn head(target: &str, lines: &str) -> String {
    format!(
        "{target} HTTP/1.1\r\nhost: gateway.example\r\nauthorization: Bearer {CALLERS_KEY}\r\nx-api-key: sk-x-api-key-canary-0c\r\n\
         cookie: c=cookie-canary-41\r\nopenai-organization: org-canary-d0d0\r\nsession-id: session-id-canary-2e\r\n\
         x-codex-turn-state: session-canary-8a\r\nconnection: close\r\n{lines}\r\n"
    )
}

fn post(path: &str, body: &str) -> String {
    let lines = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    head(&format!("POST {path}"), &lines) + body
}

/// A body of the session `number`, so that every upstream is somebody's home.
pub fn body(number: usize) -> Value {
    json!({
        "model": "gpt-5.2", "stream": number % 2 == 1, "prompt_cache_key": format!("session-canary-8a-{number}"), "user": "user-canary-3434",
        "instructions": "prompt canary/é \"5d\"", "input": [{"role": "user", "content": "prompt canary/é \"5d\""}],
        "metadata": {"m": "metadata-canary-77"}, "client_metadata": {"session_id": "session-id-canary-2e"},
    })
}

/// Requests of every kind: served, refused, broken, and none at all.
fn requests() -> Vec<String> {
    let whole = body(0).to_string();
    let with = |field: &str, value: Value| {
        let mut body = body(1);
        body[field] = value;
        body.to_string()
    };
    let twice = whole.replacen('{', r#"{"prompt_cache_key":"session-canary-8a","#, 1);
    vec![
        post("/v1/responses", &whole),
        post("/v1/responses", &body(1).to_string()),
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
        head("POST /v1/responses", "content-encoding: gzip\r\ncontent-length: 20\r\n") + "session-canary-8a...",
        head("POST /v1/responses", "transfer-encoding: chunked\r\n")
            + "5;x=session-canary-8a\r\n{\"a\":\r\nsession-canary-8a\r\n",
        head(
            "POST /v1/responses",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        ),
        head("POST /v1/responses", "content-length: session-canary-8a\r\n"),
        head("POST /v1/responses", "host: session-canary-8a\r\n"),
        head("POST /v1/responses", "a field canary session-canary-8a\r\n"),
        head(
            "POST /v1/responses",
            &format!("x-long: {}\r\n", "session-canary-8a".repeat(5000)),
        ),
        head("GET /v1/responses", "upgrade: websocket\r\n"),
        head("GET /v1/responses/resp_in_the_path?key=query-canary-b3", ""),
        head("GET /v1/models?key=query-canary-b3", ""),
        head("BREW /v1/responses", ""),
        head("GET http://user:session-canary-8a@gateway.example/v1/models", ""),
        format!("session-canary-8a {CALLERS_KEY}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nsession-canary-8a".to_owned(),
    ]
}

/// Everything that an upstream may do, most of it wrong. It shows what it got wherever it can.
fn acts() -> Vec<Act> {
    let echo = |status: u16| {
        Act::answer(ScriptedAnswer::Custom(Arc::new(move |received: &Received| {
            let shown: Vec<String> = received
                .head
                .headers
                .values()
                .map(|value| format!("{value:?}"))
                .collect();
            // Where it is served an upstream's body passes as it is: nobody is to have upstreams that give keys away.
            let shown = if status == 200 {
                String::new()
            } else {
                shown.join(" and ")
            };
            let message = format!("answer-canary-9e: no access with {shown}");
            let code = if status == 403 {
                "account_deactivated"
            } else {
                "invalid_api_key"
            };
            let error = json!({"error": {"message": message, "type": "error-canary-c4", "code": code, "param": null}});
            let mut headers = HeaderMap::new();
            headers.insert("x-said", HeaderValue::from_static("header-canary-1b"));
            for (number, value) in received.head.headers.values().enumerate() {
                let name = format!("x-echo-{number}").parse::<http::HeaderName>().expect("a name");
                headers.insert(name, value.clone());
            }
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
    // The list of models comes first: it is not asked for again soon.
    let mut acts = vec![Act::reply(StatusCode::OK, &json!({"data": "answer-canary-9e"}))];
    acts.extend([200, 400, 401, 403, 404, 429, 500, 503].map(echo));
    acts.extend([
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
    acts
}

/// A configuration with secrets from every source, before good upstreams and bad ones.
pub async fn configuration(folder: &Path, sims: &[Sim]) -> String {
    for (name, secret) in [("key", FILE_KEY), ("header", HEADER_KEY), ("token", TOKEN)] {
        fs::write(folder.join(name), secret).expect("a writable folder");
    }
    let identity = tls::identity(&["localhost"], &["h2"]);
    let (http2, _) = tls::http2_upstream(&identity, |_| {
        let (mut sender, body) = http_body_util::channel::Channel::new(4);
        tokio::spawn(async move { sender.send_data("data: {\"answer-canary-9e\":1}\n\n".into()).await });
        body
    })
    .await;
    // Closes as soon as it has read: what is in the last frame is the other side's to choose.
    let mute = by_hand(|mut wire| async move { wire.send("\x15answer-canary-9e not TLS").await }).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = dead.local_addr().expect("bound");
    drop(dead);
    let from_file = |text: String| text.replace("env:STEADFAST_TEST_KEY", "file:key");
    let literal = |text: String| text.replace("env:STEADFAST_TEST_KEY", LITERAL_KEY);
    let header = "headers = { \"api-key\" = \"file:header\" }";
    let trusting = format!("ca = {:?}\nhttp2 = true", identity.ca);
    [
        "[admin]\ntoken = \"file:token\"\n[server]\nmax_body = \"2KiB\"\nbuffered_bodies = \"64KiB\"\n\
         [timeouts]\nhead = \"2s\"\nidle = \"500ms\"\n[retry]\nattempts = 4\n"
            .to_owned(),
        upstream(&sims[0], header),
        from_file(upstream(&sims[1], header)),
        literal(upstream(&sims[2], header)),
        upstream_at("h2", &format!("https://localhost:{}/v1", http2.port()), &trusting),
        literal(upstream_at(
            "untrusted",
            &format!("https://localhost:{}/v1", http2.port()),
            "http2 = true",
        )),
        from_file(upstream_at("no-tls", &format!("https://{mute}/v1"), "")),
        upstream_at("nobody", &format!("http://{nobody}/v1"), ""),
    ]
    .concat()
}

/// Files with mistakes beside, around and in their secrets.
fn broken(config: &str) -> Vec<String> {
    let literal = format!("api_key = \"{LITERAL_KEY}\"");
    assert!(config.contains(&literal), "there is something to break");
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

/// What the program says to all this in the format `format`, and what its callers get.
async fn overheard(format: &str, keys: &str) -> (String, String) {
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
    let mut heard = fs::read_to_string(format!("/proc/{}/cmdline", gateway.pid())).expect("it runs");
    let mut answered = String::new();
    let mut numbers = 0..;
    for act in acts() {
        for sim in &sims {
            sim.script().clear();
            sim.script().always(act.clone());
        }
        for number in numbers.by_ref().take(8) {
            let asked = post("/v1/responses?key=query-canary-b3", &body(number).to_string());
            answered.push_str(&client::raw(gateway.address, asked.as_bytes()).await);
        }
        answered.push_str(&client::raw(gateway.address, head("GET /v1/models", "").as_bytes()).await);
        // Whoever was disabled for that is needed again.
        for name in ["a", "b", "c", "h2"] {
            let path = format!("/api/upstreams/{name}/enable");
            answered.push_str(&operator(&gateway, Method::POST, &path, TOKEN).await);
        }
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
        (Method::POST, "/api/upstreams/nobody/drain"),
        (Method::POST, "/api/reload"),
    ] {
        for token in [TOKEN, "wrong", ""] {
            heard.push_str(&operator(&gateway, method.clone(), path, token).await);
        }
    }
    for file in broken(&config) {
        gateway.write(&file);
        let told = operator(&gateway, Method::POST, "/api/reload", TOKEN).await;
        assert!(told.contains("problems"), "it was broken: {told}\n{file}");
        heard.push_str(&told);
        let path = gateway.file();
        let path = path.to_str().expect("text");
        for arguments in [
            &["check", "-c", path][..],
            &["route", "k", "-c", path],
            &["serve", "-c", path],
        ] {
            let said = steadfast(arguments).await;
            assert!(!said.status.success());
            heard.push_str(&String::from_utf8_lossy(&said.stderr));
            heard.push_str(&String::from_utf8_lossy(&said.stdout));
        }
    }
    client::raw(gateway.address, head("GET /v1/models/the-last-one", "").as_bytes()).await;
    let log = gateway.log_until("/v1/models/the-last-one").await.join("\n");
    for event in [
        "cannot connect",
        "TLS failed",
        "the connection broke",
        "left out of the list",
        "stays in force",
        "ejected",
    ] {
        assert!(log.contains(event), "there was no '{event}': {log}");
    }
    heard.push_str(&log);
    heard.push_str(&gateway.said().join("\n"));
    (heard, answered)
}

#[tokio::test]
async fn nothing_secret_is_heard_or_answered() {
    let (own, all) = (canaries(&OWN), canaries(&[&OWN[..], &CALLERS, &SAID].concat()));
    // Where callers need a key, theirs is one that is good, and its hash is no more to be told than the key.
    let digest: String = Sha256::digest(CALLERS_KEY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let keyed = group("team", "requests_per_minute = 1000000") + &key("caller", CALLERS_KEY, "team", "");
    for (format, keys) in [("text", ""), ("json", keyed.as_str())] {
        let (heard, answered) = overheard(format, keys).await;
        assert_none(&all, &heard, "what the program says");
        assert!(!heard.contains(&digest) && !answered.contains(&digest));
        assert_eq!(
            heard.contains("\"key\":\"caller\""),
            !keys.is_empty(),
            "the log names who called"
        );
        assert_none(&own, &answered, "an answer to a caller");
        assert!(answered.contains("answer-canary-9e"), "an upstream's own words pass");
        assert!(
            answered.contains("Bearer ****"),
            "less the key that they quote: {answered:.3000}"
        );
    }
}

/// A question to the admin side.
pub async fn operator(gateway: &Gateway, method: Method, path: &str, token: &str) -> String {
    let mut asked = request(method, path, "");
    let token = format!("Bearer {token}").parse().expect("a value");
    asked.headers_mut().insert("authorization", token);
    let reply = client::send(gateway.admin, asked).await;
    format!("{} {:?} {}\n", reply.status, reply.headers, reply.text())
}
