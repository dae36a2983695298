//! Tables of hostile requests. A row has the bytes that are sent, the expected responses, and the bytes that may reach
//! the upstream.
//!
//! A request of a row is either refused before any byte of it reaches the upstream, or it reaches the upstream with its
//! only possible reading. The state of the connection is checked too. A row that closes its connection is followed by
//! bytes that the gateway must never read as a request. Every other row is followed by a request that must be answered.

mod bodies;
mod broken;
mod costs;
mod encodings;
mod fields;
mod framing;
mod http2;
mod json;
mod kit;
mod recorder;
mod targets;

use self::kit::{Row, run};

#[tokio::test]
async fn hostile_framing_is_refused_or_forwarded_unambiguously() {
    run(framing::rows()).await;
}

#[tokio::test]
async fn hostile_chunks_are_refused_or_forwarded_unambiguously() {
    run(bodies::rows()).await;
}

#[tokio::test]
async fn hostile_targets_are_refused_or_forwarded_unambiguously() {
    run(targets::rows()).await;
}

#[tokio::test]
async fn hostile_fields_are_refused_or_forwarded_unambiguously() {
    run(fields::rows()).await;
}

#[tokio::test]
async fn hostile_json_is_refused_or_forwarded_unambiguously() {
    run(json::rows()).await;
}

#[tokio::test]
async fn hostile_codings_are_refused_or_forwarded_unambiguously() {
    run(encodings::rows()).await;
}

#[tokio::test]
async fn json_that_is_split_between_chunks_is_read_like_whole_json() {
    run(json::split_between_chunks()).await;
}

fn all_rows() -> Vec<Row> {
    let tables = [
        framing::rows(),
        bodies::rows(),
        targets::rows(),
        fields::rows(),
        json::rows(),
        encodings::rows(),
    ];
    tables.into_iter().flatten().collect()
}

#[test]
fn row_names_are_unique() {
    let mut names: Vec<String> = all_rows().into_iter().map(|row| row.name).collect();
    let rows = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows);
    assert!(rows >= 120, "{rows}");
}
