//! HTTP/2 towards clients: what HTTP/1.1 does holds on each stream, and what one client does harms nobody.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, channel::Channel};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use steadfast::sim::{Act, Close, Point};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::kit::{
    TIMEOUT, client,
    frames::{CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS, fields},
    gateway::{self, Gateway},
    gateway_with_sim, sim, tls, until, until_true,
};

const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;
const PLAIN: &str = r#"{"model":"gpt-5.2","input":"hi","prompt_cache_key":"k"}"#;

type Sender<B = Full<Bytes>> = SendRequest<B>;

async fn speak<B, I>(io: I) -> Sender<B>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    sender
}

/// A connection by prior knowledge.
async fn known(gateway: &Gateway) -> Sender {
    speak(
        TcpStream::connect(gateway.address)
            .await
            .expect("the server accepts connections"),
    )
    .await
}

fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    request(Method::POST, "/v1/responses", body)
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://it{path}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a valid request")
}

async fn whole(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = timeout(TIMEOUT, response.into_body().collect())
        .await
        .expect("data within the time limit")
        .expect("a whole body");
    (status, String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

#[tokio::test]
async fn requests_and_streams_come_and_go() {
    let (sim, gateway) = gateway_with_sim("[server]\nforwarded = true\n").await;
    let mut sender = known(&gateway).await;
    let (status, answer) = whole(sender.send_request(post(PLAIN)).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let response = sender.send_request(post(STREAM)).await.expect("a response");
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(!response.headers().contains_key("transfer-encoding"));
    let (_, events) = whole(response).await;
    assert!(events.contains("response.completed"), "{events}");
    let long = format!(
        r#"{{"model":"gpt-5.2","input":"{}","prompt_cache_key":"k"}}"#,
        "x".repeat(700 << 10)
    );
    let (status, _) = whole(sender.send_request(post(long.clone())).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK);
    let requests = sim.requests();
    assert_eq!(requests[2].body, long.as_bytes());
    assert_eq!(requests[0].headers["x-forwarded-host"], "it");
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
        let (_, body) = whole(response).await;
        assert_eq!(body.is_empty(), method == Method::HEAD, "{method} {path}: {body}");
    }
    assert_eq!(gateway.metric("steadfast_connections").await, 1.0);
}

#[tokio::test]
async fn alpn_and_unix_sockets_lead_to_either_version() {
    let sim = sim("a").await;
    let path = gateway::scratch().join("s.sock");
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let config = format!("[server]\n{}{}", identity.server_table(), gateway::upstream(&sim, ""));
    let socket = format!("unix:{}", path.display());
    let gateway = Gateway::configured_with(&config, &["--listen", &socket]).await;
    let tls = tls::call(gateway.address, &identity.trusting())
        .await
        .expect("the TLS handshake succeeds");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let unix = UnixStream::connect(&path)
        .await
        .expect("the server accepts connections");
    for mut sender in [speak(tls).await, speak(unix).await] {
        let (status, _) = whole(sender.send_request(post(PLAIN)).await.expect("a response")).await;
        assert_eq!(status, StatusCode::OK);
    }
    let old = tls::call(gateway.address, &identity.offering(&["http/1.1"]))
        .await
        .expect("the TLS handshake succeeds");
    assert_eq!(old.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_hundred_streams_run_at_once_and_one_that_stalls_harms_none() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut sender = known(&gateway).await;
    sim.script().once("/v1/responses", Act::stall(Point::Events(2)));
    let stalled = sender.send_request(post(STREAM)).await.expect("a response");
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut sender = sender.clone();
        running.spawn(async move {
            sender.ready().await.expect("the connection is open");
            let body = format!(r#"{{"model":"gpt-5.2","input":"hi","stream":true,"prompt_cache_key":"k{number}"}}"#);
            let response = sender.send_request(post(body)).await.expect("a response");
            whole(response).await
        });
    }
    while let Some(done) = running.join_next().await {
        let (status, events) = done.expect("the stream finishes");
        assert!(status == StatusCode::OK && events.contains("response.completed"));
    }
    drop(stalled);
    until_true("the stalled one is cancelled", || sim.counts().aborted == 1).await;
    assert_eq!(gateway.metric("steadfast_in_flight_requests").await, 0.0);
}

#[tokio::test]
async fn a_reset_cancels_its_request_and_a_broken_upstream_is_a_reset() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut sender = known(&gateway).await;
    // Before the head.
    sim.script().once("/v1/responses", Act::delay(Duration::from_secs(60)));
    let waiting = tokio::spawn(sender.send_request(post(STREAM)));
    until_true("it has arrived", || sim.counts().requests == 1).await;
    waiting.abort();
    until_true("it is cancelled", || sim.counts().aborted == 1).await;
    // Behind the head.
    sim.script()
        .once("/v1/responses", Act::cut(Point::Events(3), Close::Fin));
    // The reset may overtake what was sent before it.
    let error = match sender.send_request(post(STREAM)).await {
        Ok(response) => response
            .into_body()
            .collect()
            .await
            .expect_err("a broken stream must not end cleanly"),
        Err(error) => error,
    };
    assert!(format!("{error:?}").contains("INTERNAL_ERROR"), "{error:?}");
    let (status, _) = whole(
        sender
            .send_request(post(PLAIN))
            .await
            .expect("the connection still works"),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_are_refused_early_and_slow_ones_are_given_up() {
    let (sim, gateway) =
        gateway_with_sim("[server]\nmax_body = \"2KiB\"\nbuffered_bodies = \"4KiB\"\n[timeouts]\nidle = \"300ms\"\n")
            .await;
    let stream = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let mut sender: Sender<Channel<Bytes, std::io::Error>> = speak(stream).await;
    let head = |length: Option<u64>| {
        let head = Request::post("http://it/v1/responses").header("content-type", "application/json");
        match length {
            Some(length) => head.header("content-length", length),
            None => head,
        }
    };
    // Answered by the length alone: no byte of the body is sent.
    let (_unsent, body) = Channel::new(1);
    let response = sender
        .send_request(head(Some(3000)).body(body).expect("a valid request"))
        .await
        .expect("a response");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // One that goes on for too long, and one that pauses.
    let (mut long, body) = Channel::new(8);
    let response = sender.send_request(head(None).body(body).expect("a valid request"));
    for _ in 0..4 {
        let _ = long.send_data(vec![b' '; 1000].into()).await;
    }
    assert_eq!(
        response.await.expect("a response").status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let (mut slow, body) = Channel::new(8);
    let response = sender.send_request(head(Some(100)).body(body).expect("a valid request"));
    let _ = slow.send_data("{".into()).await;
    assert_eq!(
        response.await.expect("a response").status(),
        StatusCode::REQUEST_TIMEOUT
    );
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn who_takes_nothing_is_let_go_and_its_upstream_too() {
    let (sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"700ms\"\n").await;
    let answer = "x".repeat(1 << 20);
    sim.script()
        .always(Act::reply(StatusCode::OK, &serde_json::json!({"output": answer})));
    let stream = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    let response = sender.send_request(post(PLAIN)).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    until("the place is free", async || {
        (gateway.metric("steadfast_in_flight_requests").await == 0.0).then_some(())
    })
    .await;
    drop(response);
    // The connection is no worse for it.
    let again = sender
        .send_request(request(Method::GET, "/v1/nope-at-all", ""))
        .await
        .expect("a response");
    assert!(again.status().is_client_error() || again.status().is_success());
}

/// Whoever makes no room for an answer, be it that a key is missing, would hold its connection for ever.
#[tokio::test]
async fn who_never_takes_anything_loses_the_connection() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nidle = \"300ms\"\n").await;
    let mut silent = Frames::open(gateway.address).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    silent.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let nowhere = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "it"),
        (":path", "/nope"),
    ]);
    for stream in [1, 3] {
        silent.send(HEADERS, END_HEADERS | END_STREAM, stream, &nowhere).await;
    }
    silent.until_closed().await;
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_takes_no_more() {
    let sim = sim("a").await;
    let mut gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let mut sender = known(&gateway).await;
    sim.script()
        .once("/v1/responses", Act::delay(Duration::from_millis(300)));
    let running = tokio::spawn(sender.send_request(post(STREAM)));
    until_true("it has arrived", || sim.counts().requests == 1).await;
    gateway.signal("TERM").await;
    let response = running.await.expect("the task finishes").expect("a response");
    let (status, events) = whole(response).await;
    assert!(
        status == StatusCode::OK && events.contains("response.completed"),
        "{events}"
    );
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(sender.send_request(post(PLAIN)).await.is_err());
}

#[tokio::test]
async fn who_never_asks_is_let_go() {
    let (_sim, gateway) = gateway_with_sim("[timeouts]\nclient_header = \"300ms\"\n").await;
    let silent = Frames::open(gateway.address).await;
    silent.until_closed().await;
}

fn get() -> Vec<u8> {
    fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "it"),
        (":path", "/v1/files"),
    ])
}

