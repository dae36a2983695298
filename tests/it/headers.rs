//! The headers that the gateway forwards, drops and adds, in both directions.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use steadfast::sim::{Act, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply, request},
    gateway::{Gateway, upstream},
    sim, sims, wire,
};

/// Sends a request with the header lines `lines` and a body. Returns the headers that the upstream received, and the
/// response.
async fn forward(gateway: &Gateway, sim: &Sim, path: &str, lines: &str) -> (HeaderMap, Reply) {
    let body = r#"{"model":"gpt-5.2","input":"hi"}"#;
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{lines}\r\n");
    let reply = wire::exchange(gateway.address, [head.as_bytes(), body.as_bytes()]).await;
    let arrived = sim
        .requests()
        .pop()
        .unwrap_or_else(|| panic!("the upstream received nothing: {}", reply.text()));
    assert_eq!(arrived.body, body, "the body as sent");
    (arrived.headers, reply)
}

/// Starts an upstream that answers every request with the header lines `lines` and the body `{}`.
async fn upstream_with_headers(lines: &str) -> Sim {
    let sim = sim("a").await;
    let raw = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{lines}\r\n{{}}");
    sim.script().always(Act::answer(ScriptedAnswer::Raw(raw.into())));
    sim
}

#[tokio::test]
async fn hop_by_hop_headers_are_dropped_in_both_directions() {
    let sim = upstream_with_headers(concat!(
        "connection: X-Named, close, , x-other-named\r\nConnection: x-third\r\n",
        "x-named: 1\r\nx-other-named: 1\r\nX-Third: 1\r\nkeep-alive: timeout=5\r\n",
        "proxy-authenticate: Basic\r\ntrailer: x-t\r\nupgrade: h2c\r\nx-stays: 1\r\nx-stays: 2\r\n",
    ))
    .await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let lines = concat!(
        "Connection: keep-alive, X-Named\r\nconnection: x-other-named\r\nx-named: 1\r\nx-other-named: 1\r\n",
        "keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nproxy-authorization: Basic eA==\r\n",
        "te: trailers\r\ntrailer: x-t\r\nupgrade: h2c\r\nx-stays: 1\r\nx-stays: 2\r\n",
        "user-agent: codex_exec/0.169.0\r\noriginator: codex_exec\r\n",
    );
    let (arrived, reply) = forward(&gateway, &sim, "/v1/responses", lines).await;
    let ended = [
        "x-named",
        "x-other-named",
        "x-third",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "upgrade",
    ];
    for name in ended {
        assert!(!arrived.contains_key(name), "{name} was forwarded: {arrived:?}");
        assert!(!reply.headers.contains_key(name), "{name} was returned: {reply:?}");
    }
    for headers in [&arrived, &reply.headers] {
        assert_eq!(headers.get_all("x-stays").iter().collect::<Vec<_>>(), ["1", "2"]);
        let connection = headers
            .get("connection")
            .map(|value| value.to_str().expect("UTF-8 text").to_ascii_lowercase());
        assert!(!connection.is_some_and(|value| value.contains("x-")), "{headers:?}");
    }
    assert_eq!(arrived["user-agent"], "codex_exec/0.169.0");
    assert_eq!(arrived["originator"], "codex_exec");
}

#[tokio::test]
async fn connection_cannot_remove_framing_headers() {
    let sim =
        upstream_with_headers("connection: content-length, content-type\r\ncontent-type: application/json\r\n").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let lines = "connection: content-length, host, transfer-encoding, authorization, x-request-id\r\n";
    let (arrived, reply) = forward(&gateway, &sim, "/v1/responses", lines).await;
    assert_eq!(arrived["host"], sim.address().to_string());
    assert_eq!(arrived["authorization"], "Bearer sk-upstream-canary");
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "{}"));
}

