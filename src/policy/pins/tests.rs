//! Tests of affinity tables. The oracle is a list that is searched and sorted by hand.

use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::ids::Namespace;

const IDLE: Duration = Duration::from_secs(3600);

fn key(n: usize) -> SessionKey {
    SessionKey::from_text(Namespace::of_group(""), &n.to_string())
}

fn upstream(n: u64) -> UpstreamId {
    UpstreamId::from_u64(n)
}

fn at(seconds: u64) -> Tick {
    Tick::ZERO.after(Duration::from_secs(seconds))
}

#[test]
fn an_entry_expires_when_it_has_been_idle() {
    let pins = Pins::new(10, Duration::from_secs(10));
    assert_eq!(pins.confirm(key(1), None, upstream(1), at(0)), upstream(1));
    assert_eq!(pins.get(key(1), at(10)), Some(upstream(1)));
    assert_eq!(pins.peek(key(1), at(20)), Some(upstream(1)));
    assert_eq!(pins.peek(key(1), at(21)), None, "a peek does not count as a use");
    assert_eq!(pins.get(key(1), at(21)), None);
    assert_eq!(pins.get(key(2), at(21)), None);
    pins.resize(10, Duration::from_secs(60));
    assert_eq!(pins.get(key(1), at(21)), Some(upstream(1)));
}

#[test]
fn a_confirmation_counts_as_a_use_only_some_time_after_the_last_use() {
    let pins = Pins::new(10, Duration::from_secs(1024));
    pins.confirm(key(1), None, upstream(1), at(0));
    pins.confirm(key(1), Some(upstream(1)), upstream(1), at(1));
    assert_eq!(pins.peek(key(1), at(1024)), Some(upstream(1)));
    assert_eq!(pins.peek(key(1), at(1025)), None);
    pins.confirm(key(1), Some(upstream(1)), upstream(1), at(2));
    assert_eq!(pins.peek(key(1), at(1026)), Some(upstream(1)));
    pins.confirm(key(1), Some(upstream(1)), upstream(2), at(3));
    assert_eq!(
        pins.peek(key(1), at(1027)),
        Some(upstream(2)),
        "a move is written at once"
    );
}

#[test]
fn an_entry_that_was_used_after_its_moment_was_published_is_kept() {
    let pins = Pins::new(SHARDS, IDLE);
    (0..SHARDS).for_each(|n| _ = pins.confirm(key(n), None, upstream(1), at(n as u64)));
    // All entries but one are used again, so that every shard but one publishes a moment that is too early.
    (0..SHARDS)
        .filter(|n| *n != 200)
        .for_each(|n| _ = pins.get(key(n), at(1_000 + n as u64)));
    pins.confirm(key(SHARDS), None, upstream(1), at(2_000));
    assert_eq!(pins.len(), SHARDS);
    assert_eq!(pins.peek(key(200), at(2_000)), None);
    assert!(
        (0..=SHARDS)
            .filter(|n| *n != 200)
            .all(|n| pins.peek(key(n), at(2_000)).is_some())
    );
}

#[test]
fn the_first_request_to_finish_decides_the_pin() {
    let pins = Pins::new(10, IDLE);
    let (a, b, c) = (upstream(1), upstream(2), upstream(3));
    assert_eq!(pins.confirm(key(1), None, a, at(0)), a);
    assert_eq!(
        pins.confirm(key(1), None, b, at(1)),
        a,
        "the request saw no pin, and now there is one"
    );
    assert_eq!(pins.confirm(key(1), Some(a), b, at(2)), b, "moved");
    assert_eq!(
        pins.confirm(key(1), Some(a), c, at(3)),
        b,
        "another request moved the pin meanwhile"
    );
    assert_eq!(pins.confirm(key(1), Some(a), b, at(4)), b);
    assert_eq!(
        pins.confirm(key(1), Some(a), c, at(5).after(IDLE)),
        c,
        "the pin has expired"
    );
    assert!(pins.remove(key(1)));
    assert!(!pins.remove(key(1)));
    assert_eq!(pins.confirm(key(1), Some(a), b, at(6).after(IDLE)), b);
    assert_eq!(pins.len(), 1);
}

