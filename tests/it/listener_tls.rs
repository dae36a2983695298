//! TLS towards clients: requests over TLS, failed handshakes, and invalid certificates.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;
use steadfast::sim::{Act, Close, Point, Sim};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::kit::{
    STREAM, TIMEOUT, client,
    gateway::{self, Gateway},
    h2::{PLAIN, post, read_whole, start_http2},
    sim, sim_with,
    tls::{self, TestIdentity},
    until, until_true,
    wire::{self, End},
};

/// Starts an account and a gateway in front of it that listens with TLS, with further lines in `[server]`.
async fn tls_gateway(lines: &str, flags: &[&str]) -> (Sim, Gateway, TestIdentity) {
    let sim = sim("a").await;
    let (gateway, identity) = tls_gateway_before(&sim, lines, flags).await;
    (sim, gateway, identity)
}

/// Starts a gateway in front of `sim` that listens with TLS.
async fn tls_gateway_before(sim: &Sim, lines: &str, flags: &[&str]) -> (Gateway, TestIdentity) {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let config = format!(
        "[server]\n{}{lines}\n[timeouts]\nclient_header = \"400ms\"\n{}",
        identity.server_table(),
        gateway::upstream(sim, "")
    );
    (Gateway::configured_with(&config, flags).await, identity)
}

/// Sends `request` with `connection: close` on a new connection and reads to the end.
async fn send(gateway: &Gateway, config: &Arc<ClientConfig>, request: &str) -> std::io::Result<String> {
    let mut stream = tls::connect(gateway.address, config).await?;
    let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut answer))
        .await
        .expect("the response ends in time")?;
    Ok(answer)
}

