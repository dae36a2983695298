//! Measures the cost of a client key for a request: the look-up of the key, and its limits.
//!
//! `cargo bench --bench limits`

use std::{hint::black_box, sync::Arc, thread, time::Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sha2::{Digest as _, Sha256};
use steadfast::{
    config::{Config, Overrides},
    policy::limiter::{Limiter, Quota},
    state::{Gateway, RateLimits},
    tick::Tick,
};

const KEYS: usize = 10_000;
const THREADS: usize = 16;

fn key(number: usize) -> String {
    format!("sk-steadfast-{number:043}")
}

/// A gateway with many client keys, whose limits are so high that no request is refused.
fn gateway() -> Arc<Gateway> {
    let digest = |number| {
        Sha256::digest(key(number))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let keys: String = (0..KEYS)
        .map(|number| {
            format!(
                "[[key]]\nname = \"k{number}\"\nsha256 = \"{}\"\ngroup = \"team\"\n",
                digest(number)
            )
        })
        .collect();
    let text = format!(
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"env:K\"\n[[group]]\nname = \"team\"\n\
         requests_per_minute = 4_000_000_000\ntokens_per_minute = 1_000_000_000_000_000\nmax_concurrent = 4_000_000_000\n{keys}"
    );
    let env = |_: &str| Some("sk-bench".to_owned());
    let config = Config::from_toml(&text, "bench.toml", &env, &Overrides::default()).expect("valid");
    Gateway::new(&config).expect("a gateway")
}

/// A limited request: it is admitted, its estimate is corrected when its body is read, the response shows what is left of
/// the limits, and the request is charged.
fn run_request(rate_limits: &Arc<RateLimits>) {
    if let Ok(mut permit) = rate_limits.admit(1_000) {
        let _ = permit.correct_estimate(1_200);
        black_box(rate_limits.usage());
        permit.charge(900);
    }
}

fn limits(c: &mut Criterion) {
    let gateway = gateway();
    let snapshot = gateway.snapshot();
    let shown = key(KEYS / 2);
    let found = snapshot.access.find(shown.as_bytes(), 0).expect("a known key").clone();
    let rate_limits = found.rate_limits.clone().expect("limited");
    let mut group = c.benchmark_group("client keys");
    // This is for comparison: a key is looked up by its hash, so the look-up costs at least this hash.
    group.bench_function("SHA-256 of a key", |b| {
        b.iter(|| Sha256::digest(black_box(shown.as_bytes())))
    });
    group.bench_function("find among 10,000", |b| {
        b.iter(|| snapshot.access.find(black_box(shown.as_bytes()), 0).is_ok())
    });
    group.bench_function("find an unknown key", |b| {
        b.iter(|| snapshot.access.find(black_box(b"sk-steadfast-unknown"), 0).is_ok())
    });
    group.bench_function("limits of a request", |b| b.iter(|| run_request(&rate_limits)));
    group.bench_function("limits of a request, without the clock", |b| {
        let quota = Quota {
            requests_per_minute: Some(u32::MAX),
            tokens_per_minute: Some(u64::MAX),
            max_concurrent: Some(u32::MAX),
        };
        let (mut limiter, mut nanos) = (Limiter::new(quota), 0);
        b.iter(|| {
            nanos += 1_000_000;
            let now = Tick::from_nanos(nanos);
            if let Ok(mut admission) = limiter.admit(1_000, now) {
                let _ = limiter.recharge(&mut admission, 1_200, now);
                black_box(limiter.usage(now));
                limiter.finish(admission, Some(900), now);
            }
        });
    });
    group.bench_function("limits of a request, 16 threads, one key", |b| {
        b.iter_custom(|requests| {
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| (0..requests / THREADS as u64).for_each(|_| run_request(&rate_limits)));
                }
            });
            start.elapsed()
        });
    });
}

criterion_group!(benches, limits);
criterion_main!(benches);
