//! Requests go to accounts that have their model: by the lists of the accounts, and by their answers.

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::{Gateway, upstream},
    keys::{ALICE, group, key, post_as},
    sessions::{key_with_home, key_with_prefix, responses_request},
    sim_with, until_true,
};

/// An account that has only these models.
async fn with_models(name: &str, models: &[&str]) -> Sim {
    let models = models.iter().map(|&id| id.to_owned()).collect();
    sim_with(name, |config| {
        config.models = models;
        config.only_models = true;
    })
    .await
}

/// An account that lists these models and serves every model.
async fn listing(name: &str, models: &[&str]) -> Sim {
    let models = models.iter().map(|&id| id.to_owned()).collect();
    sim_with(name, |config| config.models = models).await
}

/// Makes the list of an account fail from now on.
fn fail_lists(sim: &Sim) {
    let failure = Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": {"message": "no"}}));
    sim.script().add(Rule::new(failure).path("/v1/models"));
}

fn not_found(code: &str) -> Act {
    let error = json!({"message": "There is none.", "type": "invalid_request_error", "param": null, "code": code});
    Act::reply(StatusCode::NOT_FOUND, &json!({ "error": error }))
}

/// The number of generations that an account was asked for, and the number of times that its list was fetched.
fn asked(sim: &Sim) -> (usize, usize) {
    let requests = sim.requests();
    let of = |target: &str| requests.iter().filter(|request| request.target == target).count();
    (of("/v1/responses"), of("/v1/models"))
}

async fn send(gateway: &Gateway, model: &str, key: &str) -> Reply {
    let fields = json!({"model": model, "input": "hi", "prompt_cache_key": key});
    client::send(gateway.address, responses_request(fields, &[])).await
}

/// Sends a request that is served, and returns the account that served it.
async fn served_by(gateway: &Gateway, model: &str, key: &str) -> String {
    let reply = send(gateway, model, key).await;
    assert_eq!(reply.status, 200, "{model} {key}: {}", reply.text());
    reply.routed().0.to_owned()
}

/// Asks for the list of models, as a client does.
async fn fetch_lists(gateway: &Gateway) {
    assert_eq!(client::get(gateway.address, "/v1/models").await.status, 200);
}

#[tokio::test]
async fn lists_steer_once_a_client_has_asked_for_models() {
    let sims = [
        listing("a", &["common", "only-a"]).await,
        listing("b", &["common", "b-and-c"]).await,
        listing("c", &["common", "b-and-c"]).await,
    ];
    let gateway = Gateway::before(&sims, "").await;
    let mut before = Vec::new();
    for number in 0..12 {
        before.push(served_by(&gateway, "common", &format!("s{number}")).await);
        served_by(&gateway, "only-a", &format!("before-{number}")).await;
    }
    assert!(sims.iter().all(|sim| asked(sim).1 == 0), "generations fetch no list");
    assert!(
        sims[1..].iter().any(|sim| asked(sim).0 > 4),
        "without lists every account may have every model"
    );

    fetch_lists(&gateway).await;
    let mut unlisted = Vec::new();
    for (number, home) in before.iter().enumerate() {
        let key = format!("s{number}");
        assert_eq!(served_by(&gateway, "only-a", &format!("new-{number}")).await, "a");
        assert_ne!(served_by(&gateway, "b-and-c", &format!("new-{number}")).await, "a");
        assert_eq!(served_by(&gateway, "common", &key).await, *home, "its session stays");
        unlisted.push(served_by(&gateway, "unlisted", &format!("unlisted-{number}")).await);
        let order = gateway.ask(&format!("/api/route?key={key}&model=only-a")).await.json();
        let names: Vec<&Value> = order["upstreams"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["a"]);
    }
    for name in ["a", "b", "c"] {
        assert!(unlisted.iter().any(|used| used == name), "{unlisted:?}");
    }
    assert!(sims.iter().all(|sim| asked(sim).1 == 1), "the lists are fresh");
}

