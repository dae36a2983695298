//! Upstreams that are stopped, cut and stalled at random under load. No request hangs, and no broken response looks
//! whole.

use std::time::{Duration, Instant};

use serde_json::json;
use steadfast::sim::{Act, After, Close, Point, Rule, ScriptedAnswer, Sim, SimConfig};

use crate::kit::{
    client,
    gateway::Gateway,
    sims,
    wire::{self, End, Wire},
};

const DURATION: Duration = Duration::from_secs(4);

fn config(name: &str) -> SimConfig {
    SimConfig {
        name: name.to_owned(),
        pace: Duration::from_millis(2),
        ..SimConfig::default()
    }
}

fn random_fault() -> Act {
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

/// Restarts accounts and injects faults until `until`, then removes all faults.
async fn inject_faults(mut sims: Vec<Sim>, until: Instant) -> Vec<Sim> {
    while Instant::now() < until {
        let at = fastrand::usize(..sims.len());
        sims[at]
            .script()
            .add(Rule::new(random_fault()).times(fastrand::u64(1..10)));
        if fastrand::u8(..10) == 0 {
            let sim = sims.swap_remove(at);
            let (address, config) = (sim.address(), config(sim.name()));
            sim.stop().await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..100))).await;
            sims.push(
                Sim::start(address, config)
                    .await
                    .expect("the address can be bound again"),
            );
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..30))).await;
    }
    sims.iter().for_each(|sim| sim.script().clear());
    sims
}

/// Sends the requests of one client until `until`. Returns the numbers of whole and of broken responses.
async fn send_requests(address: std::net::SocketAddr, number: usize, until: Instant) -> (usize, usize) {
    let (mut whole, mut broken) = (0, 0);
    while Instant::now() < until {
        let stream = fastrand::bool();
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": stream, "prompt_cache_key": number.to_string()});
        let request = wire::post("/v1/responses", &body.to_string());
        if fastrand::u8(..8) == 0 {
            // This client leaves before the response.
            let mut wire = Wire::open(address).await;
            wire.send(request).await;
            continue;
        }
        let answer = client::raw(
            address,
            request.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes(),
        )
        .await;
        match is_whole(&answer) {
            Some(true) => whole += 1,
            Some(false) => broken += 1,
            None => panic!("a broken response looks whole: {answer}"),
        }
    }
    (whole, broken)
}

/// Returns whether a response is whole, or `None` if its framing ends correctly but its content does not.
fn is_whole(answer: &str) -> Option<bool> {
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
async fn no_request_hangs_and_no_broken_response_looks_whole() {
    let mut sims = sims(3).await;
    let head = "[timeouts]\nidle = \"500ms\"\nhead = \"700ms\"\n";
    let mut gateway = Gateway::before(&sims, head).await;
    let ends = Instant::now() + DURATION;
    let address = gateway.address;
    let clients: Vec<_> = (0..24)
        .map(|number| tokio::spawn(send_requests(address, number, ends)))
        .collect();
    sims = inject_faults(sims, ends).await;
    let (mut whole, mut broken) = (0, 0);
    for client in clients {
        let counted = client.await.expect("no client hangs or accepts a broken response");
        whole += counted.0;
        broken += counted.1;
    }
    assert!(whole > 50 && broken > 20, "{whole} whole, {broken} broken");
    for metric in [
        "steadfast_in_flight_requests",
        "steadfast_connections",
        "steadfast_buffered_bytes",
    ] {
        gateway.metric_reaches(metric, 0.0).await;
    }
    // Sessions that have failed everywhere are braked, for up to half a minute. The operator ends that.
    for sim in &sims {
        let enable = client::post(&format!("/api/upstreams/{}/enable", sim.name()), "");
        assert_eq!(client::send(gateway.admin, enable).await.status, 200);
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
