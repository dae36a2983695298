//! Client keys and groups: the tables that configure them, and requests that present a key.

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use steadfast::sim::Sim;

use super::{
    client::{self, Reply},
    gateway::Gateway,
};

/// Alice's client key.
pub const ALICE: &str = "sk-steadfast-alice-0123456789abcdefghijklmnopqrstuv";
/// Bob's client key.
pub const BOB: &str = "sk-steadfast-bob-0123456789abcdefghijklmnopqrstuvwx";

/// Returns a `[[key]]` table that ends with `lines`.
pub fn key(name: &str, key: &str, group: &str, lines: &str) -> String {
    let digest = sha256_hex(key);
    format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ngroup = \"{group}\"\n{lines}\n")
}

/// Returns a `[[group]]` table that ends with `lines`.
pub fn group(name: &str, lines: &str) -> String {
    format!("[[group]]\nname = \"{name}\"\n{lines}\n")
}

/// Returns the SHA-256 of `text` in hexadecimal, as the configuration stores a client key.
pub fn sha256_hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the client key `key` to `request`.
pub fn with_key(mut request: Request<Full<bytes::Bytes>>, key: &str) -> Request<Full<bytes::Bytes>> {
    let value = format!("Bearer {key}").parse().expect("a valid header value");
    request.headers_mut().insert("authorization", value);
    request
}

/// Sends `POST /v1/responses` with a client key.
pub async fn post_as(gateway: &Gateway, key: &str, body: &Value) -> Reply {
    let request = client::post("/v1/responses", body.to_string());
    client::send(gateway.address, with_key(request, key)).await
}

/// Sends `GET path` with a client key.
pub async fn get_as(gateway: &Gateway, key: &str, path: &str) -> Reply {
    let request = Request::get(path).body(Full::default()).expect("a valid request");
    client::send(gateway.address, with_key(request, key)).await
}

/// Returns the status and the error code of an error response, and checks that it has a request id.
pub fn error_code(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    assert!(!reply.header("x-request-id").is_empty(), "{}", reply.text());
    let code = body["error"]["code"].as_str().expect("an error code").to_owned();
    (reply.status.as_u16(), code)
}

/// Returns the body of a request of the session `session`.
pub fn turn_body(session: &str) -> Value {
    json!({"model": "gpt-5.2", "input": "hello", "prompt_cache_key": session})
}

/// Starts a gateway in front of these accounts, with Alice in the group `red` and Bob in the group `blue`. `red` and
/// `blue` are additional lines of the two groups.
pub async fn two_groups(sims: &[Sim], red: &str, blue: &str) -> Gateway {
    let head =
        group("red", red) + &group("blue", blue) + &key("alice", ALICE, "red", "") + &key("bob", BOB, "blue", "");
    Gateway::before(sims, &head).await
}
