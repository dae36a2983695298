//! Tests that a shortage of this process says nothing about the upstreams.

use super::*;
use crate::{
    ids::{Namespace, ObjectId},
    policy::Availability,
    wire::Shortage,
};

const SHORTAGES: [ScriptedStep; 4] = [
    ScriptedStep::Fail(|| SendFailure::Shortage(Shortage::Descriptors)),
    ScriptedStep::Fail(|| SendFailure::Shortage(Shortage::Ports)),
    ScriptedStep::Fail(|| SendFailure::Shortage(Shortage::Memory)),
    ScriptedStep::Fail(|| SendFailure::Shortage(Shortage::Threads)),
];
const SHORTAGE: ScriptedStep = SHORTAGES[0];
const NOT_FOUND: ScriptedStep = ScriptedStep::Answer(404, Verdict::ObjectNotFound, BufferedRest::Whole);
const OVERLOADED_HERE: Ended = Ended::Fault("overloaded");

fn availability(gateway: &Gateway, name: &str) -> Availability {
    let snapshot = gateway.snapshot();
    let upstream = snapshot.upstream_of(UpstreamId::from_name(name));
    let upstream = upstream.expect("a configured upstream");
    upstream.state.availability(RequestClass::generation(None))
}

/// Runs a turn of the session, which is pinned to `a`.
async fn run_at_a(gateway: &Arc<Gateway>, steps: [ScriptedStep; 2]) -> (Vec<String>, Ended) {
    tokio::time::advance(Duration::from_millis(10)).await;
    gateway.runtime.pins.remove(kit::session_key(gateway));
    set_pin(gateway, "a");
    Scenario::new(gateway, &[("a", &steps[..1]), ("b", &steps[1..])])
        .run()
        .await
}

/// The sum of the metrics that begin with `prefix`.
fn metric(gateway: &Gateway, prefix: &str) -> f64 {
    let scrape = gateway.scrape();
    let lines = scrape.lines().filter(|line| line.starts_with(prefix));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_shortage_ends_the_turn_and_counts_for_no_upstream() {
    for shortage in SHORTAGES {
        let gateway = testing::gateway("");
        for _ in 0..20 {
            let (sent, ended) = run_at_a(&gateway, [shortage, SERVED]).await;
            assert_eq!((sent.len(), ended), (1, OVERLOADED_HERE), "no other upstream is asked");
            assert_eq!(pin(&gateway), Some(UpstreamId::from_name("a")), "the session stays");
            assert!(gateway.runtime.brakes.are_idle());
        }
        assert_eq!(availability(&gateway, "a"), Availability::Ready);
        assert_eq!(metric(&gateway, "steadfast_failed_attempts_total"), 0.0);
        assert_eq!(run_at_a(&gateway, [SERVED, SERVED]).await.1, answer("a", 200));
    }
}

#[tokio::test]
async fn the_caller_learns_what_is_missing_and_when_to_try_again() {
    for shortage in [
        Shortage::Descriptors,
        Shortage::Ports,
        Shortage::Memory,
        Shortage::Threads,
    ] {
        let fault = Fault::Overloaded {
            shortage: shortage.noun(),
        };
        assert_eq!(fault.status(), 503);
        assert!(fault.message().contains(shortage.noun()), "{}", fault.message());
        assert!(matches!(fault.retry(), crate::fault::RetryAdvice::After(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_elsewhere_before_a_shortage_does_not_brake() {
    let gateway = testing::gateway("[retry]\nbudget = 1.0\n");
    for _ in 0..4 {
        let (sent, ended) = run_at_a(&gateway, [FAILED, SHORTAGE]).await;
        assert_eq!((sent.len(), ended), (2, OVERLOADED_HERE));
        assert!(gateway.runtime.brakes.are_idle());
    }
    assert_eq!(availability(&gateway, "a"), Availability::Ready, "no upstream served");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_meets_a_shortage_stays_due() {
    let gateway = testing::gateway("[retry]\nbudget = 1.0\n");
    let until = loop {
        run_at_a(&gateway, [UNREACHABLE, SERVED]).await;
        if let Availability::Ejected { until } = availability(&gateway, "a") {
            break until;
        }
    };
    tokio::time::advance(until.since(gateway.clock.now())).await;
    for _ in 0..3 {
        assert_eq!(run_at_a(&gateway, [SHORTAGE, SERVED]).await.1, OVERLOADED_HERE);
        assert_eq!(
            availability(&gateway, "a"),
            Availability::Ready,
            "the next request is the probe"
        );
    }
    assert_eq!(run_at_a(&gateway, [SERVED, SERVED]).await.1, answer("a", 200));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_cannot_be_checked_stays_as_it_is() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    tokio::time::advance(Duration::from_millis(1)).await;
    // The upstream is disabled, and its probe is due.
    Scenario::new(&gateway, &[("a", &[REFUSED]), ("b", &[SERVED])])
        .run()
        .await;
    let Availability::Disabled { until } = availability(&gateway, "a") else {
        panic!("disabled")
    };
    tokio::time::advance(until.since(gateway.clock.now())).await;
    gateway.runtime.pins.remove(kit::session_key(&gateway));
    set_pin(&gateway, "a");
    let mut scenario = Scenario::new(&gateway, &[("a", &[UNAUTHORIZED]), ("b", &[SERVED])]);
    scenario.check = RefusalCheck::NotAsked;
    let (sent, ended) = scenario.run().await;
    assert_eq!((sent.join(", ").as_str(), ended), ("a, check a", answer("a", 401)));
    // The next request is the probe, so the upstream has not been enabled by this one.
    let probes = metric(&gateway, "steadfast_probes_total");
    gateway.runtime.pins.remove(kit::session_key(&gateway));
    set_pin(&gateway, "a");
    Scenario::new(&gateway, &[("a", &[SERVED]), ("b", &[SERVED])])
        .run()
        .await;
    assert_eq!(metric(&gateway, "steadfast_probes_total"), probes + 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_search_that_meets_a_shortage_finds_nothing_out() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    let script: [(&str, &[ScriptedStep]); 2] = [(&order[0], &[NOT_FOUND]), (&order[1], &[SHORTAGE])];
    let mut scenario = Scenario::new(&gateway, &script);
    scenario.previous_response = Some("resp_1");
    let (sent, ended) = scenario.run().await;
    assert_eq!((sent, ended), (order[..2].to_vec(), OVERLOADED_HERE));
    let key = OwnedKey::from_object(Namespace::of_group(""), ObjectId::from_text(b"resp_1"));
    assert_eq!(gateway.runtime.owners.peek(key, gateway.clock.now()), None);
}