#[tokio::test]
async fn a_missing_model_moves_the_request_on_and_is_remembered() {
    let sims = [
        with_models("a", &["other"]).await,
        with_models("b", &["other"]).await,
        with_models("c", &["m"]).await,
    ];
    sims.iter().for_each(fail_lists);
    let gateway = Gateway::before(&sims, "[retry]\nattempts = 1\nbudget = 0.0\n").await;
    let keys = [key_with_home(&gateway, "a").await, key_with_home(&gateway, "b").await];
    for _ in 0..3 {
        for key in &keys {
            assert_eq!(served_by(&gateway, "m", key).await, "c");
        }
    }
    assert_eq!((asked(&sims[0]).0, asked(&sims[1]).0, asked(&sims[2]).0), (1, 1, 6));
    assert_eq!(gateway.states().await, ["ready", "ready", "ready"]);
    assert_eq!(
        gateway
            .metric("steadfast_failovers_total{reason=\"model_not_found\"")
            .await,
        2.0
    );
    assert_eq!(
        served_by(&gateway, "other", &key_with_home(&gateway, "a").await).await,
        "a"
    );

    // The operator has given the account the model.
    sims[0].script().add(Rule::new(Act::reply(
        StatusCode::OK,
        &json!({"id": "resp_x", "object": "response"}),
    )));
    let enable = client::post("/api/upstreams/a/enable", "");
    assert_eq!(client::send(gateway.admin, enable).await.status, 200);
    let mut homes = (0..40).map(|number| format!("fresh-{number}"));
    let fresh = loop {
        let key = homes.next().expect("a key with its home at a");
        let order = gateway.ask(&format!("/api/route?key={key}&model=m")).await.json();
        if order["upstreams"][0]["name"] == "a" {
            break key;
        }
    };
    assert_eq!(served_by(&gateway, "m", &fresh).await, "a");
}

#[tokio::test]
async fn the_first_missing_model_fetches_the_lists_in_the_background() {
    let sims = [with_models("a", &["other"]).await, with_models("b", &["m", "n"]).await];
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(served_by(&gateway, "m", &key).await, "b");
    until_true("the lists to be fetched", || sims.iter().all(|sim| asked(sim).1 == 1)).await;
    // The list of `a` does not name `n`, and that of `b` does, so `a` is not asked for it.
    let knows = || async {
        let order = gateway.ask(&format!("/api/route?key={key}&model=n")).await.json();
        (order["upstreams"].as_array().expect("a list").len() == 1).then_some(())
    };
    crate::kit::until("the lists to count", knows).await;
    assert_eq!(served_by(&gateway, "n", &key).await, "b");
    assert_eq!(served_by(&gateway, "m", &key).await, "b");
    assert_eq!(send(&gateway, "missing", &key).await.status, 404);
    assert_eq!(
        (asked(&sims[0]), asked(&sims[1])),
        ((2, 1), (4, 1)),
        "fresh lists are not fetched again"
    );
}

#[tokio::test]
async fn if_no_account_has_the_model_the_caller_gets_an_accounts_own_answer() {
    let sims = [
        with_models("a", &["other"]).await,
        with_models("b", &["other"]).await,
        with_models("c", &["other"]).await,
    ];
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "b").await;
    let count = || sims.iter().map(|sim| asked(sim).0).sum::<usize>();
    for expected in [3, 4, 5] {
        let reply = send(&gateway, "missing", &key).await;
        assert_eq!(reply.status, 404);
        assert_eq!(reply.json()["error"]["code"], "model_not_found");
        assert_eq!(reply.routed().0, "b", "the answer is an account's own");
        assert_eq!(count(), expected, "all are asked once, and then one per request");
    }
    assert_eq!(gateway.states().await, ["ready", "ready", "ready"]);
}

