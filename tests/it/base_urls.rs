//! Base URLs with a query, which goes with each request, and base URLs that end in an endpoint.

use http::StatusCode;
use serde_json::json;
use steadfast::sim::{Act, Sim};

use crate::kit::{
    WHOLE, client,
    commands::{lossy_text, write_config},
    gateway::{Gateway, steadfast, upstream_at},
    sim, until,
    wire::{self, RawResponse},
};

/// A secret in the query. It may appear nowhere but in requests to the upstream.
const SECRET: &str = "canary-of-query";

async fn before(sim: &Sim) -> Gateway {
    let url = format!("{}?api-version=2025-04-01-preview&key={SECRET}", sim.base_url());
    Gateway::configured(&upstream_at("a", &url, "")).await
}

fn targets(sim: &Sim) -> Vec<String> {
    sim.requests().into_iter().map(|request| request.target).collect()
}

async fn get(gateway: &Gateway, path: &str) -> RawResponse {
    wire::ask(
        gateway.address,
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn the_query_goes_with_each_request_before_that_of_the_caller() {
    let sim = sim("a").await;
    let gateway = before(&sim).await;
    let configured = format!("api-version=2025-04-01-preview&key={SECRET}");
    for (path, callers) in [
        ("/v1/responses", ""),
        ("/responses", ""),
        ("/v1/responses?stream=true&x=%20", "&stream=true&x=%20"),
        ("/v1/responses?api-version=1&x=1&api%2Dversion=2&KEY=mine&", "&x=1"),
    ] {
        let answer = wire::ask(gateway.address, wire::post(path, WHOLE)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(
            targets(&sim).last(),
            Some(&format!("/v1/responses?{configured}{callers}"))
        );
    }
    let _ = get(&gateway, "/v1/files?limit=2").await;
    assert_eq!(targets(&sim).last(), Some(&format!("/v1/files?{configured}&limit=2")));
    let log = gateway.log().join("\n");
    let admin = client::get(gateway.admin, "/api/upstreams").await.text();
    let metrics = client::get(gateway.admin, "/metrics").await.text();
    assert!(!log.contains(SECRET) && !admin.contains(SECRET) && !metrics.contains(SECRET));
}

#[tokio::test]
async fn the_query_goes_with_the_requests_of_steadfast_itself() {
    let sim = sim("a").await;
    let gateway = before(&sim).await;
    let expected = format!("/v1/models?api-version=2025-04-01-preview&key={SECRET}");
    assert_eq!(get(&gateway, "/v1/models").await.status, 200);
    assert_eq!(targets(&sim), [expected.as_str()]);
    // A bare 401 is confirmed by the list of models.
    let refusal = json!({"error": {"message": "no", "code": null}});
    sim.script()
        .once("/v1/responses", Act::reply(StatusCode::UNAUTHORIZED, &refusal));
    let _ = wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await;
    let asked = until("a request for the list of models", || {
        let targets = targets(&sim);
        std::future::ready((targets.len() >= 3).then_some(targets))
    })
    .await;
    assert_eq!(asked[2], expected);
}

#[tokio::test]
async fn an_upstream_that_echoes_a_credential_of_the_query_is_masked() {
    let sim = sim("a").await;
    let gateway = before(&sim).await;
    let echo = json!({"error": {"message": format!("no access with key={SECRET}"), "code": "bad"}});
    sim.script()
        .once("/v1/responses", Act::reply(StatusCode::BAD_REQUEST, &echo));
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await;
    assert_eq!(answer.status, 400);
    assert!(!answer.text().contains(SECRET), "{answer:?}");
}

#[tokio::test]
async fn check_warns_of_a_base_url_that_ends_in_an_endpoint() {
    for (url, expected) in [
        (
            "https://a.example/v1/responses/",
            "base_url ends in the endpoint /responses, which the path of each request adds again; use \"https://a.example/v1\"",
        ),
        (
            "https://a.example/openai/chat/completions?key=canary-of-query",
            "base_url ends in the endpoint /chat/completions, which the path of each request adds again; use \"https://a.example/openai\" with the same query",
        ),
    ] {
        let path = write_config(&upstream_at("a", url, ""));
        let output = steadfast(&["check", "-c", &path]).await;
        assert!(output.status.success());
        assert_eq!(
            lossy_text(&output.stderr),
            format!("warning: {path}:3:12: {expected}\n")
        );
    }
}
