//! What threads pay for sharing: every structure that all requests touch, at 1 to 16 threads, beside what it replaced
//! or an obvious way to build it.
//!
//! `cargo bench --bench contention [-- NAME]`: only the rows whose name has `NAME` in it.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge};
use steadfast::{
    endpoint::Endpoint,
    ids::{Namespace, OwnedKey, SessionKey, UpstreamId},
    policy::{Owners, Pins, Route},
    state::{Metrics, RequestLabels, StatusClass, UpstreamMetrics},
    tick::Tick,
};
use tokio::sync::Semaphore;

const THREADS: [usize; 4] = [1, 2, 4, 16];
/// What is told is the median of the rounds in which the threads had most of the processor: threads that wait for a
/// core do not meet, and others may be using the cores.
const ROUNDS: usize = 15;
const TOLD: usize = 5;
const ROUND: Duration = Duration::from_millis(60);
const IDLE: Duration = Duration::from_secs(3600);

fn main() {
    let table = Table::new();
    metrics(&table);
    snapshots(&table);
    buffers(&table);
    own_pins(&table);
    for (sessions, told) in [(256, "256"), (1 << 17, "131,072")] {
        pins(&table, sessions, told);
    }
    owners(&table);
}

/// Prints rows as they are measured.
struct Table {
    wanted: Option<String>,
}

impl Table {
    fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        println!("ns: processor time of one call; ×: calls a second, to those of one thread; {cores} cores\n");
        let heads = THREADS.map(|count| format!("{:>14}", format!("{count} threads")));
        println!("{:46}{}", "", heads.concat());
        Self {
            wanted: std::env::args().skip(1).find(|argument| !argument.starts_with('-')),
        }
    }

    /// Measures `call`, which gets its thread's random numbers.
    fn row(&self, name: &str, call: impl Fn(&mut Rng, Call) + Sync) {
        if self.wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            return;
        }
        let calls = calls_in(ROUND, &call);
        let mut rounds = [const { Vec::new() }; THREADS.len()];
        for _ in 0..ROUNDS {
            for (taken, count) in rounds.iter_mut().zip(THREADS) {
                taken.push(together(count, calls / count as u64, &call));
            }
        }
        let medians = rounds.map(told);
        let cells = medians.each_ref().map(|took| {
            let cost = took.processor.as_nanos() as f64 / calls as f64;
            let gain = medians[0].wall.as_secs_f64() / took.wall.as_secs_f64();
            format!("{cost:8.1} {gain:4.2}×")
        });
        println!("{name:46}{}", cells.concat());
    }
}

fn told(mut rounds: Vec<Took>) -> Took {
    rounds.sort_by(|a, b| b.cores().total_cmp(&a.cores()));
    rounds.truncate(TOLD);
    rounds.sort_by_key(|took| took.wall);
    rounds.swap_remove(TOLD / 2)
}

/// One call of those that a round makes.
#[derive(Clone, Copy)]
struct Call {
    thread: usize,
    /// How many its thread has made before.
    number: u64,
}

/// What a round took.
struct Took {
    /// From the first thread's start to the last one's end.
    wall: Duration,
    /// Of all threads.
    processor: Duration,
}

impl Took {
    /// How many cores the threads had, on average.
    fn cores(&self) -> f64 {
        self.processor.as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// How many calls one thread makes in about `time`, as a multiple of 16.
fn calls_in(time: Duration, call: &(impl Fn(&mut Rng, Call) + Sync)) -> u64 {
    let mut calls = 1 << 10;
    loop {
        let took = together(1, calls, call).wall;
        if took > time / 8 {
            let fit = calls as f64 * time.as_secs_f64() / took.as_secs_f64();
            return (fit as u64).next_multiple_of(16);
        }
        calls *= 2;
    }
}

/// What `count` threads take that start together and make `each` calls.
fn together(count: usize, each: u64, call: &(impl Fn(&mut Rng, Call) + Sync)) -> Took {
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
        Took {
            wall: ended.zip(began).map_or(Duration::ZERO, |(ended, began)| ended - began),
            processor: parts.iter().map(|part| part.2).sum(),
        }
    })
}

