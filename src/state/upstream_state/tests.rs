use std::time::Duration;

use super::*;
use crate::{policy::Scope, state::Metrics};

fn state(slots: Option<u32>) -> Arc<UpstreamState> {
    let state = UpstreamState::new("a", Metrics::new().upstream("a"), Clock::start());
    state.set_slots(slots);
    state
}

fn after(state: &UpstreamState, millis: u64) -> Tick {
    state.clock.now().after(Duration::from_millis(millis))
}

fn limited(seconds: u64) -> Verdict {
    Verdict::Limited {
        reset: Some(Duration::from_secs(seconds)),
        scope: Scope::Upstream,
    }
}

/// Starts to wait, and is in line when this returns.
async fn in_line(state: &Arc<UpstreamState>, millis: u64) -> tokio::task::JoinHandle<Option<Lease>> {
    let (before, until) = (state.waiting(), after(state, millis));
    let waiting = tokio::spawn({
        let state = state.clone();
        async move { state.wait(None, until).await }
    });
    while state.waiting() == before {
        tokio::task::yield_now().await;
    }
    waiting
}

#[tokio::test(start_paused = true)]
async fn slots_are_handed_over_in_order() {
    let state = state(Some(1));
    let first = state.enter(None).expect("there is a slot");
    assert_eq!(state.standing(None), Availability::Full);
    let (second, third) = (in_line(&state, 10_000).await, in_line(&state, 10_000).await);
    drop(first);
    assert!(state.enter(None).is_none(), "nobody overtakes those in line");
    let second = second.await.expect("it runs").expect("its turn");
    assert_eq!((state.in_flight(), state.waiting()), (1, 1));
    assert!(!third.is_finished());
    drop(second);
    assert!(third.await.expect("it runs").is_some());
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
    assert!(state.enter(None).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_leaves_no_trace() {
    let state = state(Some(1));
    let held = state.enter(None).expect("there is a slot");
    assert!(state.wait(None, after(&state, 50)).await.is_none());
    let gone = in_line(&state, 10_000).await;
    let stays = in_line(&state, 10_000).await;
    gone.abort();
    assert!(gone.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(state.waiting(), 1);
    drop(held);
    assert!(stays.await.expect("it runs").is_some());
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_cooldown_lets_everybody_in() {
    let state = state(None);
    let mut lease = state.enter(None).expect("it is ready");
    lease.report(limited(3));
    drop(lease);
    assert!(matches!(state.standing(None), Availability::Cooling { .. }));
    assert!(state.enter(None).is_none());
    let waiting = [in_line(&state, 5_000).await, in_line(&state, 5_000).await];
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
async fn nobody_waits_for_what_comes_too_late() {
    let state = state(None);
    let (mut first, mut second) = (state.enter(None).expect("ready"), state.enter(None).expect("ready"));
    first.report(limited(3));
    let begun = state.clock.now();
    assert!(state.wait(None, after(&state, 2_000)).await.is_none());
    let waiting = in_line(&state, 5_000).await;
    // News comes meanwhile that it takes longer.
    second.report(limited(60));
    assert!(waiting.await.expect("it runs").is_none());
    assert!(state.clock.now().since(begun) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn more_slots_let_in_at_once() {
    let state = state(Some(1));
    let _held = state.enter(None).expect("there is a slot");
    let waiting = in_line(&state, 5_000).await;
    state.set_slots(Some(2));
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
                        let lease = match state.enter(None) {
                            Some(lease) => Some(lease),
                            None => {
                                let wait = state.wait(None, after(&state, 1_000));
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
            task.await.expect("no more than there are");
        }
        assert_eq!((state.in_flight(), state.waiting()), (0, 0));
        let all: Vec<_> = (0..SLOTS).map_while(|_| state.enter(None)).collect();
        assert_eq!(all.len(), SLOTS as usize);
    });
}
