//! Accounts that are limited, fail always or now and then, hang, cut streams and restart at random, under load and during
//! reloads. Some clients repeat requests that fail at every account. While one account works, every other request is
//! served, and no broken response looks whole.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, Rule, ScriptedAnswer, Sim, SimConfig};

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    sessions::usage_limit_reached,
    sims,
    wire::{self, End, RawResponse},
};

const DURATION: Duration = Duration::from_secs(6);
/// The minimum number of faults. On a slow machine, the storm lasts longer.
const ROUNDS: u32 = 60;
const SESSIONS: usize = 200;
const HEAD: &str = "[timeouts]\nhead = \"3s\"\nidle = \"2s\"\n[affinity]\nwait = \"100ms\"\nwait_max = \"300ms\"\n\
                    [retry]\nattempts = 4\nbudget = 1.0\non_timeout = true\n";
/// The number of clients that repeat a poisoned request.
const POISONED: usize = 4;
/// The target of a poisoned request, which every account answers with 500.
const POISONED_TARGET: &str = "/v1/responses?poisoned";

fn config(sims: &[Sim], weight: u32) -> String {
    let lines = [
        "max_in_flight = 8".to_owned(),
        String::new(),
        String::new(),
        format!("weight = {weight}"),
    ];
    let upstreams = sims.iter().zip(lines).map(|(sim, lines)| upstream(sim, &lines));
    HEAD.to_owned() + &upstreams.collect::<String>()
}

/// A stream that begins as usual and fails with `code`, after its first output if there is one.
fn failed_stream(code: &str, output: &[Value]) -> Act {
    let echo = "instructions ".repeat(2_000);
    let response = json!({"id": "resp_failed", "status": "in_progress", "instructions": echo});
    let mut events = vec![
        json!({"type": "response.created", "response": response}),
        json!({"type": "response.in_progress", "response": response}),
    ];
    events.extend_from_slice(output);
    let error = json!({"code": code, "message": "Please try again in 2s."});
    events.push(json!({"type": "error", "error": {"type": code, "code": null, "message": "no"}}));
    events.push(json!({
        "type": "response.failed", "response": {"id": "resp_failed", "status": "failed", "instructions": echo, "error": error}
    }));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = number.into();
    }
    Act::events(&events)
}

/// A rule by which an account fails its next requests. Only requests for a stream are answered with a stream.
fn random_rule() -> Rule {
    let times = fastrand::u64(1..6);
    match fastrand::u8(..12) {
        0 => half_broken().times(20),
        1..4 => Rule::new(random_stream_fault())
            .body(|body| body["stream"] == true)
            .times(times),
        _ => Rule::new(random_fault()).times(times),
    }
}

fn random_stream_fault() -> Act {
    let code = [
        "server_error",
        "server_is_overloaded",
        "rate_limit_exceeded",
        "insufficient_quota",
    ];
    let code = code[fastrand::usize(..code.len())];
    match fastrand::u8(..3) {
        0 => Act::events(&[
            json!({"type": "response.failed", "response": {"error": {"code": "server_is_overloaded", "message": "no"}}}),
        ]),
        1 => failed_stream(code, &[]),
        _ => failed_stream(code, &[json!({"type": "response.output_text.delta", "delta": "The"})]),
    }
}

fn random_fault() -> Act {
    let how = if fastrand::bool() { Close::Fin } else { Close::Reset };
    let error = json!({"error": {"message": "no", "type": "t", "param": null, "code": "c"}});
    match fastrand::u8(..9) {
        0 => usage_limit_reached(fastrand::u64(..2)),
        1 => usage_limit_reached(600),
        2 => Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error),
        3 => Act::reply(StatusCode::SERVICE_UNAVAILABLE, &error),
        4 => Act::answer(ScriptedAnswer::Never),
        5 => Act::answer(ScriptedAnswer::Close(how)),
        6 => Act::cut(Point::Events(fastrand::usize(..12)), how),
        // A limit of the current minute, without the words of a quota.
        7 => Act::reply(StatusCode::TOO_MANY_REQUESTS, &error).header(RETRY_AFTER, HeaderValue::from_static("1")),
        _ => Act::cut(Point::Bytes(fastrand::usize(..3000)), how),
    }
}

/// A rule by which an account fails some of its requests, and never five in a row for long.
fn half_broken() -> Rule {
    let error = json!({"error": {"message": "no", "type": "server_error", "param": null, "code": null}});
    let act = Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error);
    Rule::new(act).head(|_| fastrand::u8(..100) < 35)
}

/// The rule by which every account fails the poisoned requests.
fn poisoned() -> Rule {
    let error = json!({"error": {"message": "poisoned", "type": "server_error", "param": null, "code": null}});
    let act = Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error);
    Rule::new(act).head(|head| head.target.ends_with("?poisoned"))
}

