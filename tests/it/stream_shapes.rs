//! The shapes in which streams arrive and fail: line endings, order of members, framing, pauses, and connections of HTTP/2.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point};

use crate::kit::{
    gateway::{self, Gateway},
    sim,
    streams::{
        Dialect::{Chat, Messages, Responses},
        Effect::{self, Cooling, Failed, Nothing},
        HEAD, ask, check_effect, check_failover, event, response_failed, start, stream, text,
    },
    tls,
    upstream::{request, serve_connections},
    wire::{self, End, Wire},
};

fn created() -> String {
    json!({"type": "response.created", "response": {"id": "resp_1"}}).to_string()
}

/// Streams of responses that fail before their first output, as text.
fn failing_responses() -> Vec<(&'static str, String, Effect)> {
    let created = created();
    let limited = r#"{"code":"rate_limit_exceeded","message":"Please try again in 44s."}"#;
    let long = "i".repeat(60 << 10);
    let lifecycle = |kind: &str| {
        let response = json!({"id": "resp_1", "instructions": long, "error": null});
        event(&json!({"type": kind, "response": response}))
    };
    let mut failed = response_failed(json!({"code": "insufficient_quota", "message": "Try again in 44s."}));
    failed["response"]["instructions"] = json!(long);
    let pretty = serde_json::to_string_pretty(&failed).expect("JSON");
    vec![
        (
            "carriage returns and line feeds, and no name of an event",
            format!(
                "data: {created}\r\n\r\ndata: {{\"type\":\"response.failed\",\"response\":{{\"error\":{limited}}}}}\r\n\r\n"
            ),
            Cooling(44),
        ),
        (
            "carriage returns",
            format!(
                "data: {created}\r\rdata: {{\"type\":\"response.failed\",\"response\":{{\"error\":{limited}}}}}\r\r"
            ),
            Cooling(44),
        ),
        (
            "a byte order mark, and no space after the colon",
            format!("\u{feff}data:{created}\n\ndata:{{\"type\":\"error\",\"error\":{limited}}}\n\n"),
            Cooling(44),
        ),
        (
            "the type is the last member",
            format!(
                "data: {{\"response\":{{\"id\":\"resp_1\"}},\"type\":\"response.created\"}}\n\n\
                 data: {{\"response\":{{\"error\":{limited},\"instructions\":\"{long}\"}},\"type\":\"response.failed\"}}\n\n"
            ),
            Cooling(44),
        ),
        (
            "three long events",
            lifecycle("response.created") + &lifecycle("response.in_progress") + &event(&failed),
            Cooling(44),
        ),
        (
            "an event of several lines",
            format!("data: {created}\n\ndata: {}\n\n", pretty.replace('\n', "\ndata: ")),
            Cooling(44),
        ),
        (
            "the quota is named in the type only",
            event(
                &json!({"type": "error", "error": {"type": "usage_limit_reached", "code": null, "resets_in_seconds": 44}}),
            ),
            Cooling(44),
        ),
        (
            "the quota is named in the type of the last event only",
            lifecycle("response.queued")
                + &event(&response_failed(
                    json!({"type": "insufficient_quota", "resets_in_seconds": 44}),
                )),
            Cooling(44),
        ),
        (
            "data events that keep the connection alive",
            event(&json!({"type": "keepalive", "sequence_number": 1}))
                + ": ping\n\n"
                + &event(&json!({"type": "error", "code": "rate_limit_exceeded", "retry_after": 44})),
            Cooling(44),
        ),
        (
            "an error without facts, and nothing after it",
            event(&json!({"type": "response.created", "response": {}}))
                + &event(&json!({"type": "error", "code": null, "message": "no", "param": null})),
            Failed,
        ),
        ("nothing", String::new(), Failed),
    ]
}

#[tokio::test]
async fn a_failing_stream_is_replaced_in_whatever_shape_it_arrives() {
    for (number, (what, stream_text, effect)) in failing_responses().into_iter().enumerate() {
        let mut act = stream(&[stream_text]);
        act.split = [Some(997), None, Some(64 << 10)][number % 3];
        check_failover(Responses, act, effect, what).await;
    }
    for what in [0, 1, 6, 8] {
        let (what, stream_text, effect) = failing_responses().swap_remove(what);
        let mut act = stream(&[stream_text]);
        act.split = Some(1);
        check_failover(Responses, act, effect, what).await;
    }
}

/// Asks two accounts `a` and `b`, which are upstreams at these URLs.
async fn gateway_before(urls: [String; 2], lines: [&str; 2], head: &str) -> Gateway {
    let [a, b] = [("a", 0), ("b", 1)].map(|(name, number)| gateway::upstream_at(name, &urls[number], lines[number]));
    Gateway::configured(&format!("{head}{a}{b}")).await
}

