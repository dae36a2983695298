//! Streams of each dialect: how they begin, what they output and how they fail; and checks of what a failure does to the
//! caller and to the health of the account.

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Fixed, Rule, ScriptedAnswer, Sim};

use super::{
    gateway::Gateway,
    sessions::key_with_home,
    sims, until,
    wire::{self, End, RawResponse},
};

/// A retry for each request, so that no test depends on the rate of its requests.
pub const HEAD: &str = "[retry]\nbudget = 1.0\n";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dialect {
    Responses,
    Chat,
    Messages,
}

pub use Dialect::{Chat, Messages, Responses};

impl Dialect {
    pub fn path(self) -> &'static str {
        match self {
            Responses => "/v1/responses",
            Chat => "/v1/chat/completions",
            Messages => "/v1/messages",
        }
    }

    /// The beginnings of a stream, up to its first output.
    pub fn openings(self) -> Vec<Vec<String>> {
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
    pub fn output(self) -> String {
        match self {
            Responses => event(&json!({"type": "response.output_text.delta", "delta": "x"})),
            Chat => event(&json!({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "x"}}]})),
            Messages => event(&json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}})),
        }
    }

    /// The event that ends a stream.
    pub fn last(self) -> String {
        match self {
            Responses => event(&json!({"type": "response.completed", "response": {"id": "resp_1"}})),
            Chat => "data: [DONE]\n\n".to_owned(),
            Messages => event(&json!({"type": "message_stop"})),
        }
    }

    /// A stream that succeeds.
    pub fn success(self) -> Vec<String> {
        let mut pieces = self.openings().swap_remove(1);
        pieces.extend([self.output(), self.last()]);
        pieces
    }

    /// The ends of streams that fail.
    pub fn failures(self) -> Vec<Failure> {
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

pub use Effect::{Cooling, Failed, Nothing};

/// The effect of a failure on the health of its account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// A cooldown of at least this many seconds.
    Cooling(u64),
    /// A failure.
    Failed,
    /// None.
    Nothing,
}

/// The end of a stream that fails.
#[derive(Clone, Debug)]
pub struct Failure {
    pub name: &'static str,
    pub events: Vec<String>,
    pub effect: Effect,
}

fn failure(name: &'static str, events: &[&Value], effect: Effect) -> Failure {
    Failure {
        name,
        events: events.iter().map(|data| event(data)).collect(),
        effect,
    }
}

pub fn response_failed(error: Value) -> Value {
    json!({"type": "response.failed", "sequence_number": 3,
        "response": {"id": "resp_1", "status": "failed", "error": error}})
}

pub fn responses_failures() -> Vec<Failure> {
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
        failure(
            "reset in the second event",
            &[
                &json!({"type": "error", "code": "insufficient_quota"}),
                &failed("insufficient_quota"),
            ],
            Cooling(44),
        ),
        failure("no facts", &[&response_failed(Value::Null)], Failed),
        failure("long", &[&long], Cooling(44)),
    ]
}

/// An event as upstreams write it.
pub fn event(data: &Value) -> String {
    match data["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// Answers 200 with a stream of these pieces.
pub fn stream(pieces: &[String]) -> Act {
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
pub fn text(pieces: &[String]) -> String {
    pieces.concat() + ": end\n\n"
}

pub async fn ask(gateway: &Gateway, dialect: Dialect, key: &str) -> RawResponse {
    let body = json!({"model": "gpt-5.2", "input": "hi", "messages": [], "stream": true, "prompt_cache_key": key});
    wire::ask(gateway.address, wire::post(dialect.path(), &body.to_string())).await
}

pub async fn upstream_status(gateway: &Gateway, name: &str) -> Value {
    let upstreams = gateway.ask("/api/upstreams").await.json();
    let list = upstreams["upstreams"].as_array().expect("a list");
    let found = list.iter().find(|upstream| upstream["name"] == name);
    found.expect("a known upstream").clone()
}

/// Checks what the failure has changed in the health of the account `a`.
pub async fn check_effect(gateway: &Gateway, effect: Effect, what: &str) {
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
pub async fn start(dialect: Dialect, head: &str) -> (Vec<Sim>, Gateway, String) {
    let sims = sims(2).await;
    sims[1]
        .script()
        .add(Rule::new(stream(&dialect.success())).path(dialect.path()));
    let gateway = Gateway::before(&sims, head).await;
    let key = key_with_home(&gateway, "a").await;
    (sims, gateway, key)
}

/// Checks that a request whose stream fails at `a` as `act` says is served by `b`.
pub async fn check_failover(dialect: Dialect, act: Act, effect: Effect, what: &str) {
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

/// Checks that the caller receives the stream of `act` unchanged, and its effect on the health of the account.
pub async fn check_late(dialect: Dialect, act: Act, pieces: &[String], end: End, effect: Effect) {
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