const CALLER_CREDENTIALS: &str = concat!(
    "Authorization: Bearer sk-caller-canary\r\ncookie: session=sk-caller-canary\r\ncookie: b=sk-caller-canary\r\n",
    "x-api-key: sk-caller-canary\r\nX-API-Key: sk-caller-canary\r\n",
);

#[tokio::test]
async fn credentials_are_not_forwarded_in_either_direction() {
    let sim = upstream_with_headers(concat!(
        "authorization: Bearer sk-upstream-canary\r\nx-api-key: sk-upstream-canary\r\n",
        "x-echo: key=sk-upstream-canary;\r\nset-cookie: s=1\r\nx-fine: 1\r\n",
    ))
    .await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    for path in [
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/files",
        "/responses/compact",
        "/v1/models/x",
    ] {
        let (arrived, reply) = forward(&gateway, &sim, path, CALLER_CREDENTIALS).await;
        assert!(
            !format!("{arrived:?}").contains("sk-caller-canary"),
            "{path}: {arrived:?}"
        );
        assert_eq!(
            arrived.get_all("authorization").iter().collect::<Vec<_>>(),
            ["Bearer sk-upstream-canary"]
        );
        assert!(
            !format!("{:?}", reply.headers).contains("sk-upstream-canary"),
            "{path}: {reply:?}"
        );
        assert!(!reply.headers.contains_key("set-cookie"), "{path}");
        assert_eq!(reply.header("x-fine"), "1");
    }
}

#[tokio::test]
async fn passthrough_forwards_the_callers_credential() {
    let sim = upstream_with_headers("set-cookie: theirs=1\r\n").await;
    let url = sim.base_url();
    let config = format!("[[upstream]]\nname = \"a\"\nbase_url = \"{url}\"\napi_key = \"passthrough\"\n");
    let gateway = Gateway::configured(&config).await;
    let (arrived, reply) = forward(&gateway, &sim, "/v1/responses", CALLER_CREDENTIALS).await;
    assert_eq!(arrived["authorization"], "Bearer sk-caller-canary");
    assert_eq!(arrived.get_all("x-api-key").iter().count(), 2);
    assert!(arrived.contains_key("cookie"));
    assert_eq!(reply.header("set-cookie"), "theirs=1");
    let naked = request(Method::POST, "/v1/responses", r#"{"model":"gpt-5.2","input":"hi"}"#);
    let refused = client::send(gateway.address, naked).await;
    assert_eq!(
        (refused.status.as_u16(), sim.counts().requests),
        (401, 1),
        "{}",
        refused.text()
    );
    assert_eq!(refused.json()["error"]["code"], "missing_api_key");
}

#[tokio::test]
async fn host_and_configured_headers_replace_the_callers() {
    let sim = sim("a").await;
    let lines = "headers = { \"openai-project\" = \"proj_1\", \"X-Replaced\" = \"ours\", \"x-secret\" = \"env:STEADFAST_TEST_KEY\" }";
    let gateway = Gateway::configured(&upstream(&sim, lines)).await;
    let lines = "x-replaced: theirs\r\nX-Replaced: again\r\nopenai-project: theirs\r\nopenai-organization: theirs\r\n";
    let (arrived, _) = forward(&gateway, &sim, "/v1/responses", lines).await;
    assert_eq!(arrived["host"], sim.address().to_string());
    assert_eq!(arrived.get_all("host").iter().count(), 1);
    for (name, value) in [
        ("openai-project", "proj_1"),
        ("x-replaced", "ours"),
        ("x-secret", "sk-upstream-canary"),
    ] {
        assert_eq!(arrived.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    assert!(
        !arrived.contains_key("openai-organization"),
        "the organization of another account would be refused"
    );
}

const FORWARDING_HEADERS: &str = concat!(
    "x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: forged.example\r\n",
    "forwarded: for=198.51.100.7\r\nx-forwarded-port: 1\r\nx-real-ip: 198.51.100.7\r\n",
);

#[tokio::test]
async fn forwarding_headers_are_dropped_by_default() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let (arrived, _) = forward(&gateway, &sim, "/v1/responses", FORWARDING_HEADERS).await;
    let told =
        |name: &str| name.starts_with("x-forwarded") || name == "forwarded" || name == "x-real-ip" || name == "via";
    assert!(!arrived.keys().any(|name| told(name.as_str())), "{arrived:?}");
}

#[tokio::test]
async fn forwarding_headers_are_set_when_enabled() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "[server]\nforwarded = true\n").await;
    let (arrived, _) = forward(&gateway, &sim, "/v1/responses", FORWARDING_HEADERS).await;
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "localhost"),
    ] {
        assert_eq!(
            arrived.get_all(name).iter().collect::<Vec<_>>(),
            [value],
            "{name}: the caller's value is replaced"
        );
    }
    assert!(!arrived.contains_key("forwarded") && !arrived.contains_key("x-real-ip"));
}

