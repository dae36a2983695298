//! Shutdown: running requests may finish, new connections are refused, and a second signal stops at once.

use std::time::{Duration, Instant};

use steadfast::sim::{Act, Point, Sim};
use tokio::net::{TcpStream, UnixStream};

use crate::kit::{
    STREAM,
    gateway::{self, Gateway},
    gateway_with_sim, sim_with, until, until_true,
    wire::{self, End, Wire},
};

/// Starts a gateway and a stream that lasts about a second.
async fn streaming(head: &str) -> (Sim, Gateway, Wire) {
    let sim = sim_with("a", |config| config.pace = Duration::from_millis(80)).await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), head).await;
    let wire = begin(&gateway).await;
    (sim, gateway, wire)
}

/// Sends a request and waits for the beginning of its response.
async fn begin(gateway: &Gateway) -> Wire {
    let mut wire = Wire::open(gateway.address).await;
    wire.send(wire::post("/v1/responses", STREAM)).await;
    until("the beginning of the response", || async {
        wire.stream.readable().await.ok()
    })
    .await;
    wire
}

/// Waits until new connections are refused.
async fn until_draining(gateway: &Gateway) {
    let gone = || async { TcpStream::connect(gateway.address).await.is_err().then_some(()) };
    until("new connections to be refused", gone).await;
}

#[tokio::test]
async fn running_streams_finish_and_the_program_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let (sim, mut gateway, mut wire) = streaming("").await;
        assert_eq!(gateway.ask("/readyz").await.status, 200);
        gateway.signal(signal).await;
        until_draining(&gateway).await;
        assert_eq!(gateway.ask("/readyz").await.status, 503, "the readiness probe fails");
        assert_eq!(gateway.ask("/livez").await.status, 200);
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.end), (200, End::Whole), "{signal}");
        assert!(answer.text().contains("event: response.completed"));
        wire.closing().await;
        assert_eq!(gateway.ended().await.code(), Some(0), "{signal}");
        assert_eq!(sim.counts().aborted, 0);
        assert!(gateway.access().iter().all(|line| line["outcome"] == "complete"));
    }
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_exit() {
    let (_sim, mut gateway) = gateway_with_sim("").await;
    let mut used = Wire::open(gateway.address).await;
    used.send(wire::post("/v1/responses", STREAM)).await;
    assert_eq!(used.answer().await.status, 200);
    let mut fresh = Wire::open(gateway.address).await;
    let metric = "steadfast_connections";
    gateway.metric_reaches(metric, 2.0).await;
    let begun = Instant::now();
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(
        (used.closing().await, fresh.closing().await),
        (End::Closed, End::Closed)
    );
}

#[tokio::test]
async fn a_stream_that_outlasts_the_grace_time_is_cut() {
    let (sim, mut gateway) = gateway_with_sim("[server]\ngrace = \"300ms\"\n").await;
    sim.script().always(Act::stall(Point::Events(2)));
    let mut wire = begin(&gateway).await;
    gateway.signal("TERM").await;
    let answer = wire.answer().await;
    assert!(
        matches!(answer.end, End::Cut | End::Reset),
        "the stream is cut, not ended: {answer:?}"
    );
    assert_eq!(gateway.ended().await.code(), Some(0));
    until_true("the upstream request to be cancelled", || sim.counts().in_flight == 0).await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (sim, mut gateway) = gateway_with_sim("[server]\ngrace = \"1h\"\n").await;
        sim.script().always(Act::stall(Point::Events(2)));
        let mut wire = begin(&gateway).await;
        gateway.signal(first).await;
        until_draining(&gateway).await;
        gateway.signal(second).await;
        let answer = wire.answer().await;
        assert!(
            matches!(answer.end, End::Cut | End::Reset),
            "{first} {second}: {answer:?}"
        );
        gateway.ended().await;
    }
}

#[tokio::test]
async fn a_kept_connection_is_closed_after_its_response() {
    let (_sim, mut gateway, mut wire) = streaming("").await;
    gateway.signal("TERM").await;
    until_draining(&gateway).await;
    let answer = wire.answer().await;
    assert_eq!(answer.end, End::Whole);
    // A second request on this connection gets no response; the client has to open another connection.
    let _ = wire.stream.try_write(wire::post("/v1/responses", STREAM).as_bytes());
    wire.closing().await;
    assert_eq!(wire.rest(), "");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_has_begun_is_still_answered() {
    let (_sim, mut gateway) = gateway_with_sim("").await;
    let mut wire = Wire::open(gateway.address).await;
    let request = wire::post("/v1/responses", STREAM);
    let (begun, rest) = request.split_at(request.len() - 10);
    wire.send(begun).await;
    let held = || async { (gateway.metric("steadfast_buffered_bytes").await > 0.0).then_some(()) };
    until("the body to be read", held).await;
    gateway.signal("TERM").await;
    until_draining(&gateway).await;
    wire.send(rest).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.end), (200, End::Whole));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_instance_that_stops_leaves_the_unix_socket_of_another_one() {
    let path = gateway::scratch().join("s.sock");
    let socket = format!("unix:{}", path.display());
    let config = gateway::upstream_at("a", "http://127.0.0.1:1/v1", "");
    let mut old = Gateway::configured_with(&config, &["--listen", &socket]).await;
    std::fs::remove_file(&path).expect("the socket has a file");
    let mut new = Gateway::configured_with(&config, &["--listen", &socket]).await;
    old.signal("TERM").await;
    assert_eq!(old.ended().await.code(), Some(0));
    UnixStream::connect(&path).await.expect("the new instance listens");
    new.signal("TERM").await;
    assert_eq!(new.ended().await.code(), Some(0));
    assert!(!path.exists(), "an instance removes its own file");
}
