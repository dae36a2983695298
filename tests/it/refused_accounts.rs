//! Refusals and limits of credentials that belong to Steadfast or to the caller, and requests for state whose account is out.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::Gateway,
    sessions::{key_with_home, responses_request, send_turn, usage_limit_reached},
    sims,
};

/// The text that says that a key is wrong. No caller may read it about a key that is not its own.
const INCORRECT: &str = "Incorrect API key provided: sk-up****";

fn refusal(error: &Value) -> Act {
    Act::reply(StatusCode::UNAUTHORIZED, error)
}

fn invalid_api_key() -> Act {
    refusal(&json!({"error": {
        "message": INCORRECT, "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
    }}))
}

/// The requests that a client may send to generate, with their paths.
fn generations() -> [(&'static str, Value); 6] {
    let chat = |stream| json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    [
        ("/v1/responses", json!({"model": "m", "input": "hi"})),
        ("/v1/responses", json!({"model": "m", "input": "hi", "stream": true})),
        ("/v1/chat/completions", chat(false)),
        ("/v1/chat/completions", chat(true)),
        ("/v1/messages", chat(false)),
        ("/v1/messages", chat(true)),
    ]
}

#[tokio::test]
async fn no_caller_reads_the_refusal_of_a_credential_that_is_not_its_own() {
    let anthropic = json!({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}});
    let failed = |code| {
        let error = json!({"code": code, "message": INCORRECT});
        Act::events(&[
            json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}),
            json!({"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": error}}),
        ])
    };
    let bare = json!({"error": {"message": "Unauthorized: sk-up****"}});
    for (what, act) in [
        ("a code", invalid_api_key()),
        ("a type", refusal(&anthropic)),
        ("a stream", failed("invalid_api_key")),
        ("a bare 401", refusal(&bare)),
        (
            "403",
            Act::reply(
                StatusCode::FORBIDDEN,
                &json!({"error": {"message": INCORRECT, "code": "account_deactivated"}}),
            ),
        ),
    ] {
        let rows = generations();
        // Only a stream of responses has such an event.
        let rows = if what == "a stream" { &rows[1..2] } else { &rows[..] };
        for (path, body) in rows {
            let sims = sims(1).await;
            let gateway = Gateway::before(&sims, "").await;
            sims[0].script().always(act.clone());
            let first = client::post_json(gateway.address, path, body).await;
            let error = &first.json()["error"];
            assert_eq!(
                (first.status.as_u16(), &error["code"]),
                (502, &json!("upstream_credential_refused")),
                "{what}, {path} {body}: {error}"
            );
            let second = client::post_json(gateway.address, path, body).await;
            assert_eq!(second.status.as_u16(), 503, "{what}, {path} {body}: {}", second.text());
            for reply in [first, second] {
                let text = reply.text();
                assert!(!text.contains("sk-up") && !text.contains("x-api-key"), "{what}: {text}");
                assert!(!reply.header("retry-after").is_empty(), "{what}: {text}");
            }
            assert_eq!(gateway.states().await, ["disabled"], "{what}, {path}");
        }
    }
}

#[tokio::test]
async fn a_request_that_two_of_three_accounts_refuse_is_served_by_the_third() {
    for healthy in 0..3 {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        for (index, sim) in sims.iter().enumerate() {
            if index != healthy {
                sim.script().always(invalid_api_key());
            }
        }
        for number in 0..6 {
            let reply = send_turn(&gateway, &format!("session-{number}")).await;
            assert_eq!(
                (reply.status, reply.routed().0),
                (StatusCode::OK, sims[healthy].name()),
                "{}",
                reply.text()
            );
        }
        let asked: usize = sims.iter().map(|sim| sim.requests().len()).sum();
        assert!(asked <= 8, "each other account was asked at most once: {asked}");
    }
}

