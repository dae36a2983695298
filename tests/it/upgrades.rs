//! Requests for a WebSocket: they are refused with 426 before any other check but that of the client key, because clients
//! fall back to server-sent events at once after that answer only.

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    gateway_with_sim,
    keys::{ALICE, BOB, group, key},
    sim,
};

/// Sends a `GET` with these header lines, and returns the response in lower case.
async fn get(gateway: &Gateway, path: &str, version: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("GET {path} {version}\r\nhost: localhost\r\n{lines}\r\n");
    // The second request closes the connection, so that the answer to the first one is read whole.
    let last = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    client::raw(gateway.address, (head + last).as_bytes())
        .await
        .to_ascii_lowercase()
}

const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn assert_upgrade_required(answer: &str, what: &str) {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("http/1.1 426 "), "{what}: {answer}");
    // RFC 9110 section 15.5.22.
    assert!(head.contains("\r\nupgrade: http/1.1"), "{what}: {answer}");
    assert!(head.contains("\r\nconnection: upgrade"), "{what}: {answer}");
    assert!(answer.contains("\"websocket_unsupported\""), "{what}: {answer}");
}

#[tokio::test]
async fn no_other_check_but_that_of_the_key_comes_first() {
    let sim = sim("a").await;
    let config = upstream(&sim, "")
        + &group("red", "models = [\"gpt-5*\"]\nrequests_per_minute = 1")
        + &group("blue", "")
        + &key("alice", ALICE, "red", "")
        + &key("bob", BOB, "blue", "");
    let gateway = Gateway::configured(&config).await;
    for key in [ALICE, ALICE, BOB] {
        for path in [
            "/v1/responses",
            "/responses",
            "/v1/responses?model=o4-mini",
            "/v1/realtime?model=gpt-realtime",
            "/v1/files",
            "/v1/models",
            "/v1/organization/users",
            "/unknown",
            "/",
            "/v1/../admin",
        ] {
            let bearer = format!("Authorization: Bearer {key}");
            let lines = [&[&*bearer][..], &UPGRADE].concat();
            assert_upgrade_required(&get(&gateway, path, "HTTP/1.1", &lines).await, path);
        }
    }
    for path in ["/v1/responses", "/v1/realtime", "/unknown"] {
        let answer = get(&gateway, path, "HTTP/1.1", &UPGRADE).await;
        assert!(answer.starts_with("http/1.1 401 "), "{path}: {answer}");
        let wrong = [&["Authorization: Bearer sk-wrong"][..], &UPGRADE].concat();
        let answer = get(&gateway, path, "HTTP/1.1", &wrong).await;
        assert!(answer.starts_with("http/1.1 401 "), "{path}: {answer}");
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn the_fields_are_read_in_any_form() {
    let (_sim, gateway) = gateway_with_sim("").await;
    for lines in [
        &["connection: upgrade", "upgrade: websocket"][..],
        &["CONNECTION: keep-alive, Upgrade", "UPGRADE: WebSocket"],
        &["Connection: UPGRADE", "Upgrade: h2c, websocket"],
        &["Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"],
        &["Connection: Upgrade", "Upgrade: websocket/13"],
        &["Connection: keep-alive", "Connection: upgrade", "Upgrade:websocket"],
        // A proxy has dropped the option.
        &["Upgrade: websocket"],
        &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Content-Length: 2000000000",
        ],
    ] {
        let answer = get(&gateway, "/v1/responses", "HTTP/1.1", lines).await;
        assert_upgrade_required(&answer, &format!("{lines:?}"));
    }
}

#[tokio::test]
async fn other_requests_ask_for_no_websocket() {
    let (sim, gateway) = gateway_with_sim("").await;
    for (version, lines) in [
        ("HTTP/1.1", &["Connection: Upgrade", "Upgrade: h2c"][..]),
        ("HTTP/1.1", &["Connection: Upgrade", "Upgrade: websockets"]),
        ("HTTP/1.1", &["Connection: websocket"]),
        // RFC 9110 section 7.8: a server ignores the field in a request of HTTP/1.0.
        ("HTTP/1.0", &["Connection: Upgrade", "Upgrade: websocket"]),
    ] {
        let answer = get(&gateway, "/v1/files", version, lines).await;
        assert!(!answer.contains(" 426 "), "{version} {lines:?}: {answer}");
    }
    assert_eq!(sim.counts().requests, 4);
}

#[tokio::test]
async fn a_web_page_of_another_site_is_refused_first() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let lines = [&["Origin: https://evil.example"][..], &UPGRADE].concat();
    let answer = get(&gateway, "/v1/responses", "HTTP/1.1", &lines).await;
    assert!(answer.starts_with("http/1.1 403 "), "{answer}");
}
