//! Accounts that are limited, fail, hang, cut streams and restart at random, under load and during reloads. While one
//! account works, every request is served, and no broken response looks whole.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, Rule, ScriptedAnswer, Sim, SimConfig};

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    sessions::usage_limit_reached,
    sims,
    wire::{self, End},
};

const DURATION: Duration = Duration::from_secs(6);
const SESSIONS: usize = 200;
const HEAD: &str = "[timeouts]\nhead = \"3s\"\nidle = \"2s\"\n[affinity]\nwait = \"100ms\"\nwait_max = \"300ms\"\n\
                    [retry]\nattempts = 4\nbudget = 1.0\non_timeout = true\n";

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
        7 => Act::events(&[
            json!({"type": "response.failed", "response": {"error": {"code": "server_is_overloaded", "message": "no"}}}),
        ]),
        _ => Act::cut(Point::Bytes(fastrand::usize(..3000)), how),
    }
}

/// Injects faults into all accounts but the last, and reloads the configuration, until `ends`; then removes all
/// faults.
async fn inject_faults(gateway: &Gateway, mut sims: Vec<Sim>, ends: Instant) -> Vec<Sim> {
    let mut round = 0;
    while Instant::now() < ends {
        let at = fastrand::usize(..sims.len() - 1);
        sims[at]
            .script()
            .add(Rule::new(random_fault()).times(fastrand::u64(1..6)));
        if round % 24 == 12 {
            let sim = sims.remove(at);
            let (address, name) = (sim.address(), sim.name().to_owned());
            sim.stop().await;
            let config = SimConfig {
                name,
                ..SimConfig::default()
            };
            sims.insert(
                at,
                Sim::start(address, config)
                    .await
                    .expect("the address can be bound again"),
            );
        }
        if round % 8 == 4 {
            gateway.write(&config(&sims, 1 + round / 8 % 2));
            gateway.signal("HUP").await;
        }
        if round % 8 == 0 {
            // The account is enabled again. Otherwise the accounts that fail would soon receive no more requests.
            let path = format!("/api/upstreams/{}/enable", sims[at].name());
            client::send(gateway.admin, client::post(&path, "")).await;
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..25))).await;
    }
    sims.iter().for_each(|sim| sim.script().clear());
    sims
}

/// Sends the requests of one session until `ends`. Returns the numbers of whole and of visibly broken responses.
async fn session(address: SocketAddr, number: usize, ends: Instant) -> (usize, usize) {
    let (mut whole, mut broken) = (0, 0);
    while Instant::now() < ends {
        let stream = fastrand::bool();
        let key = format!("storm-{number}");
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": stream, "prompt_cache_key": key});
        let answer = wire::ask(address, wire::post("/v1/responses", &body.to_string())).await;
        assert_eq!(
            answer.status, 200,
            "a working upstream could have served this request: {answer:?}"
        );
        if answer.end != End::Whole {
            broken += 1;
            continue;
        }
        whole += 1;
        if stream {
            assert_is_one_stream(&answer.text());
        } else {
            let response: Value = serde_json::from_slice(&answer.body).expect("whole JSON");
            assert_eq!(response["status"], "completed");
        }
    }
    (whole, broken)
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
    let ends = Instant::now() + DURATION;
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| tokio::spawn(session(gateway.address, number, ends)))
        .collect();
    let sims = inject_faults(&gateway, sims, ends).await;
    let (mut whole, mut broken) = (0, 0);
    for session in sessions {
        let counted = session.await.expect("every request of the session is served");
        whole += counted.0;
        broken += counted.1;
    }
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
