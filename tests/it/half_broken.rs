//! Accounts that are worse than the others of the pool: an account that fails a part of its requests is ejected, and
//! sessions avoid an account that is slow.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, Sim};
use tokio::task::JoinSet;

use crate::kit::{
    client,
    gateway::Gateway,
    sessions::{key_with_home, key_with_prefix, send_turn},
    sims, until,
};

const RETRIES: &str = "[retry]\nbudget = 1.0\n";

/// Makes the account answer 500 to about 35 of 100 requests, in an order that is always the same.
fn break_in_part(sim: &Sim) {
    let state = AtomicU64::new(1);
    let is_failure = move || {
        let step = |state: u64| {
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407)
        };
        let before = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| Some(step(state)));
        (before.expect("every step succeeds") >> 33) % 100 < 35
    };
    let error = json!({"error": {"message": "no", "type": "server_error", "param": null, "code": null}});
    let act = Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error);
    sim.script()
        .add(Rule::new(act).path("/v1/responses").head(move |_| is_failure()));
}

/// Returns one field of each upstream.
async fn field(gateway: &Gateway, field: &str) -> Vec<Value> {
    let answer = gateway.ask("/api/upstreams").await.json();
    let upstreams = answer["upstreams"].as_array().expect("a list").iter();
    upstreams.map(|upstream| upstream[field].clone()).collect()
}

/// Waits until the upstreams have these speeds.
async fn speeds_become(gateway: &Gateway, speeds: [&str; 3]) {
    until(&format!("the speeds {speeds:?}"), || async {
        (field(gateway, "speed").await == speeds).then_some(())
    })
    .await;
}

/// Sends one request of each of 60 sessions at the same time. Returns the upstream and the route of each response.
async fn sixty_sessions(gateway: &Gateway) -> Vec<(String, String)> {
    let turn = |number| {
        let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": format!("session-{number}")});
        let address = gateway.address;
        async move {
            let reply = client::post_json(address, "/v1/responses", &body).await;
            assert_eq!(reply.status, 200);
            let (upstream, route) = reply.routed();
            (upstream.to_owned(), route.to_owned())
        }
    };
    (0..60).map(turn).collect::<JoinSet<_>>().join_all().await
}

#[tokio::test]
async fn an_account_that_fails_a_third_of_its_requests_is_ejected_and_every_request_is_served() {
    let sims = sims(3).await;
    break_in_part(&sims[1]);
    let gateway = Gateway::before(&sims, RETRIES).await;
    for number in 0..200 {
        let reply = send_turn(&gateway, &format!("session-{}", number % 67)).await;
        assert_eq!(
            reply.status, 200,
            "another account could have served this request: {reply:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let is_ejected = until("the account to be ejected", || async {
        let states = field(&gateway, "state").await;
        (states[1] == "ejected").then_some(states)
    });
    assert_eq!(is_ejected.await, ["ready", "ejected", "ready"]);
    assert_eq!(
        field(&gateway, "reason").await,
        [Value::Null, json!("success_rate"), Value::Null]
    );
    gateway
        .log_until("more requests fail than at the other upstreams")
        .await;
    // Its sessions are served elsewhere, without a failed attempt before.
    let key = key_with_home(&gateway, "b").await;
    let received = sims[1].requests().len();
    assert_eq!(send_turn(&gateway, &key).await.status, 200);
    assert_eq!(sims[1].requests().len(), received);
}

