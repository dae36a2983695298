//! Streams that fail: before the first output the request goes to another account and the caller does not notice; after
//! it the account's health is told, and the caller receives the stream unchanged.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Fixed, Point, Rule, ScriptedAnswer, Sim};

use crate::kit::{
    gateway::{self, Gateway},
    sessions::key_with_home,
    sims, until, until_true,
    upstream::{request, serve_connections},
    wire::{self, End, RawResponse, Wire},
};

/// A retry for each request, so that no test depends on the rate of its requests.
const HEAD: &str = "[retry]\nbudget = 1.0\n";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Dialect {
    Responses,
    Chat,
    Messages,
}

use Dialect::{Chat, Messages, Responses};

impl Dialect {
    fn path(self) -> &'static str {
        match self {
            Responses => "/v1/responses",
            Chat => "/v1/chat/completions",
            Messages => "/v1/messages",
        }
    }

    /// The beginnings of a stream, up to its first output.
    fn openings(self) -> Vec<Vec<String>> {
        match self {
            Responses => {
                let created = json!({"type": "response.created", "response": {"id": "resp_1", "error": null}});
                let instructions = "x".repeat(60 << 10);
                let long = json!({"response": {"instructions": instructions}, "sequence_number": 0,
                    "type": "response.created"});
                let progress = json!({"type": "response.in_progress", "response": {"id": "resp_1"}});
                vec![
                    vec![event(&created)],
                    vec![event(&created), event(&progress)],
                    vec![event(&long), event(&progress)],
                    vec![],
                    vec![
                        ": keepalive\n\n".to_owned(),
                        event(&json!({"type": "codex.rate_limits", "rate_limits": {}})),
                        format!("id: 1\r\ndata:{created}\r\n\r\n"),
                        event(&json!({"type": "response.queued", "response": {}})),
                        event(&json!({"type": "response.metadata", "headers": {}})),
                    ],
                ]
            }
            Chat => {
                let chunk = |choices: Value| event(&json!({"id": "chatcmpl-1", "choices": choices}));
                let role = json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]);
                vec![
                    vec![chunk(role.clone())],
                    vec![chunk(json!([])), ": ping\n\n".to_owned(), chunk(role)],
                    vec![],
                ]
            }
            Messages => {
                let start = json!({"type": "message_start", "message": {"id": "msg_1", "content": []}});
                let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text"}});
                vec![
                    vec![event(&start), event(&json!({"type": "ping"})), event(&block)],
                    vec![event(&start)],
                    vec![],
                ]
            }
        }
    }

    /// A piece of output.
    fn output(self) -> String {
        match self {
            Responses => event(&json!({"type": "response.output_text.delta", "delta": "x"})),
            Chat => event(&json!({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "x"}}]})),
            Messages => event(&json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}})),
        }
    }

    /// The event that ends a stream.
    fn last(self) -> String {
        match self {
            Responses => event(&json!({"type": "response.completed", "response": {"id": "resp_1"}})),
            Chat => "data: [DONE]\n\n".to_owned(),
            Messages => event(&json!({"type": "message_stop"})),
        }
    }

    /// A stream that succeeds.
    fn success(self) -> Vec<String> {
        let mut pieces = self.openings().swap_remove(1);
        pieces.extend([self.output(), self.last()]);
        pieces
    }

    /// The ends of streams that fail.
    fn failures(self) -> Vec<Failure> {
        match self {
            Responses => responses_failures(),
            Chat => vec![
                failure(
                    "limit",
                    &[&json!({"error": {"code": "rate_limit_exceeded", "message": "Please try again in 44s."}})],
                    Cooling(44),
                ),
                failure(
                    "quota",
                    &[&json!({"error": {"type": "insufficient_quota", "resets_in_seconds": 44}})],
                    Cooling(44),
                ),
                failure(
                    "500",
                    &[&json!({"error": {"type": "server_error", "code": null, "message": "no"}})],
                    Failed,
                ),
                failure(
                    "error in a chunk",
                    &[
                        &json!({"id": "gen-1", "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
                        "error": {"code": "server_error", "message": "no"}}),
                    ],
                    Failed,
                ),
            ],
            Messages => ["overloaded_error", "api_error"]
                .map(|kind| json!({"type": "error", "error": {"type": kind, "message": "no"}}))
                .iter()
                .map(|error| failure("overload", &[error], Failed))
                .chain([failure(
                    "limit",
                    &[&json!({"error": {"type": "rate_limit_error", "message": "Try again in 44s."}, "type": "error"})],
                    Cooling(44),
                )])
                .collect(),
        }
    }
}

