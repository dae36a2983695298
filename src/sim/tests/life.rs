//! Tests of many concurrent streams, and of the end of the account.

use std::sync::Arc;

use super::super::Ending;
use super::*;

/// An account that is sending a slow stream, and the connection of the stream.
async fn slow_stream() -> (Sim, TcpStream) {
    let sim = start(SimConfig {
        pace: Duration::from_millis(50),
        ..SimConfig::default()
    })
    .await;
    let mut tcp = dial(&sim, &raw(&hello_stream())).await;
    read_until(&mut tcp, "event: response.created").await;
    (sim, tcp)
}

#[tokio::test]
async fn a_stopped_account_cuts_its_streams() {
    let (sim, mut tcp) = slow_stream().await;
    let account = Arc::clone(&sim.account);
    sim.stop().await;
    let (seen, _) = read_all(&mut tcp).await;
    assert!(!seen.ends_with(b"0\r\n\r\n"));
    assert_eq!(account.recorder.recorded()[0].ending, Ending::Cut);
    assert_eq!(
        account.recorder.counts(),
        SimCounts {
            connections: 1,
            requests: 1,
            ..SimCounts::default()
        }
    );
}

#[tokio::test]
async fn a_dropped_account_stops() {
    let (sim, mut tcp) = slow_stream().await;
    drop(sim);
    assert!(!read_all(&mut tcp).await.0.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn many_streams_at_once_are_complete_and_counted() {
    let sim = Arc::new(
        start(SimConfig {
            pace: Duration::from_millis(1),
            deltas: 20,
            ..SimConfig::default()
        })
        .await,
    );
    let mut streams = tokio::task::JoinSet::new();
    for n in 0..100 {
        let sim = Arc::clone(&sim);
        streams.spawn(async move { ask(&sim, &json!({"model": "m", "input": format!("{n}"), "stream": true})).await });
    }
    while let Some(stream) = streams.join_next().await {
        let events = stream.unwrap().events();
        let numbers: Vec<u64> = events
            .iter()
            .filter_map(|event| event["sequence_number"].as_u64())
            .collect();
        assert!(numbers.iter().copied().eq(0..28), "{numbers:?}");
    }
    until(&sim, |counts| counts.open_connections == 0).await;
    assert_eq!(
        sim.counts(),
        SimCounts {
            connections: 100,
            requests: 100,
            ..SimCounts::default()
        }
    );
}
