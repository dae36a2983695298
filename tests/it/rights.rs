//! The rights of a group: its upstreams, its models, and the separation of groups that share an account.

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    keys::{ALICE, BOB, error_code, get_as, group, key, post_as, turn_body, two_groups, with_key},
    sim, sim_with, sims,
};

#[tokio::test]
async fn a_group_uses_only_its_own_upstreams() {
    let sims = sims(3).await;
    let gateway = two_groups(&sims, "upstreams = [\"a\"]", "upstreams = [\"b\", \"c\"]").await;
    for number in 0..12 {
        assert_eq!(
            post_as(&gateway, ALICE, &turn_body(&format!("s{number}"))).await.status,
            StatusCode::OK
        );
        assert_eq!(
            post_as(&gateway, BOB, &turn_body(&format!("s{number}"))).await.status,
            StatusCode::OK
        );
    }
    assert_eq!(sims[0].requests().len(), 12);
    assert_eq!(sims[1].requests().len() + sims[2].requests().len(), 12);
    assert!(sims[1..].iter().all(|sim| !sim.requests().is_empty()));
    assert_eq!(gateway.order(&["s", "--group", "red"]).await, ["a"]);
    // When the upstreams of a group are unavailable, the upstreams of other groups are not used.
    let drain = client::post("/api/upstreams/a/drain", "");
    assert_eq!(client::send(gateway.admin, drain).await.status, StatusCode::OK);
    assert_eq!(
        post_as(&gateway, ALICE, &turn_body("s1")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    // Only the group `red` uses the account `a`, so its callers may use every path there.
    assert_eq!(
        get_as(&gateway, ALICE, "/v1/files").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

const JSON: &str = "application/json";

/// The path, content type and body of requests that a group with the models `gpt-5*` may not send, and the expected
/// error.
const GROUP_REFUSALS: [(&str, &str, &str, (u16, &str)); 19] = [
    ("/v1/responses", JSON, r#"{"input":"x"}"#, (403, "model_unreadable")),
    (
        "/v1/responses",
        JSON,
        r#"{"model":["gpt-5.2"]}"#,
        (400, "ambiguous_body"),
    ),
    ("/v1/responses", JSON, r#"{"model":null}"#, (403, "model_unreadable")),
    (
        "/v1/responses",
        "text/plain",
        r#"{"model":"o4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/responses",
        JSON,
        r#"{"model":"gpt-5.2","model":"o4-mini"}"#,
        (400, "ambiguous_body"),
    ),
    (
        "/v1/responses",
        JSON,
        r#"{"model":"gpt-5.2","mod\u0065l":"o4-mini"}"#,
        (400, "ambiguous_body"),
    ),
    (
        "/v1/responses",
        JSON,
        r#"{"m\u006fdel":"o4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/responses",
        JSON,
        r#"{"model":"\u006f4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/chat/completions",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/embeddings",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/responses/input_tokens",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/audio/speech",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "model_not_allowed"),
    ),
    (
        "/v1/audio/transcriptions",
        "multipart/form-data; boundary=x",
        "--x--",
        (403, "model_unreadable"),
    ),
    (
        "/v1/realtime/client_secrets",
        JSON,
        r#"{"model":"gpt-5.2","session":{"model":"o4-mini"}}"#,
        (403, "path_not_allowed"),
    ),
    (
        "/v1/responses/compact/",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "path_not_allowed"),
    ),
    (
        "/v1/responses/",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "path_not_allowed"),
    ),
    (
        "/v1/responses/resp_1/cancel/",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "path_not_allowed"),
    ),
    (
        "/v1/%72esponses",
        JSON,
        r#"{"model":"o4-mini"}"#,
        (403, "path_not_allowed"),
    ),
    ("/v1/batches", JSON, r#"{"model":"gpt-5.2"}"#, (403, "path_not_allowed")),
];

#[tokio::test]
async fn a_group_uses_only_its_own_models() {
    let a = sim_with("a", |config| {
        config.models = ["gpt-5.2", "gpt-5.2-mini", "o4-mini"].map(str::to_owned).into()
    })
    .await;
    let sims = [a];
    let head = group("red", "models = [\"gpt-5*\"]") + &key("alice", ALICE, "red", "");
    let gateway = Gateway::before(&sims, &head).await;
    let list = get_as(&gateway, ALICE, "/v1/models").await.json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert_eq!(ids, ["gpt-5.2", "gpt-5.2-mini"]);
    let for_codex = get_as(&gateway, ALICE, "/v1/models?client_version=0.169.0").await;
    assert!(!for_codex.text().contains("o4-mini"), "{}", for_codex.text());
    assert_eq!(
        error_code(&get_as(&gateway, ALICE, "/v1/models/o4-mini").await),
        (404, "model_not_found".to_owned())
    );
    let reached = sims[0].requests().len();
    let forbidden = post_as(&gateway, ALICE, &json!({"model": "o4-mini", "input": "x"})).await;
    assert_eq!(error_code(&forbidden), (403, "model_not_allowed".to_owned()));
    assert_eq!(forbidden.json()["error"]["param"], "model");
    assert!(forbidden.text().contains("gpt-5*"), "{}", forbidden.text());
    let post = async |path: &str, kind: &str, body: &str| {
        let mut request = client::post(path, body.to_owned());
        let kind = kind.parse().expect("a valid header value");
        request.headers_mut().insert("content-type", kind);
        error_code(&client::send(gateway.address, with_key(request, ALICE)).await)
    };
    for (path, kind, body, expected) in GROUP_REFUSALS {
        assert_eq!(
            post(path, kind, body).await,
            (expected.0, expected.1.to_owned()),
            "{path} {body}"
        );
    }
    assert_eq!(
        sims[0].requests().len(),
        reached,
        "no refused request reached an account"
    );
    assert_eq!(post_as(&gateway, ALICE, &turn_body("s")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_error_for_an_unserved_model_lists_the_served_ones() {
    let sims = sims(2).await;
    let config = group("red", "upstreams = [\"a\"]")
        + &key("alice", ALICE, "red", "")
        + &upstream(&sims[0], "models = [\"gpt-5*\"]")
        + &upstream(&sims[1], "models = [\"o4-mini\"]");
    let gateway = Gateway::configured(&config).await;
    let reply = post_as(&gateway, ALICE, &json!({"model": "o4-mini", "input": "x"})).await;
    assert_eq!(error_code(&reply), (404, "model_not_found".to_owned()));
    let message = reply.json()["error"]["message"].as_str().expect("a string").to_owned();
    assert!(
        message.contains("gpt-5*") && !message.contains("You may use: o4"),
        "{message}"
    );
}

#[tokio::test]
async fn an_allowed_but_unserved_model_is_not_listed() {
    let sim = sim("a").await;
    let config = group("red", "models = [\"gpt-5*\", \"o4-mini\"]")
        + &key("alice", ALICE, "red", "")
        + &upstream(&sim, "models = [\"gpt-5.2\", \"secret-model\"]");
    let gateway = Gateway::configured(&config).await;
    let reply = post_as(&gateway, ALICE, &json!({"model": "o4-mini", "input": "x"})).await;
    assert_eq!(error_code(&reply), (404, "model_not_found".to_owned()));
    let message = reply.json()["error"]["message"].as_str().expect("a string").to_owned();
    assert!(message.contains("You may use: gpt-5.2."), "{message}");
}

#[tokio::test]
async fn an_error_does_not_name_the_failed_upstream() {
    let config = group("red", "") + &key("alice", ALICE, "red", "");
    for (head, is_told) in [("", false), ("[server]\nroute_headers = true\n", true)] {
        let sim = sim("secret-account").await;
        let gateway = Gateway::configured(&(head.to_owned() + &config + &upstream(&sim, ""))).await;
        sim.stop().await;
        let reply = post_as(&gateway, ALICE, &turn_body("s")).await;
        assert_eq!(error_code(&reply), (502, "upstream_unreachable".to_owned()));
        assert_eq!(reply.text().contains("secret-account"), is_told, "{}", reply.text());
    }
}

#[tokio::test]
async fn groups_that_share_an_account_cannot_list_its_objects() {
    let sim = sim("a").await;
    let gateway = two_groups(std::slice::from_ref(&sim), "", "").await;
    for path in [
        "/v1/files",
        "/v1/chat/completions",
        "/v1/conversations/conv_1",
        "/v1/responses/resp_unknown",
    ] {
        let status = get_as(&gateway, ALICE, path).await.status.as_u16();
        assert!(matches!(status, 403 | 404), "{path}: {status}");
    }
    let delete = Request::delete("/v1/models/gpt-5.2")
        .body(Full::default())
        .expect("a valid request");
    let reply = client::send(gateway.address, with_key(delete, ALICE)).await;
    assert_eq!(error_code(&reply), (403, "path_not_allowed".to_owned()));
    assert!(sim.requests().is_empty());
}

#[tokio::test]
async fn one_account_under_two_names_is_a_shared_account() {
    let sim = sim("a").await;
    let url = sim.base_url();
    let config = group("red", "upstreams = [\"a\"]")
        + &group("blue", "upstreams = [\"b\"]")
        + &key("alice", ALICE, "red", "")
        + &key("bob", BOB, "blue", "")
        + &crate::kit::gateway::upstream_at("a", &url, "")
        + &crate::kit::gateway::upstream_at("b", &url, "");
    let gateway = Gateway::configured(&config).await;
    let made = post_as(&gateway, ALICE, &turn_body("s")).await.json();
    let id = made["id"].as_str().expect("an id");
    let reply = get_as(&gateway, BOB, &format!("/v1/responses/{id}")).await;
    assert_eq!(error_code(&reply), (404, "response_not_found".to_owned()));
    assert_eq!(
        error_code(&get_as(&gateway, BOB, "/v1/files").await),
        (403, "path_not_allowed".to_owned())
    );
}

#[tokio::test]
async fn one_account_with_two_spellings_of_its_url_is_a_shared_account() {
    let place = crate::kit::gateway::upstream_at;
    let config = group("red", "upstreams = [\"a\"]")
        + &group("blue", "upstreams = [\"b\"]")
        + &key("alice", ALICE, "red", "")
        + &key("bob", BOB, "blue", "")
        + &place("a", "https://accounts.invalid/v1", "")
        + &place("b", "https://Accounts.invalid:443/v1", "");
    let gateway = Gateway::configured(&config).await;
    assert_eq!(
        error_code(&get_as(&gateway, BOB, "/v1/files").await),
        (403, "path_not_allowed".to_owned())
    );
}

#[tokio::test]
async fn an_uninspected_body_cannot_name_a_response_of_another_group() {
    let sim = sim("a").await;
    let gateway = two_groups(std::slice::from_ref(&sim), "", "").await;
    let made = post_as(&gateway, ALICE, &turn_body("s")).await.json();
    let reached = sim.requests().len();
    let body = json!({"model": "gpt-5.2", "input": "x", "previous_response_id": made["id"]}).to_string();
    for (path, field, value) in [
        ("/v1/responses", "content-encoding", "br"),
        ("/v1/responses", "content-encoding", "gzip, gzip"),
        ("/v1/responses/compact", "content-encoding", "br"),
        ("/v1/responses/input_tokens", "content-encoding", "br"),
        ("/v1/responses/input_tokens", "content-type", "text/plain"),
    ] {
        let mut request = client::post(path, body.clone());
        request
            .headers_mut()
            .insert(field, value.parse().expect("a valid header value"));
        let reply = client::send(gateway.address, with_key(request, BOB)).await;
        assert_eq!(
            error_code(&reply),
            (403, "path_not_allowed".to_owned()),
            "{path} {field}: {value}"
        );
    }
    assert_eq!(sim.requests().len(), reached, "no refused request reached the account");
}

#[tokio::test]
async fn a_model_is_renamed_for_its_upstream() {
    let sims = sims(2).await;
    let config = upstream(
        &sims[0],
        "models = { \"gpt-5.2-codex\" = \"my-deployment\", same = \"same\" }",
    ) + &upstream(&sims[1], "models = [\"other\"]");
    let gateway = Gateway::configured(&config).await;
    let body = r#"{ "input" : "model" , "model":"gpt-5.2\u002dcodex" ,"prompt_cache_key":"k", "x":{"model":"gpt-5.2-codex"} }"#;
    let reply = client::send(gateway.address, client::post("/v1/responses", body)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let sent = sims[0].requests().last().expect("a recorded request").clone();
    assert_eq!(
        String::from_utf8_lossy(&sent.body),
        body.replace(r#""gpt-5.2\u002dcodex""#, r#""my-deployment""#)
    );
    assert_eq!(sent.headers["content-length"], sent.body.len().to_string().as_str());
    let compressed = zstd::encode_all(body.as_bytes(), 3).expect("zstd");
    let mut request = client::post("/v1/responses", compressed);
    let zstd = "zstd".parse().expect("a valid header value");
    request.headers_mut().insert("content-encoding", zstd);
    assert_eq!(
        error_code(&client::send(gateway.address, request).await),
        (415, "compressed_body".to_owned())
    );
    let list = client::get(gateway.address, "/v1/models").await.json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert!(
        ids.contains(&"gpt-5.2-codex") && !ids.contains(&"my-deployment"),
        "{ids:?}"
    );
}
