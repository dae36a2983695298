//! Secrets that must never be printed: in `Debug` output, in panic messages, and the private key in any output.

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde_json::json;
use steadfast::{
    config::{Config, Overrides},
    scan::{RequestScanRules, RequestScanner, ResponseReader},
    wire::{
        Address, Capacity, Listener, Peer, RequestBody, ServeLimits, Service, ShutdownPhase, Workers, serve,
        server_config,
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{
    canary::assert_none,
    client,
    gateway::{FILE, Gateway, scratch, upstream},
    secrets::{
        CALLER_SECRETS, GATEWAY_SECRETS, LITERAL_KEY, UPSTREAM_TEXTS, ask_admin, canaries, configuration, request_head,
        session_body,
    },
    sims, tls,
};

/// Returns the lines of a PEM file that contain the private key.
fn secret_lines(pem: &str) -> Vec<&str> {
    let lines: Vec<&str> = pem
        .lines()
        .filter(|line| line.len() >= 30 && !line.contains('-'))
        .collect();
    assert!(!lines.is_empty(), "{pem}");
    lines
}

/// The private key of `server.tls` must not appear in any output, after full, resumed and failed handshakes and after
/// invalid reloads.
#[tokio::test]
async fn the_private_key_is_never_printed() {
    let identity = tls::identity(&["127.0.0.1"], &[]);
    let pem = fs::read_to_string(&identity.key).expect("a key");
    let lines = secret_lines(&pem);
    let key = canaries(&lines);
    let sims = sims(1).await;
    let config = format!("[server]\n{}{}", identity.server_table(), upstream(&sims[0], ""));
    let gateway = Gateway::configured_with(&config, &["--log-level", "trace"]).await;
    let mut output = String::new();
    for _ in 0..2 {
        let mut stream = tls::connect(gateway.address, &identity.offering(&["http/1.1"]))
            .await
            .expect("the TLS handshake succeeds");
        stream
            .write_all(request_head("GET /v1/models", "").as_bytes())
            .await
            .expect("the peer reads");
        stream.read_to_string(&mut output).await.expect("UTF-8 text");
    }
    client::raw(gateway.address, b"GET / HTTP/1.1\r\nhost: no-tls\r\n\r\n").await;
    fs::write(&identity.key, pem.replacen(&lines[0][..8], "AAAAAAAA", 1)).expect("a writable file");
    output.push_str(&ask_admin(&gateway, Method::POST, "/api/reload", "").await);
    fs::write(&identity.key, lines.concat()).expect("a writable file");
    output.push_str(&ask_admin(&gateway, Method::POST, "/api/reload", "").await);
    fs::write(&identity.cert, &pem).expect("a writable file");
    output.push_str(&ask_admin(&gateway, Method::POST, "/api/reload", "").await);
    output.push_str(&gateway.log_until("stays in force").await.join("\n"));
    assert_none(&key, &output, "the output of the program");
}

#[tokio::test]
async fn debug_output_contains_no_secret() {
    let (folder, sims) = (scratch(), sims(3).await);
    let identity = tls::identity(&["localhost"], &[]);
    let text = configuration(&folder, &sims)
        .await
        .replace("[server]\n", &format!("[server]\n{}", identity.server_table()));
    let overrides = Overrides {
        upstreams: vec![format!("flag=https://a.example/v1,{LITERAL_KEY}")],
        ..Overrides::default()
    };
    let origin = folder.join(FILE);
    let env = |_: &str| Some(GATEWAY_SECRETS[0].to_owned());
    let config = Config::from_toml(&text, origin.to_str().expect("UTF-8 text"), &env, &overrides)
        .expect("a valid configuration");
    let tls = config.server.tls.as_ref().expect("TLS is configured");
    let rustls = server_config(&tls.certificates, tls.private_key.expose().as_bytes(), None)
        .expect("the certificate matches the key");
    let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()))
        .await
        .expect("a free port");
    let mut scanner = RequestScanner::new(RequestScanRules::default());
    scanner.feed(session_body(1).to_string().as_bytes()).expect("JSON");
    let facts = scanner.finish().expect("a complete body");
    assert_eq!(facts.texts.get(1), Some("session-id-canary-2e"), "the text was read");
    let mut reader = ResponseReader::events();
    let failed = json!({"type": "error", "error": {"message": "error-canary-c4"}});
    reader.feed(format!("data: {failed}\n\n").as_bytes());
    assert!(reader.failure().is_some(), "the text was read");

    let pem = fs::read_to_string(&identity.key).expect("a key");
    let lines = secret_lines(&pem);
    let secrets = canaries(&[&GATEWAY_SECRETS[..], &CALLER_SECRETS, &UPSTREAM_TEXTS, &lines].concat());
    let formatted = [
        format!("{config:?} {config:#?}"),
        format!("{overrides:?} {overrides:#?}"),
        format!("{rustls:?} {rustls:#?}"),
        format!(
            "{:#?}",
            listener.with_tls(steadfast::wire::TlsIdentity::new(rustls.clone()))
        ),
        format!("{facts:?} {facts:#?} {:?}", facts.content),
        format!("{:?} {:#?}", reader.failure(), reader.failure()),
    ];
    for text in formatted {
        assert_none(&secrets, &text, "Debug output");
    }
}

const CHILD: &str = "STEADFAST_TEST_PANICS";

/// A panic ends only the connection on which it happened, and its message contains nothing of the request. The test
/// runs itself again in a child process, because the panic hook applies to the whole process.
#[test]
fn a_panic_message_contains_nothing_of_the_request() {
    if std::env::var_os(CHILD).is_some() {
        let _log = steadfast::app::log_as_served().expect("the log thread starts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("the runtime starts").block_on(serve_with_panics());
        return;
    }
    let name = "unprintable::a_panic_message_contains_nothing_of_the_request";
    let child = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("the program runs");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(child.status.success(), "{said}");
    assert_eq!(said.matches("panicked: ").count(), 3, "{said}");
    assert!(
        said.contains("tests/it/unprintable.rs:") && said.contains("panicked: a literal"),
        "{said}"
    );
    assert_none(&canaries(&CALLER_SECRETS), &said, "the output of a panic");
}

async fn serve_with_panics() {
    let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()))
        .await
        .expect("a free port");
    let Address::Tcp(address) = *listener.address() else {
        unreachable!("bound to TCP")
    };
    let second = Duration::from_secs(10);
    let service = Service {
        limits: ServeLimits {
            client_header: second,
            keep_alive: second,
            stall: second,
        },
        capacity: Arc::new(Capacity::new(8, Arc::default())),
        workers: Some(Arc::new(Workers::start().expect("the threads start"))),
    };
    let handler = |_: Peer, request: Request<RequestBody>| async move {
        let shown = format!("{:?}", request.headers());
        match request.uri().path() {
            "/formatted" => panic!("with {shown}"),
            "/sliced" => drop(shown[..shown.len() + 1].to_owned()),
            "/literal" => panic!("a literal"),
            _ => {}
        }
        Response::new(Full::new(Bytes::from("served")))
    };
    let (_phase, shutdown) = tokio::sync::watch::channel(ShutdownPhase::Running);
    tokio::spawn(serve(listener, service, shutdown, handler, |_, _| None));
    for path in ["/formatted", "/sliced", "/literal"] {
        let answer = client::raw(address, request_head(&format!("GET {path}"), "").as_bytes()).await;
        assert_eq!(answer, "", "the connection is closed");
        let answer = client::raw(address, request_head("GET /fine", "").as_bytes()).await;
        assert!(answer.ends_with("served"), "other connections are served: {answer}");
    }
}