use Effect::{Cooling, Failed, Nothing};

/// The effect of a failure on the health of its account.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    /// A cooldown of at least this many seconds.
    Cooling(u64),
    /// A failure.
    Failed,
    /// None.
    Nothing,
}

/// The end of a stream that fails.
#[derive(Clone, Debug)]
struct Failure {
    name: &'static str,
    events: Vec<String>,
    effect: Effect,
}

fn failure(name: &'static str, events: &[&Value], effect: Effect) -> Failure {
    Failure {
        name,
        events: events.iter().map(|data| event(data)).collect(),
        effect,
    }
}

fn response_failed(error: Value) -> Value {
    json!({"type": "response.failed", "sequence_number": 3,
        "response": {"id": "resp_1", "status": "failed", "error": error}})
}

fn responses_failures() -> Vec<Failure> {
    let quota =
        json!({"type": "error", "code": "insufficient_quota", "message": "Try again in 44s.", "sequence_number": 2});
    let no_code = json!({"type": "error", "code": null, "message": "no", "param": null});
    let server_error = json!({"type": "error", "error": {"type": "server_error", "code": null, "message": "no"}});
    let failed = |code: &str| response_failed(json!({"code": code, "message": "Please try again in 44s."}));
    let overloaded = response_failed(json!({"code": "server_is_overloaded", "message": "no"}));
    let mut long = failed("rate_limit_exceeded");
    long["response"]["instructions"] = json!("x".repeat(100 << 10));
    vec![
        failure("quota", &[&quota, &failed("insufficient_quota")], Cooling(44)),
        failure(
            "error without a code",
            &[&no_code, &failed("rate_limit_exceeded")],
            Cooling(44),
        ),
        failure("overload", &[&overloaded], Failed),
        failure("server error", &[&server_error], Failed),
        failure(
            "server error, told twice",
            &[&server_error, &response_failed(json!({"code": "server_error"}))],
            Failed,
        ),
        failure("no facts", &[&response_failed(Value::Null)], Failed),
        failure("long", &[&long], Cooling(44)),
    ]
}

