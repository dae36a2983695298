//! Web pages: without client keys, no page of another site can use the accounts; pages of allowed origins can.

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use steadfast::sim::{Act, Fixed, ScriptedAnswer};

use crate::kit::{
    client,
    gateway::Gateway,
    gateway_with_sim,
    h2::{connect_h2c, read_whole},
    keys::{ALICE, group, key},
    sim,
};

const APP: &str = "https://app.example";
const EVIL: &str = "https://evil.example";
const ALLOWING: &str = "[server]\nallow_origins = [\"https://app.example\", \"http://localhost:3000\"]\n";
const BODY: &str = r#"{"model":"gpt-5.2","input":"hi","prompt_cache_key":"s"}"#;

/// The head and body of a generation with these header lines instead of the usual ones.
fn generation(lines: &str) -> String {
    let length = BODY.len();
    format!("POST /v1/responses HTTP/1.1\r\n{lines}content-length: {length}\r\nconnection: close\r\n\r\n{BODY}")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn without_client_keys_pages_of_other_sites_reach_no_account() {
    let (sim, gateway) = gateway_with_sim("").await;
    let own = gateway.address;
    for (lines, code) in [
        // A page sends such a request without a preflight request.
        (
            format!("host: {own}\r\norigin: {EVIL}\r\ncontent-type: text/plain\r\n"),
            "origin_not_allowed",
        ),
        (format!("host: {own}\r\norigin: null\r\n"), "origin_not_allowed"),
        (format!("host: {own}\r\norigin: app://{own}\r\n"), "origin_not_allowed"),
        (
            format!("host: {own}\r\norigin: http://{own}\r\norigin: {EVIL}\r\n"),
            "origin_not_allowed",
        ),
        (
            format!("host: {own}\r\nsec-fetch-site: none\r\nsec-fetch-site: cross-site\r\n"),
            "origin_not_allowed",
        ),
        (
            format!("host: {own}\r\norigin: http://localhost:3000\r\n"),
            "origin_not_allowed",
        ),
        (
            format!("host: {own}\r\nsec-fetch-site: cross-site\r\n"),
            "origin_not_allowed",
        ),
        (
            format!("host: {own}\r\nsec-fetch-site: same-site\r\n"),
            "origin_not_allowed",
        ),
        // DNS rebinding: the page's own name resolves to this machine.
        (
            "host: evil.example\r\norigin: http://evil.example\r\nsec-fetch-site: same-origin\r\n".to_owned(),
            "host_not_allowed",
        ),
        (
            format!("host: evil.example:{}\r\nsec-fetch-site: none\r\n", own.port()),
            "host_not_allowed",
        ),
        ("host: evil.example\r\n".to_owned(), "host_not_allowed"),
        ("host: localhost.evil.example\r\n".to_owned(), "host_not_allowed"),
    ] {
        let answer = client::raw(own, generation(&lines).as_bytes()).await;
        assert_eq!(status(&answer), "403", "{lines}: {answer}");
        assert!(answer.contains(code), "{lines}: {answer}");
        assert!(!answer.contains("access-control-"), "{lines}: {answer}");
    }
    for target in ["/v1/models", "/v1/files", "/v1/responses/resp_1"] {
        let head = format!("GET {target} HTTP/1.1\r\nhost: {own}\r\norigin: {EVIL}\r\nconnection: close\r\n\r\n");
        assert_eq!(status(&client::raw(own, head.as_bytes()).await), "403", "{target}");
    }
    assert!(sim.requests().is_empty(), "no request has reached the account");
    for lines in [
        format!("host: {own}\r\n"),
        format!("host: localhost:{}\r\n", own.port()),
        "host: [::1]\r\n".to_owned(),
        format!("host: {own}\r\norigin: http://{own}\r\nsec-fetch-site: same-origin\r\n"),
        format!("host: {own}\r\nsec-fetch-site: none\r\n"),
    ] {
        let answer = client::raw(own, generation(&lines).as_bytes()).await;
        assert_eq!(status(&answer), "200", "{lines}: {answer}");
    }
}

#[tokio::test]
async fn the_host_of_the_target_is_checked_too() {
    let (sim, gateway) = gateway_with_sim("").await;
    for (target, version, host, status_code) in [
        ("http://localhost/v1/models", "1.1", "host: localhost\r\n", "200"),
        ("http://evil.example/v1/models", "1.1", "host: evil.example\r\n", "403"),
        ("http://evil.example/v1/models", "1.1", "host: localhost\r\n", "400"),
        ("http://localhost/v1/models", "1.1", "host: evil.example\r\n", "400"),
        ("http://evil.example/v1/models", "1.0", "", "403"),
        ("/v1/models", "1.0", "host: evil.example\r\n", "403"),
        ("/v1/models", "1.0", "", "200"),
        ("/v1/models", "1.0", "origin: https://evil.example\r\n", "403"),
    ] {
        let head = format!("GET {target} HTTP/{version}\r\n{host}connection: close\r\n\r\n");
        let answer = client::raw(gateway.address, head.as_bytes()).await;
        assert_eq!(status(&answer), status_code, "{head}: {answer}");
    }
    let before = sim.requests().len();
    let mut sender = connect_h2c(&gateway).await;
    for (authority, header, expected) in [
        ("evil.example", None, 403),
        ("evil.example", Some(("host", "localhost")), 400),
        ("localhost", Some(("host", "evil.example")), 400),
        ("localhost", Some(("origin", EVIL)), 403),
        ("localhost", Some(("origin", "http://localhost:3000")), 403),
        ("localhost", Some(("sec-fetch-site", "cross-site")), 403),
        ("localhost:1", None, 200),
        ("[::1]", None, 200),
        ("localhost", Some(("origin", "http://localhost")), 200),
    ] {
        let mut request = Request::post(format!("http://{authority}/v1/responses"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(BODY.into())).expect("a valid request");
        let answer = sender.send_request(request).await.expect("a response");
        let (status, body) = read_whole(answer).await;
        assert_eq!(status, expected, "{authority} {header:?}: {body}");
    }
    assert_eq!(sim.requests().len(), before + 3);
}

#[tokio::test]
async fn an_open_gateway_for_other_machines_accepts_every_host_but_no_page_of_another_site() {
    let (sim, gateway) = gateway_with_sim("[server]\nallow_anonymous = true\n").await;
    let host = "host: steadfast.internal:8080\r\n";
    let answer = client::raw(gateway.address, generation(host).as_bytes()).await;
    assert_eq!(status(&answer), "200", "{answer}");
    let from_page = format!("{host}origin: {EVIL}\r\n");
    let answer = client::raw(gateway.address, generation(&from_page).as_bytes()).await;
    assert_eq!(status(&answer), "403", "{answer}");
    // The name of this page could have been rebound to the gateway's address.
    let rebound = "host: evil.example\r\norigin: http://evil.example\r\n";
    let answer = client::raw(gateway.address, generation(rebound).as_bytes()).await;
    assert_eq!(status(&answer), "403", "{answer}");
    assert_eq!(sim.requests().len(), 1);
}

/// Sends a preflight request of a page of `origin`.
async fn preflight(gateway: &Gateway, origin: &str) -> client::Reply {
    let mut request = client::request(Method::OPTIONS, "/v1/responses", "");
    let headers = request.headers_mut();
    for (name, value) in [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, content-type"),
        ("access-control-request-private-network", "true"),
        ("sec-fetch-site", "cross-site"),
    ] {
        headers.insert(name, value.parse().expect("a header value"));
    }
    client::send(gateway.address, request).await
}

/// Sends a generation from a page of `origin`, with a client key if there is one.
async fn call_from(gateway: &Gateway, origin: &str, key: Option<&str>) -> client::Reply {
    let mut request = client::post("/v1/responses", BODY);
    let headers = request.headers_mut();
    headers.insert("origin", origin.parse().expect("a header value"));
    headers.insert("sec-fetch-site", "cross-site".parse().expect("a header value"));
    if let Some(key) = key {
        let value = format!("Bearer {key}");
        headers.insert("authorization", value.parse().expect("a header value"));
    }
    client::send(gateway.address, request).await
}

fn assert_readable(reply: &client::Reply, origin: &str) {
    assert_eq!(reply.header("access-control-allow-origin"), origin, "{reply:?}");
    let exposed = reply.header("access-control-expose-headers");
    for name in ["x-request-id", "x-steadfast-upstream", "x-steadfast-route"] {
        assert!(exposed.split(", ").any(|shown| shown == name), "{exposed}");
    }
    let varies = reply.headers.get_all("vary").iter();
    let mut varies = varies.filter_map(|value| value.to_str().ok());
    assert!(varies.any(|value| value.contains("origin")), "{reply:?}");
}

#[tokio::test]
async fn pages_of_allowed_origins_can_use_a_gateway_with_and_without_keys() {
    let sim = sim("a").await;
    let keys = group("team", "") + &key("alice", ALICE, "team", "");
    for (keys, client_key) in [("", None), (&*keys, Some(ALICE))] {
        let gateway = Gateway::before(std::slice::from_ref(&sim), &format!("{ALLOWING}{keys}")).await;
        for origin in [APP, "http://localhost:3000"] {
            let reply = preflight(&gateway, origin).await;
            assert_eq!(reply.status, 204, "{reply:?}");
            assert_readable(&reply, origin);
            assert!(reply.header("access-control-allow-methods").contains("POST"));
            assert_eq!(
                reply.header("access-control-allow-headers"),
                "authorization, content-type"
            );
            assert_eq!(reply.header("access-control-allow-private-network"), "true");
            assert!(!reply.header("access-control-max-age").is_empty());

            let reply = call_from(&gateway, origin, client_key).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_readable(&reply, origin);
            // A page can also read an error.
            let reply = client::get(gateway.address, "/nowhere").await;
            assert_eq!(reply.header("access-control-allow-origin"), "");
            assert_eq!(reply.header("vary"), "origin");
            let reply = call_from(&gateway, origin, Some("sk-wrong")).await;
            assert_eq!(reply.status, if client_key.is_some() { 401 } else { 200 });
            assert_readable(&reply, origin);
        }
        let before = sim.requests().len();
        let reply = preflight(&gateway, EVIL).await;
        assert_eq!(reply.status, 403, "{reply:?}");
        assert_eq!(reply.json()["error"]["code"], json!("origin_not_allowed"));
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .expect("a text")
                .contains("allow_origins")
        );
        assert_eq!(sim.requests().len(), before);
        let reply = call_from(&gateway, EVIL, client_key).await;
        assert_eq!(reply.status, if client_key.is_some() { 200 } else { 403 });
        assert_eq!(reply.header("access-control-allow-origin"), "");
    }
}

/// Rules of an upstream that let every page read its answer.
fn for_every_page() -> Act {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-odd"),
        ("vary", "accept-encoding"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Act::answer(ScriptedAnswer::Fixed(Fixed {
        status: StatusCode::OK,
        headers,
        pieces: vec!["{}".into()],
    }))
}

#[tokio::test]
async fn the_rules_of_an_upstream_allow_no_page_that_the_gateway_does_not_allow() {
    let sim = sim("a").await;
    sim.script().always(for_every_page());
    let keys = group("team", "") + &key("alice", ALICE, "team", "");
    let gateway = Gateway::before(std::slice::from_ref(&sim), &format!("{ALLOWING}{keys}")).await;
    for (origin, allowed) in [(APP, APP), (EVIL, "")] {
        let reply = call_from(&gateway, origin, Some(ALICE)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), allowed);
        assert_eq!(reply.header("access-control-allow-credentials"), "");
        assert!(!reply.header("access-control-expose-headers").contains("x-odd"));
        let varies: Vec<_> = reply.headers.get_all("vary").iter().collect();
        assert_eq!(varies, ["accept-encoding", "origin"]);
    }
    // Without allowed origins the gateway has no rules of its own.
    let gateway = Gateway::before(std::slice::from_ref(&sim), &keys).await;
    let reply = call_from(&gateway, EVIL, Some(ALICE)).await;
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(reply.header("vary"), "accept-encoding");
}
