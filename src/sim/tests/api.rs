//! Tests of the endpoints and the shapes of their answers.

use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::secret::Secret;

#[tokio::test]
async fn a_stream_has_the_shape_that_clients_expect() {
    let sim = start_named("sim-a").await;
    let reply = ask(&sim, &hello_stream()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
    assert!(reply.header("x-request-id").starts_with("req_"));
    assert_eq!(reply.header("openai-model"), "gpt-5.2");
    assert!(reply.headers.contains_key("openai-processing-ms"));
    let events = reply.events();
    assert_eq!(
        (&events[0]["type"], &events[0]["response"]["status"]),
        (&json!("response.created"), &json!("in_progress"))
    );
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.completed"), &json!("completed"))
    );
    assert_eq!(last["response"]["usage"]["input_tokens"], 3);
    let text: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert!(text.starts_with("sim-a answers: "), "{text}");
    assert_eq!(
        events.iter().filter(|event| event["delta"].is_string()).count(),
        SimConfig::default().deltas
    );
    sim.stop().await;
}

#[tokio::test]
async fn responses_can_be_fetched_cancelled_and_deleted() {
    let sim = start_named("sim-a").await;
    let made = ask(&sim, &hello()).await.json();
    assert_eq!(
        (&made["object"], &made["status"]),
        (&json!("response"), &json!("completed"))
    );
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(get(&sim, &path).await.json(), made);
    let items = get(&sim, &format!("{path}/input_items?limit=5")).await.json();
    assert_eq!(items["data"][0]["content"][0]["text"], "Say hello.");
    assert_eq!(items["first_id"], items["data"][0]["id"]);
    let cancelled = send(&sim, request("POST", &format!("{path}/cancel"), &[], Bytes::new()))
        .await
        .unwrap();
    assert_eq!(cancelled.json()["status"], "cancelled");
    let delete = || send(&sim, request("DELETE", &path, &[], Bytes::new()));
    assert_eq!(delete().await.unwrap().json()["deleted"], true);
    for gone in [
        get(&sim, &path).await,
        get(&sim, &format!("{path}/input_items")).await,
        delete().await.unwrap(),
    ] {
        assert_eq!(gone.status, StatusCode::NOT_FOUND);
        assert_eq!(gone.json()["error"]["type"], "invalid_request_error");
    }
    sim.stop().await;
}

#[tokio::test]
async fn input_items_come_newest_first_by_default() {
    let sim = start_named("sim-a").await;
    let input = json!([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]);
    let made = ask(&sim, &json!({"model": "m", "input": input})).await.json();
    let path = format!("/v1/responses/{}/input_items", made["id"].as_str().unwrap());
    assert_eq!(get(&sim, &path).await.json()["data"][0]["content"][0]["text"], "two");
    assert_eq!(
        get(&sim, &format!("{path}?order=asc")).await.json()["data"][0]["content"][0]["text"],
        "one"
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_lone_surrogate_in_a_text_is_no_error() {
    let sim = start_named("sim-a").await;
    let body = r#"{"model": "m", "input": "tail \ud83d"}"#;
    let made = send(&sim, request("POST", "/v1/responses", &[], body))
        .await
        .unwrap()
        .json();
    let path = format!("/v1/responses/{}/input_items", made["id"].as_str().unwrap());
    let items = get(&sim, &path).await.json();
    assert_eq!(items["data"][0]["content"][0]["text"], "tail \u{fffd}");
    sim.stop().await;
}

#[tokio::test]
async fn models_come_in_both_shapes() {
    let sim = start_named("sim-a").await;
    let list = get(&sim, "/v1/models").await.json();
    assert_eq!(
        (&list["object"], &list["data"][0]["object"]),
        (&json!("list"), &json!("model"))
    );
    assert_eq!(
        get(&sim, "/v1/models?client_version=0.169.0").await.json()["models"][0]["slug"],
        "gpt-5.2"
    );
    assert_eq!(get(&sim, "/v1/models/gpt-5.2").await.json()["id"], "gpt-5.2");
    let unknown = get(&sim, "/v1/models/nope").await;
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (StatusCode::NOT_FOUND, "model_not_found")
    );
    sim.stop().await;
}

#[tokio::test]
async fn the_older_endpoints_answer() {
    let sim = start_named("sim-a").await;
    let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "Say hello."}]});
    let whole = post(&sim, "/v1/chat/completions", &chat).await.json();
    assert_eq!(whole["object"], "chat.completion");
    assert!(
        whole["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .starts_with("sim-a answers: ")
    );
    chat["stream"] = json!(true);
    let stream = post(&sim, "/v1/chat/completions", &chat).await;
    assert!(stream.body.ends_with(b"data: [DONE]\n\n"));
    chat["stream"] = json!(false);
    let again = post(&sim, "/v1/chat/completions", &chat).await.json();
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    let embeddings = post(&sim, "/v1/embeddings", &json!({"model": "e", "input": ["a", "b"]}))
        .await
        .json();
    assert_eq!(embeddings["data"][1]["index"], 1);
    sim.stop().await;
}

