//! The attempt loop with scripted upstreams: a real gateway, no sockets, and paused time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use http::{HeaderName, HeaderValue};

use super::*;
use crate::{
    endpoint::Endpoint,
    ids::{OwnedKey, SessionKey, UpstreamId},
    policy::Scope,
    proxy::{
        testing,
        turn::{
            facts::{NamedState, SessionFacts, TurnFacts},
            pick::PickStep,
        },
    },
    state::Gateway,
};

/// The session key of every turn here.
const KEY: &str = "session-1";
/// Longer than any request waits.
const LONG: Duration = Duration::from_secs(3_600);

/// What a scripted upstream does with one request.
#[derive(Clone, Copy)]
enum Step {
    /// Answers with this status and verdict, and an error body that can be buffered so far.
    Answer(u16, Verdict, BufferedRest),
    /// Gives no answer.
    Fail(fn() -> SendFailure),
}

const SERVED: Step = Step::Answer(200, Verdict::Served, BufferedRest::Whole);
const BAD_REQUEST: Step = Step::Answer(400, Verdict::Answered, BufferedRest::Whole);
const FAILED: Step = Step::Answer(500, Verdict::Failed, BufferedRest::Whole);
const OVERLOADED: Step = Step::Answer(503, Verdict::Failed, BufferedRest::Whole);
const REFUSED: Step = Step::Answer(401, Verdict::Refused, BufferedRest::Whole);
const BROKEN_OFF: Step = Step::Answer(200, Verdict::Failed, BufferedRest::Broken);
const UNREACHABLE: Step = Step::Fail(|| SendFailure::Unreachable);
const BROKEN: Step = Step::Fail(|| SendFailure::Broken);
const TIMEOUT: Step = Step::Fail(|| SendFailure::Timeout(Duration::from_secs(9)));
const NOT_SENDABLE: Step = Step::Fail(|| SendFailure::NotSendable(Fault::MissingCredential));
const NO_BODY: Step = Step::Fail(|| SendFailure::RequestBody(Fault::IncompleteBody));

const fn limited(status: u16, reset: Duration) -> Step {
    let verdict = Verdict::Limited {
        reset: Some(reset),
        scope: Scope::Upstream,
    };
    Step::Answer(status, verdict, BufferedRest::Whole)
}

/// Sends by a script, and records to which upstreams.
struct ScriptedSender {
    script: HashMap<String, Vec<Step>>,
    repeatability: Repeatability,
    /// How often the body can be sent.
    bodies: usize,
    sent: Arc<Mutex<Vec<String>>>,
}

impl RequestSender for ScriptedSender {
    /// How much of the error body can be buffered.
    type Response = BufferedRest;

    fn repeatability(&self) -> Repeatability {
        self.repeatability
    }

    fn has_body(&self) -> bool {
        self.sent.lock().expect("no panic").len() < self.bodies
    }

    async fn send(&mut self, upstream: &Upstream) -> Result<UpstreamAnswer<BufferedRest>, SendFailure> {
        assert_eq!(
            upstream.state.in_flight(),
            1,
            "the request holds a lease while it is sent"
        );
        self.sent.lock().expect("no panic").push(upstream.name.to_string());
        let steps = self.script.get_mut(&*upstream.name);
        let steps = steps.unwrap_or_else(|| panic!("{} must not be called", upstream.name));
        match steps.remove(0) {
            Step::Answer(status, verdict, rest) => Ok(UpstreamAnswer {
                response: rest,
                status: StatusCode::from_u16(status).expect("a status"),
                verdict,
            }),
            Step::Fail(failure) => Err(failure()),
        }
    }

    async fn buffer_error(response: &mut BufferedRest, _: &Upstream) -> BufferedRest {
        *response
    }
}

/// How a turn has ended: with the answer of an upstream and its status, or with a fault's code.
#[derive(Debug, PartialEq)]
enum Ended {
    Answer(String, u16),
    Fault(&'static str),
}

fn answer(upstream: impl Into<String>, status: u16) -> Ended {
    Ended::Answer(upstream.into(), status)
}

/// A turn of the session [`KEY`] that is to be run.
struct Scenario {
    gateway: Arc<Gateway>,
    script: HashMap<String, Vec<Step>>,
    repeatability: Repeatability,
    bodies: usize,
    previous_response: Option<&'static str>,
}

impl Scenario {
    fn new(gateway: &Arc<Gateway>, script: &[(&str, &[Step])]) -> Self {
        let steps = |(name, steps): &(&str, &[Step])| ((*name).to_owned(), steps.to_vec());
        Self {
            gateway: gateway.clone(),
            script: script.iter().map(steps).collect(),
            repeatability: Repeatability::Repeatable,
            bodies: usize::MAX,
            previous_response: None,
        }
    }