#[tokio::test]
async fn an_error_event_with_nothing_after_it_does_not_wait_for_long() {
    for event_data in [
        json!({"type": "error", "code": null, "message": "no"}),
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}),
    ] {
        let (sims, gateway, key) = start(Responses, &format!("{HEAD}decide_within = \"60s\"\n")).await;
        sims[0].script().always(Act {
            stall: Some(Point::Events(2)),
            ..stream(&[
                format!("data: {}\n\n", created()),
                event(&event_data),
                String::from("x"),
            ])
        });
        let begun = Instant::now();
        let answer = ask(&gateway, Responses, &key).await;
        assert_eq!(answer.header("x-steadfast-upstream"), Some("b"), "{event_data}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn the_head_of_a_stream_may_name_the_reset() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    let at = (now.as_secs() + 44).to_string();
    let pieces = [event(
        &json!({"type": "error", "error": {"type": "usage_limit_reached", "message": "no"}}),
    )];
    let act = stream(&pieces);
    let fields = [
        ("x-codex-primary-used-percent", "100"),
        ("x-codex-primary-reset-at", at.as_str()),
    ];
    let act = fields.iter().fold(act, |act, (name, value)| {
        act.header(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a header value"),
        )
    });
    check_failover(Responses, act, Cooling(44), "reset in the head").await;
}

#[tokio::test]
async fn streams_that_break_at_every_account_are_an_error_and_never_an_empty_stream() {
    for dialect in [Responses, Chat, Messages] {
        for (number, opening) in dialect.openings().into_iter().enumerate() {
            let (sims, gateway, key) = start(dialect, HEAD).await;
            let how = [Close::Fin, Close::Reset][number % 2];
            for sim in &sims {
                sim.script().clear();
                sim.script().always(Act {
                    cut: Some((Point::Events(opening.len()), how)),
                    ..stream(&opening)
                });
            }
            let answer = ask(&gateway, dialect, &key).await;
            let found = (answer.status, answer.error_code());
            assert_eq!(found, (502, "upstream_broken".to_owned()), "{dialect:?} {number}");
        }
    }
}

#[tokio::test]
async fn a_stream_without_output_that_ends_well_is_passed_on() {
    let incomplete = json!({"type": "response.incomplete", "response": {"incomplete_details": {}}});
    let endings = [
        (Responses, Responses.last()),
        (Responses, event(&incomplete)),
        (Chat, Chat.last()),
        (Messages, Messages.last()),
    ];
    for (dialect, last) in endings {
        for opening in dialect.openings() {
            let pieces = [opening, vec![last.clone()]].concat();
            let (sims, gateway, key) = start(dialect, HEAD).await;
            sims[0].script().once(dialect.path(), stream(&pieces));
            let answer = ask(&gateway, dialect, &key).await;
            assert_eq!((answer.end, answer.text()), (End::Whole, text(&pieces)));
            assert_eq!(answer.header("x-steadfast-upstream"), Some("a"));
            check_effect(&gateway, Nothing, "served").await;
        }
    }
}

#[tokio::test]
async fn a_stream_arrives_unchanged_however_it_is_cut_into_pieces() {
    let mut pieces = Responses.openings().swap_remove(2);
    pieces.extend((0..300).map(|number| {
        let delta = format!("{number} é \u{1F980} {}", "x".repeat(number * 7));
        event(&json!({"delta": delta, "type": "response.output_text.delta", "sequence_number": number}))
    }));
    pieces.push(Responses.last());
    for split in [None, Some(3), Some(777), Some(50_000)] {
        let (sims, gateway, key) = start(Responses, HEAD).await;
        let mut act = stream(&pieces);
        act.split = split;
        sims[0].script().once("/v1/responses", act);
        let answer = ask(&gateway, Responses, &key).await;
        assert_eq!(answer.end, End::Whole);
        assert!(answer.text() == text(&pieces), "{split:?}");
        check_effect(&gateway, Nothing, "served").await;
    }
}

#[tokio::test]
async fn comments_do_not_prolong_the_time_for_which_a_stream_is_held_back() {
    let upstream = serve_connections(|mut wire: Wire| async move {
        request(&mut wire).await;
        let opening = format!("data: {}\n\n", created());
        wire.send(format!("{}{}", wire::EVENTS, wire::chunk(&opening))).await;
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            wire.send(wire::chunk(": keepalive\n\n")).await;
        }
    })
    .await;
    let config = format!("{HEAD}decide_within = \"300ms\"\n");
    let gateway =
        Gateway::configured(&(config + &gateway::upstream_at("a", &format!("http://{upstream}/v1"), ""))).await;
    let mut client = Wire::open(gateway.address).await;
    let begun = Instant::now();
    client.send(wire::post("/v1/responses", crate::kit::STREAM)).await;
    client.skip_to("response.created").await;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

/// Starts an account of HTTP/2 whose streams break after `pieces`. Returns its URL and its lines of configuration.
async fn breaking_http2(pieces: Vec<String>) -> (String, String) {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, _) = tls::http2_upstream(&identity, move |_| {
        let (mut sender, body) = Channel::new(1);
        let pieces = pieces.clone();
        tokio::spawn(async move {
            for piece in pieces {
                let _ = sender.send_data(Bytes::from(piece)).await;
            }
            // A reset overtakes data that has not been sent. This sleep models an upstream that breaks later.
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.abort(std::io::Error::other("broken"));
        });
        body
    })
    .await;
    (
        format!("https://{address}/v1"),
        format!("ca = {:?}\nhttp2 = true", identity.ca),
    )
}