#[tokio::test]
async fn a_request_id_is_created_forwarded_and_returned() {
    let sim = upstream_with_headers("").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let (arrived, reply) = forward(&gateway, &sim, "/v1/responses", "x-request-id: mine-1\r\n").await;
    assert_eq!(arrived["x-request-id"], "mine-1");
    assert_eq!(reply.header("x-request-id"), "mine-1");
    let (first, reply) = forward(&gateway, &sim, "/v1/responses", "").await;
    assert_eq!(
        first["x-request-id"],
        reply.header("x-request-id"),
        "one id on both sides"
    );
    let (second, _) = forward(&gateway, &sim, "/v1/responses", "").await;
    assert_ne!(first["x-request-id"], second["x-request-id"]);
    let refused = client::get(gateway.address, "/nothing").await;
    assert!(
        !refused.header("x-request-id").is_empty(),
        "errors have a request id as well"
    );
    let mut named = request(Method::GET, "/nothing", "");
    named
        .headers_mut()
        .insert("x-request-id", "mine-2".parse().expect("a valid header value"));
    assert_eq!(
        client::send(gateway.address, named).await.header("x-request-id"),
        "mine-2"
    );
}

#[tokio::test]
async fn an_upstreams_request_id_is_returned() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let (_, reply) = forward(&gateway, &sim, "/v1/responses", "x-request-id: mine-1\r\n").await;
    assert_ne!(reply.header("x-request-id"), "mine-1");
    let line = gateway.access_of("mine-1").await;
    assert_eq!(
        line["upstream_request_id"],
        reply.header("x-request-id"),
        "the log line has both ids: {line}"
    );
}

#[tokio::test]
async fn accept_encoding_is_dropped_where_answers_are_read() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let lines = "accept-encoding: gzip, zstd\r\n";
    for path in [
        "/v1/responses",
        "/responses",
        "/v1/responses/compact",
        "/v1/responses/resp_1/cancel",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/files",
        "/v1/conversations",
    ] {
        let (arrived, _) = forward(&gateway, &sim, path, lines).await;
        assert!(!arrived.contains_key("accept-encoding"), "{path}");
    }
    for path in ["/v1/files/file-1/content", "/v1/images/generations"] {
        let (arrived, _) = forward(&gateway, &sim, path, lines).await;
        assert_eq!(arrived["accept-encoding"], "gzip, zstd", "{path}");
    }
}

