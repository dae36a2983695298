//! Measures the cost of state that threads share: every structure that all requests use, with 1 to 16 threads, and for
//! comparison the structure that it has replaced or an obvious alternative.
//!
//! `cargo bench --bench contention [-- NAME]` measures all rows, or only the rows whose names contain `NAME`.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge};
use steadfast::{
    config::{Config, Overrides},
    endpoint::Endpoint,
    ids::{Namespace, ObjectId, OwnedKey, SessionKey, UpstreamId},
    policy::{Owners, Pins, RequestClass, Route},
    state::{Gateway, Metrics, NoLabels, RequestLabels, StatusClass, UpstreamMetrics, UpstreamState},
    tick::Tick,
};
use tokio::sync::Semaphore;

const THREADS: [usize; 4] = [1, 2, 4, 16];
/// Each row is measured this many times.
const ROUNDS: usize = 15;
/// The result is the median of this many rounds: those in which the threads had most of the processor. Other processes
/// may use the cores, and threads that wait for a core do not contend.
const BEST_ROUNDS: usize = 5;
/// The time that one round takes on one thread.
const ROUND: Duration = Duration::from_millis(60);
const IDLE: Duration = Duration::from_secs(3600);

fn main() {
    let table = Table::new();
    metrics(&table);
    slots(&table);
    retry_budget(&table);
    snapshots(&table);
    buffers(&table);
    own_pins(&table);
    for (sessions, shown) in [(256, "256"), (1 << 17, "131,072")] {
        pins(&table, sessions, shown);
    }
    owners(&table);
}

/// Prints rows as they are measured.
struct Table {
    /// A part of the names of the rows to measure; `None` for all rows.
    wanted: Option<String>,
}

impl Table {
    fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        println!("ns: processor time of one call; ×: calls per second, relative to one thread; {cores} cores\n");
        let heads = THREADS.map(|count| format!("{:>14}", format!("{count} threads")));
        println!("{:46}{}", "", heads.concat());
        Self {
            wanted: std::env::args().skip(1).find(|argument| !argument.starts_with('-')),
        }
    }

    /// Measures `call`, which receives random numbers of its thread.
    fn row(&self, name: &str, call: impl Fn(&mut Rng, Call) + Sync) {
        if self.wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            return;
        }
        let calls = calls_in(ROUND, &call);
        let mut rounds = [const { Vec::new() }; THREADS.len()];
        for _ in 0..ROUNDS {
            for (measured, count) in rounds.iter_mut().zip(THREADS) {
                measured.push(run_threads(count, calls / count as u64, &call));
            }
        }
        let medians = rounds.map(median);
        let cells = medians.each_ref().map(|round| {
            let cost = round.processor.as_nanos() as f64 / calls as f64;
            let gain = medians[0].wall.as_secs_f64() / round.wall.as_secs_f64();
            format!("{cost:8.1} {gain:4.2}×")
        });
        println!("{name:46}{}", cells.concat());
    }
}

/// Returns the median of the best rounds.
fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| b.cores().total_cmp(&a.cores()));
    rounds.truncate(BEST_ROUNDS);
    rounds.sort_by_key(|round| round.wall);
    rounds.swap_remove(BEST_ROUNDS / 2)
}

/// One of the calls of a round.
#[derive(Clone, Copy)]
struct Call {
    thread: usize,
    /// The number of calls that its thread made before.
    number: u64,
}

/// The times of one round.
struct Round {
    /// From the start of the first thread to the end of the last one.
    wall: Duration,
    /// The processor time of all threads.
    processor: Duration,
}

impl Round {
    /// The number of cores that the threads had on average.
    fn cores(&self) -> f64 {
        self.processor.as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// Returns the number of calls that one thread makes in about `time`, as a multiple of 16.
fn calls_in(time: Duration, call: &(impl Fn(&mut Rng, Call) + Sync)) -> u64 {
    let mut calls = 1 << 10;
    loop {
        let wall = run_threads(1, calls, call).wall;
        if wall > time / 8 {
            let fit = calls as f64 * time.as_secs_f64() / wall.as_secs_f64();
            return (fit as u64).next_multiple_of(16);
        }
        calls *= 2;
    }
}

/// Runs `count` threads that start together and make `each` calls.
fn run_threads(count: usize, each: u64, call: &(impl Fn(&mut Rng, Call) + Sync)) -> Round {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let run = |thread: usize| {
            let mut random = Rng::with_seed(thread as u64);
            start.wait();
            let (began, before) = (Instant::now(), processor_time());
            (0..each).for_each(|number| call(&mut random, Call { thread, number }));
            (began, Instant::now(), processor_time() - before)
        };
        let threads: Vec<_> = (0..count).map(|thread| scope.spawn(move || run(thread))).collect();
        let parts: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        let (began, ended) = (
            parts.iter().map(|part| part.0).min(),
            parts.iter().map(|part| part.1).max(),
        );
        Round {
            wall: ended.zip(began).map_or(Duration::ZERO, |(ended, began)| ended - began),
            processor: parts.iter().map(|part| part.2).sum(),
        }
    })
}

