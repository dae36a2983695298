//! What callers get when an account refuses its credential, is slow, or fails at a request that fails everywhere.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Rule, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::Gateway,
    sessions::{key_with_home, key_with_prefix, send_turn},
    sims, until_true,
};

/// An upstream's answer that says that the key of the upstream is wrong.
fn refused() -> Act {
    let error = json!({
        "message": "Incorrect API key provided: sk-up****", "type": "invalid_request_error", "param": null,
        "code": "invalid_api_key",
    });
    Act::reply(StatusCode::UNAUTHORIZED, &json!({ "error": error }))
}

async fn follow_up(gateway: &Gateway, response: &Value) -> Reply {
    let body = json!({"model": "gpt-5.2", "input": "and?", "previous_response_id": response});
    client::post_json(gateway.address, "/v1/responses", &body).await
}

async fn operate(gateway: &Gateway, upstream: &str, action: &str) {
    let request = client::post(&format!("/api/upstreams/{upstream}/{action}"), "");
    assert_eq!(client::send(gateway.admin, request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_refusal_of_the_only_account_is_a_502_that_does_not_quote_it() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    sims[0].script().always(refused());
    let reply = send_turn(&gateway, "any").await;
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status.as_u16(), &error["code"], &error["type"]),
        (502, &json!("upstream_credential_refused"), &json!("server_error"))
    );
    assert!(!reply.header("retry-after").is_empty());
    for _ in 0..3 {
        let later = send_turn(&gateway, "any").await;
        assert_eq!(later.status.as_u16(), 503, "{}", later.text());
        assert!(later.text().contains("has to renew"), "{}", later.text());
        assert!(!later.text().contains("Incorrect API key") && !later.header("retry-after").is_empty());
    }
    assert_eq!(sims[0].requests().len(), 1, "a disabled account is not asked");
}

#[tokio::test]
async fn a_request_waits_for_the_account_that_owns_its_state_and_is_told_why_it_is_unavailable() {
    let rows = [
        ("disabled", "refuses the credential"),
        ("ejected", "has failed several times"),
        ("draining", "is being drained"),
    ];
    for (state, reason) in rows {
        let mut sims = sims(2).await;
        let gateway = Gateway::before(&sims, "[affinity]\nwait = \"1s\"\n").await;
        let key = key_with_home(&gateway, "a").await;
        let response = send_turn(&gateway, &key).await.json()["id"].clone();
        match state {
            "disabled" => {
                sims[0].script().always(refused());
                assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
            }
            "ejected" => {
                sims.remove(0).stop().await;
                for number in 0..5 {
                    let fresh = key_with_prefix(&gateway, "a", &format!("fresh-{number}")).await;
                    assert_eq!(send_turn(&gateway, &fresh).await.routed(), ("b", "moved"));
                }
            }
            _ => operate(&gateway, "a", "drain").await,
        }
        assert_eq!(gateway.states().await[0], state);
        let begun = Instant::now();
        let reply = follow_up(&gateway, &response).await;
        let text = reply.text();
        assert_eq!(
            (reply.status.as_u16(), text.contains(reason)),
            (503, true),
            "{state}: {text}"
        );
        assert!(!text.contains("Incorrect API key"), "{state}: {text}");
        assert!(!reply.header("retry-after").is_empty(), "{state}");
        let waited = begun.elapsed();
        assert!(
            waited >= Duration::from_millis(900) && waited < Duration::from_secs(5),
            "{state}: {waited:?}"
        );
        if state == "ejected" {
            continue;
        }
        // The request that waits continues as soon as the operator has mended the account.
        let (reply, ()) = tokio::join!(follow_up(&gateway, &response), async {
            gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
            sims[0].script().clear();
            operate(&gateway, "a", "enable").await;
        });
        assert_eq!(
            (reply.status, reply.routed()),
            (StatusCode::OK, ("a", "owner")),
            "{state}"
        );
    }
}

