//! Secrets that a test plants in configurations, requests and responses, to look for them afterwards.

use std::{fs, path::Path};

use http::Method;
use serde_json::{Value, json};
use steadfast::sim::Sim;

use super::{
    canary::Canary,
    client::{self, request},
    gateway::{Gateway, upstream, upstream_at},
    tls,
    upstream::by_hand,
};

pub const FILE_KEY: &str = "sk-file-canary-77aa";
pub const LITERAL_KEY: &str = "sk-literal-canary-1f0c";
pub const HEADER_KEY: &str = "azure-canary-53c1";
pub const TOKEN: &str = "admin-token-canary-9b1d";
/// Ours: the upstreams', and the operator's.
pub const OWN: [&str; 5] = ["sk-upstream-canary", FILE_KEY, LITERAL_KEY, HEADER_KEY, TOKEN];

pub const CALLERS_KEY: &str = "sk-steadfast-CANARY_0123456789abcdefghijklmnopqrstuvwxyz-A";
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

/// A body of the session `number`, so that every upstream is somebody's home.
pub fn body(number: usize) -> Value {
    json!({
        "model": "gpt-5.2", "stream": number % 2 == 1, "prompt_cache_key": format!("session-canary-8a-{number}"), "user": "user-canary-3434",
        "instructions": "prompt canary/é \"5d\"", "input": [{"role": "user", "content": "prompt canary/é \"5d\""}],
        "metadata": {"m": "metadata-canary-77"}, "client_metadata": {"session_id": "session-id-canary-2e"},
    })
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

/// A question to the admin side.
pub async fn operator(gateway: &Gateway, method: Method, path: &str, token: &str) -> String {
    let mut asked = request(method, path, "");
    let token = format!("Bearer {token}").parse().expect("a value");
    asked.headers_mut().insert("authorization", token);
    let reply = client::send(gateway.admin, asked).await;
    format!("{} {:?} {}\n", reply.status, reply.headers, reply.text())
}
