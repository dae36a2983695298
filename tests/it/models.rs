//! The list of models, and routing by model.

use std::collections::HashSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply, request},
    gateway::{Gateway, upstream},
    sessions::responses_request,
    sim, sim_with,
};

async fn with_models(name: &str, models: &[&str]) -> Sim {
    let models = models.iter().map(|&id| id.to_owned()).collect();
    sim_with(name, |config| {
        config.models = models;
        config.only_models = true;
    })
    .await
}

fn ids(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let list = reply.json();
    assert_eq!(list["object"], "list");
    let data = list["data"].as_array().expect("a list").iter();
    data.map(|model| model["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn lists_are_merged_filtered_and_deduplicated() {
    let a = with_models("a", &["gpt-5.2", "o4-mini", "dall-e-3"]).await;
    let b = with_models("b", &["gpt-5.2", "org/tuned", "text-embedding-3-small"]).await;
    let config = upstream(&a, "models = [\"gpt-5*\", \"o?-mini\", \"org/*\"]") + &upstream(&b, "");
    let gateway = Gateway::configured(&config).await;
    for path in ["/v1/models", "/models", "/v1/models?limit=100"] {
        let reply = client::get(gateway.address, path).await;
        assert_eq!(
            ids(&reply),
            ["gpt-5.2", "o4-mini", "org/tuned", "text-embedding-3-small"],
            "{path}"
        );
        assert_eq!(reply.header("content-type"), "application/json");
        let model = &reply.json()["data"][0];
        let as_upstream_says = client::get(a.address(), "/v1/models/gpt-5.2").await.json();
        assert_eq!(*model, as_upstream_says, "every field of the upstream's description");
    }
    let asked = |sim: &Sim| {
        sim.requests()
            .iter()
            .filter(|request| request.target == "/v1/models")
            .count()
    };
    assert_eq!((asked(&a), asked(&b)), (1, 1), "the lists are cached");
    let credentials: HashSet<_> = b
        .requests()
        .iter()
        .map(|request| request.headers["authorization"].clone())
        .collect();
    assert!(
        credentials.iter().all(|value| value == "Bearer sk-upstream-canary"),
        "{credentials:?}"
    );
}

#[tokio::test]
async fn upstreams_without_a_usable_list_are_left_out() {
    let sims = [
        with_models("gone", &["m-gone"]).await,
        with_models("failing", &["m-failing"]).await,
        with_models("garbled", &["m-garbled"]).await,
        with_models("closing", &["m-closing"]).await,
        with_models("fine", &["m-fine"]).await,
    ];
    sims[1].script().always(Act::reply(
        StatusCode::INTERNAL_SERVER_ERROR,
        &json!({"error": {"message": "no"}}),
    ));
    sims[2]
        .script()
        .always(Act::reply(StatusCode::OK, &json!(["m-garbled"])));
    sims[3]
        .script()
        .always(Act::answer(ScriptedAnswer::Close(Close::Reset)));
    let config: String = sims.iter().map(|sim| upstream(sim, "")).collect();
    let [gone, _failing, _garbled, _closing, _fine] = sims;
    gone.stop().await;
    let gateway = Gateway::configured(&config).await;
    assert_eq!(ids(&client::get(gateway.address, "/v1/models").await), ["m-fine"]);
}

#[tokio::test]
async fn without_any_list_the_response_is_an_error() {
    let sim = with_models("a", &["m"]).await;
    let config = upstream(&sim, "");
    sim.stop().await;
    let gateway = Gateway::configured(&config).await;
    for path in ["/v1/models", "/v1/models/m"] {
        let reply = client::get(gateway.address, path).await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert_eq!(reply.json()["error"]["code"], "models_unavailable");
    }
}

#[tokio::test]
async fn one_model_is_found_by_its_id() {
    let a = with_models("a", &["gpt-5.2", "org/team/tuned:v1"]).await;
    let b = with_models("b", &["only-b"]).await;
    let sims = [a, b];
    let gateway = Gateway::before(&sims, "").await;
    for (path, id) in [
        ("/v1/models/gpt-5.2", "gpt-5.2"),
        ("/models/only-b", "only-b"),
        ("/v1/models/org/team/tuned:v1", "org/team/tuned:v1"),
        ("/v1/models/org%2Fteam%2ftuned%3Av1", "org/team/tuned:v1"),
    ] {
        let reply = client::get(gateway.address, path).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["id"]),
            (200, &json!(id)),
            "{path}"
        );
        assert_eq!(reply.json()["object"], "model");
    }
    for path in ["/v1/models/gpt-6", "/v1/models/org", "/models/GPT-5.2"] {
        let reply = client::get(gateway.address, path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json()["error"]["code"], "model_not_found");
    }
}

#[tokio::test]
async fn a_codex_request_for_models_is_forwarded_unchanged() {
    let a = with_models("a", &["gpt-5.2"]).await;
    let b = with_models("b", &["gpt-5.2"]).await;
    let sims = [a, b];
    let gateway = Gateway::before(&sims, "").await;
    for path in [
        "/v1/models?client_version=0.169.0",
        "/models?x=1&client_version=0.169.0",
    ] {
        let reply = client::get(gateway.address, path).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()["models"][0]["slug"], "gpt-5.2");
        assert!(["a", "b"].contains(&reply.routed().0), "{reply:?}");
        assert_eq!(
            reply.header("openai-organization"),
            reply.routed().0,
            "the response has the upstream's headers"
        );
    }
}

