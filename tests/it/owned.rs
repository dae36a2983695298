//! Owned state: responses and encrypted items stay within the organization of the upstream that issued them.

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::{Gateway, upstream},
    sessions::{key_with_home, send_turn, usage_limit_reached},
    sims,
};

async fn post(gateway: &Gateway, body: Value) -> Reply {
    client::post_json(gateway.address, "/v1/responses", &body).await
}

/// Starts a gateway in front of `a` and `b`, which share an organization, and `c`, which has its own.
async fn gateway_with_organizations(sims: &[Sim]) -> Gateway {
    let shared = "organization = \"org-1\"";
    let config = upstream(&sims[0], shared) + &upstream(&sims[1], shared) + &upstream(&sims[2], "");
    Gateway::configured(&config).await
}

/// A `503` response.
fn unavailable() -> Act {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Act::reply(status, &json!({"error": {"message": "down", "type": "t", "code": "c"}}))
}

#[tokio::test]
async fn a_session_that_must_move_goes_to_a_sibling_first() {
    let sims = sims(3).await;
    let gateway = gateway_with_organizations(&sims).await;
    let mut left = 0;
    for number in 0..30 {
        let key = format!("session-{number}");
        let order = gateway.ask(&format!("/api/route?key={key}")).await.json();
        // In the rendezvous order `c` would be next, but `c` belongs to another organization.
        if order["upstreams"][0]["name"] == "a" && order["upstreams"][1]["name"] == "c" {
            sims[0].script().once("/v1/responses", unavailable());
            assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
            left += 1;
        }
        if left == 3 {
            return;
        }
    }
    panic!("only {left} keys have the order a, c");
}

#[tokio::test]
async fn an_earlier_response_is_requested_only_from_its_owner() {
    let sims = sims(3).await;
    let gateway = gateway_with_organizations(&sims).await;
    let key = key_with_home(&gateway, "c").await;
    let id = send_turn(&gateway, &key).await.json()["id"].clone();
    sims[2].script().always(usage_limit_reached(900));
    let next = json!({"model": "gpt-5.2", "input": "and?", "previous_response_id": id});
    let reply = post(&gateway, next.clone()).await;
    assert_eq!(reply.status.as_u16(), 429, "{}", reply.text());
    assert!(
        reply.text().contains("belongs to one upstream organization"),
        "{}",
        reply.text()
    );
    assert!(!reply.header("retry-after").is_empty());
    sims[2].script().clear();
    let drain = client::post("/api/upstreams/c/drain", "");
    assert_eq!(client::send(gateway.admin, drain).await.status.as_u16(), 200);
    let reply = post(&gateway, next.clone()).await;
    assert_eq!(reply.status.as_u16(), 503, "{}", reply.text());
    assert!(!reply.header("retry-after").is_empty());
    let enable = client::post("/api/upstreams/c/enable", "");
    assert_eq!(client::send(gateway.admin, enable).await.status.as_u16(), 200);
    assert_eq!(post(&gateway, next).await.routed(), ("c", "owner"));
}

#[tokio::test]
async fn a_forked_conversation_routes_to_the_owner_of_its_encrypted_items() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for stream in [false, true] {
        for home in ["a", "b", "c"] {
            let key = key_with_home(&gateway, home).await;
            let ask = json!({
                "model": "gpt-5.2", "input": [{"role": "user", "content": "think"}], "store": false, "stream": stream,
                "include": ["reasoning.encrypted_content"], "prompt_cache_key": key,
            });
            let answer = post(&gateway, ask).await;
            let owner = answer.routed().0.to_owned();
            let response = if stream {
                let text = answer.text();
                let last = text.lines().rfind(|line| line.starts_with("data: {")).expect("events");
                serde_json::from_str::<Value>(&last["data: ".len()..]).expect("JSON")["response"].clone()
            } else {
                answer.json()
            };
            let mut input = vec![json!({"role": "user", "content": "think"})];
            input.extend(response["output"].as_array().expect("items").iter().cloned());
            assert!(
                input.iter().any(|item| item["encrypted_content"].is_string()),
                "{response}"
            );
            input.push(json!({"role": "user", "content": "and now?"}));
            for number in 0..4 {
                let fork = json!({
                    "model": "gpt-5.2", "input": input, "store": false, "prompt_cache_key": format!("fork-{stream}-{home}-{number}"),
                });
                let reply = post(&gateway, fork).await;
                assert_eq!(
                    (reply.status.as_u16(), reply.routed().0),
                    (200, owner.as_str()),
                    "{}",
                    reply.text()
                );
            }
        }
    }
}
