//! The age of connections to upstreams, and TCP keepalive towards clients.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::channel::Channel;
use steadfast::sim::Sim;

use crate::kit::{
    STREAM, TIMEOUT, WHOLE,
    gateway::{Gateway, upstream, upstream_at},
    proxy::{Tunnel, connect_proxy},
    sim, sim_with, tls, until,
    wire::{self, Wire},
};

const SHORT_AGE: &str = "[timeouts]\nconnection_age = \"300ms\"\n";

async fn turn(wire: &mut Wire, body: &str) {
    wire.send(wire::post("/v1/responses", body)).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The number of the connection of each request.
fn connections(sim: &Sim) -> Vec<u64> {
    sim.requests().iter().map(|request| request.connection).collect()
}

#[tokio::test]
async fn a_connection_carries_no_request_after_its_age() {
    let sim = sim("a").await;
    let gateway = Gateway::configured(&format!("{SHORT_AGE}{}", upstream(&sim, ""))).await;
    let mut client = Wire::open(gateway.address).await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1200) {
        turn(&mut client, WHOLE).await;
    }
    let used = connections(&sim);
    let last = *used.last().expect("a request");
    assert!((2..=5).contains(&last), "{last} connections in 1200 ms");
    assert!(used.len() as u64 > last, "connections are used again: {used:?}");
    // Without a limit, all requests share a connection. A connection that is not ready yet may cost a second one.
    let unlimited = Gateway::configured(&format!("[timeouts]\nconnection_age = \"0s\"\n{}", upstream(&sim, ""))).await;
    let before = sim.requests().len();
    let mut client = Wire::open(unlimited.address).await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        turn(&mut client, WHOLE).await;
    }
    let mut used = connections(&sim).split_off(before);
    used.dedup();
    assert!(used.len() <= 2, "{used:?}");
}

#[tokio::test]
async fn a_stream_that_runs_is_not_cut_and_its_connection_is_closed_after_it() {
    let sim = sim_with("a", |config| config.pace = Duration::from_millis(150)).await;
    let gateway = Gateway::configured(&format!("{SHORT_AGE}{}", upstream(&sim, ""))).await;
    let mut client = Wire::open(gateway.address).await;
    let begun = tokio::time::Instant::now();
    turn(&mut client, STREAM).await;
    assert!(
        begun.elapsed() > Duration::from_millis(400),
        "the stream is older than the age"
    );
    turn(&mut client, WHOLE).await;
    assert_eq!(connections(&sim), [1, 2]);
}

#[tokio::test]
async fn an_http2_connection_gets_no_stream_after_its_age() {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, connections) = tls::http2_upstream(&identity, |_: Request<Bytes>| {
        let (mut sender, body) = Channel::new(1);
        tokio::spawn(async move {
            // The stream is older than its connection may be.
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let _ = sender.send_data(Bytes::from_static(b"data: {}\n\n")).await;
            }
        });
        body
    })
    .await;
    let lines = format!("ca = {:?}\nhttp2 = true", identity.ca);
    let table = upstream_at("a", &format!("https://{address}/v1"), &lines);
    let gateway = Gateway::configured(&format!("{SHORT_AGE}{table}")).await;
    for expected in 1..=3 {
        let answer = wire::ask(gateway.address, wire::post("/v1/files", STREAM)).await;
        assert_eq!((answer.status, answer.end), (200, wire::End::Whole), "{answer:?}");
        assert_eq!(answer.text().len(), 6 * "data: {}\n\n".len());
        assert_eq!(*connections.lock(), expected);
    }
}

/// A proxy resolves the name of the upstream here, as a name server does without a proxy.
#[tokio::test]
async fn a_changed_address_of_the_upstream_is_followed() {
    let (old, new) = (sim("old").await, sim("new").await);
    let names = connect_proxy(Tunnel::To(old.address())).await;
    let line = format!("proxy = \"http://{}\"", names.address);
    let table = upstream_at("a", "http://api.example.invalid/v1", &line);
    let gateway = Gateway::configured(&format!("{SHORT_AGE}{table}")).await;
    let mut client = Wire::open(gateway.address).await;
    turn(&mut client, WHOLE).await;
    names.set(Tunnel::To(new.address()));
    // The client asks again and again, so the connection is never idle.
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while new.requests().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the old address is still used");
        turn(&mut client, WHOLE).await;
    }
    let at_old = old.requests().len();
    for _ in 0..5 {
        turn(&mut client, WHOLE).await;
    }
    assert_eq!(
        old.requests().len(),
        at_old,
        "no request goes to the old address any more"
    );
}

/// The timer of the server's side of the connection from `client` in `/proc/net/tcp`: 2 is keepalive, with the time until
/// the next probe in hundredths of a second.
fn timer(server: SocketAddr, client: SocketAddr) -> Option<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let ports = [format!(":{:04X}", server.port()), format!(":{:04X}", client.port())];
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !fields.get(1)?.ends_with(&ports[0]) || !fields.get(2)?.ends_with(&ports[1]) {
            return None;
        }
        let (kind, when) = fields.get(5)?.split_once(':')?;
        Some((u64::from_str_radix(kind, 16).ok()?, u64::from_str_radix(when, 16).ok()?))
    })
}

#[tokio::test]
async fn idle_clients_are_probed_unless_keepalive_is_off() {
    let sim = sim("a").await;
    for (head, most) in [
        ("", Some(6000)),
        ("[server]\nkeepalive = \"7s\"\n", Some(700)),
        ("[server]\nkeepalive = \"0s\"\n", None),
    ] {
        let gateway = Gateway::configured(&format!("{head}{}", upstream(&sim, ""))).await;
        let mut client = Wire::open(gateway.address).await;
        turn(&mut client, WHOLE).await;
        let own = client.stream.local_addr().expect("connected");
        let expected = |(kind, when): (u64, u64)| match most {
            Some(most) => kind == 2 && when <= most && when + 300 > most,
            None => kind == 0,
        };
        // After the response, the kernel first waits for its acknowledgement.
        until(&format!("a probe within {most:?}"), || {
            let timer = timer(gateway.address, own);
            std::future::ready(timer.filter(|timer| expected(*timer)))
        })
        .await;
    }
}