/// An event as upstreams write it.
fn event(data: &Value) -> String {
    match data["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// Answers 200 with a stream of these pieces.
fn stream(pieces: &[String]) -> Act {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    // A body of one piece would have a length.
    let pieces = pieces.iter().cloned().chain([": end\n\n".to_owned()]).map(Into::into);
    Act::answer(ScriptedAnswer::Fixed(Fixed {
        status: StatusCode::OK,
        headers,
        pieces: pieces.collect(),
    }))
}

/// The text that [`stream`] sends.
fn text(pieces: &[String]) -> String {
    pieces.concat() + ": end\n\n"
}

async fn ask(gateway: &Gateway, dialect: Dialect, key: &str) -> RawResponse {
    let body = json!({"model": "gpt-5.2", "input": "hi", "messages": [], "stream": true, "prompt_cache_key": key});
    wire::ask(gateway.address, wire::post(dialect.path(), &body.to_string())).await
}

async fn upstream_status(gateway: &Gateway, name: &str) -> Value {
    let upstreams = gateway.ask("/api/upstreams").await.json();
    let list = upstreams["upstreams"].as_array().expect("a list");
    let found = list.iter().find(|upstream| upstream["name"] == name);
    found.expect("a known upstream").clone()
}

/// Checks what the failure has changed in the health of the account `a`.
async fn check_effect(gateway: &Gateway, effect: Effect, what: &str) {
    let expected = match effect {
        Cooling(_) => ("cooling", 0),
        Failed => ("ready", 1),
        Nothing => ("ready", 0),
    };
    let status = until(&format!("{what}: {effect:?}"), || async {
        let status = upstream_status(gateway, "a").await;
        let found = (status["state"].as_str()?, status["consecutive_failures"].as_u64()?);
        (found == expected).then_some(status)
    })
    .await;
    if let Cooling(seconds) = effect {
        let until = status["until"].as_u64().expect("a time");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let left = until.saturating_sub(now.expect("a time after 1970").as_secs());
        assert!(left + 2 >= seconds && left <= seconds.max(60), "{what}: {left} s");
    }
}

/// Starts two accounts, of which `b` always succeeds, and a gateway. Returns a session key with its home at `a`.
async fn start(dialect: Dialect, head: &str) -> (Vec<Sim>, Gateway, String) {
    let sims = sims(2).await;
    sims[1]
        .script()
        .add(Rule::new(stream(&dialect.success())).path(dialect.path()));
    let gateway = Gateway::before(&sims, head).await;
    let key = key_with_home(&gateway, "a").await;
    (sims, gateway, key)
}

/// Checks that a request whose stream fails at `a` as `act` says is served by `b`.
async fn check_failover(dialect: Dialect, act: Act, effect: Effect, what: &str) {
    let (sims, gateway, key) = start(dialect, HEAD).await;
    sims[0].script().once(dialect.path(), act);
    let answer = ask(&gateway, dialect, &key).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole), "{what}: {answer:?}");
    assert_eq!(answer.text(), text(&dialect.success()), "{what}");
    let routed = [
        answer.header("x-steadfast-upstream"),
        answer.header("x-steadfast-route"),
    ];
    assert_eq!(routed, [Some("b"), Some("moved")], "{what}");
    assert_eq!((sims[0].counts().requests, sims[1].counts().requests), (1, 1), "{what}");
    check_effect(&gateway, effect, what).await;
}

async fn check_failures(dialect: Dialect) {
    let openings = dialect.openings();
    for (number, failure) in dialect.failures().into_iter().enumerate() {
        for shift in 0..2 {
            let opening = &openings[(2 * number + shift) % openings.len()];
            let mut act = stream(&[opening.clone(), failure.events.clone()].concat());
            act.split = [None, Some(1009), Some(64)][(number + shift) % 3];
            let what = format!("{dialect:?} {} {:?} {:.300}", failure.name, act.split, opening.concat());
            check_failover(dialect, act, failure.effect, &what).await;
        }
    }
}

#[tokio::test]
async fn a_responses_stream_that_fails_before_its_first_output_is_replaced() {
    check_failures(Responses).await;
}

#[tokio::test]
async fn a_chat_stream_that_fails_before_its_first_output_is_replaced() {
    check_failures(Chat).await;
}

#[tokio::test]
async fn a_messages_stream_that_fails_before_its_first_output_is_replaced() {
    check_failures(Messages).await;
}

#[tokio::test]
async fn a_stream_that_ends_or_breaks_before_its_first_output_is_replaced() {
    for dialect in [Responses, Chat, Messages] {
        for (number, opening) in dialect.openings().into_iter().enumerate() {
            let cut = |how| Act {
                cut: Some((Point::Events(opening.len()), how)),
                ..stream(&opening)
            };
            let how = [Close::Fin, Close::Reset][number % 2];
            check_failover(dialect, cut(how), Failed, &format!("{dialect:?} {how:?} {number}")).await;
            check_failover(dialect, stream(&opening), Failed, &format!("{dialect:?} end {number}")).await;
        }
    }
}

#[tokio::test]
async fn a_failure_that_the_request_has_caused_is_passed_on() {
    let no_code = json!({"type": "error", "code": null, "message": "no", "param": null});
    let failed = response_failed(json!({"code": "context_length_exceeded", "message": "no"}));
    let responses = [&Responses.openings()[1][..], &[event(&no_code), event(&failed)]].concat();
    let incomplete = json!({"type": "response.incomplete", "response": {"id": "resp_1"}});
    let filtered = [&Responses.openings()[1][..], &[event(&incomplete)]].concat();
    let invalid = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}});
    let messages = [&Messages.openings()[0][..], &[event(&invalid)]].concat();
    for (dialect, pieces) in [(Responses, responses), (Responses, filtered), (Messages, messages)] {
        let (sims, gateway, key) = start(dialect, HEAD).await;
        sims[0].script().once(dialect.path(), stream(&pieces));
        let answer = ask(&gateway, dialect, &key).await;
        assert_eq!((answer.end, answer.text()), (End::Whole, text(&pieces)));
        assert_eq!(answer.header("x-steadfast-route"), Some("home"));
        check_effect(&gateway, Nothing, "passed on").await;
    }
}

