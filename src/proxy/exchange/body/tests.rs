//! How a response body ends its request: the outcome in the log, and what the client key is charged.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;

use super::*;
use crate::{
    endpoint::Endpoint,
    ids::{Namespace, ObjectId, OwnedKey, UpstreamId},
    policy::{RequestClass, Route},
    proxy::{
        request_log::{RequestLog, testing::AccessLog},
        testing,
        turn::{answer_content::AnswerContent, limits::Charge, verdict::VerdictRules},
    },
    state::{Gateway, RateLimits},
};

const JSON: &str = r#"{"id":"resp_1","output":[],"usage":{"input_tokens":300,"output_tokens":50}}"#;
const CREATED: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n";
const COMPLETED: &str = "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\"}}\n\n";

/// The body of an upstream, piece by piece.
struct ScriptedBody {
    pieces: VecDeque<Result<Bytes, BodyError>>,
    /// Whether the body knows that it has ended before it is asked for another piece.
    knows_end: KnowsEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KnowsEnd {
    WithLastPiece,
    Afterwards,
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.knows_end == KnowsEnd::WithLastPiece
    }
}

/// A request of a limited key that an upstream answers.
struct Relaying {
    gateway: Arc<Gateway>,
    rate_limits: Arc<RateLimits>,
    body: RelayedBody<ScriptedBody>,
}

impl Relaying {
    fn new(reader: Option<ResponseReader>, delimiter: BodyDelimiter, pieces: &[Result<&str, BodyError>]) -> Self {
        let key = testing::limited_key("tokens_per_minute = 1000\n");
        let rate_limits = key.rate_limits.clone().expect("a limited key");
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let upstream = &snapshot.upstreams()[0];
        let mut log = RequestLog::open_unreadable(&gateway, HeaderValue::from_static("id"), None);
        log.record_upstream_answer(upstream, Route::Home, StatusCode::OK, None);
        let mut charge = Charge::default();
        charge.admit(Some(&rate_limits), 400).expect("within the limits");
        charge.mark_answered(StatusCode::OK);
        let piece = |piece: &Result<&str, BodyError>| {
            let piece = piece.clone();
            piece.map(|text| Bytes::copy_from_slice(text.as_bytes()))
        };
        let body = RelayedBody {
            relay: ScriptedBody {
                pieces: pieces.iter().map(piece).collect(),
                knows_end: match delimiter {
                    BodyDelimiter::Framing => KnowsEnd::WithLastPiece,
                    BodyDelimiter::ConnectionEnd => KnowsEnd::Afterwards,
                },
            },
            reader,
            pieces_read: 0,
            mask: None,
            ending: None,
            owner: OwnerRecorder::new(
                &gateway,
                Namespace::of_group(""),
                upstream.id,
                AnswerContent::NewResponse,
            ),
            delimiter,
            late_failure: LateFailureWatch::new(
                Endpoint::Responses,
                Some("gpt-5.2".to_owned()),
                VerdictRules::new(Endpoint::Responses, None, upstream),
                gateway.clock,
            ),
            lease: upstream.state.try_acquire(RequestClass::generation(None)),
            session: None,
            bytes_out: 0,
            end: Some(RequestEnd::new(log, charge)),
        };
        Self {
            gateway,
            rate_limits,
            body,
        }
    }

    /// Takes up to `count` frames; returns whether the last of them was an error.
    fn poll(&mut self, count: usize) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut has_failed = false;
        for _ in 0..count {
            match self.body.poll_frame(&mut context) {
                Poll::Ready(Some(frame)) => has_failed = frame.is_err(),
                Poll::Ready(None) => break,
                Poll::Pending => panic!("a scripted body is always ready"),
            }
        }
        has_failed
    }

    fn charged(&self) -> u64 {
        1_000 - self.rate_limits.usage().tokens.expect("a limit on tokens").remaining
    }

    fn owner(&self) -> Option<UpstreamId> {
        let key = OwnedKey::from_object(Namespace::of_group(""), ObjectId::from_text(b"resp_1"));
        self.gateway.runtime.owners.get(key, self.gateway.clock.now())
    }
}

#[tokio::test]
async fn a_whole_body_ends_its_request_as_complete_and_is_charged_its_reported_usage() {
    let access_log = AccessLog::default();
    let _capturing = access_log.capture();
    let mut relaying = Relaying::new(Some(ResponseReader::json()), BodyDelimiter::Framing, &[Ok(JSON)]);
    assert!(!relaying.poll(1));
    // The request has ended with its last frame, before the body is dropped.
    let line = access_log.only_line();
    assert_eq!(line["outcome"], "complete");
    assert_eq!(line["bytes_out"], JSON.len());
    assert_eq!(
        (&line["input_tokens"], &line["output_tokens"]),
        (&300.into(), &50.into())
    );
    assert_eq!(relaying.charged(), 350);
    assert_eq!(relaying.owner(), Some(UpstreamId::from_name("a")));
    drop(relaying);
    assert_eq!(access_log.lines().len(), 1, "the request ends once");
}

