//! Patience and pins: how long a session waits for the account that has its cache, and which requests of the session move
//! its pin.

use std::time::{Duration, Instant};

use http::HeaderValue;
use serde_json::{Value, json};
use steadfast::sim::Sim;

use crate::kit::{
    client::{self, Reply},
    encoders,
    gateway::{Gateway, upstream},
    sessions::{key_with_home, responses_request, usage_limit_reached},
    sims,
};

/// The settings of sessions that wait for 2.5 s for each megabyte of their prompt, and not at all for a short one.
const BY_LENGTH: &str = "[affinity]\nwait = \"0s\"\nreread_rate = 100000\nwait_max = \"60s\"\n";

/// Starts a gateway in front of `sims` with the settings [`BY_LENGTH`].
async fn gateway_by_length(sims: &[Sim]) -> Gateway {
    let upstreams: String = sims.iter().map(|sim| upstream(sim, "")).collect();
    Gateway::configured(&(BY_LENGTH.to_owned() + &upstreams)).await
}

/// The fields of a request of the session `key` with a prompt of so many bytes.
fn prompt(key: &str, bytes: usize) -> Value {
    json!({"input": "x".repeat(bytes), "prompt_cache_key": key})
}

async fn send(gateway: &Gateway, fields: Value) -> Reply {
    let reply = client::send(gateway.address, responses_request(fields, &[])).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

#[tokio::test]
async fn a_compressed_prompt_waits_as_long_as_the_same_prompt_without_compression() {
    for is_compressed in [false, true] {
        let sims = sims(2).await;
        let gateway = gateway_by_length(&sims).await;
        let key = key_with_home(&gateway, "a").await;
        let body = json!({"model": "gpt-5.2", "input": "x".repeat(1_000_000), "prompt_cache_key": key}).to_string();
        let send = async || {
            let mut request = match is_compressed {
                true => client::post("/v1/responses", encoders::zstd(body.as_bytes())),
                false => client::post("/v1/responses", body.clone()),
            };
            if is_compressed {
                let coding = HeaderValue::from_static("zstd");
                request.headers_mut().insert("content-encoding", coding);
            }
            client::send(gateway.address, request).await
        };
        assert_eq!(send().await.routed(), ("a", "home"));
        sims[0].script().once("/v1/responses", usage_limit_reached(1));
        let begun = Instant::now();
        assert_eq!(send().await.routed(), ("a", "pin"), "compressed: {is_compressed}");
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_subagent_that_moves_does_not_take_the_pin_of_its_main_session_along() {
    let sims = sims(3).await;
    let gateway = gateway_by_length(&sims).await;
    let key = key_with_home(&gateway, "a").await;
    let order = gateway.order(&[&key]).await;
    let second = order[1].as_str();
    assert_eq!(send(&gateway, prompt(&key, 1_000_000)).await.routed(), ("a", "home"));
    assert_eq!(send(&gateway, prompt(&key, 20_000)).await.routed(), ("a", "pin"));
    sims[0].script().once("/v1/responses", usage_limit_reached(2));
    let (main, ()) = tokio::join!(send(&gateway, prompt(&key, 1_000_100)), async {
        gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
        for _ in 0..3 {
            let subagent = send(&gateway, prompt(&key, 20_000)).await;
            assert_eq!(
                subagent.routed(),
                (second, "moved"),
                "it is always the same other account"
            );
        }
    });
    assert_eq!(main.routed(), ("a", "pin"));
    assert_eq!(send(&gateway, prompt(&key, 20_000)).await.routed(), ("a", "pin"));
    assert_eq!(send(&gateway, prompt(&key, 1_000_200)).await.routed(), ("a", "pin"));
    assert_eq!(gateway.metric("steadfast_sessions_moved_total").await, 0.0);

    // The main session takes the pin along, and the subagent follows.
    sims[0].script().once("/v1/responses", usage_limit_reached(600));
    assert_eq!(
        send(&gateway, prompt(&key, 1_000_300)).await.routed(),
        (second, "moved")
    );
    assert_eq!(send(&gateway, prompt(&key, 20_000)).await.routed(), (second, "pin"));
    gateway
        .metric_reaches("steadfast_sessions_moved_total{upstream=\"a\"}", 1.0)
        .await;
}

#[tokio::test]
async fn a_pin_at_an_account_that_was_removed_is_taken_by_a_short_prompt() {
    let sims = sims(3).await;
    let gateway = gateway_by_length(&sims).await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send(&gateway, prompt(&key, 1_000_000)).await.routed(), ("a", "home"));
    let remaining: String = sims[1..].iter().map(|sim| upstream(sim, "")).collect();
    gateway.write(&(BY_LENGTH.to_owned() + &remaining));
    gateway
        .metric_reaches("steadfast_reloads_total{outcome=\"applied\"}", 1.0)
        .await;
    let home = send(&gateway, prompt(&key, 20_000)).await;
    assert_eq!(home.routed().1, "home");
    assert_eq!(
        send(&gateway, prompt(&key, 1_000)).await.routed(),
        (home.routed().0, "pin")
    );
}