/// Returns the processor time of this thread, as the kernel accounts it. Other processes and sleep do not count.
fn processor_time() -> Duration {
    // The kernel updates the account when it schedules the thread.
    thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux' scheduler accounts");
    let nanos = account.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

const LABELS: RequestLabels = RequestLabels {
    endpoint: Endpoint::Responses,
    route: Route::Pin,
    status: StatusClass::Success,
};

fn duration(random: &mut Rng) -> Duration {
    Duration::from_nanos(random.u64(..1 << 32))
}

/// The counters of a histogram that all threads add to.
struct PlainHistogram {
    buckets: [AtomicU64; 16],
    sum: AtomicU64,
}

impl PlainHistogram {
    const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; 16],
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, duration: Duration) {
        let nanos = duration.as_nanos() as u64;
        // Bounds that double need no search, so this is the least that a histogram can cost.
        let bucket = (u64::BITS - (nanos >> 20).leading_zeros()).min(15);
        self.buckets[bucket as usize].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
    }
}

fn metrics(table: &Table) {
    let (metrics, upstream) = (Metrics::default(), UpstreamMetrics::default());
    let counter = IntCounter::new("c", "c").unwrap();
    let bounds: Vec<f64> = (0..15).map(|n| 0.001 * 2.5f64.powi(n)).collect();
    let theirs = || Histogram::with_opts(HistogramOpts::new("h", "h").buckets(bounds.clone())).unwrap();
    let (first_byte, request_duration, overhead) = (theirs(), theirs(), theirs());

    table.row("counter: prometheus", |_, _| counter.inc());
    table.row("counter: striped", |_, _| upstream.requests.increment(LABELS));
    table.row("histogram: prometheus", |random, _| {
        request_duration.observe(duration(random).as_secs_f64())
    });
    table.row("histogram: striped", |random, _| {
        metrics.request_duration.observe(LABELS.endpoint, duration(random));
    });
    table.row("a request's metrics: prometheus", |random, _| {
        counter.inc();
        overhead.observe(duration(random).as_secs_f64());
        first_byte.observe(duration(random).as_secs_f64());
        request_duration.observe(duration(random).as_secs_f64());
    });
    let (requests, histograms) = (AtomicU64::new(0), [const { PlainHistogram::new() }; 3]);
    table.row("a request's metrics: plain atomics", |random, _| {
        requests.fetch_add(1, Relaxed);
        histograms
            .iter()
            .for_each(|histogram| histogram.observe(duration(random)));
    });
    table.row("a request's metrics: striped", |random, _| {
        upstream.requests.increment(LABELS);
        metrics.proxy_overhead.observe(NoLabels, duration(random));
        upstream.time_to_first_byte.observe(NoLabels, duration(random));
        metrics.request_duration.observe(LABELS.endpoint, duration(random));
    });
}

/// A gateway with eight upstreams, of which the first has a limit on requests in flight.
fn gateway() -> Arc<Gateway> {
    let upstream = |n: usize| {
        let limit = if n == 0 { "max_in_flight = 1000\n" } else { "" };
        format!("[[upstream]]\nname = \"u{n}\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"env:K\"\n{limit}")
    };
    let text: String = (0..8).map(upstream).collect();
    let env = |_: &str| Some("sk-bench".to_owned());
    let config = Config::from_toml(&text, "bench.toml", &env, &Overrides::default()).expect("valid");
    Gateway::new(&config).expect("a gateway")
}

/// Each call takes a slot and gives it back.
fn slots(table: &Table) {
    let gateway = gateway();
    let snapshot = gateway.snapshot();
    let states: Vec<Arc<UpstreamState>> = snapshot
        .upstreams()
        .iter()
        .map(|upstream| upstream.state.clone())
        .collect();
    table.row("slots: 1 upstream with a limit", |_, _| {
        drop(states[0].try_acquire(RequestClass::generation(None)))
    });
    table.row("slots: 1 upstream without a limit", |_, _| {
        drop(states[1].try_acquire(RequestClass::generation(None)));
    });
    table.row("slots: 8 upstreams", |random, _| {
        drop(states[random.usize(..8)].try_acquire(RequestClass::generation(None)));
    });
    let side_by_side: Vec<IntGauge> = (0..8).map(|_| IntGauge::new("g", "g").unwrap()).collect();
    table.row("gauge, up and down: 8, prometheus", |random, _| {
        let gauge = &side_by_side[random.usize(..8)];
        gauge.inc();
        gauge.dec();
    });
}