/// How long this thread has run, as the kernel accounts it: what else runs on the machine is not in it, nor is sleep.
fn processor_time() -> Duration {
    // The account is written when the scheduler looks at the thread.
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

fn took(random: &mut Rng) -> Duration {
    Duration::from_nanos(random.u64(..1 << 32))
}

fn metrics(table: &Table) {
    let (metrics, counter) = (Metrics::new(), IntCounter::new("c", "c").unwrap());
    let upstreams: Vec<Arc<UpstreamMetrics>> = (0..8).map(|n| metrics.upstream(&format!("account-{n}"))).collect();
    let bounds: Vec<f64> = (0..15).map(|n| 0.001 * 2.5f64.powi(n)).collect();
    let theirs = || Histogram::with_opts(HistogramOpts::new("h", "h").buckets(bounds.clone())).unwrap();
    let (first_byte, duration, overhead) = (theirs(), theirs(), theirs());

    table.row("counter: prometheus", |_, _| counter.inc());
    table.row("counter: striped", |_, _| upstreams[0].count(LABELS));
    table.row("histogram: prometheus", |random, _| {
        duration.observe(took(random).as_secs_f64())
    });
    table.row("histogram: striped", |random, _| {
        metrics.observe_duration(LABELS.endpoint, took(random));
    });
    table.row("a request's metrics: prometheus", |random, _| {
        counter.inc();
        overhead.observe(took(random).as_secs_f64());
        first_byte.observe(took(random).as_secs_f64());
        duration.observe(took(random).as_secs_f64());
    });
    table.row("a request's metrics: striped", |random, _| {
        upstreams[0].count(LABELS);
        metrics.observe_overhead(took(random));
        upstreams[0].observe_first_byte(took(random));
        metrics.observe_duration(LABELS.endpoint, took(random));
    });

    let side_by_side: Vec<IntGauge> = (0..8).map(|_| IntGauge::new("g", "g").unwrap()).collect();
    table.row("in flight, up and down: 1 upstream", |_, _| {
        upstreams[0].in_flight.inc();
        upstreams[0].in_flight.dec();
    });
    table.row("in flight, up and down: 8, prometheus", |random, _| {
        let gauge = &side_by_side[random.usize(..8)];
        gauge.inc();
        gauge.dec();
    });
    table.row("in flight, up and down: 8 upstreams", |random, _| {
        let gauge = &upstreams[random.usize(..8)].in_flight;
        gauge.inc();
        gauge.dec();
    });
}

fn snapshots(table: &Table) {
    let shared = ArcSwap::from_pointee([0u64; 64]);
    table.row("snapshot: load_full", |_, _| _ = black_box(shared.load_full()[0]));
    table.row("snapshot: load", |_, _| _ = black_box(shared.load()[0]));
}

/// A body's room is taken in steps and given back at once.
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

/// What a request does: get the pin, confirm it, of one of the sessions.
fn pins(table: &Table, sessions: usize, told: &str) {
    let keys = session_keys(sessions);
    let upstream = UpstreamId::from_name("account-a");
    let at = |n: u64| Tick::from_nanos(n * 1_000);
    let pins = Pins::new(1_000_000, IDLE);
    keys.iter()
        .for_each(|key| _ = pins.confirm(*key, None, upstream, at(0)));
    table.row(&format!("pins, get and confirm: {told} sessions"), |random, call| {
        let (key, now) = (keys[random.usize(..sessions)], at(call.number));
        let seen = pins.get(key, now);
        pins.confirm(key, seen, upstream, now);
    });
    let one_lock: Mutex<HashMap<SessionKey, (UpstreamId, Tick)>> =
        Mutex::new(keys.iter().map(|key| (*key, (upstream, at(0)))).collect());
    table.row(
        &format!("one mutex, get and confirm: {told} sessions"),
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

/// Threads that share no session meet only where sessions happen to be neighbours in the table.
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

/// Every response is new, and once the table is full one goes for each that comes.
fn owners(table: &Table) {
    let group = Namespace::of_group("");
    let upstream = UpstreamId::from_name("account-a");
    let owners = Owners::new(100_000, IDLE);
    let fresh = |random: &mut Rng| OwnedKey::from_response_id(group, &format!("{:x}", random.u64(..)));
    let mut random = Rng::with_seed(99);
    (0..100_000u64).for_each(|n| _ = owners.confirm(fresh(&mut random), None, upstream, Tick::from_nanos(n)));
    table.row("owners: a new response, the oldest goes", |random, call| {
        owners.confirm(fresh(random), None, upstream, Tick::from_nanos(100_000 + call.number));
    });
}