#[tokio::test]
async fn a_list_for_the_callers_key_is_shown_to_that_caller_only() {
    let own = with_models("own", &["m-own"]).await;
    let theirs = with_models("theirs", &["m-theirs"]).await;
    let (name, url) = (theirs.name(), theirs.base_url());
    let passing = format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\napi_key = \"passthrough\"\n");
    let gateway = Gateway::configured(&(upstream(&own, "") + &passing)).await;
    let with_key = || {
        let mut request = request(Method::GET, "/v1/models", "");
        request.headers_mut().insert(
            "authorization",
            "Bearer sk-caller-canary".parse().expect("a valid header value"),
        );
        request
    };
    assert_eq!(
        ids(&client::send(gateway.address, with_key()).await),
        ["m-own", "m-theirs"]
    );
    assert_eq!(ids(&client::get(gateway.address, "/v1/models").await), ["m-own"]);
    assert!(
        theirs
            .requests()
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer sk-caller-canary")
    );
    assert!(
        own.requests()
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer sk-upstream-canary")
    );
}

/// Starts a gateway in front of three upstreams: `new` serves gpt-5*, `old` serves o4* and gpt-4, and `all` serves every
/// model.
async fn gateway_with_three_model_sets() -> (Vec<Sim>, Gateway) {
    let everything = ["gpt-5.2", "o4-mini", "gpt-4"];
    let sims = vec![
        with_models("new", &everything[..1]).await,
        with_models("old", &everything[1..]).await,
        with_models("all", &everything).await,
    ];
    let config = upstream(&sims[0], "models = [\"gpt-5*\"]")
        + &upstream(&sims[1], "models = [\"o4*\", \"gpt-4\"]")
        + &upstream(&sims[2], "");
    let gateway = Gateway::configured(&config).await;
    (sims, gateway)
}

#[tokio::test]
async fn an_upstream_receives_only_models_that_it_serves() {
    let (sims, gateway) = gateway_with_three_model_sets().await;
    let mut used = HashSet::new();
    for number in 0..24 {
        let mut models = ["gpt-5.2", "o4-mini", "gpt-4"];
        models.rotate_left(number % 3);
        for model in models {
            // The session continues with a model that its upstream may not serve.
            let fields = json!({"model": model, "input": "hi", "prompt_cache_key": format!("session-{number}")});
            let reply = client::send(gateway.address, responses_request(fields, &[])).await;
            assert_eq!(reply.status, 200, "{model}: {}", reply.text());
            used.insert((reply.routed().0.to_owned(), model));
            let keyless = json!({"model": model, "input": []});
            assert_eq!(
                client::post_json(gateway.address, "/v1/embeddings", &keyless)
                    .await
                    .status,
                200,
                "{model}"
            );
        }
    }
    assert!(
        used.contains(&("new".to_owned(), "gpt-5.2")) && used.contains(&("old".to_owned(), "gpt-4")),
        "{used:?}"
    );
    for sim in &sims[..2] {
        let models = sim.requests().into_iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            body["model"].as_str().expect("a model").to_owned()
        });
        let wrong = if sim.name() == "new" {
            &["o4-mini", "gpt-4"][..]
        } else {
            &["gpt-5.2"]
        };
        assert!(
            models.into_iter().all(|model| !wrong.contains(&&*model)),
            "{}",
            sim.name()
        );
    }
}

#[tokio::test]
async fn route_names_the_home_for_a_model() {
    let (_sims, gateway) = gateway_with_three_model_sets().await;
    for number in 0..8 {
        let key = format!("session-{number}");
        for (model, others) in [("gpt-5.2", "new"), ("gpt-4", "old")] {
            let order = gateway.order(&[&key, "--model", model]).await;
            assert_eq!(
                order.iter().collect::<HashSet<_>>(),
                HashSet::from([&others.to_owned(), &"all".to_owned()])
            );
            let fields = json!({"model": model, "input": "hi", "prompt_cache_key": format!("session-{number}")});
            let reply = client::send(gateway.address, responses_request(fields, &[])).await;
            if reply.routed().1 == "home" {
                assert_eq!(reply.routed().0, order[0], "{key} {model}");
            }
        }
    }
}

#[tokio::test]
async fn a_model_that_no_upstream_serves_is_not_found() {
    let sim = with_models("a", &["gpt-5.2"]).await;
    let gateway = Gateway::configured(&upstream(&sim, "models = [\"gpt-5*\"]")).await;
    for model in ["gpt-4", "GPT-5.2", "xgpt-5", ""] {
        for path in [
            "/v1/responses",
            "/v1/responses/compact",
            "/v1/chat/completions",
            "/v1/embeddings",
        ] {
            let reply = client::post_json(gateway.address, path, &json!({"model": model, "input": "hi"})).await;
            let error = &reply.json()["error"];
            assert_eq!(reply.status, 404, "{model} {path}");
            assert_eq!(
                (&error["code"], &error["param"]),
                (&json!("model_not_found"), &json!("model"))
            );
            assert!(
                error["message"]
                    .as_str()
                    .expect("a message")
                    .contains(&format!("'{model}'")),
                "{error}"
            );
        }
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn concurrent_requests_for_models_share_one_upstream_request() {
    let sim = sim("a").await;
    sim.script()
        .always(Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({})));
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let asked = (0..8).map(|_| tokio::spawn(client::get(gateway.address, "/v1/models")));
    for answer in asked.collect::<Vec<_>>() {
        assert_eq!(answer.await.expect("a response").status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(sim.requests().len(), 1, "one upstream request for all callers");
}
