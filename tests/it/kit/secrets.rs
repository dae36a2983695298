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
    upstream::serve_connections,
};

/// An upstream's key that the configuration reads from a file.
pub const FILE_KEY: &str = "sk-file-canary-77aa";
/// An upstream's key that the configuration contains literally.
pub const LITERAL_KEY: &str = "sk-literal-canary-1f0c";
/// The value of a configured upstream header.
pub const HEADER_KEY: &str = "azure-canary-53c1";
/// The token of the admin listener.
pub const TOKEN: &str = "admin-token-canary-9b1d";
/// The secrets of the gateway: the credentials of the upstreams and of the operator.
pub const GATEWAY_SECRETS: [&str; 5] = ["sk-upstream-canary", FILE_KEY, LITERAL_KEY, HEADER_KEY, TOKEN];

/// The client key that callers present.
pub const CALLER_KEY: &str = "sk-steadfast-CANARY_0123456789abcdefghijklmnopqrstuvwxyz-A";
/// The secrets of callers: their credentials, and the content of their requests.
pub const CALLER_SECRETS: [&str; 11] = [
    CALLER_KEY,
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
/// Texts in the responses of upstreams.
pub const UPSTREAM_TEXTS: [&str; 3] = ["answer-canary-9e", "error-canary-c4", "header-canary-1b"];

/// Returns a canary for each secret.
pub fn canaries(secrets: &[&str]) -> Vec<Canary> {
    secrets.iter().map(|secret| Canary::new(secret)).collect()
}

/// Returns a request head with every kind of credential that a caller can send, and with `lines`.
pub fn request_head(target: &str, lines: &str) -> String {
    format!(
        "{target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {CALLER_KEY}\r\nx-api-key: sk-x-api-key-canary-0c\r\n\
         cookie: c=cookie-canary-41\r\nopenai-organization: org-canary-d0d0\r\nsession-id: session-id-canary-2e\r\n\
         x-codex-turn-state: session-canary-8a\r\nconnection: close\r\n{lines}\r\n"
    )
}

/// Returns a body of the session `number`. Different numbers have different homes.
pub fn session_body(number: usize) -> Value {
    json!({
        "model": "gpt-5.2", "stream": number % 2 == 1, "prompt_cache_key": format!("session-canary-8a-{number}"), "user": "user-canary-3434",
        "instructions": "prompt canary/é \"5d\"", "input": [{"role": "user", "content": "prompt canary/é \"5d\""}],
        "metadata": {"m": "metadata-canary-77"}, "client_metadata": {"session_id": "session-id-canary-2e"},
    })
}

/// Returns a configuration with secrets from every source, for the upstreams `sims` and for upstreams that fail.
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
    // This upstream responds to a TLS handshake with text, which may appear in an error message.
    let mute = serve_connections(|mut wire| async move { wire.send("\x15answer-canary-9e not TLS").await }).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let unreachable = dead.local_addr().expect("bound");
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
        upstream_at("unreachable", &format!("http://{unreachable}/v1"), ""),
    ]
    .concat()
}

/// Sends a request to the admin listener and returns the whole response as text.
pub async fn ask_admin(gateway: &Gateway, method: Method, path: &str, token: &str) -> String {
    let mut asked = request(method, path, "");
    let token = format!("Bearer {token}").parse().expect("a valid header value");
    asked.headers_mut().insert("authorization", token);
    let reply = client::send(gateway.admin, asked).await;
    format!("{} {:?} {}\n", reply.status, reply.headers, reply.text())
}
