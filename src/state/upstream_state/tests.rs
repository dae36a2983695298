use std::time::Duration;

use super::*;
use crate::{policy::health::Scope, state::Meter};

fn live(slots: Option<u32>) -> Arc<Live> {
    let live = Live::new("a", Meter::new().upstream("a"), Clock::start());
    live.set_slots(slots);
    live
}

fn after(live: &Live, millis: u64) -> Tick {
    live.clock.now().after(Duration::from_millis(millis))
}

fn limited(seconds: u64) -> Event {
    Event::Limited {
        reset: Some(Duration::from_secs(seconds)),
        scope: Scope::Upstream,
    }
}

/// Starts to wait, and is in line when this returns.
async fn in_line(live: &Arc<Live>, millis: u64) -> tokio::task::JoinHandle<Option<Lease>> {
    let (before, until) = (live.waiting(), after(live, millis));
    let waiting = tokio::spawn({
        let live = live.clone();
        async move { live.wait(None, until).await }
    });
    while live.waiting() == before {
        tokio::task::yield_now().await;
    }
    waiting
}

#[tokio::test(start_paused = true)]
async fn slots_are_handed_over_in_order() {
    let live = live(Some(1));
    let first = live.enter(None).expect("there is a slot");
    assert_eq!(live.standing(None), Standing::Full);
    let (second, third) = (in_line(&live, 10_000).await, in_line(&live, 10_000).await);
    drop(first);
    assert!(live.enter(None).is_none(), "nobody overtakes those in line");
    let second = second.await.expect("it runs").expect("its turn");
    assert_eq!((live.in_flight(), live.waiting()), (1, 1));
    assert!(!third.is_finished());
    drop(second);
    assert!(third.await.expect("it runs").is_some());
    assert_eq!((live.in_flight(), live.waiting()), (0, 0));
    assert!(live.enter(None).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_leaves_no_trace() {
    let live = live(Some(1));
    let held = live.enter(None).expect("there is a slot");
    assert!(live.wait(None, after(&live, 50)).await.is_none());
    let gone = in_line(&live, 10_000).await;
    let stays = in_line(&live, 10_000).await;
    gone.abort();
    assert!(gone.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(live.waiting(), 1);
    drop(held);
    assert!(stays.await.expect("it runs").is_some());
    assert_eq!((live.in_flight(), live.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_cooldown_lets_everybody_in() {
    let live = live(None);
    let mut lease = live.enter(None).expect("it is ready");
    lease.report(limited(3));
    drop(lease);
    assert!(matches!(live.standing(None), Standing::Cooling { .. }));
    assert!(live.enter(None).is_none());
    let waiting = [in_line(&live, 5_000).await, in_line(&live, 5_000).await];
    let begun = live.clock.now();
    for waiting in waiting {
        assert!(waiting.await.expect("it runs").is_some());
    }
    let took = live.clock.now().since(begun);
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_comes_too_late() {
    let live = live(None);
    let (mut first, mut second) = (live.enter(None).expect("ready"), live.enter(None).expect("ready"));
    first.report(limited(3));
    let begun = live.clock.now();
    assert!(live.wait(None, after(&live, 2_000)).await.is_none());
    let waiting = in_line(&live, 5_000).await;
    // News comes meanwhile that it takes longer.
    second.report(limited(60));
    assert!(waiting.await.expect("it runs").is_none());
    assert!(live.clock.now().since(begun) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn more_slots_let_in_at_once() {
    let live = live(Some(1));
    let _held = live.enter(None).expect("there is a slot");
    let waiting = in_line(&live, 5_000).await;
    live.set_slots(Some(2));
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
        let live = live(Some(SLOTS));
        let tasks: Vec<_> = (0..16u64)
            .map(|task| {
                let live = live.clone();
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(task);
                    for _ in 0..6_250 {
                        let lease = match live.enter(None) {
                            Some(lease) => Some(lease),
                            None => {
                                let wait = live.wait(None, after(&live, 1_000));
                                let patience = Duration::from_micros(random.u64(..200));
                                tokio::time::timeout(patience, wait).await.ok().flatten()
                            }
                        };
                        assert!(live.in_flight() <= SLOTS);
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
        assert_eq!((live.in_flight(), live.waiting()), (0, 0));
        let all: Vec<_> = (0..SLOTS).map_while(|_| live.enter(None)).collect();
        assert_eq!(all.len(), SLOTS as usize);
    });
}
