//! The pick of a turn on a real gateway, without sockets and with paused time.

mod availability;

use super::*;
use crate::policy::LimitCause;
use crate::{
    policy::{Scope, Verdict},
    proxy::{
        testing,
        turn::kit::{self, pin, set_pin},
    },
};

/// Makes an upstream report a limit that resets after so many seconds.
fn limit(snapshot: &Snapshot, name: &str, seconds: u64) {
    let upstream = snapshot.upstream_of(UpstreamId::from_name(name));
    let state = &upstream.expect("a configured upstream").state;
    let mut lease = state
        .try_acquire(RequestClass::generation(None))
        .expect("a ready upstream");
    lease.report(Verdict::Limited {
        reset: Some(Duration::from_secs(seconds)),
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    });
}

fn open<'a>(gateway: &'a Gateway, snapshot: &'a Snapshot) -> Turn<'a> {
    Turn::open(gateway, snapshot, &kit::facts(snapshot)).expect("the upstreams serve every model")
}

/// The name of the upstream that the turn goes to, or "waits", "lost" or "none".
fn step(turn: &mut Turn<'_>) -> String {
    match turn.pick_now() {
        PickStep::Go(picked) => picked.upstream.name.to_string(),
        PickStep::Wait(_) => "waits".to_owned(),
        PickStep::LostSlot => "lost".to_owned(),
        PickStep::NoneLeft => "none".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_session_with_a_cache_waits_for_its_own_upstream() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let PickStep::Go(home) = open(&gateway, &snapshot).pick_now() else {
        panic!("both upstreams are ready");
    };
    let (own, other) = match &*home.upstream.name {
        "a" => ("a", "b"),
        _ => ("b", "a"),
    };
    drop(home);
    limit(&snapshot, own, 3);
    assert_eq!(
        step(&mut open(&gateway, &snapshot)),
        other,
        "a new session loses nothing"
    );
    set_pin(&gateway, own);
    assert_eq!(step(&mut open(&gateway, &snapshot)), "waits");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_wait_goes_to_another_upstream() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    set_pin(&gateway, "a");
    limit(&snapshot, "a", 3);
    let permits: Vec<_> = std::iter::from_fn(|| gateway.runtime.wait_permit()).collect();
    let mut turn = open(&gateway, &snapshot);
    let picked = turn.next_upstream().await.expect("an upstream is ready");
    assert_eq!((&*picked.upstream.name, turn.waited()), ("b", Duration::ZERO));
    assert_eq!(gateway.runtime.waiting(), permits.len());
}

#[tokio::test(start_paused = true)]
async fn a_turn_measures_how_long_it_has_waited() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    set_pin(&gateway, "a");
    limit(&snapshot, "a", 3);
    let mut turn = open(&gateway, &snapshot);
    let picked = turn.next_upstream().await.expect("the cooldown ends");
    assert_eq!(&*picked.upstream.name, "a");
    let waited = turn.waited();
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    assert_eq!(gateway.runtime.waiting(), 0, "the permission to wait is given back");
}

#[tokio::test(start_paused = true)]
async fn a_pin_at_an_upstream_without_the_model_stays() {
    let upstream = |name: &str, model: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nbase_url = \"http://{name}.test/v1\"\napi_key = \"env:K\"\nmodels = [\"{model}\"]\n"
        )
    };
    let gateway = testing::configured(&(upstream("a", "other-*") + &upstream("b", "gpt-*")));
    let snapshot = gateway.snapshot();
    set_pin(&gateway, "a");
    let mut turn = open(&gateway, &snapshot);
    let PickStep::Go(picked) = turn.pick_now() else {
        panic!("an upstream with the model is ready");
    };
    assert_eq!(&*picked.upstream.name, "b");
    turn.confirm(picked.upstream);
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name("a")));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_no_upstream_serves_is_a_fault() {
    let upstream =
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:K\"\nmodels = [\"other-*\"]\n";
    let gateway = testing::configured(upstream);
    let snapshot = gateway.snapshot();
    let opened = Turn::open(&gateway, &snapshot, &kit::facts(&snapshot));
    let expected = Fault::ModelNotServed {
        model: "gpt-5.2".to_owned(),
        served: vec!["other-*".to_owned()],
    };
    assert_eq!(opened.err(), Some(expected));
}

#[tokio::test(start_paused = true)]
async fn the_fault_says_when_the_first_of_all_limits_resets() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    limit(&snapshot, "a", 7_200);
    let fault = || {
        let turn = open(&gateway, &snapshot);
        turn.fault_of(turn.outlook())
    };
    assert!(matches!(fault(), Fault::Unavailable { is_owned: false, .. }));
    limit(&snapshot, "b", 3_600);
    match fault() {
        Fault::Limited {
            resets_in, is_owned, ..
        } => {
            assert!(resets_in > Duration::from_secs(3_000) && resets_in <= Duration::from_secs(3_600));
            assert!(!is_owned);
        }
        fault => panic!("{fault:?}"),
    }
}