#[tokio::test]
async fn when_the_streams_of_all_accounts_fail_the_last_one_is_passed_on() {
    let (sims, gateway, key) = start(Responses, HEAD).await;
    let overloaded = &responses_failures()[2];
    let pieces = [&Responses.openings()[2][..], &overloaded.events].concat();
    for sim in &sims {
        sim.script().clear();
        sim.script().always(stream(&pieces));
    }
    let answer = ask(&gateway, Responses, &key).await;
    assert_eq!((answer.status, answer.text()), (200, text(&pieces)));
    // A stream that says nothing is of no use.
    for sim in &sims {
        sim.script().clear();
        sim.script().always(stream(&Responses.openings()[1]));
    }
    let answer = ask(&gateway, Responses, &key).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "upstream_broken"));
}

#[tokio::test]
async fn a_stream_is_held_back_no_further_than_configured() {
    let failure = &responses_failures()[0];
    let pieces = [&Responses.openings()[2][..], &failure.events].concat();
    for limit in ["decide_bytes = \"4KiB\"", "decide_within = \"0s\""] {
        let (sims, gateway, key) = start(Responses, &format!("{HEAD}{limit}\n")).await;
        sims[0].script().once("/v1/responses", stream(&pieces));
        let answer = ask(&gateway, Responses, &key).await;
        assert_eq!((answer.end, answer.text()), (End::Whole, text(&pieces)), "{limit}");
        assert_eq!(answer.header("x-steadfast-upstream"), Some("a"), "{limit}");
        // The account's health is told all the same.
        check_effect(&gateway, failure.effect, limit).await;
        assert_eq!(
            ask(&gateway, Responses, &key).await.header("x-steadfast-upstream"),
            Some("b")
        );
    }
}

