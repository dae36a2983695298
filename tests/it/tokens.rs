//! The estimate of tokens: base64 images, recordings and files count by a figure each, not by their bytes.

use http::StatusCode;
use serde_json::{Value, json};

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    keys::{ALICE, group, key, post_as, with_key},
    sessions::{key_with_home, responses_request, usage_limit_reached},
    sim, sims,
};

/// Base64 text of this length.
fn base64(length: usize) -> String {
    "iVBORw0KGgoAAAANSUhEUgAA".chars().cycle().take(length).collect()
}

/// A part of a message with an image, a recording or a file of 1.9 MB.
fn media() -> [(&'static str, &'static str, Value); 6] {
    let data = base64(1_900_000);
    let png = format!("data:image/png;base64,{data}");
    [
        (
            "/v1/responses",
            "input",
            json!({"type": "input_image", "image_url": png}),
        ),
        (
            "/v1/responses",
            "input",
            json!({"type": "input_file", "filename": "a.pdf", "file_data": format!("data:application/pdf;base64,{data}")}),
        ),
        (
            "/v1/chat/completions",
            "messages",
            json!({"type": "image_url", "image_url": {"url": png, "detail": "low"}}),
        ),
        (
            "/v1/chat/completions",
            "messages",
            json!({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}),
        ),
        (
            "/v1/chat/completions",
            "messages",
            json!({"type": "file", "file": {"filename": "a.pdf", "file_data": data}}),
        ),
        (
            "/v1/messages",
            "messages",
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}),
        ),
    ]
}

/// A request with this part in the history of its conversation.
fn body(list: &str, part: &Value) -> Value {
    json!({
        "model": "gpt-5.2",
        "max_tokens": 100,
        list: [
            {"role": "user", "content": "Look at this."},
            {"role": "assistant", "content": "At what?"},
            {"role": "user", "content": [part]},
        ],
    })
}

#[tokio::test]
async fn a_large_image_does_not_use_up_the_tokens_of_a_key() {
    let sim = sim("a").await;
    let limits = group("team", "tokens_per_minute = 50000") + &key("alice", ALICE, "team", "");
    let gateway = Gateway::before(std::slice::from_ref(&sim), &limits).await;
    for (path, list, part) in media() {
        let small = json!({"model": "gpt-5.2", "input": "hello"});
        assert_eq!(post_as(&gateway, ALICE, &small).await.status, StatusCode::OK);
        let request = client::post(path, body(list, &part).to_string());
        let reply = client::send(gateway.address, with_key(request, ALICE)).await;
        assert_eq!(
            reply.status,
            StatusCode::OK,
            "{path} {}: {}",
            part["type"],
            reply.text()
        );
        let left: u64 = reply.header("x-ratelimit-remaining-tokens").parse().expect("a number");
        assert!(left >= 10_000, "{path} {}: {left} tokens are left", part["type"]);
    }
}

#[tokio::test]
async fn the_figures_are_configurable_and_text_counts_by_its_bytes() {
    let sim = sim("a").await;
    let limits = "[tokens]\nimage = 30000\n".to_owned()
        + &group("team", "tokens_per_minute = 50000")
        + &key("alice", ALICE, "team", "");
    let gateway = Gateway::before(std::slice::from_ref(&sim), &limits).await;
    let [(path, list, image), ..] = media();
    let left = async |body: Value| {
        let request = client::post(path, body.to_string());
        let reply = client::send(gateway.address, with_key(request, ALICE)).await;
        reply
            .header("x-ratelimit-remaining-tokens")
            .parse::<u64>()
            .expect("a number")
    };
    let before = left(body(list, &json!({"type": "input_text", "text": "hello"}))).await;
    let after = left(body(list, &image)).await;
    assert!((29_000..=32_000).contains(&(before - after)), "{before} - {after}");
    let text = json!({"type": "input_text", "text": "word ".repeat(400_000)});
    let request = client::post(path, body(list, &text).to_string());
    let reply = client::send(gateway.address, with_key(request, ALICE)).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_session_with_a_large_image_does_not_wait_for_its_bytes() {
    let sims = sims(2).await;
    let settings = "[affinity]\nwait = \"0s\"\nreread_rate = 5000\nwait_max = \"60s\"\n";
    let upstreams: String = sims.iter().map(|sim| upstream(sim, "")).collect();
    let gateway = Gateway::configured(&(settings.to_owned() + &upstreams)).await;
    let key = key_with_home(&gateway, "a").await;
    let [(_, list, image), ..] = media();
    let mut fields = body(list, &image);
    fields["prompt_cache_key"] = json!(key);
    let send = async || client::send(gateway.address, responses_request(fields.clone(), &[])).await;
    assert_eq!(send().await.routed(), ("a", "home"));
    // The image counts as 1,100 tokens, which another account reads in 0.2 s; by its bytes it would take 95 s.
    sims[0].script().once("/v1/responses", usage_limit_reached(30));
    assert_eq!(send().await.routed(), ("b", "moved"));
}
