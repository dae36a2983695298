//! The response head that the caller gets, made from that of an upstream.

use http::HeaderName;

use super::*;
use crate::proxy::{testing, turn::turn_state};

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let field =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    fields.iter().map(field).collect()
}

/// The headers that a caller gets if the upstream `a` answers with `fields`.
fn rewritten(settings: &str, fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let gateway = testing::gateway(settings);
    let snapshot = gateway.snapshot();
    let origin = ResponseOrigin {
        upstream: &snapshot.upstreams()[0],
        route: Route::Pin,
        namespace: Namespace::of_group(""),
    };
    let mut headers = headers(fields);
    let identity = RequestIdentity::of_unknown_caller(HeaderValue::from_static("req-1"));
    origin.rewrite_headers(&mut headers, &snapshot, identity);
    headers
}

#[tokio::test]
async fn the_upstreams_request_id_is_kept_and_a_missing_one_is_added() {
    assert_eq!(rewritten("", &[])[X_REQUEST_ID], "req-1");
    assert_eq!(rewritten("", &[("x-request-id", "up-1")])[X_REQUEST_ID], "up-1");
}

#[tokio::test]
async fn a_request_id_that_contains_the_credential_is_removed_and_not_replaced() {
    let headers = rewritten("", &[("x-request-id", "id-of-sk-secret-of-A_KEY")]);
    assert!(!headers.contains_key(X_REQUEST_ID), "{headers:?}");
}

#[tokio::test]
async fn the_route_is_shown_where_it_is_configured() {
    let shown = rewritten("[server]\nroute_headers = true\n", &[]);
    assert_eq!(
        (&shown[ROUTED_TO], &shown[ROUTED_BY]),
        (&HeaderValue::from_static("a"), &HeaderValue::from_static("pin"))
    );
    let hidden = rewritten("[server]\nroute_headers = false\n", &[("x-steadfast-route", "forged")]);
    assert!(!hidden.contains_key(ROUTED_TO) && !hidden.contains_key(ROUTED_BY));
}

#[tokio::test]
async fn turn_state_is_sealed_for_its_issuer_and_the_callers_group() {
    let headers = rewritten("", &[("x-codex-turn-state", "state-1")]);
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let seal_of = |issuer| snapshot.upstream_of(issuer).map(|upstream| &upstream.seal);
    let unsealed =
        turn_state::unseal(headers[TURN_STATE].as_bytes(), Namespace::of_group(""), seal_of).expect("our seal");
    assert_eq!(
        (unsealed.issuer, unsealed.value),
        (snapshot.upstreams()[0].id, &b"state-1"[..])
    );
}