#[tokio::test]
async fn a_pool_that_fails_everywhere_alike_keeps_its_accounts() {
    let sims = sims(3).await;
    sims.iter().for_each(break_in_part);
    let gateway = Gateway::before(&sims, RETRIES).await;
    for number in 0..150 {
        send_turn(&gateway, &format!("session-{number}")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reasons = field(&gateway, "reason").await;
    assert!(!reasons.contains(&json!("success_rate")), "{reasons:?}");
}

#[tokio::test]
async fn new_sessions_avoid_a_slow_account_and_pinned_sessions_leave_a_very_slow_one() {
    let sims = sims(3).await;
    let normal = Act::delay(Duration::from_millis(300));
    sims[..2].iter().for_each(|sim| sim.script().always(normal.clone()));
    sims[2].script().always(Act::delay(Duration::from_millis(1_000)));
    let gateway = Gateway::before(&sims, "").await;
    let pinned = key_with_prefix(&gateway, "c", "pinned").await;
    assert_eq!(send_turn(&gateway, &pinned).await.routed(), ("c", "home"));
    sixty_sessions(&gateway).await;
    speeds_become(&gateway, ["normal", "normal", "slow"]).await;

    let new = key_with_prefix(&gateway, "c", "new").await;
    let reply = send_turn(&gateway, &new).await;
    assert!(matches!(reply.routed(), ("a" | "b", "moved")), "{reply:?}");
    assert_eq!(send_turn(&gateway, &pinned).await.routed(), ("c", "pin"));
    // A session without a key avoids the account too.
    let body = json!({"model": "gpt-5.2", "input": []});
    for _ in 0..5 {
        let reply = client::post_json(gateway.address, "/v1/responses", &body).await;
        assert!(matches!(reply.routed().0, "a" | "b"), "{reply:?}");
    }

    // The account becomes slower. Only pinned sessions show it, because new ones avoid it.
    sims[2].script().clear();
    sims[2].script().always(Act::delay(Duration::from_millis(2_500)));
    let routes = sixty_sessions(&gateway).await;
    assert!(routes.contains(&("c".to_owned(), "pin".to_owned())), "{routes:?}");
    speeds_become(&gateway, ["normal", "normal", "very_slow"]).await;
    let reply = send_turn(&gateway, &pinned).await;
    assert!(matches!(reply.routed(), ("a" | "b", "moved")), "{reply:?}");

    // While the others are out, the slow account serves.
    for name in ["a", "b"] {
        client::send(gateway.admin, client::post(&format!("/api/upstreams/{name}/drain"), "")).await;
    }
    assert_eq!(send_turn(&gateway, &new).await.routed().0, "c");
}

#[tokio::test]
async fn an_account_with_the_sessions_of_a_slow_model_is_not_slow() {
    let sims = sims(3).await;
    for sim in &sims {
        let is_large = |body: &Value| body["model"] == "gpt-5.2-codex";
        sim.script()
            .add(Rule::new(Act::delay(Duration::from_millis(1_500))).body(is_large));
        sim.script()
            .add(Rule::new(Act::delay(Duration::from_millis(100))).body(|_| true));
    }
    let gateway = Gateway::before(&sims, "").await;
    let mut large = Vec::new();
    for number in 0..15 {
        large.push(key_with_prefix(&gateway, "c", &format!("large-{number}")).await);
    }
    let turn = |key: String| {
        let body = json!({"model": "gpt-5.2-codex", "input": "hi", "prompt_cache_key": key});
        let address = gateway.address;
        async move {
            client::post_json(address, "/v1/responses", &body)
                .await
                .routed()
                .0
                .to_owned()
        }
    };
    let mut small = Vec::new();
    for number in 0..15 {
        small.push(
            key_with_prefix(
                &gateway,
                if number % 2 == 0 { "a" } else { "b" },
                &format!("small-{number}"),
            )
            .await,
        );
    }
    for _ in 0..2 {
        let large = large.clone().into_iter().map(turn).collect::<JoinSet<_>>();
        for key in &small {
            assert_eq!(send_turn(&gateway, key).await.status, 200);
        }
        assert!(large.join_all().await.iter().all(|upstream| upstream == "c"));
    }
    // The comparison takes place once per second.
    let deadline = tokio::time::Instant::now() + Duration::from_millis(2_500);
    while tokio::time::Instant::now() < deadline {
        assert_eq!(field(&gateway, "speed").await, ["normal"; 3]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
