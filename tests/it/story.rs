//! The main purpose of the gateway: every session keeps one upstream.

use serde_json::json;

use crate::kit::{client, gateway::Gateway, sims};

#[tokio::test]
async fn a_session_stays_on_its_home() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for key in ["session-1", "session-2", "session-3", "session-4"] {
        let home = gateway.home(key).await;
        let body = json!({"model": "gpt-5.2", "input": "Hello", "prompt_cache_key": key});
        let first = client::post_json(gateway.address, "/v1/responses", &body).await;
        assert_eq!(first.routed(), (home.as_str(), "home"), "{first:?}");
        let second = client::post_json(gateway.address, "/v1/responses", &body).await;
        assert_eq!(second.routed(), (home.as_str(), "pin"));
        let cached = &second.json()["usage"]["input_tokens_details"]["cached_tokens"];
        assert!(cached.as_u64() > Some(0), "{cached}");
    }
}