#[tokio::test]
async fn a_generation_that_times_out_is_not_begun_again_and_ejects_nothing() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[timeouts]\nhead = \"100ms\"\n").await;
    let key = key_with_home(&gateway, "a").await;
    let never = || Rule::new(Act::answer(ScriptedAnswer::Never)).path("/v1/responses");
    sims[0].script().add(never());
    for sent in 1..=8 {
        let reply = send_turn(&gateway, &key).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status.as_u16(), &error["code"]),
            (504, &json!("upstream_timeout"))
        );
        assert_eq!(sims.iter().map(|sim| sim.requests().len()).sum::<usize>(), sent);
    }
    assert_eq!(gateway.states().await, ["ready", "ready"]);
    assert_eq!(gateway.metric("steadfast_failovers_total").await, 0.0);
    assert_eq!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"upstream\"}")
            .await,
        8.0
    );
    let timeouts = gateway
        .metric("steadfast_failed_attempts_total{reason=\"timeout\"")
        .await;
    assert_eq!(timeouts, 8.0);
}

#[tokio::test]
async fn a_generation_that_times_out_moves_if_the_operator_allows_it() {
    let sims = sims(2).await;
    let settings = "[timeouts]\nhead = \"300ms\"\n[retry]\non_timeout = true\n";
    let gateway = Gateway::before(&sims, settings).await;
    let key = key_with_home(&gateway, "a").await;
    sims[0]
        .script()
        .once("/v1/responses", Act::answer(ScriptedAnswer::Never));
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"));
    assert_eq!(
        gateway.metric("steadfast_failovers_total{reason=\"timeout\"").await,
        1.0
    );
    until_true("the first attempt to be cancelled", || sims[0].counts().aborted == 1).await;
}

fn is_poisoned(body: &Value) -> bool {
    body["input"] == "poison"
}

/// Makes every account fail at poisoned requests.
fn poison(sims: &[Sim], act: &Act) {
    for sim in sims {
        sim.script().add(Rule::new(act.clone()).body(is_poisoned));
    }
}

#[tokio::test]
async fn a_request_that_fails_everywhere_ejects_no_account_and_moves_no_other_session() {
    let error = json!({"error": {"message": "no", "type": "server_error", "param": null, "code": null}});
    for act in [
        Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Act::answer(ScriptedAnswer::Close(Close::Reset)),
    ] {
        let sims = sims(4).await;
        let gateway = Gateway::before(&sims, "").await;
        let mut homes = Vec::new();
        for number in 0..12 {
            let key = format!("good-{number}");
            homes.push((send_turn(&gateway, &key).await.routed().0.to_owned(), key));
        }
        poison(&sims, &act);
        for _ in 0..30 {
            let body = json!({"model": "gpt-5.2", "input": "poison", "prompt_cache_key": "poisoned"});
            let reply = client::post_json(gateway.address, "/v1/responses", &body).await;
            assert!(reply.status.is_server_error(), "{}", reply.text());
        }
        assert_eq!(gateway.states().await, ["ready"; 4]);
        for (home, key) in homes {
            assert_eq!(send_turn(&gateway, &key).await.routed(), (home.as_str(), "pin"));
        }
    }
}

#[tokio::test]
async fn an_account_that_fails_what_another_serves_is_ejected() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    poison(&sims[..1], &Act::answer(ScriptedAnswer::Close(Close::Fin)));
    for number in 0..5 {
        let key = key_with_prefix(&gateway, "a", &format!("session-{number}")).await;
        let body = json!({"model": "gpt-5.2", "input": "poison", "prompt_cache_key": key});
        let reply = client::post_json(gateway.address, "/v1/responses", &body).await;
        assert_eq!(reply.routed(), ("b", "moved"));
    }
    assert_eq!(gateway.states().await, ["ejected", "ready"]);
}

#[tokio::test]
async fn a_401_without_a_code_disables_an_account_only_if_the_list_of_models_is_refused_too() {
    let bare = Act::reply(
        StatusCode::UNAUTHORIZED,
        &json!({"error": {"message": "Unauthorized", "type": null, "param": null, "code": null}}),
    );
    for is_refused in [true, false] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_with_home(&gateway, "a").await;
        let rule = Rule::new(bare.clone());
        let rule = if is_refused { rule } else { rule.path("/v1/responses") };
        sims[0].script().add(rule);
        let reply = send_turn(&gateway, &key).await;
        if is_refused {
            assert_eq!(reply.routed(), ("b", "moved"));
            assert_eq!(gateway.states().await, ["disabled", "ready"]);
        } else {
            assert_eq!((reply.status, reply.routed().0), (StatusCode::UNAUTHORIZED, "a"));
            assert_eq!(gateway.states().await, ["ready", "ready"]);
        }
    }
}