#[tokio::test]
async fn floods_end_the_connection_and_harm_nobody_else() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let before = gateway.resident();
    // Rapid reset: CVE-2023-44487.
    let mut reset = Frames::open(gateway.address).await;
    for number in 0..200_000_u32 {
        let stream = 2 * number + 1;
        let alive = reset.send(HEADERS, END_HEADERS | END_STREAM, stream, &get()).await
            && reset.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await;
        if !alive {
            break;
        }
    }
    reset.until_closed().await;
    // A head without an end: CVE-2024-27316.
    let mut endless = Frames::open(gateway.address).await;
    endless.send(HEADERS, END_STREAM, 1, &get()).await;
    let more = fields(&[("x-more", &"y".repeat(100))]).repeat(100);
    for _ in 0..10_000 {
        if !endless.send(CONTINUATION, 0, 1, &more).await {
            break;
        }
    }
    endless.until_closed().await;
    // Answers that nobody reads.
    let mut pings = Frames::open(gateway.address).await;
    for number in 0..200_000_u64 {
        let sent = timeout(
            Duration::from_millis(500),
            pings.send(PING, 0, 0, &number.to_be_bytes()),
        )
        .await;
        if sent != Ok(true) {
            break;
        }
    }
    let (status, _) = whole(
        known(&gateway)
            .await
            .send_request(post(PLAIN))
            .await
            .expect("a response"),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn heads_over_the_bound_are_refused_and_the_connection_lives() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut sender = known(&gateway).await;
    let mut large = post(PLAIN);
    for number in 0..70 {
        let name: http::HeaderName = format!("x-{number}").parse().expect("a name");
        large
            .headers_mut()
            .insert(name, "y".repeat(1000).parse().expect("a valid header value"));
    }
    if let Ok(response) = sender.send_request(large).await {
        assert_eq!(response.status().as_u16(), 431);
    }
    let mut sender = known(&gateway).await;
    let (status, _) = whole(sender.send_request(post(PLAIN)).await.expect("a response")).await;
    assert_eq!((status.as_u16(), sim.counts().requests), (200, 1));
}