#[test]
fn idle_entries_are_dropped_before_the_table_is_full() {
    let pins = Pins::new(1_000_000, Duration::from_secs(10));
    (0..10_000).for_each(|n| _ = pins.confirm(key(n), None, upstream(1), at(0)));
    (10_000..20_000).for_each(|n| _ = pins.confirm(key(n), None, upstream(1), at(100)));
    assert!((10_000..10_100).contains(&pins.len()), "{}", pins.len());
    assert!((10_000..20_000).all(|n| pins.get(key(n), at(100)).is_some()));
}

#[test]
fn a_smaller_capacity_keeps_the_newest_entries_and_returns_memory() {
    let pins = Pins::new(100_000, IDLE);
    (0..100_000).for_each(|n| _ = pins.confirm(key(n), None, upstream(1), at(n as u64 / 400)));
    pins.resize(1_000, IDLE);
    assert_eq!((pins.len(), pins.capacity()), (1_000, 1_000));
    assert!((99_200..100_000).all(|n| pins.peek(key(n), at(1_000)).is_some()));
    assert!(
        heap_bytes(&pins) < 1_000 * 48 + SHARDS * 40 * 32,
        "{}",
        heap_bytes(&pins)
    );
    pins.resize(2_000, IDLE);
    (0..5_000).for_each(|n| _ = pins.confirm(key(n), None, upstream(1), at(1_000)));
    assert_eq!(pins.len(), 2_000);
    pins.resize(0, IDLE);
    assert_eq!(pins.confirm(key(1), None, upstream(1), at(1_000)), upstream(1));
    assert!(pins.is_empty());
}

fn heap_bytes<K>(table: &AffinityTable<K>) -> usize {
    let shards = table
        .shards
        .iter()
        .map(|shard| shard.lock().heap_bytes())
        .sum::<usize>();
    shards + size_of_val(&*table.shards) + size_of_val(&*table.oldest)
}

#[test]
fn a_full_table_keeps_its_size_and_evicts_the_oldest_entries() {
    const CAPACITY: usize = 1_000_000;
    const EVICTED: usize = 50_000;
    let pins = Pins::new(CAPACITY, IDLE);
    let now = |n: usize| Tick::from_nanos(n as u64);
    (0..CAPACITY).for_each(|n| _ = pins.confirm(key(n), None, upstream(1), now(n)));
    assert_eq!(pins.len(), CAPACITY, "no entry is evicted before the table is full");
    for n in 0..EVICTED {
        pins.confirm(key(CAPACITY + n), None, upstream(1), now(CAPACITY + n));
        assert_eq!(pins.len(), CAPACITY);
    }
    let is_there = |n: &usize| pins.peek(key(*n), now(2 * CAPACITY)).is_some();
    assert!(
        !(0..EVICTED).any(|n| is_there(&n)) && (EVICTED..2 * EVICTED).all(|n| is_there(&n)),
        "the oldest entries were evicted"
    );
    let each = heap_bytes(&pins) as f64 / CAPACITY as f64;
    assert!(each <= 48.0, "{each} bytes per entry");
}

fn claim(seen: Option<UpstreamId>, upstream: UpstreamId, kib: u64) -> Claim {
    Claim {
        seen,
        upstream,
        prompt: PromptSize::of_bytes(kib * 1024),
        takeover: PinTakeover::IfAsLong,
    }
}

