//! Forms (`multipart/form-data`): the model of a form decides access, route and name as that of a JSON body does, and a large upload
//! passes through while it arrives.

use std::net::SocketAddr;

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use steadfast::sim::{Act, Sim};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use crate::kit::{
    client::{self, Reply},
    encoders::gzip,
    gateway::{Gateway, upstream, upstream_at},
    keys::{self, ALICE, BOB, error_code},
    sims,
    wire::Wire,
};

/// A form in the syntax of curl's `-F`: each part has the text after `form-data` in its head, and its content.
fn form(parts: &[(&str, &str)]) -> String {
    let parts = parts.iter().map(|(head, content)| {
        format!(
            "--------------------------a701ad3da3f24c16\r\nContent-Disposition: form-data{head}\r\n\r\n{content}\r\n"
        )
    });
    parts.collect::<String>() + "--------------------------a701ad3da3f24c16--\r\n"
}

const CONTENT_TYPE: &str = "multipart/form-data; boundary=------------------------a701ad3da3f24c16";
const AUDIO: (&str, &str) = (
    "; name=\"file\"; filename=\"speech.wav\"\r\nContent-Type: application/octet-stream",
    "RIFF\u{1}\u{2}--not a boundary\r\n",
);

fn model(name: &str) -> (&'static str, &str) {
    ("; name=\"model\"", name)
}

fn post(path: &str, body: impl Into<bytes::Bytes>) -> Request<Full<bytes::Bytes>> {
    let mut request = client::post(path, body);
    let content_type = CONTENT_TYPE.parse().expect("a valid header value");
    request.headers_mut().insert("content-type", content_type);
    request
}

async fn send(gateway: &Gateway, path: &str, body: &str) -> Reply {
    client::send(gateway.address, post(path, body.to_owned())).await
}

async fn send_as(gateway: &Gateway, key: &str, path: &str, body: &str) -> Reply {
    client::send(gateway.address, keys::with_key(post(path, body.to_owned()), key)).await
}

/// Makes the account answer every request.
fn answering(sim: &Sim) {
    sim.script()
        .always(Act::reply(StatusCode::OK, &json!({"text": "hello"})));
}

#[tokio::test]
async fn a_group_may_use_its_models_only() {
    let sims = sims(2).await;
    sims.iter().for_each(answering);
    let gateway = keys::two_groups(
        &sims,
        "upstreams = [\"a\"]\nmodels = [\"whisper-*\", \"gpt-image-1\"]",
        "upstreams = [\"b\"]",
    )
    .await;
    for path in [
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/edits",
        "/v1/images/variations",
    ] {
        for (parts, expected) in [
            (vec![model("whisper-1"), AUDIO], None),
            (vec![AUDIO, model("gpt-image-1")], None),
            (vec![AUDIO, model("gpt-4o-transcribe")], Some("model_not_allowed")),
            (vec![AUDIO], Some("model_unreadable")),
        ] {
            let body = form(&parts);
            let reply = send_as(&gateway, ALICE, path, &body).await;
            match expected {
                None => assert_eq!(reply.status, 200, "{path}: {}", reply.text()),
                Some(code) => assert_eq!(error_code(&reply), (403, code.to_owned()), "{path}"),
            }
            let reply = send_as(&gateway, BOB, path, &body).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            let arrived = sims[1].requests().pop().expect("a recorded request");
            assert_eq!(
                (&*arrived.body, &arrived.headers["content-type"]),
                (body.as_bytes(), &CONTENT_TYPE.parse().unwrap())
            );
        }
    }
    assert_eq!(sims[0].counts().requests, 8);
    // A form of the other kind has no parts that could name the model.
    let mut request = keys::with_key(client::post("/v1/audio/transcriptions", "model=whisper-1"), ALICE);
    let content_type = "application/x-www-form-urlencoded"
        .parse()
        .expect("a valid header value");
    request.headers_mut().insert("content-type", content_type);
    let reply = client::send(gateway.address, request).await;
    assert_eq!(error_code(&reply), (403, "model_unreadable".to_owned()));
}

