//! Tests the pick of a turn for each state of its upstreams, on a real gateway, without sockets and with paused time.

use crate::policy::LimitCause;
use std::sync::Arc;

use super::super::*;
use crate::{
    ids::{ObjectId, OwnedKey},
    policy::{Scope, Verdict, health::EJECT_AFTER},
    proxy::{
        testing,
        turn::kit::{self, set_pin},
    },
};

/// A generation that names no model.
const ANY: RequestClass = RequestClass::generation(None);
const RESPONSE: &str = "resp_1";

/// A change of the upstreams of a snapshot.
type Operation = fn(&Snapshot);

/// Opens a turn of the session of [`kit`] for `model`, which names `previous_response`.
fn open<'a>(
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    model: &'a str,
    previous_response: Option<&'a str>,
) -> Result<Turn<'a>, Fault> {
    let named = previous_response.map(kit::previous_response);
    let mut facts = kit::facts(snapshot);
    facts.model = Some(model);
    facts.named_state.in_body = named.as_slice();
    Turn::open(gateway, snapshot, &facts)
}

/// The first upstream of the configuration.
const A: MemberIndex = MemberIndex::new(0);
/// The second upstream of the configuration.
const B: MemberIndex = MemberIndex::new(1);

/// Reports `verdict` on a request to the upstream at `index`.
fn report(snapshot: &Snapshot, index: MemberIndex, verdict: Verdict) {
    let lease = snapshot.upstream(index).state.try_acquire(ANY);
    lease.expect("the upstream takes a request").report(verdict);
}

const fn limited_for(seconds: u64) -> Verdict {
    Verdict::Limited {
        reset: Some(Duration::from_secs(seconds)),
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    }
}

fn eject(snapshot: &Snapshot, index: MemberIndex) {
    (0..EJECT_AFTER).for_each(|_| report(snapshot, index, Verdict::Failed));
    let availability = snapshot.upstream(index).state.availability(ANY);
    assert!(matches!(availability, Availability::Ejected { .. }), "{availability:?}");
}

/// Lets a moment pass, because a failure counts only if its request was sent after the upstream was configured.
async fn pass_a_moment() {
    tokio::time::advance(Duration::from_secs(1)).await;
}

/// A gateway whose only upstream is `a`, with these settings.
fn only_a(settings: &str) -> Arc<Gateway> {
    testing::configured(&format!(
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\n{settings}\n"
    ))
}

#[tokio::test]
async fn a_turn_needs_an_upstream_that_serves_its_model() {
    let gateway = only_a("models = [\"gpt-5*\"]");
    let snapshot = gateway.snapshot();
    assert!(open(&gateway, &snapshot, "gpt-5.2", None).is_ok());
    let expected = Fault::ModelNotServed {
        model: "o4".to_owned(),
        served: vec!["gpt-5*".to_owned()],
    };
    assert_eq!(open(&gateway, &snapshot, "o4", None).err(), Some(expected));
}