    /// Runs the turn: the upstreams that were called, in their order, and how it has ended.
    async fn run(self) -> (Vec<String>, Ended) {
        let gateway = self.gateway;
        let snapshot = gateway.snapshot();
        let turn = open(&gateway, &snapshot, self.previous_response).expect("the upstreams serve every model");
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sender = ScriptedSender {
            script: self.script,
            repeatability: self.repeatability,
            bodies: self.bodies,
            sent: sent.clone(),
        };
        let mut log = RequestLog::open_unreadable(&gateway, HeaderValue::from_static("id"), None);
        let mut charge = Charge::default();
        let ended = match run(turn, sender, &mut log, &mut charge, Instant::now()).await {
            Ok(answer) => Ended::Answer(answer.upstream.name.to_string(), answer.answer.status.as_u16()),
            Err(fault) => Ended::Fault(fault.code()),
        };
        for upstream in snapshot.upstreams() {
            assert_eq!(
                upstream.state.in_flight(),
                0,
                "the lease at {} is given back",
                upstream.name
            );
        }
        let sent = sent.lock().expect("no panic").clone();
        (sent, ended)
    }
}

fn open<'a>(
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    previous_response: Option<&'static str>,
) -> Result<Turn<'a>, Fault> {
    let facts = TurnFacts {
        group: snapshot.access.anonymous(),
        endpoint: Endpoint::Responses,
        model: Some("gpt-5.2"),
        body_bytes: 1_000_000,
        session: SessionFacts {
            prompt_cache_key: Some(KEY),
            session_id: None,
            header: |_: &HeaderName| None,
            instructions: b"",
            input: b"",
        },
        named_state: NamedState {
            previous_response,
            ..NamedState::default()
        },
    };
    Turn::open(gateway, snapshot, &facts)
}

fn session_key(gateway: &Gateway) -> SessionKey {
    SessionKey::from_text(gateway.snapshot().access.anonymous().namespace, KEY)
}

fn pin(gateway: &Gateway) -> Option<UpstreamId> {
    gateway.runtime.pins.get(session_key(gateway), gateway.clock.now())
}

fn set_pin(gateway: &Gateway, upstream: &str) {
    let upstream = UpstreamId::from_name(upstream);
    let now = gateway.clock.now();
    gateway.runtime.pins.confirm(session_key(gateway), None, upstream, now);
}

fn three_upstreams(settings: &str) -> Arc<Gateway> {
    let third = "[[upstream]]\nname = \"c\"\nbase_url = \"http://c.test/v1\"\napi_key = \"env:C_KEY\"\n";
    testing::gateway(&format!("{settings}\n{third}"))
}

/// The names of the upstreams in the order of the session's candidates.
fn order(gateway: &Gateway) -> Vec<String> {
    let snapshot = gateway.snapshot();
    let eligible = |_| true;
    let ranked = snapshot.rendezvous.ranked(session_key(gateway), eligible);
    ranked.map(|index| snapshot.upstream(index).name.to_string()).collect()
}

/// The steps of the first, second and third upstream in the session's order; how many of them are called; and how the turn
/// ends: with the answer of the last one and its status, or with a fault.
struct Row {
    name: &'static str,
    repeatability: Repeatability,
    steps: [Step; 3],
    calls: usize,
    ended: Result<u16, &'static str>,
}

const fn row(name: &'static str, steps: [Step; 3], calls: usize, ended: Result<u16, &'static str>) -> Row {
    Row {
        name,
        repeatability: Repeatability::Repeatable,
        steps,
        calls,
        ended,
    }
}