#[tokio::test]
async fn unknown_paths_methods_and_bodies_are_refused_in_openais_shape() {
    let sim = start_named("sim-a").await;
    let cases = [
        ("GET", "/v1/nope", "", StatusCode::NOT_FOUND),
        ("GET", "/responses", "", StatusCode::NOT_FOUND),
        ("GET", "/v1/responses", "", StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", "/v1/models", "", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/v1/responses", "{", StatusCode::BAD_REQUEST),
        ("POST", "/v1/responses", "", StatusCode::BAD_REQUEST),
        ("POST", "/v1/responses", r#"{"input":"x"}"#, StatusCode::BAD_REQUEST),
        ("POST", "/v1/responses", r#"{"model":"m"}"#, StatusCode::BAD_REQUEST),
        (
            "POST",
            "/v1/responses",
            r#"{"model":"m","input":7}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            "POST",
            "/v1/chat/completions",
            r#"{"model":"m"}"#,
            StatusCode::BAD_REQUEST,
        ),
        ("POST", "/v1/responses/resp_1/cancel", "", StatusCode::NOT_FOUND),
    ];
    for (method, target, body, status) in cases {
        let reply = send(&sim, request(method, target, &[], body)).await.unwrap();
        assert_eq!(reply.status, status, "{method} {target} {body}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
        assert!(reply.json()["error"]["message"].is_string());
    }
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade")];
    let reply = send(&sim, request("GET", "/v1/responses", &upgrade, "")).await.unwrap();
    assert_eq!(reply.status, StatusCode::UPGRADE_REQUIRED);
    sim.stop().await;
}

#[tokio::test]
async fn other_credentials_and_models_are_refused_where_configured() {
    let config = SimConfig {
        api_key: Some(Secret::new("sk-1")),
        only_models: true,
        ..SimConfig::default()
    };
    let sim = start(config).await;
    let with = |headers: &[(&str, &str)], model: &str| {
        let body = json!({"model": model, "input": "x"}).to_string();
        send(&sim, request("POST", "/v1/responses", headers, body))
    };
    assert_eq!(with(&[], "gpt-5.2").await.unwrap().status, StatusCode::UNAUTHORIZED);
    let wrong = with(&[("authorization", "Bearer sk-2")], "gpt-5.2").await.unwrap();
    assert_eq!(
        (wrong.status, wrong.code().as_str()),
        (StatusCode::UNAUTHORIZED, "invalid_api_key")
    );
    assert!(!String::from_utf8_lossy(&wrong.body).contains("sk-"));
    let right = [("authorization", "Bearer sk-1")];
    assert_eq!(with(&right, "gpt-5.2").await.unwrap().status, StatusCode::OK);
    assert_eq!(with(&right, "gpt-9").await.unwrap().code(), "model_not_found");
    sim.stop().await;
}

#[tokio::test]
async fn compressed_bodies_are_read_and_recorded_as_sent() {
    let sim = start_named("sim-a").await;
    let compressed = zstd::encode_all(hello().to_string().as_bytes(), 3).unwrap();
    let sent = request(
        "POST",
        "/v1/responses?x=%2F&y",
        &[("content-encoding", "zstd")],
        compressed.clone(),
    );
    assert_eq!(send(&sim, sent).await.unwrap().json()["status"], "completed");
    let recorded = &sim.requests()[0];
    assert_eq!(recorded.body, compressed);
    assert_eq!(
        (recorded.method.as_str(), recorded.target.as_str()),
        ("POST", "/v1/responses?x=%2F&y")
    );
    assert_eq!(recorded.headers["content-encoding"], "zstd");
    let broken = request("POST", "/v1/responses", &[("content-encoding", "zstd")], "not zstd");
    assert_eq!(send(&sim, broken).await.unwrap().code(), "invalid_content_encoding");
    sim.stop().await;
}

#[tokio::test]
async fn the_account_serves_the_same_over_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let sim = Sim::start_tls(FREE, SimConfig::default(), Arc::new(server))
        .await
        .unwrap();
    assert_eq!(sim.base_url(), format!("https://{}/v1", sim.address()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(sim.address()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    tls.write_all(b"GET /v1/models HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    tls.read_to_string(&mut seen).await.unwrap();
    assert!(
        seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("gpt-5.2"),
        "{seen}"
    );
    sim.stop().await;
}

#[tokio::test]
async fn invalid_names_and_taken_addresses_are_errors() {
    for name in ["", "two words", "é", &"x".repeat(65)] {
        let config = SimConfig {
            name: name.to_owned(),
            ..SimConfig::default()
        };
        let error = Sim::start(FREE, config).await.err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{name}");
    }
    let sim = start_named("sim-a").await;
    assert!(Sim::start(sim.address(), SimConfig::default()).await.is_err());
    let address = sim.address();
    sim.stop().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "a stopped account refuses connections"
    );
    let again = Sim::start(address, SimConfig::default()).await.unwrap();
    assert_eq!(get(&again, "/v1/models").await.status, StatusCode::OK);
}
