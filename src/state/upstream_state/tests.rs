//! How requests take slots, wait for them and hand them over.

use crate::policy::LimitCause;
use std::time::Duration;

use super::*;
use crate::policy::Scope;

fn state(max_in_flight: Option<u32>) -> Arc<UpstreamState> {
    let state = UpstreamState::new(&"a".into(), Clock::start());
    state.set_max_in_flight(max_in_flight);
    state
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
        async move { state.acquire(None, until).await }
    });
    while state.waiting() == before {
        tokio::task::yield_now().await;
    }
    waiting
}

#[tokio::test(start_paused = true)]
async fn slots_are_handed_over_in_the_order_of_the_queue() {
    let state = state(Some(1));
    let first = state.try_acquire(None).expect("a slot is free");
    assert_eq!(state.availability(None), Availability::Full);
    let (second, third) = (waiting_task(&state, 10_000).await, waiting_task(&state, 10_000).await);
    drop(first);
    assert!(
        state.try_acquire(None).is_none(),
        "a new request does not overtake waiting ones"
    );
    let second = second.await.expect("it runs").expect("it is the first in the queue");
    assert_eq!((state.in_flight(), state.waiting()), (1, 1));
    assert!(!third.is_finished());
    drop(second);
    assert!(third.await.expect("it runs").is_some());
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
    assert!(state.try_acquire(None).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stops_waiting_leaves_the_queue() {
    let state = state(Some(1));
    let held = state.try_acquire(None).expect("a slot is free");
    assert!(state.acquire(None, after(&state, 50)).await.is_none());
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
    let mut lease = state.try_acquire(None).expect("it is ready");
    lease.report(limited(3));
    drop(lease);
    assert!(matches!(state.availability(None), Availability::Cooling { .. }));
    assert!(state.try_acquire(None).is_none());
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
        state.try_acquire(None).expect("ready"),
        state.try_acquire(None).expect("ready"),
    );
    first.report(limited(3));
    let begun = state.clock.now();
    assert!(state.acquire(None, after(&state, 2_000)).await.is_none());
    let waiting = waiting_task(&state, 5_000).await;
    // Another request now reports that the cooldown takes longer.
    second.report(limited(60));
    assert!(waiting.await.expect("it runs").is_none());
    assert!(state.clock.now().since(begun) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_admits_a_waiting_request_at_once() {
    let state = state(Some(1));
    let _held = state.try_acquire(None).expect("a slot is free");
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
                        let lease = match state.try_acquire(None) {
                            Some(lease) => Some(lease),
                            None => {
                                let wait = state.acquire(None, after(&state, 1_000));
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
        let all: Vec<_> = (0..SLOTS).map_while(|_| state.try_acquire(None)).collect();
        assert_eq!(all.len(), SLOTS as usize);
    });
}