#[tokio::test]
async fn response_headers_that_clients_read_are_returned() {
    let sim = upstream_with_headers(concat!(
        "x-codex-primary-used-percent: 12\r\nx-models-etag: \"e\"\r\nopenai-model: gpt-5.2\r\ncf-ray: 1-A\r\n",
        "x-ratelimit-remaining-tokens: 5\r\nretry-after-ms: 7\r\nx-reasoning-included: true\r\nserver: cloudflare\r\n",
        "x-steadfast-route: forged\r\nx-steadfast-upstream: forged\r\nalt-svc: h3=\":443\"\r\n",
    ))
    .await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let (_, reply) = forward(&gateway, &sim, "/v1/responses", "").await;
    for (name, value) in [
        ("x-codex-primary-used-percent", "12"),
        ("x-models-etag", "\"e\""),
        ("openai-model", "gpt-5.2"),
        ("cf-ray", "1-A"),
        ("x-ratelimit-remaining-tokens", "5"),
        ("retry-after-ms", "7"),
        ("x-reasoning-included", "true"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    assert_eq!(reply.headers.get_all("x-steadfast-route").iter().count(), 1);
    assert_eq!(reply.routed(), ("a", "home"), "the upstream's value is replaced");
    assert!(
        !reply.headers.contains_key("alt-svc"),
        "alt-svc would let clients bypass the gateway"
    );
}

#[tokio::test]
async fn route_headers_can_be_disabled() {
    let sim = upstream_with_headers("x-steadfast-route: forged\r\n").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "[server]\nroute_headers = false\n").await;
    let (arrived, reply) = forward(&gateway, &sim, "/v1/responses", "x-steadfast-upstream: forged\r\n").await;
    assert_eq!(reply.routed(), ("", ""), "an upstream cannot set the route headers");
    assert!(!arrived.contains_key("x-steadfast-upstream"));
}

#[tokio::test]
async fn the_framing_of_a_request_is_preserved() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    let body = r#"{"model":"gpt-5.2","input":"hi"}"#;
    let (one, two) = body.split_at(10);
    for path in ["/v1/responses", "/v1/files"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
        let chunked = format!(
            "{head}transfer-encoding: chunked\r\n\r\na;x=y\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            two.len()
        );
        wire::exchange(gateway.address, [chunked.as_bytes()]).await;
        let arrived = sims[0].requests().pop().expect("a recorded request");
        assert_eq!(arrived.body, body);
        assert_eq!(arrived.headers["transfer-encoding"], "chunked");
        assert!(!arrived.headers.contains_key("content-length"), "{path}");
        let counted = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        wire::exchange(gateway.address, [counted.as_bytes()]).await;
        let arrived = sims[0].requests().pop().expect("a recorded request");
        assert_eq!(arrived.body, body);
        assert_eq!(arrived.headers["content-length"], body.len().to_string());
        assert!(!arrived.headers.contains_key("transfer-encoding"), "{path}");
        let bodiless = Request::get(path.replace("responses", "batches")).body(Full::<Bytes>::default());
        client::send(gateway.address, bodiless.expect("a valid request")).await;
        let arrived = sims[0].requests().pop().expect("a recorded request");
        assert!(!arrived.headers.contains_key("content-length") && !arrived.headers.contains_key("transfer-encoding"));
    }
}

#[tokio::test]
async fn configured_credential_headers_are_not_returned() {
    let sim = upstream_with_headers("x-echo: key=azure-canary-123;\r\napi-key: azure-canary-123\r\nx-kept: azure\r\ncontent-type: application/json\r\n").await;
    let config = upstream(
        &sim,
        "headers = { \"api-key\" = \"azure-canary-123\", accept = \"application/json\" }",
    );
    let gateway = Gateway::configured(&config).await;
    let (arrived, reply) = forward(&gateway, &sim, "/v1/responses", "").await;
    assert_eq!(arrived["api-key"], "azure-canary-123");
    assert_eq!(reply.header("x-kept"), "azure");
    assert_eq!(
        reply.header("content-type"),
        "application/json",
        "a configured header that is not a credential is returned"
    );
    assert!(
        !format!("{:?}", reply.headers).contains("canary"),
        "{:?}",
        reply.headers
    );
}

#[tokio::test]
async fn of_two_request_ids_the_first_is_forwarded_and_logged() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let (arrived, _) = forward(
        &gateway,
        &sim,
        "/v1/responses",
        "x-request-id: first\r\nx-request-id: second\r\n",
    )
    .await;
    let ids: Vec<_> = arrived.get_all("x-request-id").iter().collect();
    assert_eq!(ids, ["first"]);
    gateway.access_of("first").await;
}