#[tokio::test]
async fn a_silent_stream_is_passed_on_after_the_configured_time() {
    let opening = Responses.openings()[1].concat();
    let begun = opening.clone();
    let upstream = serve_connections(move |mut wire: Wire| {
        let begun = begun.clone();
        async move {
            request(&mut wire).await;
            wire.send(format!("{}{}", wire::EVENTS, wire::chunk(&begun))).await;
            wire.closing().await;
        }
    })
    .await;
    let config = format!("{HEAD}decide_within = \"150ms\"\n");
    let config = config + &gateway::upstream_at("a", &format!("http://{upstream}/v1"), "");
    let gateway = Gateway::configured(&config).await;
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", crate::kit::STREAM)).await;
    let begun = std::time::Instant::now();
    client.skip_to(opening.trim_end()).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_leaves_while_its_stream_is_held_back_cancels_the_request() {
    let (sims, gateway, key) = start(Responses, &format!("{HEAD}decide_within = \"60s\"\n")).await;
    sims[0].script().always(Act {
        stall: Some(Point::Events(1)),
        ..stream(&Responses.openings()[1])
    });
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", &body.to_string())).await;
    until_true("the request to be in flight", || sims[0].counts().in_flight == 1).await;
    assert_eq!(client.rest(), "", "the stream is held back");
    drop(client);
    until_true("the request to be cancelled", || sims[0].counts().in_flight == 0).await;
    assert_eq!((sims[0].counts().aborted, sims[1].counts().requests), (1, 0));
    check_effect(&gateway, Nothing, "the client left").await;
}

/// Checks that the caller receives the stream of `act` unchanged, and its effect on the health of the account.
async fn check_late(dialect: Dialect, act: Act, pieces: &[String], end: End, effect: Effect) {
    let what = format!("{dialect:?} {pieces:.400?} {end:?}");
    let (sims, gateway, key) = start(dialect, HEAD).await;
    sims[0].script().once(dialect.path(), act);
    let answer = ask(&gateway, dialect, &key).await;
    assert_eq!((answer.status, answer.end), (200, end), "{what}");
    assert_eq!(answer.header("x-steadfast-upstream"), Some("a"), "{what}");
    let sent = match end {
        End::Whole => text(pieces),
        _ => pieces.concat(),
    };
    assert_eq!(answer.text(), sent, "{what}");
    assert_eq!(sims[1].counts().requests, 0, "{what}");
    check_effect(&gateway, effect, &what).await;
    let late_failures = f64::from(u8::from(!matches!(effect, Nothing)));
    let counted = gateway.metric("steadfast_late_failures_total").await;
    assert_eq!(counted, late_failures, "{what}");
    if matches!(effect, Cooling(_)) {
        let next = ask(&gateway, dialect, &key).await;
        assert_eq!(next.header("x-steadfast-upstream"), Some("b"), "{what}");
    }
}

#[tokio::test]
async fn a_failure_after_the_first_output_reaches_the_caller_and_the_accounts_health() {
    for dialect in [Responses, Chat, Messages] {
        let begun = [&dialect.openings()[0][..], &[dialect.output(), dialect.output()]].concat();
        for (number, failure) in dialect.failures().into_iter().enumerate() {
            let pieces = [begun.clone(), failure.events].concat();
            let mut act = stream(&pieces);
            act.split = [None, Some(100)][number % 2];
            check_late(dialect, act, &pieces, End::Whole, failure.effect).await;
        }
    }
}

#[tokio::test]
async fn the_reset_of_a_late_limit_may_be_named_by_its_second_event() {
    let begun = [&Responses.openings()[0][..], &[Responses.output()]].concat();
    let error = json!({"type": "error", "code": "rate_limit_exceeded", "message": "no"});
    let failed = response_failed(json!({"code": "rate_limit_exceeded", "message": "Try again in 44s."}));
    let pieces = [&begun[..], &[event(&error), event(&failed)]].concat();
    let mut act = stream(&pieces);
    act.split = Some(50);
    check_late(Responses, act, &pieces, End::Whole, Cooling(44)).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_after_its_first_output_is_a_failure_of_the_account() {
    for dialect in [Responses, Chat, Messages] {
        let begun = [&dialect.openings()[0][..], &[dialect.output()]].concat();
        let cut = Act {
            cut: Some((Point::Events(begun.len()), Close::Fin)),
            ..stream(&begun)
        };
        check_late(dialect, cut, &begun, End::Cut, Failed).await;
        // A chat completion may end without `[DONE]`.
        let effect = if dialect == Chat { Nothing } else { Failed };
        check_late(dialect, stream(&begun), &begun, End::Whole, effect).await;
        let whole = [&begun[..], &[dialect.last()]].concat();
        check_late(dialect, stream(&whole), &whole, End::Whole, Nothing).await;
    }
}

#[tokio::test]
async fn a_failure_after_the_first_output_that_the_request_has_caused_is_not_the_accounts() {
    let begun = [&Responses.openings()[0][..], &[Responses.output()]].concat();
    for last in [
        response_failed(json!({"code": "context_length_exceeded", "message": "no"})),
        response_failed(json!({"code": "content_filter", "message": "no"})),
        json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}),
    ] {
        let pieces = [&begun[..], &[event(&last)]].concat();
        check_late(Responses, stream(&pieces), &pieces, End::Whole, Nothing).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_after_the_first_output_is_no_failure() {
    let (sims, gateway, key) = start(Responses, HEAD).await;
    let pieces = [&Responses.openings()[1][..], &[Responses.output()]].concat();
    sims[0].script().once(
        "/v1/responses",
        Act {
            stall: Some(Point::Events(pieces.len())),
            ..stream(&pieces)
        },
    );
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", &body.to_string())).await;
    client.skip_to("output_text.delta").await;
    drop(client);
    until_true("the request to be cancelled", || sims[0].counts().in_flight == 0).await;
    let line = until("an access log line", || std::future::ready(gateway.access().pop())).await;
    assert_eq!(line["outcome"], "client_gone");
    check_effect(&gateway, Nothing, "the client left").await;
}
