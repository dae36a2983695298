use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Wake,
};

use proptest::prelude::*;

use super::{super::arrivals::ArrivalProgress, *};

const ALL: usize = 1000;
const LIMITS: MemoryLimits = MemoryLimits { all: ALL, share: 250 };

/// Records whether a task has been woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// The pace of a body that has just begun.
fn begun() -> PaceReading {
    crate::wire::body::pace::BodyPace::new(crate::wire::body::pace::MinBodyRate::OFF).reading()
}

fn want(account: &Arc<BodyAccount>, bytes: usize) -> Want {
    Want {
        account: account.clone(),
        bytes,
        whole: bytes,
        pace: begun(),
        id: None,
    }
}

fn taken(memory: &Arc<BodyMemory>, account: &Arc<BodyAccount>, bytes: usize) -> Option<BodyPermit> {
    let mut permit = BodyPermit::empty(memory, account.clone());
    memory.try_take(account, bytes).then(|| {
        permit.add(bytes);
        permit
    })
}

fn is_served(ticket: &Ticket) -> bool {
    ticket.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A permit for the memory that a ticket has got.
fn permit_of(memory: &Arc<BodyMemory>, account: &Arc<BodyAccount>, bytes: usize) -> BodyPermit {
    let mut permit = BodyPermit::empty(memory, account.clone());
    permit.add(bytes);
    permit
}

#[tokio::test(start_paused = true)]
async fn released_memory_goes_to_the_bodies_that_wait() {
    let memory = BodyMemory::new(LIMITS);
    let (alice, bob) = (Arc::default(), Arc::default());
    let first = taken(&memory, &alice, 900).expect("free memory");
    let second = taken(&memory, &alice, 100).expect("free memory");
    let over = memory.enqueue(want(&alice, 50));
    let within = memory.enqueue(want(&bob, 100));
    assert!(!is_served(&over) && !is_served(&within));
    assert!(taken(&memory, &bob, 1).is_none());
    drop(second);
    assert!(
        !is_served(&over) && is_served(&within),
        "the caller within its share comes first"
    );
    assert_eq!(over.refusal(), MemoryRefusal::ShareFull);
    drop(first);
    assert!(is_served(&over));
    drop((over, within));
    assert_eq!((memory.held(), alice.held(), bob.held()), (150, 50, 100));
    assert!(taken(&memory, &bob, 1).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_caller_alone_may_use_all_memory() {
    let memory = BodyMemory::new(LIMITS);
    let alice = Arc::default();
    let held: Vec<BodyPermit> = (0..10)
        .map(|_| taken(&memory, &alice, 100).expect("free memory"))
        .collect();
    let ticket = memory.enqueue(want(&alice, 1));
    assert!(!is_served(&ticket));
    assert_eq!(ticket.refusal(), MemoryRefusal::Full);
    drop(held);
    assert!(is_served(&ticket));
    drop(permit_of(&memory, &alice, 1));
    assert_eq!((memory.held(), alice.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_dropped_releases_what_it_has_got() {
    let memory = BodyMemory::new(LIMITS);
    let (alice, bob) = (Arc::default(), Arc::default());
    let held = taken(&memory, &alice, ALL).expect("free memory");
    let (first, second) = (memory.enqueue(want(&bob, 10)), memory.enqueue(want(&bob, 10)));
    drop(first);
    drop(held);
    assert_eq!(bob.held(), 10);
    drop(second);
    assert_eq!((memory.held(), bob.held()), (0, 0));
    assert!(taken(&memory, &bob, 1).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_arriving_body_of_a_caller_over_its_share_is_told_to_give_way() {
    let memory = BodyMemory::new(LIMITS);
    let (alice, bob) = (Arc::<BodyAccount>::default(), Arc::default());
    let permit = taken(&memory, &alice, ALL).expect("free memory");
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let progress = ArrivalProgress {
        account: &alice,
        bytes: ALL,
        pace: begun(),
    };
    let mut id = None;
    for _ in 0..2 {
        assert!(memory.arrivals.poll_reclaimed(&mut id, &progress, &mut cx).is_pending());
    }
    let ticket = memory.enqueue(want(&bob, 10));
    assert!(woken.0.load(Relaxed));
    assert!(memory.arrivals.poll_reclaimed(&mut id, &progress, &mut cx).is_ready());
    drop(permit);
    memory.arrivals.remove(id.expect("entered"));
    assert!(is_served(&ticket));
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_holds_as_soon_as_bodies_have_released_enough() {
    let memory = BodyMemory::new(LIMITS);
    let alice = Arc::default();
    let (first, second) = (
        taken(&memory, &alice, 600).expect("free memory"),
        taken(&memory, &alice, 300).expect("free memory"),
    );
    memory.set_limits(MemoryLimits { all: 400, share: 400 });
    assert_eq!(memory.held(), 900);
    drop(second);
    assert!(taken(&memory, &alice, 1).is_none(), "200 are still too many");
    let ticket = memory.enqueue(want(&alice, 100));
    assert!(!is_served(&ticket));
    memory.set_limits(MemoryLimits { all: 700, share: 700 });
    assert!(is_served(&ticket), "a higher limit serves the queue");
    drop(first);
    assert_eq!(memory.held(), 100);
}

/// What happens to the memory in a test.
#[derive(Clone, Debug)]
enum Step {
    Take { caller: usize, bytes: usize },
    Release(usize),
    GiveUp(usize),
    Limit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..200_usize).prop_map(|(caller, bytes)| Step::Take { caller, bytes }),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => (1..1500_usize).prop_map(Step::Limit),
    ]
}

proptest! {
    /// Bodies come, wait, give up and go while the limit changes. They never take more than the limit, no body waits while
    /// the first in its class would fit, and all that was taken is released.
    #[test]
    fn the_counts_are_exact(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        let memory = BodyMemory::new(LIMITS);
        let accounts: [Arc<BodyAccount>; 3] = Default::default();
        let (mut permits, mut tickets, mut limit) = (Vec::new(), Vec::new(), ALL);
        for step in steps {
            let before = memory.held();
            match step {
                Step::Take { caller, bytes } => match taken(&memory, &accounts[caller], bytes) {
                    Some(permit) => permits.push(permit),
                    None => tickets.push((caller, bytes, memory.enqueue(want(&accounts[caller], bytes)))),
                },
                Step::Release(at) if !permits.is_empty() => drop(permits.swap_remove(at % permits.len())),
                Step::GiveUp(at) if !tickets.is_empty() => drop(tickets.remove(at % tickets.len())),
                Step::Release(_) | Step::GiveUp(_) => {}
                Step::Limit(all) => {
                    limit = all;
                    memory.set_limits(MemoryLimits { all, share: all / 4 });
                }
            }
            prop_assert!(memory.held() <= limit.max(before), "more than the limit");
            tickets.retain(|(caller, bytes, ticket)| {
                let is_served = is_served(ticket);
                if is_served {
                    permits.push(permit_of(&memory, &accounts[*caller], *bytes));
                }
                !is_served
            });
            let held: usize = permits.iter().map(BodyPermit::bytes).sum();
            prop_assert_eq!(memory.held(), held);
            for (number, account) in accounts.iter().enumerate() {
                let own = permits.iter().filter(|permit| Arc::ptr_eq(permit.account(), account));
                prop_assert_eq!(account.held(), own.map(BodyPermit::bytes).sum::<usize>(), "account {}", number);
            }
            let fits = |(_, bytes, _): &(usize, usize, Ticket)| held + bytes <= limit;
            prop_assert!(!tickets.first().is_some_and(fits) || tickets.len() > 1);
        }
        drop(tickets);
        permits.clear();
        prop_assert_eq!((memory.held(), memory.waiting.load(SeqCst)), (0, 0));
        prop_assert!(accounts.iter().all(|account| account.held() == 0));
    }
}

#[test]
fn threads_that_take_and_release_leave_nothing_behind() {
    let memory = BodyMemory::new(LIMITS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let memory = memory.clone();
                tokio::spawn(async move {
                    let account: Arc<BodyAccount> = Arc::default();
                    for round in 0..2_000 {
                        let bytes = 1 + (number * 37 + round * 101) % 400;
                        let permit = match taken(&memory, &account, bytes) {
                            Some(permit) => permit,
                            None => {
                                let ticket = memory.enqueue(want(&account, bytes));
                                std::future::poll_fn(|cx| ticket.poll(cx)).await;
                                permit_of(&memory, &account, bytes)
                            }
                        };
                        assert!(memory.held() <= ALL);
                        tokio::task::yield_now().await;
                        drop(permit);
                    }
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(Duration::from_secs(60), task)
                .await
                .expect("no body waits forever")
                .expect("no panic");
        }
    });
    assert_eq!(memory.held(), 0);
}