#[tokio::test]
async fn errors_about_the_callers_own_credential_pass_through_byte_for_byte() {
    let sims = sims(1).await;
    let url = sims[0].base_url();
    let config = format!("[[upstream]]\nname = \"a\"\nbase_url = \"{url}\"\napi_key = \"passthrough\"\n");
    let gateway = Gateway::configured(&config).await;
    let limit = json!({"error": {"message": "yours", "type": "usage_limit_reached", "resets_in_seconds": 3_600}});
    let rate = json!({"error": {"message": "yours", "code": "rate_limit_exceeded"}});
    for (status, body) in [
        (
            401,
            json!({"error": {"message": "Incorrect API key provided: yours", "code": "invalid_api_key"}}),
        ),
        (401, json!({"detail": "Unauthorized"})),
        (402, json!({"error": {"message": "no credit"}})),
        (403, json!({"error": {"message": "no", "code": "account_deactivated"}})),
        (429, limit),
        (429, rate),
    ] {
        let act = Act::reply(StatusCode::from_u16(status).expect("a status"), &body)
            .header(RETRY_AFTER, HeaderValue::from(77));
        for (path, request) in generations() {
            sims[0].script().clear();
            sims[0].script().always(act.clone());
            let before = sims[0].requests().len();
            let mut request = client::post(path, request.to_string());
            let own = HeaderValue::from_static("Bearer sk-caller");
            request.headers_mut().insert("authorization", own);
            let begun = Instant::now();
            let reply = client::send(gateway.address, request).await;
            assert_eq!(
                (reply.status.as_u16(), reply.text(), reply.header("retry-after")),
                (status, body.to_string(), "77"),
                "{path}"
            );
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{path}: {:?}",
                begun.elapsed()
            );
            assert_eq!(sims[0].requests().len(), before + 1, "{path}");
        }
        assert_eq!(gateway.states().await, ["ready"], "{status} {body}");
    }
}

async fn follow_up(gateway: &Gateway, response: &Value) -> Reply {
    let body = json!({"model": "gpt-5.2", "input": "and?", "previous_response_id": response});
    client::post_json(gateway.address, "/v1/responses", &body).await
}

#[tokio::test]
async fn a_request_for_state_of_a_refused_account_gets_no_401_and_wakes_at_a_reload() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[affinity]\nwait = \"20s\"\n").await;
    let key = key_with_home(&gateway, "a").await;
    let response = send_turn(&gateway, &key).await.json()["id"].clone();
    sims[0].script().always(invalid_api_key());
    let refused = follow_up(&gateway, &response).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (502, &json!("upstream_credential_refused"))
    );
    assert!(!refused.text().contains(INCORRECT), "{}", refused.text());
    assert_eq!(gateway.states().await, ["disabled", "ready"]);
    let begun = Instant::now();
    let (reply, ()) = tokio::join!(follow_up(&gateway, &response), async {
        gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
        sims[0].script().clear();
        gateway.signal("HUP").await;
    });
    assert_eq!(
        (reply.status, reply.routed()),
        (StatusCode::OK, ("a", "owner")),
        "{}",
        reply.text()
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(gateway.states().await, ["ready", "ready"]);
}

#[tokio::test]
async fn a_request_for_state_of_a_limited_account_is_answered_by_the_kind_of_the_limit() {
    let rate = json!({"error": {"message": "slow down", "code": "rate_limit_exceeded"}});
    let rate = Act::reply(StatusCode::TOO_MANY_REQUESTS, &rate).header(RETRY_AFTER, HeaderValue::from(90));
    for (act, kind) in [
        (usage_limit_reached(3_600), "usage_limit_reached"),
        (rate, "rate_limit_exceeded"),
    ] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_with_home(&gateway, "a").await;
        let response = send_turn(&gateway, &key).await.json()["id"].clone();
        sims[0].script().always(act);
        for _ in 0..2 {
            let begun = Instant::now();
            let reply = follow_up(&gateway, &response).await;
            let error = &reply.json()["error"];
            assert_eq!((reply.status.as_u16(), &error["type"]), (429, &json!(kind)));
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("belongs to one upstream organization"), "{message}");
            assert!(!reply.header("retry-after").is_empty());
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        assert_eq!(sims[0].requests().len(), 2, "the limit is remembered");
        assert_eq!(sims[1].requests().len(), 0);
    }
}