/// Every request counts itself for the retry budget; only requests that fail take its lock.
fn retry_budget(table: &Table) {
    let gateway = gateway();
    let retries = &gateway.runtime.retries;
    table.row("retry budget: count a request", |_, _| retries.count_request());
    table.row("retry budget: try to spend", |_, _| _ = black_box(retries.try_spend()));
}

fn snapshots(table: &Table) {
    let shared = ArcSwap::from_pointee([0u64; 64]);
    table.row("snapshot: load_full", |_, _| _ = black_box(shared.load_full()[0]));
    table.row("snapshot: load", |_, _| _ = black_box(shared.load()[0]));
}

/// A body takes permits in steps and gives them back all at once.
fn buffers(table: &Table) {
    let buffers = Arc::new(Semaphore::new(512 << 20));
    table.row("buffers: semaphore, take and give back", |_, _| {
        _ = black_box(buffers.clone().try_acquire_many_owned(64 << 10));
    });
}

fn session_keys(count: usize) -> Vec<SessionKey> {
    let group = Namespace::of_group("");
    (0..count)
        .map(|n| SessionKey::from_text(group, &format!("session-{n}")))
        .collect()
}

/// A request gets the pin of its session and confirms it.
fn pins(table: &Table, sessions: usize, shown: &str) {
    let keys = session_keys(sessions);
    let upstream = UpstreamId::from_name("account-a");
    let at = |n: u64| Tick::from_nanos(n * 1_000);
    let pins = Pins::new(1_000_000, IDLE);
    keys.iter()
        .for_each(|key| _ = pins.confirm(*key, None, upstream, at(0)));
    table.row(&format!("pins, get and confirm: {shown} sessions"), |random, call| {
        let (key, now) = (keys[random.usize(..sessions)], at(call.number));
        let seen = pins.get(key, now);
        pins.confirm(key, seen, upstream, now);
    });
    let one_lock: Mutex<HashMap<SessionKey, (UpstreamId, Tick)>> =
        Mutex::new(keys.iter().map(|key| (*key, (upstream, at(0)))).collect());
    table.row(
        &format!("one mutex, get and confirm: {shown} sessions"),
        |random, call| {
            let now = at(call.number);
            let key = keys[random.usize(..sessions)];
            let seen = one_lock.lock().unwrap().get_mut(&key).map(|(seen, last)| {
                *last = now;
                *seen
            });
            let mut map = one_lock.lock().unwrap();
            let entry = map.entry(key).or_insert((upstream, now));
            if Some(entry.0) == seen {
                *entry = (upstream, now);
            }
        },
    );
}

/// Threads that share no session contend only where their sessions share a shard of the table.
fn own_pins(table: &Table) {
    const OWN: usize = 16;
    let keys = session_keys(OWN * THREADS[THREADS.len() - 1]);
    let upstream = UpstreamId::from_name("account-a");
    let pins = Pins::new(1_000_000, IDLE);
    keys.iter()
        .for_each(|key| _ = pins.confirm(*key, None, upstream, Tick::ZERO));
    table.row("pins, get and confirm: own 16 of 256", |random, call| {
        let key = keys[call.thread * OWN + random.usize(..OWN)];
        let now = Tick::from_nanos(call.number * 1_000);
        let seen = pins.get(key, now);
        pins.confirm(key, seen, upstream, now);
    });
}

/// Every response is new. The table is full, so each of them evicts the oldest one.
fn owners(table: &Table) {
    let group = Namespace::of_group("");
    let upstream = UpstreamId::from_name("account-a");
    let owners = Owners::new(100_000, IDLE);
    let fresh = |random: &mut Rng| OwnedKey::from_object(group, ObjectId::from_text(&random.u64(..).to_le_bytes()));
    let mut random = Rng::with_seed(99);
    (0..100_000u64).for_each(|n| _ = owners.confirm(fresh(&mut random), None, upstream, Tick::from_nanos(n)));
    table.row("owners: a new response evicts the oldest", |random, call| {
        owners.confirm(fresh(random), None, upstream, Tick::from_nanos(100_000 + call.number));
    });
}