#[tokio::test]
async fn an_upstream_is_chosen_by_the_model_and_gets_its_own_name() {
    let sims = sims(2).await;
    sims.iter().for_each(answering);
    let config = upstream(&sims[0], "models = [\"gpt-image-*\"]")
        + &upstream(
            &sims[1],
            "models = { \"whisper-1\" = \"my \\\"deployment\\\" of whisper\" }",
        );
    let gateway = Gateway::configured(&config).await;
    let body = form(&[AUDIO, model("whisper-1"), ("; name=\"response_format\"", "json")]);
    for _ in 0..3 {
        let reply = send(&gateway, "/v1/audio/transcriptions", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.routed().0),
            (200, "b"),
            "{}",
            reply.text()
        );
        let arrived = sims[1].requests().pop().expect("a recorded request");
        let renamed = body.replace("whisper-1", "my \"deployment\" of whisper");
        assert_eq!(String::from_utf8_lossy(&arrived.body), renamed);
        assert_eq!(arrived.headers["content-length"], renamed.len().to_string());
        let reply = send(&gateway, "/v1/images/edits", &form(&[model("gpt-image-1"), AUDIO])).await;
        assert_eq!(
            (reply.status.as_u16(), reply.routed().0),
            (200, "a"),
            "{}",
            reply.text()
        );
    }
    let reply = send(&gateway, "/v1/audio/transcriptions", &form(&[model("tts-1")])).await;
    assert_eq!(error_code(&reply), (404, "model_not_found".to_owned()));
    // A compressed form is read, but the upstream's name cannot be written into it.
    for (name, expected) in [("gpt-image-1", 200), ("whisper-1", 415), ("tts-1", 404)] {
        let mut request = post("/v1/images/edits", gzip(form(&[model(name)]).as_bytes()));
        request
            .headers_mut()
            .insert("content-encoding", "gzip".parse().expect("a valid header value"));
        let reply = client::send(gateway.address, request).await;
        assert_eq!(reply.status.as_u16(), expected, "{name}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_form_fails_over_with_all_its_bytes() {
    let sims = sims(2).await;
    answering(&sims[1]);
    let limit = Act::reply(
        StatusCode::TOO_MANY_REQUESTS,
        &json!({"error": {"code": "rate_limit_exceeded", "message": "Try again in 300s."}}),
    );
    sims[0].script().always(limit);
    let config = upstream(&sims[0], "models = { \"whisper-1\" = \"other\" }") + &upstream(&sims[1], "");
    let gateway = Gateway::configured(&config).await;
    let file = "x".repeat(300_000);
    let body = form(&[model("whisper-1"), ("; name=\"file\"; filename=\"a.mp3\"", &file)]);
    for _ in 0..8 {
        let reply = send(&gateway, "/v1/audio/transcriptions", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.routed().0),
            (200, "b"),
            "{}",
            reply.text()
        );
        let arrived = sims[1].requests().pop().expect("a recorded request");
        assert!(arrived.body == body.as_bytes(), "the original name of the model");
    }
    assert!(sims[0].counts().requests > 0, "the first account was asked");
}

#[tokio::test]
async fn a_configured_text_of_a_form_keeps_a_session_on_its_account() {
    let sims = sims(4).await;
    sims.iter().for_each(answering);
    let head = "[affinity]\nsources = [\"body:user\", \"body:purpose\"]\n";
    let gateway = Gateway::before(&sims, head).await;
    for number in 0..6 {
        let user = format!("user-{number}");
        let home = gateway.home(&user).await;
        let field = ("; name=\"user\"", user.as_str());
        for (path, parts) in [
            ("/v1/images/edits", vec![model("gpt-image-1"), AUDIO, field]),
            ("/v1/files", vec![field, AUDIO]),
            ("/v1/files", vec![field]),
        ] {
            let reply = send(&gateway, path, &form(&parts)).await;
            assert_eq!(
                (reply.status.as_u16(), reply.routed().0),
                (200, home.as_str()),
                "{path}: {}",
                reply.text()
            );
        }
    }
}

