//! HTTP/2 towards clients: each stream behaves like a request over HTTP/1.1.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use steadfast::sim::{Act, Close, Point};
use tokio::net::UnixStream;

use crate::kit::{
    STREAM,
    gateway::{self, Gateway},
    gateway_with_sim,
    h2::{PLAIN, connect_h2c, post, read_whole, request, start_http2},
    sim, tls, until_true,
};

#[tokio::test]
async fn requests_and_streams_pass_over_http2() {
    let (sim, gateway) = gateway_with_sim("[server]\nforwarded = true\n").await;
    let mut sender = connect_h2c(&gateway).await;
    let (status, answer) = read_whole(sender.send_request(post(PLAIN)).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let response = sender.send_request(post(STREAM)).await.expect("a response");
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(!response.headers().contains_key("transfer-encoding"));
    let (_, events) = read_whole(response).await;
    assert!(events.contains("response.completed"), "{events}");
    let long = format!(
        r#"{{"model":"gpt-5.2","input":"{}","prompt_cache_key":"k"}}"#,
        "x".repeat(700 << 10)
    );
    let (status, _) = read_whole(sender.send_request(post(long.clone())).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK);
    let requests = sim.requests();
    assert_eq!(requests[2].body, long.as_bytes());
    assert_eq!(requests[0].headers["x-forwarded-host"], "localhost");
    assert_eq!(requests[0].headers["content-length"], PLAIN.len().to_string().as_str());
    for (method, path, status) in [
        (Method::GET, "/v1/nope/../x", 400),
        (Method::GET, "/nope", 404),
        (Method::HEAD, "/nope", 404),
        (Method::TRACE, "/v1/models", 405),
        (Method::GET, "/v1/models", 200),
    ] {
        let response = sender
            .send_request(request(method.clone(), path, ""))
            .await
            .expect("a response");
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert!(response.headers().contains_key("x-request-id") && !response.headers().contains_key("connection"));
        let (_, body) = read_whole(response).await;
        assert_eq!(body.is_empty(), method == Method::HEAD, "{method} {path}: {body}");
    }
    assert_eq!(gateway.metric("steadfast_connections").await, 1.0);
}

#[tokio::test]
async fn alpn_and_unix_sockets_support_both_versions() {
    let sim = sim("a").await;
    let path = gateway::scratch().join("s.sock");
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let config = format!("[server]\n{}{}", identity.server_table(), gateway::upstream(&sim, ""));
    let socket = format!("unix:{}", path.display());
    let gateway = Gateway::configured_with(&config, &["--listen", &socket]).await;
    let tls = tls::connect(gateway.address, &identity.trusting())
        .await
        .expect("the TLS handshake succeeds");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let unix = UnixStream::connect(&path)
        .await
        .expect("the server accepts connections");
    for mut sender in [start_http2(tls).await, start_http2(unix).await] {
        let (status, _) = read_whole(sender.send_request(post(PLAIN)).await.expect("a response")).await;
        assert_eq!(status, StatusCode::OK);
    }
    let old = tls::connect(gateway.address, &identity.offering(&["http/1.1"]))
        .await
        .expect("the TLS handshake succeeds");
    assert_eq!(old.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_hundred_streams_run_at_once_and_a_stalled_one_blocks_no_other() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut sender = connect_h2c(&gateway).await;
    sim.script().once("/v1/responses", Act::stall(Point::Events(2)));
    let stalled = sender.send_request(post(STREAM)).await.expect("a response");
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut sender = sender.clone();
        running.spawn(async move {
            sender.ready().await.expect("the connection is open");
            let body = format!(r#"{{"model":"gpt-5.2","input":"hi","stream":true,"prompt_cache_key":"k{number}"}}"#);
            let response = sender.send_request(post(body)).await.expect("a response");
            read_whole(response).await
        });
    }
    while let Some(done) = running.join_next().await {
        let (status, events) = done.expect("the stream finishes");
        assert!(status == StatusCode::OK && events.contains("response.completed"));
    }
    drop(stalled);
    until_true("the stalled request to be cancelled", || sim.counts().aborted == 1).await;
    assert_eq!(gateway.metric("steadfast_in_flight_requests").await, 0.0);
}

#[tokio::test]
async fn a_client_reset_cancels_the_request_and_a_broken_upstream_resets_the_stream() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut sender = connect_h2c(&gateway).await;
    // The client resets the stream before the response head.
    sim.script().once("/v1/responses", Act::delay(Duration::from_secs(60)));
    let waiting = tokio::spawn(sender.send_request(post(STREAM)));
    until_true("the request to reach the upstream", || sim.counts().requests == 1).await;
    waiting.abort();
    until_true("the request to be cancelled", || sim.counts().aborted == 1).await;
    // The upstream breaks after the response head.
    sim.script()
        .once("/v1/responses", Act::cut(Point::Events(3), Close::Fin));
    // The reset may overtake data that was sent before it.
    let error = match sender.send_request(post(STREAM)).await {
        Ok(response) => response
            .into_body()
            .collect()
            .await
            .expect_err("a broken stream must not end cleanly"),
        Err(error) => error,
    };
    assert!(format!("{error:?}").contains("INTERNAL_ERROR"), "{error:?}");
    let (status, _) = read_whole(
        sender
            .send_request(post(PLAIN))
            .await
            .expect("the connection still works"),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn shutdown_lets_streams_finish_and_refuses_new_ones() {
    let sim = sim("a").await;
    let mut gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let mut sender = connect_h2c(&gateway).await;
    sim.script()
        .once("/v1/responses", Act::delay(Duration::from_millis(300)));
    let running = tokio::spawn(sender.send_request(post(STREAM)));
    until_true("the request to reach the upstream", || sim.counts().requests == 1).await;
    gateway.signal("TERM").await;
    let response = running.await.expect("the task finishes").expect("a response");
    let (status, events) = read_whole(response).await;
    assert!(
        status == StatusCode::OK && events.contains("response.completed"),
        "{events}"
    );
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(sender.send_request(post(PLAIN)).await.is_err());
}