/// Injects faults into all accounts but the last, and reloads the configuration, for
/// [`DURATION`] and [`ROUNDS`].
async fn inject_faults(gateway: &Gateway, mut sims: Vec<Sim>) -> Vec<Sim> {
    let ends = Instant::now() + DURATION;
    let mut round = 0;
    while round < ROUNDS || Instant::now() < ends {
        let at = fastrand::usize(..sims.len() - 1);
        sims[at].script().add(random_rule());
        if round % 24 == 12 {
            let sim = sims.remove(at);
            let (address, name) = (sim.address(), sim.name().to_owned());
            sim.stop().await;
            let config = SimConfig {
                name,
                ..SimConfig::default()
            };
            let sim = Sim::start(address, config)
                .await
                .expect("the address can be bound again");
            sim.script().add(poisoned());
            sims.insert(at, sim);
        }
        if round % 8 == 4 {
            gateway.write(&config(&sims, 1 + round / 8 % 2));
            gateway.signal("HUP").await;
        }
        if round % 2 == 0 {
            // The account is enabled again. Otherwise the accounts that fail would soon receive no more requests.
            let path = format!("/api/upstreams/{}/enable", sims[at].name());
            client::send(gateway.admin, client::post(&path, "")).await;
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..25))).await;
    }
    sims
}

/// The responses of one session, or of all.
#[derive(Default)]
struct Responses {
    whole: usize,
    /// The number of responses that are visibly broken after their first output.
    broken: usize,
    /// The responses that a working account could have given better.
    lost: Vec<RawResponse>,
}

/// Sends the requests of one session after the other until `ended` is set.
async fn sessions(address: SocketAddr, number: usize, ended: Arc<AtomicBool>) -> Responses {
    let mut responses = Responses::default();
    let mut begun = 0;
    while !ended.load(Relaxed) {
        let stream = fastrand::bool();
        // A session that has moved stays where it is. New sessions also meet the accounts that fail.
        begun += usize::from(fastrand::u8(..4) == 0);
        let key = format!("storm-{number}-{begun}");
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": stream, "prompt_cache_key": key});
        let answer = wire::ask(address, wire::post("/v1/responses", &body.to_string())).await;
        if answer.status != 200 || (stream && failed_before_output(&answer)) {
            responses.lost.push(answer);
        } else if answer.end != End::Whole || (stream && has_failed(&answer)) {
            responses.broken += 1;
        } else {
            responses.whole += 1;
            assert_is_whole(&answer, stream);
        }
    }
    responses
}

/// Whether a stream reports a failure.
fn has_failed(stream: &RawResponse) -> bool {
    stream.text().contains("\"type\":\"response.failed\"")
}

/// Whether a stream reports a failure and has no output, so that another account could have served the request.
fn failed_before_output(stream: &RawResponse) -> bool {
    has_failed(stream) && !stream.text().contains("response.output_")
}

/// Repeats a request that fails at every account until `ended` is set.
async fn poison(address: SocketAddr, number: usize, ended: Arc<AtomicBool>) {
    while !ended.load(Relaxed) {
        let key = format!("poison-{number}");
        let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": key});
        let answer = wire::ask(address, wire::post(POISONED_TARGET, &body.to_string())).await;
        assert!(answer.status >= 429 && answer.end == End::Whole, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that a response with a whole body is the response to its request.
fn assert_is_whole(answer: &RawResponse, stream: bool) {
    if stream {
        assert_is_one_stream(&answer.text());
    } else {
        let response: Value = serde_json::from_slice(&answer.body).expect("whole JSON");
        assert_eq!(response["status"], "completed");
    }
}

/// Checks that a stream is whole, in order, and of one response.
fn assert_is_one_stream(text: &str) {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).expect("JSON")).collect();
    let numbers = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().expect("a number"));
    assert!(numbers.eq(0..events.len() as u64), "{text}");
    let mut ids: Vec<&Value> = events
        .iter()
        .map(|event| &event["response"]["id"])
        .filter(|id| id.is_string())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{text}");
    assert_eq!(events.last().expect("events")["type"], "response.completed", "{text}");
}

#[tokio::test]
async fn every_request_is_served_while_one_account_works() {
    let sims = sims(4).await;
    let gateway = Gateway::configured(&config(&sims, 1)).await;
    sims.iter().for_each(|sim| sim.script().add(poisoned()));
    let ended = Arc::new(AtomicBool::new(false));
    let poisoners: Vec<_> = (0..POISONED)
        .map(|number| tokio::spawn(poison(gateway.address, number, ended.clone())))
        .collect();
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| tokio::spawn(sessions(gateway.address, number, ended.clone())))
        .collect();
    let sims = inject_faults(&gateway, sims).await;
    ended.store(true, Relaxed);
    for poisoner in poisoners {
        poisoner.await.expect("every poisoned request is refused in time");
    }
    sims.iter().for_each(|sim| sim.script().clear());
    let (mut whole, mut broken, mut lost) = (0, 0, Vec::new());
    for session in sessions {
        let responses = session.await.expect("every response is whole or visibly broken");
        whole += responses.whole;
        broken += responses.broken;
        lost.extend(responses.lost);
    }
    for answer in &lost {
        let id = answer.header("x-request-id").expect("an id");
        eprintln!("{answer:?}\n{}", gateway.access_of(id).await);
    }
    assert!(
        lost.is_empty(),
        "a working account could have served {} of {whole} requests",
        lost.len()
    );
    assert!(whole > SESSIONS && broken > 0, "{whole} whole, {broken} broken");
    assert!(gateway.metric("steadfast_failovers_total").await > 10.0);
    assert!(gateway.metric("steadfast_reloads_total{outcome=\"applied\"}").await > 2.0);
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_waiting_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
    assert!(
        !gateway.log().iter().any(|line| line.contains("panicked")),
        "{:?}",
        gateway.log()
    );
    drop(sims);
}