const fn once(name: &'static str, steps: [Step; 3], calls: usize, ended: Result<u16, &'static str>) -> Row {
    Row {
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
        row("timeout", [TIMEOUT, SERVED, SERVED], 2, Ok(200)),
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
async fn the_last_word_is_the_most_useful_answer() {
    let limit = limited(429, LONG);
    let first_event = limited(200, LONG);
    let unusual = limited(403, LONG);
    let partly = Step::Answer(500, Verdict::Failed, BufferedRest::Partial);
    let partly_limited = Verdict::Limited {
        reset: Some(LONG),
        scope: Scope::Upstream,
    };
    let partly_limited = Step::Answer(429, partly_limited, BufferedRest::Partial);
    let rows = [
        row("all limited", [limit, limit, limit], 3, Err("usage_limit_reached")),
        row(
            "all limited, in streams",
            [first_event, first_event, first_event],
            3,
            Err("usage_limit_reached"),
        ),
        row("all limited, unusually", [unusual, unusual, unusual], 3, Ok(403)),
        row("the last one failed", [limit, limit, FAILED], 3, Ok(500)),
        row("all failed", [FAILED, OVERLOADED, FAILED], 3, Ok(500)),
        row("the last one is limited", [FAILED, FAILED, limit], 3, Ok(429)),
        row("a long error", [FAILED, FAILED, partly], 3, Ok(500)),
        row(
            "a long limit holds no connection",
            [FAILED, FAILED, partly_limited],
            3,
            Err("upstream_broken"),
        ),
        row(
            "a broken error",
            [FAILED, FAILED, BROKEN_OFF],
            3,
            Err("upstream_broken"),
        ),
        row(
            "none reachable",
            [UNREACHABLE, UNREACHABLE, UNREACHABLE],
            3,
            Err("upstream_unreachable"),
        ),
        row(
            "the last one timed out",
            [FAILED, FAILED, TIMEOUT],
            3,
            Err("upstream_timeout"),
        ),
    ];
    check(&rows).await;
}

async fn check(rows: &[Row]) {
    for row in rows {
        let gateway = three_upstreams("[retry]\nattempts = 3\n");
        let order = order(&gateway);
        let script: Vec<(&str, &[Step])> = order
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
        let script: [(&str, &[Step]); 3] = ["a", "b", "c"].map(|name| (name, &[FAILED][..]));
        let (sent, ended) = Scenario::new(&gateway, &script).run().await;
        assert_eq!(sent, order(&gateway)[..attempts]);
        assert_eq!(ended, answer(sent[attempts - 1].clone(), 500));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_budget_the_first_failure_is_the_last_word() {
    let gateway = three_upstreams("");
    spend_retry_budget(&gateway);
    let script: [(&str, &[Step]); 3] = ["a", "b", "c"].map(|name| (name, &[FAILED][..]));
    let (sent, ended) = Scenario::new(&gateway, &script).run().await;
    let first = &order(&gateway)[0];
    assert_eq!((sent, ended), (vec![first.clone()], answer(first.clone(), 500)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_passed_on_is_not_sent_again() {
    let gateway = three_upstreams("");
    let script: [(&str, &[Step]); 3] = ["a", "b", "c"].map(|name| (name, &[OVERLOADED][..]));
    let mut scenario = Scenario::new(&gateway, &script);
    scenario.bodies = 1;
    let (sent, ended) = scenario.run().await;
    assert_eq!((sent.len(), ended), (1, answer(sent[0].clone(), 503)));
}

fn spend_retry_budget(gateway: &Gateway) {
    let snapshot = gateway.snapshot();
    let turn = open(gateway, &snapshot, None).expect("the upstreams serve every model");
    while turn.try_spend_retry() {}
}

/// Makes an upstream refuse its credential, so that it is disabled. What an upstream says about a credential counts only if
/// the request began after the credential was configured.
async fn disable(gateway: &Gateway, name: &str) {
    tokio::time::advance(Duration::from_millis(1)).await;
    let snapshot = gateway.snapshot();
    let upstream = snapshot
        .upstream_of(UpstreamId::from_name(name))
        .expect("a known upstream");
    let mut lease = upstream.state.try_acquire(None).expect("a ready upstream");
    lease.report(Verdict::Refused);
}

#[tokio::test(start_paused = true)]
async fn the_last_resort_costs_a_retry() {
    let is_budget_spent = [false, true];
    for is_spent in is_budget_spent {
        let gateway = testing::gateway("");
        disable(&gateway, "a").await;
        disable(&gateway, "b").await;
        if is_spent {
            spend_retry_budget(&gateway);
        }
        let script: [(&str, &[Step]); 2] = ["a", "b"].map(|name| (name, &[SERVED][..]));
        let (sent, ended) = Scenario::new(&gateway, &script).run().await;
        match is_spent {
            false => assert_eq!((sent.len(), ended), (1, answer(sent[0].clone(), 200))),
            true => assert_eq!((sent.len(), ended), (0, Ended::Fault("upstreams_unavailable"))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_own_upstream_while_that_cools_down_and_holds_no_slot_meanwhile() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let began = Instant::now();
    let limit = limited(429, Duration::from_secs(2));
    let waiting = tokio::spawn(Scenario::new(&gateway, &[("a", &[limit, SERVED])]).run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = gateway.snapshot();
    assert_eq!(
        snapshot.upstreams()[0].state.in_flight(),
        0,
        "the lease is given back before the wait"
    );
    assert_eq!(gateway.runtime.waiting(), 1);
    let (sent, ended) = waiting.await.expect("no panic");
    assert_eq!((sent, ended), (vec!["a".to_owned(), "a".to_owned()], answer("a", 200)));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name("a")));
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_an_upstream_that_cools_down_for_longer_than_it_waits() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let began = Instant::now();
    let (sent, ended) = Scenario::new(&gateway, &[("a", &[limited(429, LONG)]), ("b", &[SERVED])])
        .run()
        .await;
    assert_eq!((sent, ended), (vec!["a".to_owned(), "b".to_owned()], answer("b", 200)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name("b")), "the session has moved");
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_a_slot_at_its_full_upstream() {
    let gateway = testing::configured(
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\nmax_in_flight = 1\n",
    );
    set_pin(&gateway, "a");
    let snapshot = gateway.snapshot();
    let lease = snapshot.upstreams()[0].state.try_acquire(None).expect("a free slot");
    let began = Instant::now();
    let waiting = tokio::spawn(Scenario::new(&gateway, &[("a", &[SERVED])]).run());
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(lease);
    let (sent, ended) = waiting.await.expect("no panic");
    assert_eq!((sent, ended), (vec!["a".to_owned()], answer("a", 200)));
    assert_eq!(began.elapsed(), Duration::from_millis(500));
}

/// The upstreams `a` and `b` of one organization, and `c` of another. The response `resp_1` was made by `owner`.
fn owned_by(owner: &str) -> Arc<Gateway> {
    let upstream = |name: &str, more: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nbase_url = \"http://{name}.test/v1\"\napi_key = \"env:K{name}\"\n{more}\n"
        )
    };
    let organization = "organization = \"team\"";
    let gateway =
        testing::configured(&(upstream("a", organization) + &upstream("b", organization) + &upstream("c", "")));
    let namespace = gateway.snapshot().access.anonymous().namespace;
    let key = OwnedKey::from_response_id(namespace, "resp_1");
    let owner = UpstreamId::from_name(owner);
    gateway.runtime.owners.confirm(key, None, owner, gateway.clock.now());
    gateway
}

#[tokio::test(start_paused = true)]
async fn owned_state_is_never_sent_outside_its_organization() {
    let limit = limited(429, LONG);
    let rows: [(&str, &[(&str, &[Step])], &[&str], Ended); 6] = [
        ("a", &[("a", &[SERVED])], &["a"], answer("a", 200)),
        (
            "a",
            &[("a", &[FAILED]), ("b", &[SERVED])],
            &["a", "b"],
            answer("b", 200),
        ),
        (
            "b",
            &[("b", &[UNREACHABLE]), ("a", &[FAILED])],
            &["b", "a"],
            answer("a", 500),
        ),
        ("c", &[("c", &[FAILED])], &["c"], answer("c", 500)),
        (
            "a",
            &[("a", &[limit]), ("b", &[limit])],
            &["a", "b"],
            Ended::Fault("usage_limit_reached"),
        ),
        ("removed", &[], &[], Ended::Fault("state_owner_gone")),
    ];
    for (owner, script, expected, expected_end) in rows {
        let gateway = owned_by(owner);
        let mut scenario = Scenario::new(&gateway, script);
        scenario.previous_response = Some("resp_1");
        let (sent, ended) = scenario.run().await;
        assert_eq!(
            (sent, ended),
            (expected.iter().map(|name| (*name).to_owned()).collect(), expected_end),
            "{owner}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_wait_is_picked_at_once() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let mut turn = open(&gateway, &snapshot, None).expect("the upstreams serve every model");
    for name in order(&gateway) {
        let PickStep::Go(picked) = turn.pick_now() else {
            panic!("{name} is ready");
        };
        assert_eq!(*picked.upstream.name, name);
        turn.mark_failed(picked.index);
    }
    assert!(matches!(turn.pick_now(), PickStep::NoneLeft));
}