#[tokio::test]
async fn an_ambiguous_form_reaches_no_upstream() {
    let sims = sims(1).await;
    let gateway = keys::two_groups(&sims, "models = [\"whisper-1\"]", "").await;
    let two = form(&[model("whisper-1"), model("gpt-4o")]);
    let bodies = [
        (two.clone(), "ambiguous_body", "duplicate field `model`"),
        (
            form(&[model("whisper-1"), ("; name=\"Model\"", "gpt-4o")]),
            "ambiguous_body",
            "`model`",
        ),
        (
            form(&[model("whisper-1"), ("; name=\"mod%65l\"", "gpt-4o")]),
            "ambiguous_body",
            "`model`",
        ),
        (
            form(&[("; name=\"model\"; filename=\"x\"", "whisper-1")]),
            "ambiguous_body",
            "as a file",
        ),
        (
            form(&[("; name=\"model\"\r\nContent-Transfer-Encoding: base64", "d2hpc3Blci0x")]),
            "ambiguous_body",
            "plain text",
        ),
        (
            form(&[("; name*=utf-8''model", "whisper-1")]),
            "ambiguous_body",
            "name*",
        ),
        (
            form(&[model("whisper-1")]).replace("\r\n", "\n"),
            "ambiguous_body",
            "line end",
        ),
        (
            "preamble\r\n".to_owned() + &form(&[model("whisper-1")]),
            "ambiguous_body",
            "begin",
        ),
        (
            form(&[model("whisper-1")]) + &two,
            "ambiguous_body",
            "after the last boundary",
        ),
        (two.replace("--\r\n", ""), "ambiguous_body", "`model`"),
        (form(&[("; size=1", "whisper-1")]), "invalid_multipart", "no name"),
    ];
    for key in [ALICE, BOB] {
        for (body, code, text) in &bodies {
            let reply = send_as(&gateway, key, "/v1/audio/transcriptions", body).await;
            assert_eq!(error_code(&reply), (400, (*code).to_owned()), "{body:?}");
            let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
            assert!(message.contains(text) && message.contains(" at byte "), "{message}");
        }
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\"a b\"",
        ] {
            let mut request = keys::with_key(post("/v1/audio/transcriptions", two.clone()), key);
            request
                .headers_mut()
                .insert("content-type", content_type.parse().expect("a valid header value"));
            let reply = client::send(gateway.address, request).await;
            assert_eq!(error_code(&reply), (400, "ambiguous_body".to_owned()), "{content_type}");
        }
    }
    // An endpoint that takes JSON only reads every body as JSON.
    let reply = send_as(&gateway, ALICE, "/v1/responses", &form(&[model("whisper-1")])).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(sims[0].counts().requests, 0);
}

/// Starts an upstream that reads one request, whose body ends like a form of this file, and sends each piece of its bytes to the
/// receiver as it arrives.
async fn recording_upstream() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (arrived, arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut last = Vec::new();
        while !last.ends_with(b"c16--\r\n") {
            let mut piece = vec![0; 64 << 10];
            let length = stream.read(&mut piece).await.expect("bytes");
            piece.truncate(length);
            last.extend_from_slice(&piece);
            last.drain(..last.len().saturating_sub(100));
            arrived.send(piece).expect("the test waits");
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(answer).await.expect("the gateway reads");
    });
    (address, arrivals)
}

#[tokio::test]
async fn a_large_upload_passes_through_while_it_arrives() {
    const FILE: usize = 48 << 20;
    let (address, mut arrivals) = recording_upstream().await;
    let config = "[server]\nmax_body = \"64MiB\"\n".to_owned() + &upstream_at("a", &format!("http://{address}/v1"), "");
    let gateway = Gateway::configured(&config).await;
    let before = gateway.resident();
    let body = form(&[
        ("; name=\"purpose\"", "batch"),
        ("; name=\"file\"; filename=\"batch.jsonl\"", &"x".repeat(FILE)),
    ]);
    let mut client = Wire::open(gateway.address).await;
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head).await;
    let mut received = Vec::new();
    for (number, piece) in body.as_bytes().chunks(2 << 20).enumerate() {
        client.send(piece).await;
        // The upstream has most of what the client has sent, before the client sends more.
        while received.len() + (1 << 20) <= number * (2 << 20) {
            received.extend_from_slice(&arrivals.recv().await.expect("a piece"));
        }
    }
    let reply = client.reply().await;
    assert_eq!(
        (reply.status.as_u16(), reply.routed().0),
        (200, "a"),
        "{}",
        reply.text()
    );
    while let Ok(piece) = arrivals.try_recv() {
        received.extend_from_slice(&piece);
    }
    let at = memchr::memmem::find(&received, b"\r\n\r\n").expect("a head") + 4;
    assert!(
        received[at..] == *body.as_bytes(),
        "{} of {} bytes",
        received.len(),
        body.len()
    );
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < FILE as u64 / 2, "the process has grown by {grown} bytes");
}

#[tokio::test]
async fn a_small_upload_that_is_complete_goes_on_to_another_account() {
    let sims = sims(2).await;
    answering(&sims[1]);
    let unreachable = upstream_at("a", "http://127.0.0.1:1/v1", "");
    let gateway = Gateway::configured(&(unreachable + &upstream(&sims[1], ""))).await;
    for _ in 0..6 {
        let body = form(&[("; name=\"purpose\"", "batch")]);
        let reply = send(&gateway, "/v1/files", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.routed().0),
            (200, "b"),
            "{}",
            reply.text()
        );
    }
}