#[tokio::test]
async fn turn_state_does_not_bind_but_an_encrypted_item_does() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let think = json!({
        "input": [{"role": "user", "content": "think"}], "store": false, "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": key,
    });
    let first = client::send(gateway.address, responses_request(think.clone(), &[])).await;
    assert_eq!(first.routed(), ("a", "home"));
    let state = [("x-codex-turn-state", first.header("x-codex-turn-state"))];
    assert!(!state[0].1.is_empty());
    let mut owned = think.clone();
    let items = first.json()["output"].as_array().expect("items").clone();
    owned["input"].as_array_mut().expect("items").extend(items);
    sims[0].script().always(usage_limit_reached(3_600));
    let reply = client::send(gateway.address, responses_request(owned, &state)).await;
    assert_eq!(reply.status.as_u16(), 429, "{}", reply.text());
    assert_eq!(sims[1..].iter().map(|sim| sim.requests().len()).sum::<usize>(), 0);
    let reply = client::send(gateway.address, responses_request(think, &state)).await;
    assert_eq!(
        (reply.status, reply.routed().1),
        (StatusCode::OK, "moved"),
        "{}",
        reply.text()
    );
    let others = sims[1..].iter().flat_map(Sim::requests);
    assert!(
        others
            .into_iter()
            .all(|request| !request.headers.contains_key("x-codex-turn-state"))
    );
}

#[tokio::test]
async fn a_turn_goes_on_elsewhere_while_the_operator_drains_the_issuer_of_its_state() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let turn = json!({"input": "hi", "prompt_cache_key": key});
    let first = client::send(gateway.address, responses_request(turn.clone(), &[])).await;
    let state = [("x-codex-turn-state", first.header("x-codex-turn-state"))];
    client::send(gateway.admin, client::post("/api/upstreams/a/drain", "")).await;
    let begun = Instant::now();
    let reply = client::send(gateway.address, responses_request(turn, &state)).await;
    assert_eq!(reply.routed(), ("b", "moved"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!sims[1].requests()[0].headers.contains_key("x-codex-turn-state"));
}

#[tokio::test]
async fn a_request_that_only_reads_is_repeated_after_a_timeout() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[timeouts]\nhead = \"200ms\"\n").await;
    let never = || Rule::new(Act::answer(ScriptedAnswer::Never)).times(1);
    let list = || Rule::new(Act::reply(StatusCode::OK, &json!({"data": []})));
    for (path, timeouts) in [("/v1/files", 1), ("/v1/files", 2)] {
        let before: usize = sims.iter().map(|sim| sim.requests().len()).sum();
        for (index, sim) in sims.iter().enumerate() {
            sim.script().clear();
            if index < timeouts {
                sim.script().add(never());
            }
            sim.script().add(list());
        }
        let reply = client::get(gateway.address, path).await;
        let after: usize = sims.iter().map(|sim| sim.requests().len()).sum();
        match timeouts {
            1 => assert_eq!(reply.status, StatusCode::OK, "{}", reply.text()),
            _ => {
                assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
                assert_eq!(after - before, 2);
            }
        }
    }
    assert_eq!(gateway.states().await, ["ready", "ready"]);
}

#[tokio::test]
async fn limits_of_requests_alongside_are_believed_although_one_was_served_after_the_reset() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[affinity]\nwait = \"20s\"\n").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    let rate = json!({"error": {"message": "slow down", "code": "rate_limit_exceeded"}});
    let limit = Act::reply(StatusCode::TOO_MANY_REQUESTS, &rate).header(RETRY_AFTER, HeaderValue::from(1));
    sims[0].script().once("/v1/responses", limit.clone());
    // After the reset, one request is served at once, and the limits of nine others arrive later.
    sims[0].script().once("/v1/responses", Act::default());
    let late = Act {
        delay: Duration::from_millis(300),
        ..limit
    };
    sims[0].script().add(Rule::new(late).path("/v1/responses").times(9));
    let first = send_turn(&gateway, &key);
    let others = async {
        gateway.metric_reaches("steadfast_waiting_requests", 1.0).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..9 {
            let (address, key) = (gateway.address, key.clone());
            tasks.spawn(async move {
                let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": key});
                client::post_json(address, "/v1/responses", &body).await
            });
        }
        tasks.join_all().await
    };
    let (first, others) = tokio::join!(first, others);
    assert_eq!(first.routed(), ("a", "pin"));
    for reply in others {
        assert_eq!(reply.routed(), ("a", "pin"), "{}", reply.text());
    }
    assert_eq!(sims[1].requests().len(), 0, "no patient session leaves");
    // The first turn and its limit, the request that was served, nine limits, and nine requests after them.
    assert_eq!(sims[0].requests().len(), 21);
}
