//! Picking an upstream: what every request pays.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use steadfast::{
    ids::{Namespace, SessionKey, UpstreamId, Weight},
    policy::{Member, Rendezvous},
};

fn keys(count: usize) -> Vec<SessionKey> {
    let group = Namespace::of_group("");
    (0..count)
        .map(|n| SessionKey::from_text(group, &format!("session-{n}")))
        .collect()
}

fn pool(size: usize, weight: impl Fn(usize) -> usize) -> Rendezvous {
    let member = |n: usize| Member {
        id: UpstreamId::from_name(&format!("account-{n}")),
        weight: Weight::new(weight(n) as u32).unwrap_or(Weight::ONE),
        class: 0,
    };
    Rendezvous::new(&(0..size).map(member).collect::<Vec<_>>())
}

/// Budget for `home`: 150, 500 and 2,000 ns at 10, 100 and 1,000 upstreams.
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
                    next.next()
                        .map(|key| pool.ranked(*key, |class| black_box(class) == 0).take(3).sum::<usize>())
                });
            });
        }
    }
}

criterion_group!(benches, rendezvous);
criterion_main!(benches);
