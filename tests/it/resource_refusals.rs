//! Refusals of a resource: a 401 or 403 that does not concern the credential itself disables no account.

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Sim};

use crate::kit::{
    client,
    gateway::Gateway,
    sessions::{key_with_home, send_turn},
    sims,
};

fn refusal(status: StatusCode, code: &str) -> Value {
    let message = format!("{}: you lack a right.", status.as_u16());
    json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}})
}

/// The states of all upstreams.
async fn states(gateway: &Gateway) -> Vec<String> {
    let listed = gateway.ask("/api/upstreams").await.json();
    let upstreams = listed["upstreams"].as_array().expect("a list of upstreams").clone();
    let state = |upstream: Value| upstream["state"].as_str().expect("a state").to_owned();
    upstreams.into_iter().map(state).collect()
}

/// The number of requests to `path` that all upstreams got.
fn received(sims: &[Sim], path: &str) -> usize {
    let requests = sims.iter().flat_map(Sim::requests);
    requests.filter(|request| request.target == path).count()
}

#[tokio::test]
async fn a_refused_resource_disables_no_account_and_reaches_the_caller_unchanged() {
    for (status, code) in [
        (StatusCode::UNAUTHORIZED, "missing_scope"),
        (StatusCode::UNAUTHORIZED, "insufficient_permissions"),
        (StatusCode::UNAUTHORIZED, "an_unknown_code"),
        (StatusCode::FORBIDDEN, "missing_scope"),
        (StatusCode::FORBIDDEN, "project_access_denied"),
    ] {
        let sims = sims(6).await;
        let gateway = Gateway::before(&sims, "").await;
        let body = refusal(status, code);
        sims.iter()
            .for_each(|sim| sim.script().always(Act::reply(status, &body)));
        let reply = client::get(gateway.address, "/v1/files").await;
        assert_eq!((reply.status, reply.text()), (status, body.to_string()), "{code}");
        assert_eq!(received(&sims, "/v1/files"), 1, "{code}");
        assert_eq!(states(&gateway).await, ["ready"; 6], "{code}");
        // The same at an endpoint that generates: every account would answer the same.
        let reply = send_turn(&gateway, "s").await;
        assert_eq!((reply.status, reply.text()), (status, body.to_string()), "{code}");
        assert_eq!(received(&sims, "/v1/responses"), 1, "{code}");
        assert_eq!(states(&gateway).await, ["ready"; 6], "{code}");
    }
}

#[tokio::test]
async fn a_401_without_a_reason_disables_no_account_at_an_endpoint_that_does_not_generate() {
    let sims = sims(6).await;
    let gateway = Gateway::before(&sims, "").await;
    let body = json!({"error": {"message": "Unauthorized", "type": "authentication_error"}});
    let act = || Act::reply(StatusCode::UNAUTHORIZED, &body);
    sims.iter().for_each(|sim| sim.script().always(act()));
    for path in [
        "/v1/files",
        "/v1/images/edits",
        "/v1/organization/users",
        "/v1/vector_stores",
    ] {
        let reply = client::get(gateway.address, path).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (401, body.to_string()), "{path}");
        assert_eq!(received(&sims, path), 1, "{path}");
    }
    assert_eq!(states(&gateway).await, ["ready"; 6]);
}

#[tokio::test]
async fn a_refused_credential_disables_its_account() {
    for code in ["invalid_api_key", "account_deactivated", "token_expired"] {
        let sims = sims(2).await;
        let gateway = Gateway::before(&sims, "").await;
        let act = Act::reply(StatusCode::UNAUTHORIZED, &refusal(StatusCode::UNAUTHORIZED, code));
        sims[0].script().once("/v1/responses", act);
        let key = key_with_home(&gateway, "a").await;
        assert_eq!(send_turn(&gateway, &key).await.routed(), ("b", "moved"), "{code}");
        assert_eq!(states(&gateway).await, ["disabled", "ready"], "{code}");
    }
}