/// Clients' certificates, and the server's own, renewed while it runs.
#[tokio::test]
async fn certificates_are_asked_for_and_renewed_without_a_restart() {
    let sim = sim("a").await;
    let (first, second) = (tls::identity(&["127.0.0.1"], &[]), tls::identity(&["127.0.0.1"], &[]));
    let folder = gateway::scratch();
    let copy = |from: &Path, to: &str| std::fs::copy(from, folder.join(to)).expect("a writable folder");
    copy(&first.cert, "c.pem");
    copy(&first.key, "k.pem");
    copy(&first.ca, "ca.pem");
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = \"c.pem\", key = \"k.pem\", client_ca = \"ca.pem\" }}\n[admin]\nlisten = \"127.0.0.1:0\"\n{}",
        gateway::upstream(&sim, "")
    );
    std::fs::write(folder.join(gateway::FILE), config).expect("a writable folder");
    let gateway = Gateway::over(folder.clone(), &[]).await;
    let served = async |config: &Arc<ClientConfig>| -> bool {
        let Ok(stream) = tls::call(gateway.address, config).await else {
            return false;
        };
        let Ok((mut sender, connection)) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await else {
            return false;
        };
        tokio::spawn(connection);
        matches!(sender.send_request(post(PLAIN)).await, Ok(response) if response.status() == StatusCode::OK)
    };
    assert!(served(&first.presenting(&first)).await, "signed by the authority");
    assert!(!served(&first.trusting()).await, "shows none");
    assert!(!served(&first.presenting(&second)).await, "signed by another");
    let open = tls::call(gateway.address, &first.presenting(&first))
        .await
        .expect("the TLS handshake succeeds");
    let mut open = speak::<Full<Bytes>, _>(open).await;
    let resuming = first.presenting(&first);
    assert!(served(&resuming).await);

    // A broken pair keeps the old one.
    copy(&second.cert, "c.pem");
    gateway.log_until("does not fit").await;
    assert!(served(&first.presenting(&first)).await);
    copy(&second.key, "k.pem");
    copy(&second.ca, "ca.pem");
    until("the new certificate is shown", async || {
        served(&second.presenting(&second)).await.then_some(())
    })
    .await;
    assert!(
        !served(&second.presenting(&first)).await,
        "the old authority vouches for nobody"
    );
    assert!(!served(&resuming).await, "and no ticket helps");
    let (status, _) = whole(open.send_request(post(PLAIN)).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK, "what was open lives on");
    let reply = client::get(gateway.admin, "/metrics").await.text();
    assert!(
        reply.contains("steadfast_reloads_total{outcome=\"applied\"}"),
        "{reply}"
    );
}
