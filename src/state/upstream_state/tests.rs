//! How requests take slots, wait for them and hand them over.

use std::time::Duration;

use super::*;
use crate::{
    endpoint::EndpointClass,
    policy::{
        LimitCause, Scope,
        health::{EARLY_PROBE, EJECT_AFTER, EJECTION, PROBE_DISABLED},
    },
    state::metrics::Exposition,
};

/// A generation that names no model.
const ANY: RequestClass = RequestClass::generation(None);

fn no_cap() -> Arc<Mutex<EjectionCap>> {
    Arc::new(Mutex::new(EjectionCap::new(0, 0.0)))
}

fn state(max_in_flight: Option<u32>) -> Arc<UpstreamState> {
    let state = UpstreamState::new(&"a".into(), Clock::start(), &no_cap());
    state.set_max_in_flight(max_in_flight);
    state
}

/// The lines of a scrape that have the counts of a family.
fn counted(state: &UpstreamState, family: &str) -> Vec<String> {
    let mut exposition = Exposition::default();
    state.metrics.expose(&[], &mut exposition);
    let text = exposition.into_text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter(|line| line.contains(family));
    lines.map(str::to_owned).collect()
}

fn after(state: &UpstreamState, millis: u64) -> Tick {
    state.clock.now().after(Duration::from_millis(millis))
}

fn limited(seconds: u64) -> Verdict {
    Verdict::Limited {
        reset: Some(Duration::from_secs(seconds)),
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    }
}

/// Starts a task that waits for a slot. It is in the queue when this returns.
async fn waiting_task(state: &Arc<UpstreamState>, millis: u64) -> tokio::task::JoinHandle<Option<Lease>> {
    let (before, until) = (state.waiting(), after(state, millis));
    let waiting = tokio::spawn({
        let state = state.clone();
        async move { state.acquire(ANY, until).await }
    });
    while state.waiting() == before {
        tokio::task::yield_now().await;
    }
    waiting
}

