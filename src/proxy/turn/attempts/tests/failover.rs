//! Tests which upstreams a request is sent to, and what the caller gets if none of them serves it.

use super::*;
use crate::policy::LimitCause;

/// The steps of the first, second and third upstream in the session's order, the number of upstreams that are called,
/// and the end of the turn. A turn ends with the status of the last answer, or with a fault.
struct FailoverRow {
    name: &'static str,
    repeatability: Repeatability,
    steps: [ScriptedStep; 3],
    calls: usize,
    ended: Result<u16, &'static str>,
}

const fn row(
    name: &'static str,
    steps: [ScriptedStep; 3],
    calls: usize,
    ended: Result<u16, &'static str>,
) -> FailoverRow {
    FailoverRow {
        name,
        repeatability: Repeatability::Repeatable,
        steps,
        calls,
        ended,
    }
}

const fn once(
    name: &'static str,
    steps: [ScriptedStep; 3],
    calls: usize,
    ended: Result<u16, &'static str>,
) -> FailoverRow {
    FailoverRow {
        repeatability: Repeatability::Once,
        ..row(name, steps, calls, ended)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_fails_over_in_order_until_an_answer_can_be_passed_on() {
    let limit = limited(429, LONG);
    let rows = [
        row("served at once", [SERVED, SERVED, SERVED], 1, Ok(200)),
        row("unreachable", [UNREACHABLE, SERVED, SERVED], 2, Ok(200)),
        row("timeout", [TIMEOUT, SERVED, SERVED], 1, Err("upstream_timeout")),
        row("broken connection", [BROKEN, SERVED, SERVED], 2, Ok(200)),
        row("failed twice", [FAILED, FAILED, SERVED], 3, Ok(200)),
        row("refused credential", [REFUSED, SERVED, SERVED], 2, Ok(200)),
        row("limited", [limit, SERVED, SERVED], 2, Ok(200)),
        row("stream broken off", [BROKEN_OFF, SERVED, SERVED], 2, Ok(200)),
        row("the caller's own error", [BAD_REQUEST, SERVED, SERVED], 1, Ok(400)),
        row(
            "the caller has to change it",
            [NOT_SENDABLE, SERVED, SERVED],
            1,
            Err("missing_api_key"),
        ),
        row(
            "the caller's body broke off",
            [NO_BODY, SERVED, SERVED],
            1,
            Err("incomplete_body"),
        ),
        once("once: unreachable", [UNREACHABLE, SERVED, SERVED], 2, Ok(200)),
        once("once: refused", [REFUSED, SERVED, SERVED], 2, Ok(200)),
        once("once: limited", [limit, SERVED, SERVED], 2, Ok(200)),
        once("once: 503", [OVERLOADED, SERVED, SERVED], 2, Ok(200)),
        once("once: 500", [FAILED, SERVED, SERVED], 1, Ok(500)),
        once("once: broken", [BROKEN, SERVED, SERVED], 1, Err("upstream_broken")),
        once("once: timeout", [TIMEOUT, SERVED, SERVED], 1, Err("upstream_timeout")),
    ];
    check(&rows).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_timeout_only_a_request_that_reads_is_repeated_unless_the_operator_allows_more() {
    use Repeatability::{Once, Repeatable, Safe};
    for (is_allowed, repeatability, moves) in [
        (false, Safe, true),
        (false, Repeatable, false),
        (false, Once, false),
        (true, Safe, true),
        (true, Repeatable, true),
        (true, Once, false),
    ] {
        let gateway = testing::gateway(&format!("[retry]\non_timeout = {is_allowed}\n"));
        let order = order(&gateway);
        let script: [(&str, &[ScriptedStep]); 2] = [(&order[0], &[TIMEOUT]), (&order[1], &[SERVED])];
        let mut scenario = Scenario::new(&gateway, &script);
        scenario.repeatability = repeatability;
        let (sent, ended) = scenario.run().await;
        let expected = match moves {
            true => (2, answer(order[1].clone(), 200)),
            false => (1, Ended::Fault("upstream_timeout")),
        };
        assert_eq!((sent.len(), ended), expected, "{is_allowed} {repeatability:?}");
    }
}

const USAGE_LIMIT: Result<u16, &str> = Err("usage_limit_reached");
const RATE_LIMIT: Result<u16, &str> = Err("rate_limit_exceeded");
const CREDENTIAL: Result<u16, &str> = Err("upstream_credential_refused");

/// A limit whose answer is too long to be kept.
const LONG_LIMIT: ScriptedStep = match limited(429, LONG) {
    ScriptedStep::Answer(status, verdict, _) => ScriptedStep::Answer(status, verdict, BufferedRest::Partial),
    fail => fail,
};

#[tokio::test(start_paused = true)]
async fn the_last_word_on_limits_follows_from_the_earliest_reset() {
    let limit = limited(429, LONG);
    let (event, unusual, overload) = (limited(200, LONG), limited(403, LONG), limited(503, LONG));
    let minutes = limited(429, Duration::from_secs(200));
    let quota = limited_by(402, Some(LONG), LimitCause::Quota);
    let rows = [
        row("all limited", [limit, limit, limit], 3, USAGE_LIMIT),
        row("all limited, in streams", [event, event, event], 3, USAGE_LIMIT),
        row(
            "all limited, the last at length",
            [limit, limit, LONG_LIMIT],
            3,
            USAGE_LIMIT,
        ),
        row("all limited, unusually", [unusual, unusual, unusual], 3, USAGE_LIMIT),
        row("all limited for minutes", [minutes, limit, limit], 3, RATE_LIMIT),
        row("all without credit", [quota, quota, quota], 3, USAGE_LIMIT),
        row("all overloaded", [overload, overload, overload], 3, Ok(503)),
        row("the last one is limited", [FAILED, FAILED, limit], 3, RATE_LIMIT),
        row(
            "the last one is limited, at length",
            [FAILED, FAILED, LONG_LIMIT],
            3,
            RATE_LIMIT,
        ),
        row("the others refused", [limit, REFUSED, REFUSED], 3, USAGE_LIMIT),
    ];
    check(&rows).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_word_on_failures_is_that_of_the_last_upstream() {
    let limit = limited(429, LONG);
    let partly = ScriptedStep::Answer(500, Verdict::Failed, BufferedRest::Partial);
    let (broken, unreachable) = (Err("upstream_broken"), Err("upstream_unreachable"));
    let rows = [
        row("the last one failed", [limit, limit, FAILED], 3, Ok(500)),
        row("all failed", [FAILED, OVERLOADED, FAILED], 3, Ok(500)),
        row("a long error", [FAILED, FAILED, partly], 3, Ok(500)),
        row("a broken error", [FAILED, FAILED, BROKEN_OFF], 3, broken),
        row("none reachable", [UNREACHABLE; 3], 3, unreachable),
        row(
            "the last one timed out",
            [FAILED, FAILED, TIMEOUT],
            3,
            Err("upstream_timeout"),
        ),
        row("all refused", [REFUSED; 3], 3, CREDENTIAL),
        row("the last one refused", [REFUSED, FAILED, REFUSED], 3, CREDENTIAL),
    ];
    check(&rows).await;
}

async fn check(rows: &[FailoverRow]) {
    for row in rows {
        let gateway = three_upstreams("[retry]\nattempts = 3\n");
        // A refusal counts only if its request was sent after the credential was configured.
        tokio::time::advance(Duration::from_millis(1)).await;
        let order = order(&gateway);
        let script: Vec<(&str, &[ScriptedStep])> = order
            .iter()
            .zip(&row.steps)
            .map(|(name, step)| (name.as_str(), std::slice::from_ref(step)))
            .collect();
        let mut scenario = Scenario::new(&gateway, &script);
        scenario.repeatability = row.repeatability;
        let (sent, ended) = scenario.run().await;
        let called = &order[..row.calls];
        let expected = match row.ended {
            Ok(status) => answer(called[row.calls - 1].clone(), status),
            Err(code) => Ended::Fault(code),
        };
        assert_eq!((sent.as_slice(), ended), (called, expected), "{}", row.name);
        let served_by = (row.ended == Ok(200)).then(|| UpstreamId::from_name(&called[row.calls - 1]));
        assert_eq!(pin(&gateway), served_by, "{}: the pin", row.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_no_more_often_than_attempts_allow() {
    for attempts in 1..=3 {
        let gateway = three_upstreams(&format!("[retry]\nattempts = {attempts}\n"));
        let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[FAILED][..]));
        let (sent, ended) = Scenario::new(&gateway, &script).run().await;
        assert_eq!(sent, order(&gateway)[..attempts]);
        assert_eq!(ended, answer(sent[attempts - 1].clone(), 500));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_budget_the_first_failure_is_the_last_word() {
    let gateway = three_upstreams("");
    spend_retry_budget(&gateway);
    let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[FAILED][..]));
    let (sent, ended) = Scenario::new(&gateway, &script).run().await;
    let first = &order(&gateway)[0];
    assert_eq!((sent, ended), (vec![first.clone()], answer(first.clone(), 500)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_passed_on_is_not_sent_again() {
    let gateway = three_upstreams("");
    let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[OVERLOADED][..]));
    let mut scenario = Scenario::new(&gateway, &script);
    scenario.bodies = 1;
    let (sent, ended) = scenario.run().await;
    assert_eq!((sent.len(), ended), (1, answer(sent[0].clone(), 503)));
}

/// Makes an upstream refuse its credential, so that it is disabled. What an upstream says about a credential counts only if
/// the request began after the credential was configured.
pub(super) async fn disable(gateway: &Gateway, name: &str) {
    tokio::time::advance(Duration::from_millis(1)).await;
    let snapshot = gateway.snapshot();
    let upstream = snapshot
        .upstream_of(UpstreamId::from_name(name))
        .expect("a known upstream");
    let lease = upstream.state.try_acquire(RequestClass::generation(None));
    lease.expect("a ready upstream").report(Verdict::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_upstream_gets_no_request_although_no_other_one_is_left() {
    let gateway = testing::gateway("");
    disable(&gateway, "a").await;
    disable(&gateway, "b").await;
    let script: [(&str, &[ScriptedStep]); 2] = ["a", "b"].map(|name| (name, &[SERVED][..]));
    let (sent, ended) = Scenario::new(&gateway, &script).run().await;
    assert_eq!((sent.len(), ended), (0, Ended::Fault("upstreams_unavailable")));
    tokio::time::advance(Duration::from_secs(301)).await;
    let (sent, ended) = Scenario::new(&gateway, &script).run().await;
    assert_eq!((sent.len(), ended), (1, answer(sent[0].clone(), 200)), "a probe is due");
}
