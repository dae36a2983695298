//! Upstreams that are killed, cut and stalled at random under load: nothing hangs, and nothing broken looks whole.

use std::time::{Duration, Instant};

use serde_json::json;
use steadfast::sim::{Act, After, Close, Point, Rule, ScriptedAnswer, Sim, SimConfig};

use crate::kit::{
    client,
    gateway::Gateway,
    sims, until,
    wire::{self, End, Wire},
};

const LASTS: Duration = Duration::from_secs(4);

fn config(name: &str) -> SimConfig {
    SimConfig {
        name: name.to_owned(),
        pace: Duration::from_millis(2),
        ..SimConfig::default()
    }
}

fn mishap() -> Act {
    let how = if fastrand::bool() { Close::Fin } else { Close::Reset };
    match fastrand::u8(..8) {
        0 => Act::cut(Point::Events(fastrand::usize(..12)), how),
        1 => Act::cut(Point::Bytes(fastrand::usize(..3000)), how),
        2 => Act::stall(Point::Events(fastrand::usize(..12))),
        3 => Act::stall(Point::Bytes(fastrand::usize(..3000))),
        4 => Act::answer(ScriptedAnswer::Close(how)),
        5 => Act::answer(ScriptedAnswer::Raw(
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbro".into(),
        )),
        6 => Act {
            after: After::Silent,
            ..Act::default()
        },
        _ => Act::delay(Duration::from_millis(fastrand::u64(..900))),
    }
}

/// Kills, restarts and disturbs until the time is over, and then leaves everything in order.
async fn trouble(mut sims: Vec<Sim>, until: Instant) -> Vec<Sim> {
    while Instant::now() < until {
        let at = fastrand::usize(..sims.len());
        sims[at].script().add(Rule::new(mishap()).times(fastrand::u64(1..10)));
        if fastrand::u8(..10) == 0 {
            let sim = sims.swap_remove(at);
            let (address, config) = (sim.address(), config(sim.name()));
            sim.stop().await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..100))).await;
            sims.push(Sim::start(address, config).await.expect("the address is free again"));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..30))).await;
    }
    sims.iter().for_each(|sim| sim.script().clear());
    sims
}

/// One client's requests until the time is over; returns how many were whole and how many were not.
async fn load(address: std::net::SocketAddr, number: usize, until: Instant) -> (usize, usize) {
    let (mut whole, mut broken) = (0, 0);
    while Instant::now() < until {
        let stream = fastrand::bool();
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": stream, "prompt_cache_key": number.to_string()});
        let request = wire::post("/v1/responses", &body.to_string());
        if fastrand::u8(..8) == 0 {
            // A client of little patience.
            let mut wire = Wire::open(address).await;
            wire.send(request).await;
            continue;
        }
        let answer = client::raw(
            address,
            request.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes(),
        )
        .await;
        match verdict(&answer) {
            Some(true) => whole += 1,
            Some(false) => broken += 1,
            None => panic!("a broken answer that looks whole: {answer}"),
        }
    }
    (whole, broken)
}

/// Whether an answer is whole; nothing where its framing says so and its content does not.
fn verdict(answer: &str) -> Option<bool> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Some(false);
    };
    if head.starts_with("HTTP/1.1 50") {
        return body.ends_with("}}").then_some(false);
    }
    if head.contains("transfer-encoding: chunked") {
        let is_ended = body.ends_with("\r\n0\r\n\r\n");
        return (!is_ended || body.contains("event: response.completed")).then_some(is_ended);
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
    let is_ended = body.len() == length;
    (!is_ended || body.starts_with("{\"id\":\"resp_")).then_some(is_ended)
}

#[tokio::test]
async fn nothing_hangs_and_nothing_broken_looks_whole() {
    let mut sims = sims(3).await;
    let head = "[timeouts]\nidle = \"500ms\"\nhead = \"700ms\"\n";
    let mut gateway = Gateway::before(&sims, head).await;
    let ends = Instant::now() + LASTS;
    let address = gateway.address;
    let clients: Vec<_> = (0..24)
        .map(|number| tokio::spawn(load(address, number, ends)))
        .collect();
    sims = trouble(sims, ends).await;
    let (mut whole, mut broken) = (0, 0);
    for client in clients {
        let counted = client.await.expect("no client hangs or is deceived");
        whole += counted.0;
        broken += counted.1;
    }
    assert!(whole > 50 && broken > 20, "{whole} whole, {broken} broken");
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        until(metric, || async { (gateway.metric(metric).await == 0.0).then_some(()) }).await;
    }
    for number in 0..24 {
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": number.to_string()});
        let answer = wire::ask(address, wire::post("/v1/responses", &body.to_string())).await;
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{answer:?}");
    }
    drop(sims);
    assert!(
        !gateway.log().iter().any(|line| line.contains("panicked")),
        "{:?}",
        gateway.log()
    );
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}
