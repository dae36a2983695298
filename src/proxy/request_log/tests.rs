//! The fields of log lines, and the end of a request by which the log is written.

use serde_json::{Value, json};

use super::{testing::AccessLog, *};
use crate::proxy::testing as gateways;

fn open(gateway: &Arc<Gateway>, path: &'static str, bytes_in: Arc<AtomicU64>) -> RequestLog {
    let request_id = HeaderValue::from_static("req-1");
    RequestLog::open(gateway, request_id, &Method::POST, &Uri::from_static(path), bytes_in)
}

fn without_times(mut line: Value) -> Value {
    let fields = line.as_object_mut().expect("an object");
    for name in ["timestamp", "level", "target"] {
        assert!(fields.remove(name).is_some(), "{name}");
    }
    for name in ["duration_ms", "first_byte_ms"] {
        if let Some(value) = fields.remove(name) {
            assert!(value.as_f64().is_some_and(|millis| millis >= 0.0), "{name}: {value}");
        }
    }
    line
}

#[tokio::test]
async fn a_line_has_the_values_that_the_stages_noted() {
    let (access_log, gateway) = (AccessLog::default(), gateways::gateway(""));
    let _capturing = access_log.capture();
    let key = gateways::limited_key("");
    let bytes_in = Arc::new(AtomicU64::new(0));
    let mut log = open(&gateway, "/v1/responses?secret=1", bytes_in.clone());
    bytes_in.store(7, Ordering::Relaxed);
    log.record_caller(Endpoint::Responses, Some(&key));
    log.record_attempt(2, Duration::from_millis(1_500));
    let snapshot = gateway.snapshot();
    let upstream_id = HeaderValue::from_static("up-1");
    log.record_upstream_answer(
        &snapshot.upstreams()[0],
        Route::Moved,
        StatusCode::OK,
        Some(&upstream_id),
    );
    let usage = Usage {
        input_tokens: 300,
        cached_input_tokens: 200,
        cache_write_tokens: 60,
        output_tokens: 50,
        reasoning_tokens: 40,
    };
    log.record_usage(usage, None);
    log.record_bytes_out(9);
    log.end(Outcome::Complete);
    assert_eq!(
        without_times(access_log.only_line()),
        json!({
            "request_id": "req-1", "method": "POST", "path": "/v1/responses", "endpoint": "responses",
            "key": "alice", "group": "team", "status": 200, "outcome": "complete",
            "upstream": "a", "upstream_request_id": "up-1", "route": "moved", "attempts": 2, "waited_ms": 1_500.0,
            "bytes_in": 7, "bytes_out": 9, "input_tokens": 300, "cached_input_tokens": 200,
            "cache_write_tokens": 60, "output_tokens": 50, "reasoning_tokens": 40,
        })
    );
}

#[tokio::test]
async fn a_refusal_and_an_unreadable_head_have_the_same_fields() {
    let (access_log, gateway) = (AccessLog::default(), gateways::gateway(""));
    let _capturing = access_log.capture();
    let mut refused = open(&gateway, "/v1/x", Arc::default());
    refused.record_fault(&Fault::BuffersFull);
    refused.end(Outcome::Refused);
    let id = HeaderValue::from_static("req-2");
    let peer = "192.0.2.1:5000".parse().expect("an address");
    let mut unreadable = RequestLog::open_unreadable(&gateway, id.clone(), Some(peer));
    unreadable.record_fault(&Fault::HeadTooLarge);
    unreadable.end(Outcome::Refused);
    let mut slow = RequestLog::open_unreadable(&gateway, id, None);
    slow.record_slow_head();
    slow.end(Outcome::Refused);
    let lines: Vec<Value> = access_log.lines().into_iter().map(without_times).collect();
    assert_eq!(
        lines,
        [
            json!({
                "request_id": "req-1", "method": "POST", "path": "/v1/x", "status": 503, "outcome": "refused",
                "reason": "server_overloaded", "bytes_in": 0, "bytes_out": 0,
            }),
            json!({
                "request_id": "req-2", "status": 431, "outcome": "refused", "reason": "head_too_large",
                "peer": "192.0.2.1:5000", "bytes_in": 0, "bytes_out": 0,
            }),
            json!({
                "request_id": "req-2", "outcome": "refused", "reason": "slow_head", "bytes_in": 0, "bytes_out": 0,
            }),
        ]
    );
}

#[tokio::test]
async fn a_dropped_log_ends_once_as_client_gone_or_as_stopped_while_the_gateway_aborts() {
    let (access_log, gateway) = (AccessLog::default(), gateways::gateway(""));
    let _capturing = access_log.capture();
    for (index, expected) in ["client_gone", "stopped"].into_iter().enumerate() {
        drop(open(&gateway, "/v1/x", Arc::default()));
        assert_eq!(access_log.lines()[index]["outcome"], expected);
        gateway.mark_aborting();
    }
    // A log that has ended keeps its outcome.
    open(&gateway, "/v1/x", Arc::default()).end(Outcome::Idle);
    let lines = access_log.lines();
    assert_eq!((lines.len(), &lines[2]["outcome"]), (3, &json!("idle")));
}

#[test]
fn every_outcome_has_its_label() {
    for (outcome, label) in [
        (Outcome::Complete, "complete"),
        (Outcome::ClientGone, "client_gone"),
        (Outcome::UpstreamBroken, "upstream_broken"),
        (Outcome::Idle, "idle"),
        (Outcome::Stopped, "stopped"),
        (Outcome::Refused, "refused"),
    ] {
        assert_eq!(outcome.label(), label);
    }
}

#[test]
fn times_and_paths_are_short_enough_for_a_line() {
    assert_eq!(millis(Duration::from_nanos(1_234_567)), 1.235);
    let long = format!("/{}", "x".repeat(300));
    let logged = |path: &str| logged_path(&path.parse().expect("a path")).into_string();
    assert_eq!(logged("/v1/models"), "/v1/models");
    assert_eq!(logged(&long), format!("/{}…", "x".repeat(199)));
}