#[tokio::test(start_paused = true)]
async fn slots_are_handed_over_in_the_order_of_the_queue() {
    let state = state(Some(1));
    let first = state.try_acquire(ANY).expect("a slot is free");
    assert_eq!(state.availability(ANY), Availability::Full);
    let (second, third) = (waiting_task(&state, 10_000).await, waiting_task(&state, 10_000).await);
    drop(first);
    assert!(
        state.try_acquire(ANY).is_none(),
        "a new request does not overtake waiting ones"
    );
    let second = second.await.expect("it runs").expect("it is the first in the queue");
    assert_eq!((state.in_flight(), state.waiting()), (1, 1));
    assert!(!third.is_finished());
    drop(second);
    assert!(third.await.expect("it runs").is_some());
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
    assert!(state.try_acquire(ANY).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stops_waiting_leaves_the_queue() {
    let state = state(Some(1));
    let held = state.try_acquire(ANY).expect("a slot is free");
    assert!(state.acquire(ANY, after(&state, 50)).await.is_none());
    let gone = waiting_task(&state, 10_000).await;
    let stays = waiting_task(&state, 10_000).await;
    gone.abort();
    assert!(gone.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(state.waiting(), 1);
    drop(held);
    assert!(stays.await.expect("it runs").is_some());
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_cooldown_admits_every_waiting_request() {
    let state = state(None);
    let mut lease = state.try_acquire(ANY).expect("it is ready");
    lease.report(limited(3));
    drop(lease);
    assert!(matches!(state.availability(ANY), Availability::Cooling { .. }));
    assert!(state.try_acquire(ANY).is_none());
    let waiting = [waiting_task(&state, 5_000).await, waiting_task(&state, 5_000).await];
    let begun = state.clock.now();
    for waiting in waiting {
        assert!(waiting.await.expect("it runs").is_some());
    }
    let took = state.clock.now().since(begun);
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_a_cooldown_that_ends_after_its_deadline() {
    let state = state(None);
    let (mut first, mut second) = (
        state.try_acquire(ANY).expect("ready"),
        state.try_acquire(ANY).expect("ready"),
    );
    first.report(limited(3));
    let begun = state.clock.now();
    assert!(state.acquire(ANY, after(&state, 2_000)).await.is_none());
    let waiting = waiting_task(&state, 5_000).await;
    // Another request now reports that the cooldown takes longer.
    second.report(limited(60));
    assert!(waiting.await.expect("it runs").is_none());
    assert!(state.clock.now().since(begun) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_admits_a_waiting_request_at_once() {
    let state = state(Some(1));
    let _held = state.try_acquire(ANY).expect("a slot is free");
    let waiting = waiting_task(&state, 5_000).await;
    state.set_max_in_flight(Some(2));
    assert!(waiting.await.expect("it runs").is_some());
}

#[test]
fn a_slot_is_never_lost_or_taken_twice() {
    const SLOTS: u32 = 3;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let state = state(Some(SLOTS));
        let tasks: Vec<_> = (0..16u64)
            .map(|task| {
                let state = state.clone();
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(task);
                    for _ in 0..6_250 {
                        let lease = match state.try_acquire(ANY) {
                            Some(lease) => Some(lease),
                            None => {
                                let wait = state.acquire(ANY, after(&state, 1_000));
                                let patience = Duration::from_micros(random.u64(..200));
                                tokio::time::timeout(patience, wait).await.ok().flatten()
                            }
                        };
                        assert!(state.in_flight() <= SLOTS);
                        if random.bool() {
                            tokio::task::yield_now().await;
                        }
                        drop(lease);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no more requests than slots");
        }
        assert_eq!((state.in_flight(), state.waiting()), (0, 0));
        let all: Vec<_> = (0..SLOTS).map_while(|_| state.try_acquire(ANY)).collect();
        assert_eq!(all.len(), SLOTS as usize);
    });
}

/// The states of so many upstreams, all of them in one pool, and its cap.
fn pool(upstreams: usize, share: f64) -> (Vec<Arc<UpstreamState>>, Arc<Mutex<EjectionCap>>) {
    let (clock, cap) = (Clock::start(), Arc::new(Mutex::new(EjectionCap::new(upstreams, share))));
    let states = (0..upstreams).map(|n| UpstreamState::new(&n.to_string().into(), clock, &cap));
    let states: Vec<_> = states
        .inspect(|state| state.set_membership(Membership::Member))
        .collect();
    (states, cap)
}

/// Makes so many requests to an upstream fail.
fn fail(state: &Arc<UpstreamState>, requests: u32) {
    for _ in 0..requests {
        if let Some(mut lease) = state.try_acquire(ANY) {
            lease.report(Verdict::Failed);
        }
    }
}

fn ejected(states: &[Arc<UpstreamState>]) -> usize {
    let is_ejected = |state: &&Arc<UpstreamState>| matches!(state.availability(ANY), Availability::Ejected { .. });
    states.iter().filter(is_ejected).count()
}

#[tokio::test(start_paused = true)]
async fn at_most_a_share_of_the_pool_is_ejected_and_a_place_is_given_back_in_every_way() {
    let (states, cap) = pool(4, 0.5);
    let counted = || cap.lock().ejected(EndpointClass::Generation);
    tokio::time::advance(Duration::from_secs(1)).await;
    states.iter().for_each(|state| fail(state, 10));
    assert_eq!((ejected(&states), counted()), (2, 2));

    // The operator enables the first upstream: the third is ejected at its next failure.
    states[0].enable();
    assert_eq!((ejected(&states), counted()), (1, 1));
    fail(&states[2], 1);
    assert_eq!((ejected(&states), counted()), (2, 2));

    // A probe of the second is served: the fourth is ejected at its next failure.
    tokio::time::advance(Duration::from_secs(40)).await;
    let mut probe = states[1].try_acquire(ANY).expect("a probe is due");
    probe.report(Verdict::Served);
    fail(&states[3], 1);
    assert_eq!(counted(), 2);

    // A refused credential disables the third, and a reload removes the fourth.
    tokio::time::advance(Duration::from_secs(1)).await;
    states[2]
        .try_acquire(ANY)
        .expect("a probe is due")
        .report(Verdict::Refused);
    assert_eq!(counted(), 1);
    states[3].set_membership(Membership::Outside);
    assert_eq!(counted(), 0);
    states[3].set_membership(Membership::Member);
    states[3].set_membership(Membership::Member);
    assert_eq!(counted(), 1, "it comes back ejected");
    assert!(states[0].eject_outlier() && !states[1].eject_outlier());
    assert_eq!(counted(), 2);
}

#[test]
fn threads_eject_no_more_upstreams_than_may_be_and_lose_no_place() {
    const UPSTREAMS: usize = 8;
    let (states, cap) = pool(UPSTREAMS, 0.5);
    for _ in 0..50 {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let states = &states;
                scope.spawn(move || {
                    for n in 0..200 {
                        let state = &states[(n * 3 + thread) % UPSTREAMS];
                        fail(state, 2);
                        if (n + thread) % 17 == 0 {
                            state.enable();
                        }
                    }
                });
            }
        });
        let counted = cap.lock().ejected(EndpointClass::Generation);
        assert_eq!(ejected(&states), counted);
        assert!(counted <= UPSTREAMS / 2, "{counted}");
        std::thread::sleep(Duration::from_millis(1));
        states.iter().for_each(|state| fail(state, 10));
        assert_eq!(ejected(&states), UPSTREAMS / 2, "no place is lost");
        states.iter().for_each(UpstreamState::enable);
        assert_eq!(
            (ejected(&states), cap.lock().ejected(EndpointClass::Generation)),
            (0, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_late_does_not_end_a_row_of_failures() {
    let state = state(None);
    for n in 0..5 {
        assert_eq!(state.availability(ANY), Availability::Ready, "{n}");
        let mut lease = state.try_acquire(ANY).expect("ready");
        lease.report(Verdict::Served);
        lease.report(Verdict::Failed);
        lease.complete();
    }
    assert!(matches!(state.availability(ANY), Availability::Ejected { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_whole_response_ends_a_row_of_failures() {
    let state = state(None);
    fail(&state, 4);
    let mut lease = state.try_acquire(ANY).expect("ready");
    lease.report(Verdict::Served);
    assert_eq!(state.status().failures, 4);
    lease.complete();
    assert_eq!(state.status().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn probes_are_counted_by_the_state_that_they_probe() {
    let state = state(None);
    tokio::time::advance(Duration::from_millis(1)).await;
    let send = || state.try_acquire(ANY).expect("the upstream takes a request");
    send().report(limited(300));
    tokio::time::advance(EARLY_PROBE).await;
    send().report(Verdict::Served);
    for _ in 0..EJECT_AFTER {
        tokio::time::advance(Duration::from_millis(1)).await;
        send().report(Verdict::Failed);
    }
    tokio::time::advance(EJECTION * 2).await;
    let probe = send();
    assert!(state.try_acquire(ANY).is_none(), "one probe at a time");
    drop(probe);
    send().report(Verdict::Refused);
    tokio::time::advance(PROBE_DISABLED * 2).await;
    send().report(Verdict::Served);
    send().report(Verdict::Served);
    assert_eq!(
        counted(&state, "probes_total"),
        [
            r#"steadfast_probes_total{state="cooling"} 1"#,
            r#"steadfast_probes_total{state="disabled"} 1"#,
            r#"steadfast_probes_total{state="ejected"} 2"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_an_answer_is_counted_as_late() {
    let state = state(None);
    let send = || state.try_acquire(ANY).expect("the upstream is ready");
    for (verdicts, late) in [
        (vec![Verdict::Served], 0),
        (vec![Verdict::Failed], 0),
        (vec![Verdict::Served, Verdict::Answered], 0),
        (vec![Verdict::Served, Verdict::Failed], 1),
        (vec![Verdict::Served, limited(300)], 2),
    ] {
        let mut lease = send();
        verdicts.iter().for_each(|verdict| lease.report(*verdict));
        let expected = format!("steadfast_late_failures_total {late}");
        assert_eq!(counted(&state, "late_failures_total"), [expected], "{verdicts:?}");
    }
}
