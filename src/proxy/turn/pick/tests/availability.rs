//! Tests the pick of a turn for each state of its upstreams, on a real gateway, without sockets and with paused time.

use crate::policy::LimitCause;
use std::sync::Arc;

use super::super::*;
use crate::{
    ids::OwnedKey,
    policy::{Scope, Verdict, health::EJECT_AFTER},
    proxy::{
        testing,
        turn::kit::{self, set_pin},
    },
};

/// A generation that names no model.
const ANY: RequestClass = RequestClass::generation(None);
const RESPONSE: &str = "resp_1";

/// Opens a turn of the session of [`kit`] for `model`, which names `previous_response`.
fn open<'a>(
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    model: &'a str,
    previous_response: Option<&'a str>,
) -> Result<Turn<'a>, Fault> {
    let mut facts = kit::facts(snapshot);
    facts.model = Some(model);
    facts.named_state.previous_response = previous_response;
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
        PickStep::Wait { candidate, until } => {
            assert_eq!(candidate.index, A);
            assert_eq!(until, gateway.clock.now().after(snapshot.patience.wait));
        }
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
    assert!(matches!(turn.pick_now(), PickStep::Wait { candidate, .. } if candidate.index == A));
    tokio::time::advance(Duration::from_secs(40)).await;
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    let probe = turn.pick_now();
    assert!(matches!(probe, PickStep::Go(_)));
    let second = RequestClass::generation(None);
    assert!(snapshot.upstream(A).state.try_acquire(second).is_none());
}

#[tokio::test(start_paused = true)]
async fn only_a_short_limit_of_the_own_upstream_is_worth_waiting_for() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let snapshot = gateway.snapshot();
    let turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
    assert!(!turn.is_worth_waiting_for(A), "it is ready");
    report(&snapshot, A, limited_for(2));
    report(&snapshot, B, limited_for(2));
    assert!(turn.is_worth_waiting_for(A));
    assert!(!turn.is_worth_waiting_for(B), "it is not the session's own upstream");
    tokio::time::advance(Duration::from_secs(3)).await;
    report(&snapshot, A, limited_for(3_600));
    assert!(
        !turn.is_worth_waiting_for(A),
        "another upstream would have read the prompt sooner"
    );
}

#[tokio::test(start_paused = true)]
async fn the_fault_says_why_no_upstream_is_left() {
    type Trouble = fn(&Snapshot);
    let rows: [(&str, Trouble, Option<u64>); 4] = [
        ("no limit", |_| {}, None),
        ("one limit", |snapshot| report(snapshot, A, limited_for(60)), None),
        (
            "a limit and an ejection",
            |snapshot| {
                report(snapshot, A, limited_for(60));
                eject(snapshot, B);
            },
            None,
        ),
        (
            "two limits",
            |snapshot| {
                report(snapshot, A, limited_for(60));
                report(snapshot, B, limited_for(30));
            },
            Some(30),
        ),
    ];
    for (name, trouble, first_reset) in rows {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let turn = open(&gateway, &snapshot, "gpt-5.2", None).expect("every model is served");
        pass_a_moment().await;
        trouble(&snapshot);
        match (turn.fault_when_none_is_left(), first_reset) {
            (Fault::Unavailable { is_owned: false, .. }, None) => {}
            (Fault::Limited { resets_in, .. }, Some(seconds)) => assert_eq!(resets_in.as_secs(), seconds, "{name}"),
            (fault, _) => panic!("{name}: {fault:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_owner_is_not_configured_any_more_says_so() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let key = OwnedKey::from_response_id(snapshot.access.anonymous().namespace, RESPONSE);
    let removed = UpstreamId::from_name("removed");
    gateway.runtime.owners.confirm(key, None, removed, gateway.clock.now());
    let mut turn = open(&gateway, &snapshot, "gpt-5.2", Some(RESPONSE)).expect("every model is served");
    assert!(matches!(turn.pick_now(), PickStep::NoneLeft));
    assert_eq!(turn.fault_when_none_is_left(), Fault::OwnerGone);
}