#[tokio::test]
async fn requests_and_streams_pass_over_tls() {
    let (sim, gateway, identity) = tls_gateway("forwarded = true", &[]).await;
    let config = identity.offering(&["http/1.1"]);
    let said = gateway.printed();
    assert!(
        said[0].starts_with("Steadfast listens on https://") && said[1].contains(" http://"),
        "{said:?}"
    );
    let long = format!(
        r#"{{"model":"gpt-5.2","input":"{}","prompt_cache_key":"k"}}"#,
        "x".repeat(300 << 10)
    );
    for (body, end) in [(STREAM, "0\r\n\r\n"), (long.as_str(), "}")] {
        let answer = send(&gateway, &config, &wire::post("/v1/responses", body))
            .await
            .expect("a whole response");
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(end),
            "{answer:.300}"
        );
    }
    let requests = sim.requests();
    assert_eq!(requests[1].body, long.as_bytes());
    assert_eq!(requests[0].headers["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn tls_sessions_resume_and_connections_are_reused() {
    let (sim, gateway, identity) = tls_gateway("", &[]).await;
    let config = identity.offering(&["http/1.1"]);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = tls::connect(gateway.address, &config)
            .await
            .expect("the TLS handshake succeeds");
        for _ in 0..2 {
            stream
                .write_all(wire::post("/v1/responses", r#"{"model":"gpt-5.2","input":"hi"}"#).as_bytes())
                .await
                .expect("the peer reads");
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") || memchr::memmem::find(&answer, b"\r\n\r\n").is_none() {
                let read = timeout(TIMEOUT, stream.read_buf(&mut answer))
                    .await
                    .expect("data within the time limit");
                assert!(read.expect("the connection stays open") > 0);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(kind));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    assert_eq!(sim.counts().requests, 4);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_without_close_notify() {
    let (sim, gateway, identity) = tls_gateway("", &[]).await;
    sim.script()
        .once("/v1/responses", Act::cut(Point::Events(3), Close::Fin));
    let answer = send(
        &gateway,
        &identity.offering(&["http/1.1"]),
        &wire::post("/v1/responses", STREAM),
    )
    .await;
    match answer {
        Ok(text) => assert!(!text.ends_with("0\r\n\r\n"), "{text}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let sim = sim_with("a", |config| config.pace = Duration::from_millis(100)).await;
    let (gateway, identity) = tls_gateway_before(&sim, "", &[]).await;
    let mut stream = tls::connect(gateway.address, &identity.offering(&["http/1.1"]))
        .await
        .expect("the TLS handshake succeeds");
    stream
        .write_all(wire::post("/v1/responses", STREAM).as_bytes())
        .await
        .expect("the peer reads");
    stream.read_u8().await.expect("a response");
    drop(stream);
    until_true("the upstream request to be cancelled", || sim.counts().aborted == 1).await;
}

#[tokio::test]
async fn a_client_without_a_valid_handshake_is_disconnected() {
    let (_sim, gateway, identity) = tls_gateway("", &["--log-level", "debug"]).await;
    let mute = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    let plain = client::raw(gateway.address, wire::post("/v1/responses", STREAM).as_bytes()).await;
    assert!(!plain.contains("HTTP/"), "{plain:?}");
    let stranger = tls::identity(&["127.0.0.1"], &[]).offering(&["http/1.1"]);
    assert!(tls::connect(gateway.address, &stranger).await.is_err());
    let config = identity.offering(&["http/1.1"]);
    let answer = send(&gateway, &config, &wire::post("/v1/responses", STREAM)).await;
    assert!(answer.expect("a whole response").starts_with("HTTP/1.1 200 "));
    assert_eq!(wire::Wire::over(mute).closing().await, End::Closed);
    for reason in [
        "the connection was closed during the TLS handshake",
        "InvalidContentType",
        "fatal alert",
    ] {
        let logged = || gateway.log().iter().any(|line| line.contains(reason));
        until_true(&format!("{reason} in the log"), logged).await;
    }
    let is_loud = |line: &String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    assert_eq!(gateway.log().into_iter().find(is_loud), None);
}

/// Returns the lines of the log about failed handshakes, as JSON.
fn failed_handshakes(gateway: &Gateway) -> Vec<Value> {
    let lines = gateway.log().into_iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines
        .filter(|line| line.to_string().contains("TLS handshake"))
        .collect()
}

#[tokio::test]
async fn a_failed_handshake_is_logged_with_its_reason_and_its_peer() {
    let (first, second) = (tls::identity(&["127.0.0.1"], &[]), tls::identity(&["127.0.0.1"], &[]));
    let config = format!(
        "[server]\ntls = {{ cert = {:?}, key = {:?}, client_ca = {:?} }}\n[timeouts]\nclient_header = \"400ms\"\n{}",
        first.cert,
        first.key,
        first.ca,
        gateway::upstream_at("a", "http://127.0.0.1:1/v1", "")
    );
    // An alert with the level `fatal` and the description `handshake_failure`.
    let alert = [21, 3, 1, 0, 2, 2, 40];
    let not_tls = wire::post("/v1/responses", STREAM);
    for (what, reason) in [
        ("plain HTTP", "does not speak TLS"),
        ("a close", "closed the connection"),
        ("silence", "did not complete it in time"),
        ("an alert", "accepts none of the server's algorithms"),
        ("no trust", "could not verify the server's certificate"),
        ("no certificate", "no certificate"),
        (
            "another authority's certificate",
            "not signed by an authority in server.tls.client_ca",
        ),
    ] {
        let gateway = Gateway::configured(&config).await;
        let config = match what {
            "no trust" => Some(second.presenting(&first)),
            "no certificate" => Some(first.trusting()),
            "another authority's certificate" => Some(first.presenting(&second)),
            _ => None,
        };
        let peer = match config {
            Some(config) => {
                let tcp = TcpStream::connect(gateway.address).await.expect("the gateway listens");
                let peer = tcp.local_addr().expect("connected");
                let connector = tokio_rustls::TlsConnector::from(config);
                if let Ok(mut stream) = connector.connect(gateway.address.ip().into(), tcp).await {
                    // With TLS 1.3, the client learns from its first read that its certificate is refused.
                    assert!(stream.read_u8().await.is_err(), "{what}");
                }
                peer
            }
            None => {
                let mut tcp = TcpStream::connect(gateway.address).await.expect("the gateway listens");
                let peer = tcp.local_addr().expect("connected");
                match what {
                    "plain HTTP" => tcp.write_all(not_tls.as_bytes()).await.expect("written"),
                    "an alert" => tcp.write_all(&alert).await.expect("written"),
                    "a close" => tcp.shutdown().await.expect("connected"),
                    _ => {}
                }
                wire::Wire::over(tcp).closing().await;
                peer
            }
        };
        until_true(&format!("a line about {what}"), || {
            !failed_handshakes(&gateway).is_empty()
        })
        .await;
        let [line] = &failed_handshakes(&gateway)[..] else {
            panic!("{what}: {:?}", gateway.log())
        };
        let text = line.to_string();
        assert!(text.contains(reason), "{what}: {text}");
        assert!(text.contains(&format!("\"{peer}\"")), "{what}: {text}");
        assert!(text.contains("\"INFO\""), "{what}: {text}");
    }
}

#[tokio::test]
async fn many_failed_handshakes_have_one_line_a_second() {
    let (_sim, gateway, _) = tls_gateway("", &[]).await;
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        client::raw(gateway.address, b"GET / HTTP/1.1\r\n\r\n").await;
    }
    let seconds = begun.elapsed().as_secs() as usize;
    until_true("a line", || !failed_handshakes(&gateway).is_empty()).await;
    assert!(
        (1..=seconds + 1).contains(&failed_handshakes(&gateway).len()),
        "{:?}",
        gateway.log()
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    client::raw(gateway.address, b"GET / HTTP/1.1\r\n\r\n").await;
    let counted = || -> usize {
        let lines = failed_handshakes(&gateway);
        let suppressed = lines
            .iter()
            .filter_map(|line| Some(find_number(line, "suppressed")? as usize + 1));
        suppressed.sum()
    };
    until_true("the other failures to be counted", || counted() == 101).await;
}

/// Returns the number with this name anywhere in a line of the log.
fn find_number(line: &Value, name: &str) -> Option<u64> {
    let fields = line.as_object()?;
    let nested = || fields.values().find_map(|value| find_number(value, name));
    fields.get(name).and_then(Value::as_u64).or_else(nested)
}

#[tokio::test]
async fn an_endless_handshake_is_cut() {
    let (_sim, gateway, _) = tls_gateway("", &[]).await;
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    // These bytes are only the beginning of a TLS record.
    stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("the peer reads");
    assert_eq!(wire::Wire::over(stream).closing().await, End::Closed);
}

#[tokio::test]
async fn a_unix_socket_has_no_tls_and_shutdown_does_not_wait_for_handshakes() {
    let path = gateway::scratch().join("s.sock");
    let socket = format!("unix:{}", path.display());
    let (_sim, mut gateway, identity) = tls_gateway("", &["--listen", &socket]).await;
    let mut stream = UnixStream::connect(&path)
        .await
        .expect("the server accepts connections");
    let request = wire::post("/v1/responses", STREAM).replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.expect("the peer reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("UTF-8 text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let idle = tls::connect(gateway.address, &identity.offering(&["http/1.1"]))
        .await
        .expect("the TLS handshake succeeds");
    let mute = TcpStream::connect(gateway.address)
        .await
        .expect("the server accepts connections");
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    drop((idle, mute));
}

#[tokio::test]
async fn an_invalid_certificate_is_an_error_with_its_position() {
    let (one, two) = (tls::identity(&["a"], &[]), tls::identity(&["a"], &[]));
    let file = gateway::scratch().join("steadfast.toml");
    let config = format!(
        "[server.tls]\ncert = {:?}\nkey = {:?}\n{}",
        one.cert,
        two.key,
        gateway::upstream_at("a", "http://127.0.0.1:1/v1", "")
    );
    std::fs::write(&file, config).expect("a writable folder");
    let file = file.to_str().expect("UTF-8 text");
    let output = gateway::steadfast(&["check", "-c", file]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("{file}:3:7: key does not fit: ")), "{said}");
    assert!(!said.contains("PRIVATE"), "{said}");
}

/// Returns whether a request over HTTP/2 with this TLS configuration is served.
async fn is_served(gateway: &Gateway, config: &Arc<ClientConfig>) -> bool {
    let Ok(stream) = tls::connect(gateway.address, config).await else {
        return false;
    };
    let Ok((mut sender, connection)) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await else {
        return false;
    };
    tokio::spawn(connection);
    matches!(sender.send_request(post(PLAIN)).await, Ok(response) if response.status() == StatusCode::OK)
}

/// The gateway requires client certificates, and its own certificate is renewed while it runs.
#[tokio::test]
async fn client_certificates_are_required_and_certificates_are_renewed() {
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
    let served = async |config: &Arc<ClientConfig>| is_served(&gateway, config).await;
    assert!(
        served(&first.presenting(&first)).await,
        "a certificate of the authority is accepted"
    );
    assert!(
        !served(&first.trusting()).await,
        "a client without a certificate is refused"
    );
    assert!(
        !served(&first.presenting(&second)).await,
        "a certificate of another authority is refused"
    );
    let open = tls::connect(gateway.address, &first.presenting(&first))
        .await
        .expect("the TLS handshake succeeds");
    let mut open = start_http2::<Full<Bytes>, _>(open).await;
    let resuming = first.presenting(&first);
    assert!(served(&resuming).await);

    // A certificate that does not match the key changes nothing.
    copy(&second.cert, "c.pem");
    gateway.log_until("does not fit").await;
    assert!(served(&first.presenting(&first)).await);
    copy(&second.key, "k.pem");
    copy(&second.ca, "ca.pem");
    until("the new certificate to be presented", async || {
        served(&second.presenting(&second)).await.then_some(())
    })
    .await;
    assert!(
        !served(&second.presenting(&first)).await,
        "a certificate of the old authority is refused"
    );
    assert!(!served(&resuming).await, "an old session ticket is refused");
    let (status, _) = read_whole(open.send_request(post(PLAIN)).await.expect("a response")).await;
    assert_eq!(status, StatusCode::OK, "an open connection is still served");
    let reply = client::get(gateway.admin, "/metrics").await.text();
    assert!(
        reply.contains("steadfast_reloads_total{outcome=\"applied\"}"),
        "{reply}"
    );
}
