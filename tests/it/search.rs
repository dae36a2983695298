//! The search for objects whose owner is not known.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Sim};

use crate::kit::{
    client,
    encoders::zstd,
    gateway::Gateway,
    sessions::{key_with_home, key_with_prefix},
    sims,
};

/// A gateway that may send each request only once, in front of three accounts.
async fn gateway_before(sims: &[Sim]) -> Gateway {
    Gateway::before(sims, "[retry]\nattempts = 1\n").await
}

/// Makes an object at an account without the gateway, and returns its id.
async fn made_elsewhere(sim: &Sim, path: &str, body: &Value) -> Value {
    let reply = client::post_json(sim.address(), path, body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    reply.json()
}

fn counts(sims: &[Sim]) -> Vec<usize> {
    sims.iter().map(|sim| sim.requests().len()).collect()
}

#[tokio::test]
async fn an_object_that_was_made_elsewhere_is_found_and_remembered() {
    let sims = sims(3).await;
    let gateway = gateway_before(&sims).await;
    for sim in &sims {
        for method in [Method::GET, Method::DELETE, Method::POST] {
            let made = made_elsewhere(sim, "/v1/conversations", &json!({})).await;
            let path = format!("/v1/conversations/{}", made["id"].as_str().expect("an id"));
            let body = if method == Method::POST {
                r#"{"metadata": {}}"#
            } else {
                ""
            };
            let before = counts(&sims);
            let reply = client::send(gateway.address, client::request(method.clone(), &path, body)).await;
            assert_eq!(reply.status, StatusCode::OK, "{method} {}", reply.text());
            assert_eq!(reply.routed().0, sim.name(), "{method}");
            let asked: Vec<usize> = counts(&sims)
                .iter()
                .zip(&before)
                .map(|(now, then)| now - then)
                .collect();
            assert!(asked.iter().all(|count| *count <= 1), "{method}: {asked:?}");
            let before = counts(&sims).iter().sum::<usize>();
            let reply = client::get(gateway.address, &path).await;
            assert_eq!(reply.routed(), (sim.name(), "owner"), "{method}");
            assert_eq!(counts(&sims).iter().sum::<usize>(), before + 1, "{method}");
        }
    }
}

#[tokio::test]
async fn the_first_answer_is_passed_on_byte_for_byte_and_the_search_rests_for_a_minute() {
    let sims = sims(3).await;
    let gateway = gateway_before(&sims).await;
    for sim in &sims {
        let error = json!({"error": {"message": format!("No such File object at {}", sim.name()), "code": null}});
        sim.script().always(Act::reply(StatusCode::NOT_FOUND, &error));
    }
    let first = client::get(gateway.address, "/v1/files/file-1").await;
    assert_eq!((first.status, counts(&sims)), (StatusCode::NOT_FOUND, vec![1, 1, 1]));
    let name = first.routed().0.to_owned();
    let expected = json!({"error": {"message": format!("No such File object at {name}"), "code": null}});
    assert_eq!(first.text(), expected.to_string());
    let second = client::get(gateway.address, "/v1/files/file-1").await;
    assert_eq!((second.routed().0, second.text()), (name.as_str(), first.text()));
    assert_eq!(
        counts(&sims).iter().sum::<usize>(),
        4,
        "only the first account is asked again"
    );
    client::get(gateway.address, "/v1/files/file-2").await;
    assert_eq!(counts(&sims).iter().sum::<usize>(), 7, "another object is searched for");
}

#[tokio::test]
async fn an_account_that_takes_no_requests_is_not_asked_and_the_search_is_repeated() {
    let sims = sims(3).await;
    let gateway = gateway_before(&sims).await;
    let made = made_elsewhere(&sims[2], "/v1/conversations", &json!({})).await;
    let path = format!("/v1/conversations/{}", made["id"].as_str().expect("an id"));
    let order = async |verb: &str| {
        let request = client::post(&format!("/api/upstreams/c/{verb}"), "");
        assert_eq!(client::send(gateway.admin, request).await.status, StatusCode::OK);
    };
    order("drain").await;
    assert_eq!(client::get(gateway.address, &path).await.status, StatusCode::NOT_FOUND);
    order("enable").await;
    let reply = client::get(gateway.address, &path).await;
    assert_eq!((reply.status, reply.routed().0), (StatusCode::OK, "c"));
}

#[tokio::test]
async fn an_unknown_route_is_not_searched_for() {
    let sims = sims(3).await;
    let gateway = gateway_before(&sims).await;
    for sim in &sims {
        let error = json!({"error": {"message": "Invalid URL (GET /v1/things/x-1)", "code": null}});
        sim.script().always(Act::reply(StatusCode::NOT_FOUND, &error));
    }
    client::get(gateway.address, "/v1/things/x-1").await;
    assert_eq!(counts(&sims).iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn a_turn_finds_the_response_and_the_encrypted_items_that_it_continues() {
    let sims = sims(3).await;
    let gateway = gateway_before(&sims).await;
    for stream in [false, true] {
        let ask = json!({
            "model": "gpt-5.2", "input": [{"role": "user", "content": "think"}],
            "include": ["reasoning.encrypted_content"],
        });
        let made = made_elsewhere(&sims[1], "/v1/responses", &ask).await;
        let key = key_with_prefix(&gateway, "a", &format!("stored-{stream}")).await;
        let next = json!({
            "model": "gpt-5.2", "input": "and?", "previous_response_id": made["id"], "prompt_cache_key": key, "stream": stream,
        });
        let reply = client::post_json(gateway.address, "/v1/responses", &next).await;
        assert_eq!(
            (reply.status, reply.routed()),
            (StatusCode::OK, ("b", "owner")),
            "{}",
            reply.text()
        );

        let mut ask = ask.clone();
        ask["store"] = false.into();
        let made = made_elsewhere(&sims[1], "/v1/responses", &ask).await;
        let mut input = made["output"].as_array().expect("items").clone();
        assert!(input.iter().any(|item| item["encrypted_content"].is_string()), "{made}");
        input.push(json!({"role": "user", "content": "and now?"}));
        let key = key_with_prefix(&gateway, "c", &format!("encrypted-{stream}")).await;
        let next =
            json!({"model": "gpt-5.2", "input": input, "store": false, "prompt_cache_key": key, "stream": stream});
        let mut request = client::post("/v1/responses", zstd(next.to_string().as_bytes()));
        let coding = "zstd".parse().expect("a valid value");
        request.headers_mut().insert("content-encoding", coding);
        let reply = client::send(gateway.address, request).await;
        assert_eq!(
            (reply.status, reply.routed()),
            (StatusCode::OK, ("b", "owner")),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn a_stream_that_fails_because_an_object_is_not_there_is_searched_for() {
    let sims = sims(3).await;
    let gateway = gateway_before(&sims).await;
    let made = made_elsewhere(&sims[1], "/v1/responses", &json!({"model": "gpt-5.2", "input": "x"})).await;
    let error = json!({"code": "previous_response_not_found", "message": "Previous response not found."});
    let failed = json!({"type": "response.failed", "response": {"id": "resp_x", "status": "failed", "error": error}});
    for sim in [&sims[0], &sims[2]] {
        sim.script().always(Act::events(std::slice::from_ref(&failed)));
    }
    let key = key_with_home(&gateway, "a").await;
    let next = json!({
        "model": "gpt-5.2", "input": "and?", "previous_response_id": made["id"], "prompt_cache_key": key, "stream": true,
    });
    let reply = client::post_json(gateway.address, "/v1/responses", &next).await;
    assert_eq!(reply.routed(), ("b", "owner"), "{}", reply.text());
    let key = key_with_prefix(&gateway, "a", "other").await;
    let unknown = json!({
        "model": "gpt-5.2", "input": "and?", "previous_response_id": "resp_none", "prompt_cache_key": key, "stream": true,
    });
    let reply = client::post_json(gateway.address, "/v1/responses", &unknown).await;
    assert_eq!(reply.routed().0, "a");
    assert!(reply.text().contains("previous_response_not_found"), "{}", reply.text());
}
