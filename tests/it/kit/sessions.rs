//! Sessions: requests with a session key, and keys with their home at a given upstream.

use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use steadfast::sim::Act;

use super::{
    client::{self, Reply, post},
    gateway::Gateway,
};

/// Returns a request to `/v1/responses` with its model, these additional fields and these headers.
pub fn responses_request(fields: Value, headers: &[(&str, &str)]) -> Request<Full<bytes::Bytes>> {
    let mut body = json!({"model": "gpt-5.2"});
    body.as_object_mut()
        .expect("a JSON object")
        .extend(fields.as_object().expect("a JSON object").clone());
    let mut request = post("/v1/responses", body.to_string());
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a valid header name");
        request
            .headers_mut()
            .append(name, value.parse().expect("a valid header value"));
    }
    request
}

/// Sends one request of the session `key`.
pub async fn send_turn(gateway: &Gateway, key: &str) -> Reply {
    let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": key});
    client::post_json(gateway.address, "/v1/responses", &body).await
}

/// Returns a session key with its home at the upstream `home`.
pub async fn key_with_home(gateway: &Gateway, home: &str) -> String {
    key_with_prefix(gateway, home, "session").await
}

/// Returns a session key that begins with `prefix` and has its home at the upstream `home`.
pub async fn key_with_prefix(gateway: &Gateway, home: &str, prefix: &str) -> String {
    for number in 0..200 {
        let key = format!("{prefix}-{number}");
        let answer = gateway.ask(&format!("/api/route?key={key}")).await.json();
        if answer["upstreams"][0]["name"] == home {
            return key;
        }
    }
    panic!("no key with the prefix {prefix} has its home at {home}");
}

/// Returns a `429` response that says that the usage limit resets in `seconds`.
pub fn usage_limit_reached(seconds: u64) -> Act {
    let error = json!({"type": "usage_limit_reached", "message": "enough", "resets_in_seconds": seconds});
    Act::reply(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": error }))
}
