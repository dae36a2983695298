//! An upstream's credential reaches no caller, whatever part of an answer carries it and however it is written.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, channel::Channel};
use serde_json::json;
use steadfast::sim::{Act, Fixed, ScriptedAnswer, Sim};

use crate::kit::{
    STREAM, WHOLE,
    client::{self, Reply},
    encoders::{Encoder, gzip, raw_deflate, zlib, zstd},
    gateway::{self, Gateway},
    gateway_with_sim, h2,
    tls::{http2_upstream_with, identity},
    upstream::{self, serve_connections},
    wire::{self, EVENTS, End, Wire, chunk},
};

mod codings;

/// The key of each upstream, which the environment of the gateway has.
const KEY: &str = "sk-upstream-canary";
const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";

/// An answer that quotes a text in its body.
struct Quoting {
    status: u16,
    content_type: &'static str,
    /// The body. `KEY` stands for the quoted text.
    body: String,
}

/// Answers of every kind.
fn carriers() -> Vec<Quoting> {
    let answer = |status, content_type, body: &str| Quoting {
        status,
        content_type,
        body: body.to_owned(),
    };
    let event = |data: &str| format!("event: message\ndata: {data}\n\n");
    let created = event(r#"{"type":"response.created","response":{"id":"resp_1"}}"#);
    let delta = event(r#"{"type":"response.output_text.delta","delta":"It is KEY, KEYKEY"}"#);
    let failed = event(
        r#"{"type":"response.failed","response":{"id":"resp_1","error":{"code":"x","message":"Incorrect key: KEY."}}}"#,
    );
    let error = event(r#"{"type":"error","code":"x","message":"Incorrect key: KEY."}"#);
    let completed = event(r#"{"type":"response.completed","response":{"id":"resp_1","output":["KEY"]}}"#);
    vec![
        answer(200, SSE, &[&*created, &delta, &completed].concat()),
        answer(200, SSE, &[&*created, &delta, &failed].concat()),
        answer(200, SSE, &[&*created, &delta, &error].concat()),
        answer(200, SSE, &format!("{created}{delta}: a comment with KEY\n\ndata: KEY")),
        answer(
            200,
            JSON,
            r#"{"id":"resp_1","output":[{"text":"KEY"}],"usage":null,"KEY":"KEY"}"#,
        ),
        answer(200, "text/plain", "KEY"),
        answer(400, JSON, r#"{"error":{"message":"No access with Bearer KEY"}}"#),
        answer(403, "text/html", "<p>KEY</p>"),
        answer(206, "text/plain", "0KEY,KEY"),
        answer(302, "text/html", "see ?key=KEY"),
        answer(500, JSON, r#"{"error":{"message":"Incorrect KEY"}}"#),
    ]
}

/// The spellings of the key in JSON.
fn spellings() -> Vec<String> {
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
    let mixed = KEY.replace('k', "\\u006b").replace('-', "\\u002d");
    vec![KEY.to_owned(), mixed.clone(), mixed.replace('\\', "\\\\"), escaped]
}

/// An act that answers with `body` in pieces of at most `size` bytes.
fn act(status: u16, fields: &[(&'static str, &str)], body: &[u8], size: usize) -> Act {
    let field = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a value"),
        )
    };
    Act::answer(ScriptedAnswer::Fixed(Fixed {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: fields.iter().map(field).collect::<HeaderMap>(),
        pieces: body.chunks(size).map(Bytes::copy_from_slice).collect(),
    }))
}

/// Sends one request to a gateway whose upstream `sim` answers with `act`.
async fn answer_of(gateway: &Gateway, sim: &Sim, act: Act) -> wire::RawResponse {
    answer_at("/v1/responses", gateway, sim, act).await
}

async fn answer_at(path: &str, gateway: &Gateway, sim: &Sim, act: Act) -> wire::RawResponse {
    // A request that succeeds comes first, so that the session is not refused after several failures.
    sim.script().clear();
    let served = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert_eq!(served.status, 200, "{served:?}");
    sim.script().always(act);
    wire::ask(gateway.address, wire::post(path, STREAM)).await
}

/// A gateway that never stops calling its only upstream.
const HEAD: &str = "[retry]\nattempts = 1\n[health]\nmax_ejected = 0\n";

#[tokio::test]
async fn every_body_is_masked_in_every_spelling_and_over_all_borders() {
    let (sim, gateway) = gateway_with_sim(HEAD).await;
    let mut sender = h2::connect_h2c(&gateway).await;
    for carrier in carriers() {
        for spelled in spellings() {
            let sent = carrier.body.replace("KEY", &spelled);
            let expected = carrier.body.replace("KEY", &"*".repeat(spelled.len()));
            let what = format!("{} {} {sent}", carrier.status, carrier.content_type);
            for size in [1, 7, usize::MAX] {
                let fields = [("content-type", carrier.content_type)];
                let answer = answer_of(&gateway, &sim, act(carrier.status, &fields, sent.as_bytes(), size)).await;
                assert_eq!(
                    (answer.status, answer.end),
                    (carrier.status, End::Whole),
                    "{what}: {answer:?}"
                );
                assert_eq!(answer.text(), expected, "{what} in pieces of {size}");
                assert!(answer.head.contains(carrier.content_type), "{answer:?}");
            }
            let response = sender.send_request(h2::post(STREAM)).await.expect("a response");
            assert_eq!(h2::read_whole(response).await.1, expected, "{what} over HTTP/2");
            let name = format!("/api/upstreams/{}/enable", sim.name());
            client::send(gateway.admin, client::post(&name, "")).await;
        }
    }
}

#[tokio::test]
async fn every_body_of_an_http2_upstream_is_masked() {
    for carrier in carriers() {
        let spelled = spellings().swap_remove(2);
        let sent = carrier.body.replace("KEY", &spelled);
        let expected = carrier.body.replace("KEY", &"*".repeat(spelled.len()));
        for size in [1, 16 << 10] {
            let (status, content_type, sent) = (carrier.status, carrier.content_type, sent.clone());
            let identity = identity(&["127.0.0.1"], &["h2"]);
            let respond = move |_| {
                let (mut sender, body) = Channel::new(1);
                let sent = sent.clone();
                tokio::spawn(async move {
                    for piece in sent.as_bytes().chunks(size) {
                        if sender.send_data(Bytes::copy_from_slice(piece)).await.is_err() {
                            return;
                        }
                    }
                    let trailers =
                        HeaderMap::from_iter([(HeaderName::from_static("x-trailer"), HeaderValue::from_static(KEY))]);
                    let _ = sender.send_trailers(trailers).await;
                });
                let response = Response::builder().status(status).header("content-type", content_type);
                response.header("x-echo", KEY).body(body).expect("a response")
            };
            let (address, _connections) = http2_upstream_with(&identity, respond).await;
            let lines = format!("ca = {:?}\nhttp2 = true", identity.ca);
            let table = gateway::upstream_at("a", &format!("https://{address}/v1"), &lines);
            let gateway = Gateway::configured(&format!("{HEAD}{table}")).await;
            let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
            assert_eq!((answer.status, answer.end), (carrier.status, End::Whole), "{answer:?}");
            assert_eq!(answer.text(), expected, "in pieces of {size}");
            assert!(!answer.head.contains(KEY), "{answer:?}");
            let mut sender = h2::connect_h2c(&gateway).await;
            let response = sender.send_request(h2::post(STREAM)).await.expect("a response");
            let collected = response.into_body().collect().await.expect("a whole body");
            assert!(collected.trailers().is_none(), "trailers are not passed on");
            assert_eq!(collected.to_bytes(), expected);
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_late_and_a_long_one_are_masked() {
    let long = "x".repeat(40 << 10);
    let body = format!("{{\"error\":{{\"message\":\"{long} Incorrect key: {KEY}\",\"more\":\"{long}{KEY}\"}}}}");
    let address = serve_connections(move |mut wire| {
        let body = body.clone();
        async move {
            upstream::request(&mut wire).await;
            let length = body.len();
            wire.send(format!(
                "HTTP/1.1 400 {KEY}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            ))
            .await;
            let (first, rest) = body.split_at(long_border(&body));
            // The rest arrives after the time that errors are waited for.
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            wire.send(first).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            wire.send(rest).await;
            wire.closing().await;
        }
    })
    .await;
    let gateway = Gateway::configured(&gateway::upstream_at("a", &format!("http://{address}/v1"), "")).await;
    let answer = wire::ask(gateway.address, wire::post("/v1/files", WHOLE)).await;
    assert_eq!((answer.status, answer.end), (400, End::Whole));
    let stars = "*".repeat(KEY.len());
    assert!(!answer.text().contains(KEY) && answer.text().matches(&stars).count() == 2);
    assert!(
        !answer.head.contains(KEY),
        "the reason phrase is that of the status: {answer:?}"
    );
    assert!(answer.header("content-length").is_some(), "the length does not change");
}

/// A position inside the first key in `body`.
fn long_border(body: &str) -> usize {
    body.find(KEY).expect("the key") + 5
}

#[tokio::test]
async fn every_kind_of_key_is_masked_in_json_and_urls() {
    for (key, spellings) in [
        (
            r#"a"quoted"/key-9"#,
            vec![
                r#"a\"quoted\"\/key-9"#,
                r"a\u0022quoted\u0022%2fkey-9",
                "a%22quoted%22%2Fkey-9",
            ],
        ),
        (
            r"back\slash-9",
            vec![
                r"back\\slash-9",
                r"back\\\\slash-9",
                r"back\u005Cslash-9",
                "back%5cslash-9",
            ],
        ),
        (
            "sk-1+2/3=4",
            vec![r"sk-1\u002B2\/3\u003D4", "sk-1%2b2/3=4", "sk-1%2B2%2F3%3D4"],
        ),
        ("sk-short-key", vec!["sk-short-key", r"\u0073k-short-key"]),
    ] {
        for (status, content_type) in [(200, SSE), (200, JSON), (400, JSON)] {
            let events = |key: &str| {
                let error = format!(r#"{{"type":"error","message":"({key})"}}"#);
                let start = r#"{"type":"response.output_text.delta","delta":"a"}"#;
                match content_type {
                    SSE => format!("event: x\ndata: {start}\n\nevent: error\ndata: {error}\n\n"),
                    _ => error,
                }
            };
            for spelled in &spellings {
                let (body, expected) = (events(spelled), events(&"*".repeat(spelled.len())));
                let length = body.len();
                let bytes = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                let quoted = format!("'{key}'");
                let config = gateway::upstream_at("a", "URL", "").replace("\"env:STEADFAST_TEST_KEY\"", &quoted);
                assert!(config.contains(&quoted), "{config}");
                let (reply, log) = answer_to_bytes(&config, bytes, wire::post("/v1/responses", STREAM)).await;
                assert_eq!((reply.status.as_u16(), reply.text()), (status, expected), "{key}");
                assert!(!log.join("\n").contains(key), "{log:?}");
            }
        }
    }
}

/// The answer to a request after which the upstream sends these bytes and closes the connection.
async fn answer_to_bytes(config: &str, bytes: String, request: String) -> (Reply, Vec<String>) {
    let address = serve_connections(move |mut wire| {
        let bytes = bytes.clone();
        async move {
            upstream::request(&mut wire).await;
            wire.send(bytes).await;
        }
    })
    .await;
    let url = format!("http://{address}/v1");
    let gateway = Gateway::configured_with(&config.replace("URL", &url), &["--log-level", "trace"]).await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send(request).await;
    let reply = wire.reply().await;
    let log = gateway.log_until("\"access\"").await;
    (reply, log)
}

#[tokio::test]
async fn a_head_shows_no_credential() {
    let encoded: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let echo = format!(
        "HTTP/1.1 103 {KEY}\r\nlink: <{KEY}>\r\n\r\nHTTP/1.1 302 {KEY}\r\nlocation: https://a.test/?key={KEY}\r\n\
         www-authenticate: Bearer realm=\"{KEY}\"\r\nset-cookie: k={KEY}\r\nx-request-id: {KEY}\r\n\
         x-authorization: Bearer {KEY}\r\nx-encoded: {encoded}\r\nx-codex-turn-state: {KEY}\r\nx-escaped: \\u0073k-upstream-canary\r\n\
         x-similar: sk-upstream-canar1\r\ncontent-length: 0\r\n\r\n"
    );
    let config = gateway::upstream_at("a", "URL", "");
    for request in [
        wire::post("/v1/responses", WHOLE),
        "GET /v1/files/file-1 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
    ] {
        let (reply, log) = answer_to_bytes(&config, echo.clone(), request).await;
        assert_eq!(reply.status, 302);
        let seen = format!("{:?} {log:?}", reply.headers);
        for form in [KEY, &encoded, "\\u0073k-upstream"] {
            assert!(!seen.contains(form), "{seen}");
        }
        assert_eq!(reply.header("x-similar"), "sk-upstream-canar1");
    }
}

#[tokio::test]
async fn every_form_of_a_configured_credential_is_masked() {
    let forms = [
        KEY,
        "api-key-of-azure-17",
        "Basic dXNlcjpwYXNzd29yZC1vZi11c2Vy",
        "dXNlcjpwYXNzd29yZC1vZi11c2Vy",
        "user:password-of-user",
        "password-of-user",
        "token-of-gateway-3",
        "signature/of+azure",
        "signature%2Fof%2Bazure",
    ];
    let text = format!("data: {{\"delta\":\"{}\"}}\n\n", forms.join(" and "));
    let expected = forms
        .iter()
        .rev()
        .fold(text.clone(), |text, form| text.replace(form, &"*".repeat(form.len())));
    let bytes = format!("{EVENTS}{}{}", chunk(&text), chunk(""));
    let lines = "headers = { \"api-key\" = \"api-key-of-azure-17\", \"x-gateway\" = \"Bearer token-of-gateway-3\", \
                 \"authorization-of-proxy\" = \"Basic dXNlcjpwYXNzd29yZC1vZi11c2Vy\" }";
    let config = gateway::upstream_at("a", "URL?sig=signature%2Fof%2Bazure", lines);
    let (reply, _) = answer_to_bytes(&config, bytes, wire::post("/v1/responses", STREAM)).await;
    let stars = |text: &str| text.chars().filter(|letter| *letter == '*').count();
    for form in forms {
        assert!(!reply.text().contains(form), "{form}: {}", reply.text());
    }
    assert!(stars(&reply.text()) >= stars(&expected) && reply.body.len() == text.len());
}

#[tokio::test]
async fn similar_text_and_a_callers_own_credential_pass_unchanged() {
    let text = format!(
        "sk-upstream-canar{{}} SK-UPSTREAM-CANARY sk-upstream-canar sk-upstream_canary \\u0073k-upstream-canar\\u0079y \
         {} sk-client-own-key-0123456789",
        &KEY[1..]
    )
    .replace("\\u0079y", "\\u0078");
    let (sim, gateway) = gateway_with_sim("").await;
    let body = format!("event: message\ndata: {{\"delta\":\"{text}\"}}\n\n");
    for size in [1, 7, usize::MAX] {
        let answer = answer_of(
            &gateway,
            &sim,
            act(200, &[("content-type", SSE)], body.as_bytes(), size),
        )
        .await;
        assert_eq!(answer.text(), body, "{size}");
    }
    // An upstream that is called with the caller's own credential may show it to the caller.
    let own = "sk-of-the-caller-0123456789";
    let echo = format!(
        "HTTP/1.1 401 No\r\nx-echo: {own}\r\ncontent-length: {}\r\n\r\n{own}",
        own.len()
    );
    let config = "[[upstream]]\nname = \"p\"\nbase_url = \"URL\"\napi_key = \"passthrough\"\n";
    let request =
        wire::post("/v1/responses", WHOLE).replacen("\r\n", &format!("\r\nauthorization: Bearer {own}\r\n"), 1);
    let (reply, _) = answer_to_bytes(config, echo, request).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-echo"), reply.text().as_str()),
        (401, own, own)
    );
}

#[tokio::test]
async fn short_keys_of_local_servers_are_not_masked_in_generated_text() {
    for key in ["EMPTY", "ollama", "lm-studio", "sk-no-key-required"] {
        let body = format!("data: {{\"delta\":\"the key is {key}\"}}\n\n");
        let bytes = format!("{EVENTS}{}{}", chunk(&body), chunk(""));
        let config = gateway::upstream_at("a", "URL", "").replace("env:STEADFAST_TEST_KEY", key);
        let (reply, _) = answer_to_bytes(&config, bytes, wire::post("/v1/responses", STREAM)).await;
        assert_eq!(reply.text(), body);
    }
}

#[tokio::test]
async fn no_event_waits_for_the_next_one() {
    let address = serve_connections(|mut wire| async move {
        upstream::request(&mut wire).await;
        wire.send(EVENTS).await;
        wire.send(chunk(
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"sk-upstream\"}\n\n",
        ))
        .await;
        wire.closing().await;
    })
    .await;
    let gateway = Gateway::configured(&gateway::upstream_at("a", &format!("http://{address}/v1"), "")).await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    // The upstream sends nothing more, so the event arrives only if none of its bytes are held back.
    wire.skip_to("\"delta\":\"sk-upstream\"}\n\n").await;
}

#[tokio::test]
async fn bytes_that_were_held_back_arrive_before_the_body_ends_or_breaks() {
    for (head, rest, end) in [
        ("content-length: 20\r\n\r\n", "the key: sk-upstream", End::Whole),
        ("content-length: 90\r\n\r\n", "the key: sk-upstream", End::Cut),
        (
            "transfer-encoding: chunked\r\n\r\n",
            "14\r\nthe key: sk-upstream\r\n0\r\n\r\n",
            End::Whole,
        ),
        (
            "transfer-encoding: chunked\r\n\r\n",
            "14\r\nthe key: sk-upstream\r\n",
            End::Cut,
        ),
        ("connection: close\r\n\r\n", "the key: sk-upstream", End::Whole),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{head}{rest}");
        let address = serve_connections(move |mut wire| {
            let bytes = bytes.clone();
            async move {
                upstream::request(&mut wire).await;
                wire.send(bytes).await;
            }
        })
        .await;
        let gateway = Gateway::configured(&gateway::upstream_at("a", &format!("http://{address}/v1"), "")).await;
        let answer = wire::ask(gateway.address, wire::post("/v1/files", WHOLE)).await;
        assert_eq!(
            (answer.text().as_str(), answer.end),
            ("the key: sk-upstream", end),
            "{head}"
        );
        let old = wire::post("/v1/files", WHOLE).replacen("HTTP/1.1", "HTTP/1.0", 1);
        let answer = wire::ask(gateway.address, old).await;
        assert_eq!(answer.text(), "the key: sk-upstream", "{head} over HTTP/1.0");
        if end == End::Whole {
            let mut sender = h2::connect_h2c(&gateway).await;
            let response = sender.send_request(h2::post(WHOLE)).await.expect("a response");
            assert_eq!(
                h2::read_whole(response).await.1,
                "the key: sk-upstream",
                "{head} over HTTP/2"
            );
        }
    }
}

#[tokio::test]
async fn the_list_of_models_shows_no_credential() {
    let (sim, gateway) = gateway_with_sim("").await;
    let body = r#"{"data":[{"id":"m1","note":"\u0073k-upstream-canary"},{"id":"m-KEY"}]}"#.replace("KEY", KEY);
    sim.script()
        .always(act(200, &[("content-type", JSON)], body.as_bytes(), usize::MAX));
    let answer = client::get(gateway.address, "/v1/models").await.text();
    assert!(answer.contains("m1") && !answer.contains(KEY), "{answer}");
}

#[tokio::test]
async fn an_answer_to_head_keeps_its_length() {
    let (sim, gateway) = gateway_with_sim("").await;
    let fields = [("content-type", JSON), ("content-encoding", "gzip"), ("x-echo", KEY)];
    sim.script().always(act(200, &fields, &gzip(b"text"), usize::MAX));
    let mut wire = Wire::open(gateway.address).await;
    wire.send("HEAD /v1/files/file-1/content HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let answer = wire.answer_to("HEAD").await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    assert!(!answer.head.contains(KEY), "{answer:?}");
}