#[tokio::test]
async fn a_stream_of_http2_that_is_reset_before_its_first_output_is_replaced() {
    for dialect in [Responses, Chat, Messages] {
        for opening in dialect.openings() {
            let (url, lines) = breaking_http2(opening.clone()).await;
            let good = sim("b").await;
            good.script().always(stream(&dialect.success()));
            let urls = [url.clone(), format!("http://{}/v1", good.address())];
            let gateway = gateway_before(urls, [&lines, ""], HEAD).await;
            let key = crate::kit::sessions::key_with_home(&gateway, "a").await;
            let answer = ask(&gateway, dialect, &key).await;
            assert_eq!((answer.end, answer.text()), (End::Whole, text(&dialect.success())));
            assert_eq!(answer.header("x-steadfast-upstream"), Some("b"));
            check_effect(&gateway, Failed, "reset").await;
            let gateway = gateway_before([url.clone(), url], [&lines, &lines], HEAD).await;
            let answer = ask(&gateway, dialect, "any").await;
            assert_eq!((answer.status, answer.error_code().as_str()), (502, "upstream_broken"));
        }
    }
}

#[tokio::test]
async fn a_stream_of_http2_that_is_reset_after_its_first_output_is_aborted_and_a_failure() {
    let pieces = [Responses.openings().swap_remove(0), vec![Responses.output()]].concat();
    let (url, lines) = breaking_http2(pieces.clone()).await;
    let good = sim("b").await;
    let urls = [url, format!("http://{}/v1", good.address())];
    let gateway = gateway_before(urls, [&lines, ""], HEAD).await;
    let key = crate::kit::sessions::key_with_home(&gateway, "a").await;
    let answer = ask(&gateway, Responses, &key).await;
    assert_eq!((answer.end, answer.text()), (End::Cut, pieces.concat()));
    check_effect(&gateway, Failed, "reset").await;
    assert_eq!(
        ask(&gateway, Responses, &key).await.header("x-steadfast-upstream"),
        Some("b")
    );
}

#[tokio::test]
async fn a_stored_response_that_has_failed_is_no_failure_of_its_account() {
    let failed = response_failed(json!({"code": "rate_limit_exceeded", "message": "Try again in 44s."}));
    let pieces = [format!("data: {}\n\n", created()), event(&failed)];
    let (sims, gateway, _) = start(Responses, HEAD).await;
    for sim in &sims {
        sim.script().clear();
        sim.script().always(stream(&pieces));
    }
    let head = "GET /v1/responses/resp_1?stream=true&starting_after=3 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = wire::ask(gateway.address, head).await;
    assert_eq!(
        (answer.status, answer.end, answer.text()),
        (200, End::Whole, text(&pieces))
    );
    assert_eq!(sims[0].counts().requests + sims[1].counts().requests, 1);
    check_effect(&gateway, Nothing, "stored").await;
}

#[tokio::test]
async fn an_answer_that_is_no_plain_stream_is_passed_on_at_once() {
    let json_answer: Value = json!({"id": "resp_1", "object": "response", "status": "failed", "output": []});
    let compressed = Act::header(
        stream(&[event(&response_failed(Value::Null))]),
        http::header::CONTENT_ENCODING,
        HeaderValue::from_static("gzip"),
    );
    for act in [Act::reply(http::StatusCode::OK, &json_answer), compressed] {
        let (sims, gateway, key) = start(Responses, HEAD).await;
        sims[0].script().once("/v1/responses", act);
        let answer = ask(&gateway, Responses, &key).await;
        assert_eq!((answer.status, answer.end), (200, End::Whole));
        assert_eq!(answer.header("x-steadfast-upstream"), Some("a"));
        check_effect(&gateway, Nothing, "passed on").await;
    }
}