/// Takes up to `polls` frames of a body with these `pieces`, drops it, and checks how the request has ended.
fn check_outcome(
    reader: ResponseReader,
    delimiter: BodyDelimiter,
    pieces: &[Result<&str, BodyError>],
    polls: usize,
    outcome: &str,
) {
    let access_log = AccessLog::default();
    let _capturing = access_log.capture();
    let mut relaying = Relaying::new(Some(reader), delimiter, pieces);
    let has_failed = relaying.poll(polls);
    let last = pieces[..polls.min(pieces.len())].last();
    let is_cut = delimiter == BodyDelimiter::ConnectionEnd && outcome == "upstream_broken";
    assert_eq!(has_failed, is_cut || last.is_some_and(Result::is_err), "{pieces:?}");
    drop(relaying);
    assert_eq!(access_log.only_line()["outcome"], outcome, "{pieces:?}, {polls}");
}

fn broken<'a>() -> Result<&'a str, BodyError> {
    Err(BodyError::Broken("reset".to_owned()))
}

fn idle<'a>() -> Result<&'a str, BodyError> {
    Err(BodyError::Idle(Duration::from_secs(1)))
}

#[tokio::test]
async fn the_end_of_a_json_body_decides_the_outcome_of_its_request() {
    for (pieces, polls, outcome) in [
        ([Ok("{"), Ok("}")], 0, "client_gone"),
        ([Ok("{"), Ok("}")], 1, "client_gone"),
        ([Ok("{"), Ok("}")], 2, "complete"),
        ([Ok("{"), broken()], 2, "upstream_broken"),
        ([Ok("{"), idle()], 2, "idle"),
    ] {
        check_outcome(ResponseReader::json(), BodyDelimiter::Framing, &pieces, polls, outcome);
    }
}