#[tokio::test]
async fn every_dialect_of_a_missing_model_moves_the_request_on() {
    let sims = [listing("a", &[]).await, listing("b", &[]).await];
    let gateway = Gateway::before(&sims, "").await;
    let message = |message: &str| json!({"error": {"message": message, "type": "invalid_request_error", "code": null}});
    let rows = [
        (
            404,
            json!({"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}),
        ),
        (
            404,
            json!({"type": "error", "error": {"type": "not_found_error", "message": "model: m4"}}),
        ),
        (
            404,
            message("The model `m4` does not exist or you do not have access to it."),
        ),
        (
            400,
            json!({"detail": "The 'm4' model is not supported when using Codex with a ChatGPT account."}),
        ),
        (
            403,
            json!({"error": {"code": "model_not_found", "message": "Project `p` does not have access to model `m4`"}}),
        ),
        (
            404,
            json!({"object": "error", "message": "The model `m4` does not exist.", "type": "NotFoundError", "code": 404}),
        ),
        (400, json!({"error": {"code": "unsupported_model", "message": "No."}})),
    ];
    for (number, (status, body)) in rows.iter().enumerate() {
        let status = StatusCode::from_u16(*status).expect("a status");
        let body: Value = serde_json::from_str(&body.to_string().replace("m4", &format!("m{number}"))).expect("JSON");
        sims[0].script().once("/v1/responses", Act::reply(status, &body));
        let model = format!("m{number}");
        let before = asked(&sims[0]).0;
        let key = key_with_prefix(&gateway, "a", &format!("session-{number}")).await;
        assert_eq!(served_by(&gateway, &model, &key).await, "b", "{body}");
        assert_eq!(asked(&sims[0]).0, before + 1, "{body}");
    }
    // An error about something else is passed on.
    for (status, body) in [
        (
            400,
            message("Unsupported parameter: 'reasoning' is not supported with the 'm' model."),
        ),
        (
            404,
            json!({"error": {"code": "not_found", "message": "There is no such path."}}),
        ),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        sims[0].script().once("/v1/responses", Act::reply(status, &body));
        let reply = send(&gateway, "m", &key_with_home(&gateway, "a").await).await;
        assert_eq!((reply.status, reply.json()), (status, body));
    }
}

#[tokio::test]
async fn a_stream_that_fails_for_a_missing_model_before_its_output_moves_on() {
    let sims = [listing("a", &[]).await, listing("b", &[]).await];
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let response = json!({"id": "resp_x", "object": "response", "status": "in_progress", "output": []});
    let mut failed = response.clone();
    failed["status"] = json!("failed");
    failed["error"] = json!({"code": "model_not_found", "message": "The model `m` does not exist."});
    let events = [
        json!({"type": "response.created", "response": response}),
        json!({"type": "response.failed", "response": failed}),
    ];
    sims[0].script().always(Act::events(&events));
    for _ in 0..2 {
        let fields = json!({"model": "m", "input": "hi", "prompt_cache_key": key, "stream": true});
        let reply = client::send(gateway.address, responses_request(fields, &[])).await;
        assert_eq!((reply.status.as_u16(), reply.routed().0), (200, "b"));
        assert!(reply.text().contains("response.completed"), "{}", reply.text());
    }
    assert_eq!(asked(&sims[0]).0, 1);
    assert_eq!(gateway.states().await, ["ready", "ready"]);
}

#[tokio::test]
async fn a_group_gets_the_model_only_from_its_own_accounts() {
    let sims = [with_models("a", &["other"]).await, with_models("b", &["m"]).await];
    let head = group("red", "upstreams = [\"a\"]") + &key("alice", ALICE, "red", "");
    let gateway = Gateway::before(&sims, &head).await;
    let reply = post_as(&gateway, ALICE, &json!({"model": "m", "input": "hi"})).await;
    assert_eq!(reply.status, 404);
    until_true("the lists to be fetched", || sims.iter().all(|sim| asked(sim).1 == 1)).await;
    for _ in 0..2 {
        let reply = post_as(&gateway, ALICE, &json!({"model": "m", "input": "hi"})).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (404, &json!("model_not_found"))
        );
    }
    assert_eq!((asked(&sims[0]).0, asked(&sims[1]).0), (3, 0));
}

#[tokio::test]
async fn configured_names_of_models_count_like_a_list() {
    let sims = [with_models("a", &["deployment"]).await, listing("b", &["other"]).await];
    let config =
        upstream(&sims[0], "models = { \"m\" = \"deployment\", \"gone\" = \"deleted\" }") + &upstream(&sims[1], "");
    let gateway = Gateway::configured(&config).await;
    fetch_lists(&gateway).await;
    for number in 0..8 {
        assert_eq!(served_by(&gateway, "m", &format!("s{number}")).await, "a");
        assert_eq!(served_by(&gateway, "other", &format!("s{number}")).await, "b");
    }
    // The account says that it does not have the model, under its own name for it. Another account may have it.
    assert_eq!(served_by(&gateway, "gone", "s").await, "b");
    assert_eq!(served_by(&gateway, "gone", "s").await, "b");
    assert_eq!(asked(&sims[0]).0, 9);
}

#[tokio::test]
async fn the_owner_of_named_state_is_asked_whatever_the_lists_say() {
    let sims = [with_models("a", &["m-a"]).await, with_models("b", &["m-b"]).await];
    let gateway = Gateway::before(&sims, "").await;
    fetch_lists(&gateway).await;
    let created = send(&gateway, "m-a", "s").await;
    assert_eq!(created.routed().0, "a");
    let id = created.json()["id"].as_str().expect("an id").to_owned();
    let next = |model: &str| {
        let fields = json!({"model": model, "input": "on", "previous_response_id": id});
        responses_request(fields, &[])
    };
    let reply = client::send(gateway.address, next("m-b")).await;
    assert_eq!((reply.status.as_u16(), reply.routed().0), (404, "a"));
    assert_eq!(reply.json()["error"]["code"], "model_not_found");
    let reply = client::send(gateway.address, next("m-a")).await;
    assert_eq!((reply.status.as_u16(), reply.routed().0), (200, "a"));
    assert_eq!(asked(&sims[1]).0, 0);
}

#[tokio::test]
async fn a_session_with_two_models_stays_at_the_account_of_each() {
    let sims = [with_models("a", &["m-a"]).await, with_models("b", &["m-b"]).await];
    for knows_lists in [true, false] {
        let gateway = Gateway::before(&sims, "").await;
        if knows_lists {
            fetch_lists(&gateway).await;
        }
        let key = key_with_home(&gateway, "b").await;
        let mut routes = Vec::new();
        for model in ["m-a", "m-b", "m-a", "m-b", "m-a"] {
            let reply = send(&gateway, model, &key).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let (upstream, route) = reply.routed();
            assert_eq!(upstream, model.strip_prefix("m-").expect("a prefix"));
            routes.push((model, route.to_owned()));
        }
        assert_eq!(routes[2].1, "pin", "the session is pinned where it began: {routes:?}");
        assert_eq!(routes[4].1, "pin", "{routes:?}");
        assert_eq!(gateway.metric("steadfast_sessions_moved_total").await, 0.0);
    }
}

#[tokio::test]
async fn an_account_whose_list_fails_keeps_its_sessions() {
    let sims = [
        listing("a", &["m"]).await,
        listing("b", &["m"]).await,
        listing("c", &["other"]).await,
    ];
    fail_lists(&sims[0]);
    let gateway = Gateway::before(&sims, "").await;
    let keys = [key_with_home(&gateway, "a").await, key_with_home(&gateway, "c").await];
    assert_eq!(served_by(&gateway, "m", &keys[0]).await, "a");
    fetch_lists(&gateway).await;
    assert_eq!(served_by(&gateway, "m", &keys[0]).await, "a");
    assert_ne!(
        served_by(&gateway, "m", &keys[1]).await,
        "c",
        "the list of c does not name the model"
    );
}

#[tokio::test]
async fn a_new_list_replaces_the_old_one_and_ends_the_memory_of_a_missing_model() {
    let sims = [listing("a", &["m", "other"]).await, listing("b", &["other"]).await];
    let old = json!({"object": "list", "data": [{"id": "other", "object": "model"}]});
    sims[0].script().once("/v1/models", Act::reply(StatusCode::OK, &old));
    sims[0].script().once("/v1/responses", not_found("model_not_found"));
    let config = |attempts: usize| {
        let upstreams: String = sims.iter().map(|sim| upstream(sim, "")).collect();
        format!("[retry]\nattempts = {attempts}\n{upstreams}")
    };
    let gateway = Gateway::configured(&config(3)).await;
    let key = key_with_home(&gateway, "a").await;
    fetch_lists(&gateway).await;
    assert_eq!(served_by(&gateway, "m", &key).await, "b");
    let reload = || client::send(gateway.admin, client::post("/api/reload", ""));
    for (number, expected) in [(4, 1), (5, 2)] {
        gateway.write(&config(number));
        reload().await;
        gateway
            .metric_reaches("steadfast_reloads_total{outcome=\"applied\"}", (number - 3) as f64)
            .await;
        let order = gateway.ask(&format!("/api/route?key={key}&model=m")).await.json();
        let count = order["upstreams"].as_array().expect("a list").len();
        assert_eq!(count, 1, "a reload of the same account forgets nothing: {order}");
        fetch_lists(&gateway).await;
        assert_eq!(asked(&sims[0]).1, expected + 1);
        let order = gateway
            .ask(&format!("/api/route?key=new-{number}&model=m"))
            .await
            .json();
        assert_eq!(order["upstreams"].as_array().expect("a list").len(), 1, "{order}");
        assert_eq!(served_by(&gateway, "m", &format!("new-{number}")).await, "a");
    }
}
