//! Benchmarks of picking an upstream, which every request pays for.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderName;
use steadfast::{
    body_path::{BodyPaths, BodyTexts},
    endpoint::Endpoint,
    ids::{Namespace, OrganizationId, SessionKey, UpstreamId, Weight},
    policy::{Affinity, Clues, Member, MemberIndex, Pins, Preference, Rendezvous, SessionSource, candidates},
    tick::Tick,
};

fn keys(count: usize) -> Vec<SessionKey> {
    let group = Namespace::of_group("");
    (0..count)
        .map(|n| SessionKey::from_text(group, &format!("session-{n}")))
        .collect()
}

fn pool(size: usize, weight: impl Fn(usize) -> usize) -> Rendezvous {
    let member = |n: usize| {
        let id = UpstreamId::from_name(&format!("account-{n}"));
        Member {
            id,
            weight: Weight::new(weight(n) as u32).unwrap_or(Weight::ONE),
            class: 0,
            organization: OrganizationId::of_upstream(id),
        }
    };
    Rendezvous::new(&(0..size).map(member).collect::<Vec<_>>())
}

/// The budget for `home` is 150, 500 and 2,000 ns at 10, 100 and 1,000 upstreams.
fn rendezvous(c: &mut Criterion) {
    let keys = keys(4096);
    for (name, weights) in [("equal", 1), ("10 weights", 10), ("1000 weights", 1000)] {
        let mut group = c.benchmark_group(format!("rendezvous/{name}"));
        for size in [10, 100, 1_000] {
            let pool = pool(size, |n| 1 + n % weights);
            let mut next = keys.iter().cycle();
            group.bench_function(BenchmarkId::new("home", size), |b| {
                b.iter(|| {
                    next.next()
                        .and_then(|key| pool.home(*key, |class| black_box(class) == 0))
                });
            });
            group.bench_function(BenchmarkId::new("first 3", size), |b| {
                b.iter(|| {
                    next.next().map(|key| {
                        pool.ranked(*key, |class| black_box(class) == 0)
                            .take(3)
                            .map(MemberIndex::as_usize)
                            .sum::<usize>()
                    })
                });
            });
        }
    }
}

const IDLE: Duration = Duration::from_secs(3600);
const THREADS: usize = 16;

/// A full table of a million entries, so that its memory is as rarely cached as possible.
fn pins(c: &mut Criterion) {
    let keys = keys(2_000_000);
    let (known, fresh) = keys.split_at(1_000_000);
    let upstream = UpstreamId::from_name("account-a");
    let clock = AtomicU64::new(0);
    let now = || Tick::from_nanos(clock.fetch_add(1, Ordering::Relaxed));
    let table = Pins::new(known.len(), IDLE);
    known
        .iter()
        .for_each(|key| _ = table.confirm(*key, None, upstream, now()));

    let mut group = c.benchmark_group("pins");
    let mut next = known.iter().cycle();
    group.bench_function("get", |b| b.iter(|| next.next().map(|key| table.get(*key, now()))));
    group.bench_function("confirm known", |b| {
        b.iter(|| {
            next.next()
                .map(|key| table.confirm(*key, Some(upstream), upstream, now()))
        });
    });
    let mut next = fresh.iter().chain(known).cycle();
    group.bench_function("confirm new, evict oldest", |b| {
        b.iter(|| next.next().map(|key| table.confirm(*key, None, upstream, now())));
    });

    // The time per call of one thread while 16 threads call. A shared clock would be measured too, so each thread
    // counts its own time.
    let together = |calls: u64, call: &(dyn Fn(&SessionKey, Tick) + Sync)| {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in known.chunks(known.len() / THREADS).take(THREADS) {
                let mine = (0..calls / THREADS as u64).zip(part.iter().cycle());
                scope.spawn(move || mine.for_each(|(n, key)| call(key, Tick::from_nanos(n))));
            }
        });
        start.elapsed()
    };
    group.bench_function("get, 16 threads", |b| {
        b.iter_custom(|calls| together(calls, &|key, now| _ = black_box(table.get(*key, now))));
    });
    group.bench_function("get, 16 threads, one session", |b| {
        b.iter_custom(|calls| together(calls, &|_, now| _ = black_box(table.get(known[0], now))));
    });
    group.bench_function("confirm, 16 threads", |b| {
        b.iter_custom(|calls| {
            together(calls, &|key, now| {
                _ = table.confirm(*key, Some(upstream), upstream, now)
            })
        });
    });
}

/// Measures the steps from clues to the first candidate: with a pin, without one, and without a session.
fn choose(c: &mut Criterion) {
    let pool = pool(100, |n| 1 + n % 10);
    let order = SessionSource::default_order();
    let group = Namespace::of_group("");
    let paths = BodyPaths::new(order.iter().filter_map(SessionSource::body_path));
    let mut texts = BodyTexts::default();
    texts.set(0, "0199a213-81c0-7800-8aa1-bbab2a035a53".to_owned());
    let clues = Clues {
        endpoint: Endpoint::Responses,
        paths: &paths,
        texts: &texts,
        header: |_: &HeaderName| None,
        content: None,
        owner: None,
        issuer: None,
    };
    let pin = UpstreamId::from_name("account-42");
    let first = |affinity, pin| {
        candidates(
            &pool,
            Preference { affinity, pin },
            |_| true,
            1,
            |index| index.as_usize() as u32,
        )
        .next()
    };
    let mut group_of = c.benchmark_group("choose among 100");
    group_of.bench_function("affinity", |b| {
        b.iter(|| Affinity::find(&order, group, black_box(&clues)))
    });
    let affinity = Affinity::find(&order, group, &clues);
    group_of.bench_function("pin", |b| b.iter(|| first(black_box(affinity), Some(pin))));
    group_of.bench_function("home", |b| b.iter(|| first(black_box(affinity), None)));
    group_of.bench_function("keyless", |b| b.iter(|| first(black_box(Affinity::default()), None)));
}

criterion_group!(benches, rendezvous, pins, choose);
criterion_main!(benches);