#[tokio::test]
async fn a_stream_whose_last_event_has_passed_is_complete_however_it_ends() {
    for (pieces, polls, outcome) in [
        ([Ok(CREATED), Ok(COMPLETED)], 1, "client_gone"),
        ([Ok(CREATED), broken()], 2, "upstream_broken"),
        ([Ok(COMPLETED), Ok("\n")], 1, "complete"),
        ([Ok(COMPLETED), broken()], 2, "complete"),
        ([Ok(COMPLETED), idle()], 2, "complete"),
    ] {
        check_outcome(
            ResponseReader::events(),
            BodyDelimiter::Framing,
            &pieces,
            polls,
            outcome,
        );
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_must_show_that_it_is_complete() {
    let delimiter = BodyDelimiter::ConnectionEnd;
    check_outcome(ResponseReader::json(), delimiter, &[Ok("{}")], 2, "complete");
    check_outcome(ResponseReader::json(), delimiter, &[Ok("{")], 2, "upstream_broken");
    check_outcome(ResponseReader::events(), delimiter, &[Ok(COMPLETED)], 2, "complete");
    check_outcome(
        ResponseReader::events(),
        delimiter,
        &[Ok(CREATED)],
        2,
        "upstream_broken",
    );
}

/// Passes the `pieces` on, or the first `polls` of them if the client leaves then. Returns the number of failures that the
/// upstream's health has counted, and whether the upstream cools down.
fn health_after(endpoint: Endpoint, pieces: &[Result<&str, BodyError>], polls: usize) -> (u32, bool) {
    let mut relaying = Relaying::new(Some(ResponseReader::events()), BodyDelimiter::Framing, pieces);
    let snapshot = relaying.gateway.snapshot();
    let upstream = &snapshot.upstreams()[0];
    let rules = VerdictRules::new(Endpoint::Responses, None, upstream);
    relaying.body.late_failure = LateFailureWatch::new(endpoint, None, rules, relaying.gateway.clock);
    relaying.poll(polls);
    drop(relaying);
    let status = upstream.state.status();
    (
        status.failures,
        status.state == crate::policy::health::HealthState::Cooling,
    )
}

#[tokio::test]
async fn a_failure_after_the_first_output_is_told_once() {
    let delta = "data: {\"type\":\"response.output_text.delta\"}\n\n";
    let overloaded =
        "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_is_overloaded\"}}}\n\n";
    let limited = "data: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\"}\n\n";
    let too_slow = BodyError::TooSlow {
        rate: 10_240,
        window: Duration::from_secs(30),
    };
    let all = usize::MAX;
    for (pieces, polls, expected) in [
        (vec![Ok(CREATED), Ok(delta), Ok(overloaded)], all, (1, false)),
        (vec![Ok(CREATED), Ok(delta), Ok(overloaded), broken()], all, (1, false)),
        (vec![Ok(CREATED), Ok(delta), broken()], all, (1, false)),
        (vec![Ok(CREATED), Ok(delta), idle()], all, (1, false)),
        // The caller's own upload, which the response overtook, is no failure of the upstream.
        (vec![Ok(CREATED), Ok(delta), Err(too_slow)], 3, (0, false)),
        (vec![Ok(CREATED), Ok(delta)], all, (1, false)),
        (vec![Ok(CREATED), Ok(delta), Ok(COMPLETED), broken()], all, (0, false)),
        (vec![Ok(CREATED), Ok(delta), Ok(limited)], all, (0, true)),
        (vec![Ok(CREATED), Ok(delta), Ok(limited), broken()], all, (0, true)),
        // The client leaves at the `error` event, or before.
        (vec![Ok(CREATED), Ok(limited), Ok("\n")], 2, (0, true)),
        (vec![Ok(CREATED), Ok(delta), Ok(limited)], 2, (0, false)),
        // Output follows the error.
        (
            vec![Ok(CREATED), Ok(limited), Ok(delta), Ok(COMPLETED)],
            all,
            (0, false),
        ),
    ] {
        assert_eq!(
            health_after(Endpoint::Responses, &pieces, polls),
            expected,
            "{pieces:?}"
        );
    }
    // A stored response may have failed long ago. But a connection that breaks is a new failure.
    let stored = [Ok(CREATED), Ok(overloaded)];
    assert_eq!(health_after(Endpoint::Response, &stored, all), (0, false));
    assert_eq!(
        health_after(Endpoint::Response, &[Ok(CREATED), broken()], all),
        (1, false)
    );
}

#[tokio::test]
async fn a_stream_that_the_client_leaves_costs_its_estimate_and_the_passed_bytes() {
    let long = format!(": {}\n\n", "x".repeat(2_560));
    let pieces = [Ok(long.as_str()), Ok(COMPLETED)];
    let mut relaying = Relaying::new(Some(ResponseReader::events()), BodyDelimiter::Framing, &pieces);
    relaying.poll(1);
    relaying.body.end(None);
    assert_eq!(relaying.charged(), 110);
}

#[tokio::test]
async fn pieces_that_were_read_ahead_are_not_read_twice() {
    let mut reader = ResponseReader::events();
    reader.feed(CREATED.as_bytes());
    let mut relaying = Relaying::new(Some(reader), BodyDelimiter::Framing, &[Ok(CREATED), Ok(COMPLETED)]);
    relaying.body.pieces_read = 1;
    relaying.poll(1);
    assert_eq!(relaying.body.pieces_read, 0);
    assert!(!relaying.body.ended_with_event());
    relaying.poll(1);
    assert!(relaying.body.ended_with_event());
}

#[tokio::test]
async fn an_own_body_ends_its_request_with_its_text() {
    for (kind, is_read, outcome) in [
        (OwnBodyKind::Answer, ReadBy::Client, "complete"),
        (OwnBodyKind::Error, ReadBy::Client, "refused"),
        (OwnBodyKind::Answer, ReadBy::Nothing, "client_gone"),
        (OwnBodyKind::Error, ReadBy::Nothing, "refused"),
    ] {
        let access_log = AccessLog::default();
        let _capturing = access_log.capture();
        let gateway = testing::gateway("");
        let log = RequestLog::open_unreadable(&gateway, HeaderValue::from_static("id"), None);
        let end = RequestEnd::new(log, Charge::default());
        let body = ResponseBody::own(Bytes::from_static(b"{}"), kind, end);
        assert_eq!(body.size_hint().exact(), Some(2));
        assert!(!body.is_end_stream());
        let bytes_out = match is_read {
            ReadBy::Client => body.collect().await.expect("a body").to_bytes().len(),
            ReadBy::Nothing => {
                drop(body);
                0
            }
        };
        let line = access_log.only_line();
        assert_eq!(
            (&line["outcome"], &line["bytes_out"]),
            (&outcome.into(), &bytes_out.into()),
            "{kind:?}"
        );
    }
}

enum ReadBy {
    Client,
    Nothing,
}