#[test]
fn a_pin_follows_the_longest_conversation() {
    let pins = Pins::new(10, IDLE);
    let (main, sub) = (upstream(1), upstream(2));
    let claims = |seen, to, kib| pins.claim(key(1), claim(Some(seen), to, kib), at(0));
    assert_eq!(pins.claim(key(1), claim(None, main, 800), at(0)), main);
    for kib in [20, 400, 600] {
        assert_eq!(claims(main, sub, kib), main, "a subagent's prompt is shorter");
    }
    assert_eq!(claims(main, sub, 0), main, "a request without a prompt");
    assert_eq!(
        claims(main, sub, 790),
        sub,
        "the main session left, with a prompt that is a little shorter"
    );
    assert_eq!(claims(sub, main, 20), sub, "its size is that of the move");
    for _ in 0..3 {
        assert_eq!(claims(sub, sub, 0), sub);
    }
    assert_eq!(
        claims(sub, main, 600),
        sub,
        "a request without a prompt does not let the size decay"
    );
    for _ in 0..11 {
        assert_eq!(claims(sub, sub, 200), sub);
    }
    assert_eq!(claims(sub, main, 200), main, "the session was compacted");
    let gone = Claim {
        takeover: PinTakeover::Always,
        ..claim(Some(main), sub, 1)
    };
    assert_eq!(
        pins.claim(
            key(1),
            Claim {
                seen: Some(sub),
                ..gone
            },
            at(0)
        ),
        main,
        "another request moved it"
    );
    assert_eq!(pins.claim(key(1), gone, at(0)), sub, "its upstream is gone");
    assert_eq!(pins.claim(key(1), claim(Some(sub), main, 2), at(0)), main);
}

#[test]
fn an_expired_pin_and_a_smaller_table_keep_no_old_size_and_every_new_one() {
    let pins = Pins::new(10, Duration::from_secs(10));
    let (a, b) = (upstream(1), upstream(2));
    pins.claim(key(1), claim(None, a, 800), at(0));
    assert_eq!(
        pins.claim(key(1), claim(Some(a), b, 20), at(11)),
        b,
        "the pin has expired"
    );
    assert_eq!(pins.claim(key(1), claim(Some(b), a, 20), at(11)), a);
    (2..12).for_each(|n| _ = pins.claim(key(n), claim(None, a, 800), at(12)));
    pins.resize(5, Duration::from_secs(10));
    let kept: Vec<usize> = (2..12).filter(|n| pins.peek(key(*n), at(12)).is_some()).collect();
    assert_eq!(kept.len(), 5);
    assert!(
        kept.iter()
            .all(|n| pins.claim(key(*n), claim(Some(a), b, 20), at(12)) == a)
    );
}

/// The oracle searches and sorts by hand. `entries` are in the order of use, the last used last.
#[derive(Default)]
struct OraclePins {
    /// Key, upstream, last use, and size of the prompt in KiB.
    entries: Vec<(usize, u64, Tick, f64)>,
    capacity: usize,
}

impl OraclePins {
    fn get(&mut self, key: usize, now: Tick, idle: Duration) -> Option<UpstreamId> {
        let found = self
            .entries
            .iter()
            .position(|entry| entry.0 == key && now.since(entry.2) <= idle)?;
        let (key, to, _, size) = self.entries.remove(found);
        self.entries.push((key, to, now, size));
        Some(upstream(to))
    }

    /// A claim that has seen `seen`, with a prompt of so many KiB, in a table whose entries are idle for `idle` at most.
    fn claim(&mut self, (key, seen): (usize, Option<UpstreamId>), (to, size): (u64, f64), now: Tick, idle: Duration) {
        let is_live = |entry: &&(usize, u64, Tick, f64)| entry.0 == key && now.since(entry.2) <= idle;
        let size = match self.entries.iter().find(is_live) {
            None => size,
            Some(entry) if entry.1 == to && size == 0.0 => entry.3,
            Some(entry) if entry.1 == to => size.max(entry.3 * 0.875),
            Some(entry) if Some(upstream(entry.1)) == seen && (size >= entry.3 * 0.875 || size + 1.0 >= entry.3) => {
                size
            }
            Some(_) => return,
        };
        self.entries.retain(|entry| entry.0 != key);
        self.entries.push((key, to, now, size));
        let excess = self.entries.len().saturating_sub(self.capacity);
        self.entries.drain(..excess);
    }
}