#[tokio::test(start_paused = true)]
async fn a_turn_waits_for_a_full_upstream() {
    let gateway = only_a("max_in_flight = 1");
    let snapshot = gateway.snapshot();
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    let lease = snapshot.upstream(A).state.try_acquire(ANY).expect("a free slot");
    match turn.pick_now() {
        PickStep::Wait(Some(candidate)) => assert_eq!(candidate.index, A),
        _ => panic!("the only slot is taken"),
    }
    drop(lease);
    assert!(matches!(turn.pick_now(), PickStep::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_an_ejected_upstream_at_once() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let snapshot = gateway.snapshot();
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    let mut picked = || match turn.pick_now() {
        PickStep::Go(picked) => (picked.index, picked.route),
        _ => panic!("an upstream can be tried"),
    };
    assert_eq!(picked(), (A, Route::Pin));
    pass_a_moment().await;
    eject(&snapshot, A);
    assert_eq!(picked(), (B, Route::Moved));
}

#[tokio::test(start_paused = true)]
async fn an_ejected_upstream_gets_one_probe_and_a_session_waits_for_that_but_a_new_one_does_not() {
    let gateway = testing::configured(
        "[health]\nmax_ejected = 1\n[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\n",
    );
    let snapshot = gateway.snapshot();
    pass_a_moment().await;
    eject(&snapshot, A);
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    assert!(matches!(turn.pick_now(), PickStep::NoneLeft));
    set_pin(&gateway, "a");
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    assert!(matches!(turn.pick_now(), PickStep::Wait(Some(candidate)) if candidate.index == A));
    tokio::time::advance(Duration::from_secs(40)).await;
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    let probe = turn.pick_now();
    assert!(matches!(probe, PickStep::Go(_)));
    let second = RequestClass::generation(None);
    assert!(snapshot.upstream(A).state.try_acquire(second).is_none());
}

#[tokio::test(start_paused = true)]
async fn only_a_limit_that_resets_within_the_longest_wait_can_be_waited_out() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    assert!(turn.can_wait_out(A), "its health did not believe the limit");
    turn.mark_limited(A);
    assert!(!turn.can_wait_out(A), "the turn has asked it once more");
    report(&snapshot, A, limited_for(2));
    report(&snapshot, B, limited_for(3_600));
    assert!(turn.can_wait_out(A), "a new session waits as well");
    assert!(!turn.can_wait_out(B));
}

#[tokio::test(start_paused = true)]
async fn a_turn_does_not_leave_its_upstream_a_moment_before_the_reset() {
    for (millis_before, expected) in [(400, "a"), (600, "b")] {
        let gateway = testing::gateway("");
        set_pin(&gateway, "a");
        pass_a_moment().await;
        let snapshot = gateway.snapshot();
        report(&snapshot, A, limited_for(20));
        report(&snapshot, B, limited_for(20));
        let waiting = tokio::spawn({
            let gateway = gateway.clone();
            async move {
                let snapshot = gateway.snapshot();
                let mut facts = kit::facts(&snapshot);
                // The session has no patience for its own upstream.
                facts.prompt_bytes = 0;
                let mut turn = Turn::open(&gateway, &snapshot, &facts).expect("every model is served");
                let picked = turn.next_upstream().await.expect("the limits end");
                picked.upstream.name.to_string()
            }
        });
        tokio::time::sleep(Duration::from_millis(20_000 - millis_before)).await;
        assert!(!waiting.is_finished());
        snapshot.upstream(B).state.enable();
        assert_eq!(
            waiting.await.expect("no panic"),
            expected,
            "{millis_before} ms before the reset"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_for_a_reset_goes_to_an_upstream_that_is_enabled_before() {
    let gateway = testing::gateway("");
    pass_a_moment().await;
    let snapshot = gateway.snapshot();
    report(&snapshot, A, limited_for(20));
    report(&snapshot, B, limited_for(30));
    let waiting = tokio::spawn({
        let gateway = gateway.clone();
        async move {
            let snapshot = gateway.snapshot();
            let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
            let picked = turn.next_upstream().await.expect("an upstream recovers");
            (picked.index, turn.waited())
        }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    snapshot.upstream(B).state.enable();
    assert_eq!(waiting.await.expect("no panic"), (B, Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_turn_with_owned_state_waits_until_its_owner_takes_requests_again() {
    let enable: Operation = |snapshot| snapshot.upstream(A).state.enable();
    let rows: [(&str, Operation, Operation); 4] = [
        ("drained", |snapshot| snapshot.upstream(A).state.drain(), enable),
        ("disabled", |snapshot| report(snapshot, A, Verdict::Refused), enable),
        ("ejected", |snapshot| eject(snapshot, A), enable),
        (
            "disabled until a reload",
            |snapshot| report(snapshot, A, Verdict::Refused),
            |snapshot| snapshot.upstream(A).state.probe_credential(),
        ),
    ];
    for (name, trouble, recovery) in rows {
        for recovers in [true, false] {
            let gateway = testing::gateway("");
            let snapshot = gateway.snapshot();
            let key = OwnedKey::from_object(
                snapshot.access.anonymous().namespace,
                ObjectId::from_text(RESPONSE.as_bytes()),
            );
            let owner = UpstreamId::from_name("a");
            gateway.runtime.owners.confirm(key, None, owner, gateway.clock.now());
            pass_a_moment().await;
            trouble(&snapshot);
            let waiting = tokio::spawn({
                let gateway = gateway.clone();
                async move {
                    let snapshot = gateway.snapshot();
                    let mut turn = open(&gateway, &snapshot, "gpt-5.2", Some(RESPONSE)).expect("a response");
                    let picked = turn.next_upstream().await.map(|picked| picked.index);
                    (picked, turn.waited())
                }
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(gateway.runtime.waiting(), 1, "{name}");
            if recovers {
                recovery(&snapshot);
                let (picked, waited) = waiting.await.expect("no panic");
                assert_eq!((picked, waited), (Some(A), Duration::from_secs(1)), "{name}");
            } else {
                // The session's prompt is long, so its patience is the longest.
                let (_, waited) = waiting.await.expect("no panic");
                assert!(waited >= Duration::from_secs(20), "{name}: {waited:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_fault_says_why_no_upstream_is_left() {
    let unavailable = |cause, seconds| Fault::Unavailable {
        cause,
        retry: Duration::from_secs(seconds),
        is_owned: false,
    };
    let rows: [(&str, Operation, Fault); 4] = [
        ("no trouble", |_| {}, unavailable(UnavailableCause::Busy, 2)),
        (
            "one limit",
            |snapshot| report(snapshot, A, limited_for(60)),
            unavailable(UnavailableCause::Busy, 2),
        ),
        (
            "a limit and a drain",
            |snapshot| {
                report(snapshot, A, limited_for(60));
                snapshot.upstream(B).state.drain();
            },
            Fault::UpstreamsRateLimited {
                resets_in: Duration::from_secs(60),
                is_owned: false,
            },
        ),
        (
            "two limits",
            |snapshot| {
                report(snapshot, A, limited_for(60));
                report(snapshot, B, limited_for(30));
            },
            Fault::UpstreamsRateLimited {
                resets_in: Duration::from_secs(30),
                is_owned: false,
            },
        ),
    ];
    for (name, trouble, fault) in rows {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
        pass_a_moment().await;
        trouble(&snapshot);
        assert_eq!(turn.fault_of(turn.outlook()), fault, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_owner_is_not_configured_any_more_says_so() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let key = OwnedKey::from_object(
        snapshot.access.anonymous().namespace,
        ObjectId::from_text(RESPONSE.as_bytes()),
    );
    let removed = UpstreamId::from_name("removed");
    gateway.runtime.owners.confirm(key, None, removed, gateway.clock.now());
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", Some(RESPONSE)).expect("every model is served");
    assert!(matches!(turn.pick_now(), PickStep::NoneLeft));
    assert_eq!(turn.fault_of(turn.outlook()), Fault::OwnerGone);
}