proptest! {
    #[test]
    fn in_one_thread_claims_follow_their_rules_and_eviction_is_exactly_least_recently_used(
        capacity in 1usize..40,
        steps in prop::collection::vec((0usize..60, 1u64..4, 0u8..6, 1u64..9, 0u64..30), 1..600),
    ) {
        let idle = Duration::from_secs(100);
        let (pins, mut oracle) = (Pins::new(capacity, idle), OraclePins { capacity, ..OraclePins::default() });
        let mut now = Tick::ZERO;
        for (n, to, what, pause, size) in steps {
            now = now.after(Duration::from_secs(pause));
            match what {
                0 => {
                    pins.remove(key(n));
                    oracle.entries.retain(|entry| entry.0 != n);
                }
                1 | 2 => prop_assert_eq!(pins.get(key(n), now), oracle.get(n, now, idle)),
                _ => {
                    let seen = match what {
                        3 => None,
                        _ => pins.peek(key(n), now),
                    };
                    // These sizes decay to no two that are equal but for a rounding error.
                    let kib = size * size * 7;
                    pins.claim(key(n), claim(seen, upstream(to), kib), now);
                    oracle.claim((n, seen), (to, kib as f64), now, idle);
                }
            }
            prop_assert!(pins.len() <= capacity);
            for (n, to, last, _) in &oracle.entries {
                let is_fresh = now.since(*last) <= idle;
                prop_assert_eq!(pins.peek(key(*n), now), is_fresh.then_some(upstream(*to)));
            }
        }
    }
}

/// Runs `act` in 16 threads that start together.
fn together<R: Send>(act: impl Fn(usize) -> R + Sync) -> Vec<R> {
    const THREADS: usize = 16;
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let run = |thread| {
            start.wait();
            act(thread)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn concurrent_requests_of_one_session_agree_on_a_pin() {
    let pins = Pins::new(1_000, IDLE);
    for session in 0..200 {
        let all_have_seen = Barrier::new(16);
        let confirmed = together(|thread| {
            let seen = pins.get(key(session), at(0));
            all_have_seen.wait();
            pins.confirm(key(session), seen, upstream(thread as u64), at(1))
        });
        let pin = pins.peek(key(session), at(1)).unwrap();
        assert!(confirmed.iter().all(|upstream| *upstream == pin));
    }
}

#[test]
fn with_many_threads_the_bound_holds_and_the_newest_entries_stay() {
    const CAPACITY: usize = 20_000;
    const EACH: usize = 5_000;
    let pins = Pins::new(CAPACITY, IDLE);
    let clock = AtomicU64::new(0);
    let now = || Tick::from_nanos(clock.fetch_add(1, Relaxed));
    (0..1_000).for_each(|n| _ = pins.confirm(key(n), None, upstream(9), now()));
    let cold = |thread: usize, n: usize| key(1_000_000 + thread * EACH + n);
    let parts = together(|thread| {
        let (mut most, mut inserted) = (0, Vec::new());
        for n in 0..EACH {
            inserted.push((now(), n));
            pins.confirm(cold(thread, n), None, upstream(1), now());
            // In every order of the threads, a hot key is used again before 16 × 1,000 other keys have been inserted.
            assert_eq!(pins.get(key(n % 1_000), now()), Some(upstream(9)));
            if n % 7 == 0 && pins.remove(cold(thread, n)) {
                inserted.pop();
            }
            most = pins.len().max(most);
        }
        (most, inserted)
    });
    assert!(
        parts.iter().all(|(most, _)| *most <= CAPACITY + 16),
        "at most one entry over the capacity for each thread"
    );
    let counted: usize = pins.shards.iter().map(|shard| shard.lock().len()).sum();
    assert_eq!(counted, pins.len());

    // The cold keys that remain are those that were inserted last. Threads that ran at the same time may have changed
    // the order of a few.
    let mut order: Vec<(Tick, bool)> = Vec::new();
    for (thread, (_, inserted)) in parts.iter().enumerate() {
        order.extend(
            inserted
                .iter()
                .map(|(at, n)| (*at, pins.peek(cold(thread, *n), *at).is_some())),
        );
    }
    order.sort_unstable();
    let kept = order.iter().filter(|(_, kept)| *kept).count();
    assert!(kept + 1_000 == pins.len() && pins.len() >= CAPACITY - 16);
    let out_of_order = order.iter().rev().take(kept).filter(|(_, kept)| !kept).count();
    assert!(
        out_of_order <= CAPACITY / 100,
        "{out_of_order} of {CAPACITY} entries were evicted too early"
    );
}
