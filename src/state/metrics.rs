//! Metrics: counted in blocks of our own, exposed by a registry of our own.
//!
//! Labels have bounded values only: never a key, a session or a model. What requests count is [`striped`] over
//! threads and added up when it is scraped.

mod exposition;
mod group;
mod labels;
mod striped;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{
    Encoder as _, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::{
    exposition::Exposed,
    striped::{Bounds, Histogram, Observed, Padded, Striped, add, count},
};
use crate::{
    endpoint::Endpoint,
    fault::{Fault, RejectReason},
    policy::{Route, health::State},
    scan::Usage,
};

pub use self::group::GroupMetrics;
pub use self::labels::{FailoverReason, ReloadOutcome, RequestLabels, StatusClass};

/// Figures that are read when they are scraped.
#[derive(Clone, Copy)]
pub(super) enum Level {
    Pins,
    Connections,
    BufferedBytes,
    Waiting,
}

/// The metrics of a process.
pub struct Metrics {
    registry: Registry,
    tally: Arc<Tally>,
    levels: [IntGauge; 4],
    states: IntGaugeVec,
    cooldowns: GaugeVec,
    reloads: [IntCounter; ReloadOutcome::ALL.len()],
}

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
/// From a millisecond to ten minutes: generations take seconds to minutes.
const LONG: Bounds = &[
    MILLISECOND,
    5 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
    600 * SECOND,
];
/// From ten microseconds to a tenth of a second.
const SHORT: Bounds = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    MILLISECOND,
    2_500_000,
    10 * MILLISECOND,
    100 * MILLISECOND,
];

const PREFIX: &str = "steadfast_";

/// Every name and label set here is a constant and distinct, so making and registering them cannot fail.
fn made<T>(result: prometheus::Result<T>) -> T {
    result.unwrap_or_else(|error| unreachable!("a metric of ours is malformed: {error}"))
}

impl Metrics {
    /// A registry with every metric in it.
    #[allow(clippy::new_without_default, reason = "a registry is made once and on purpose")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let tally = Arc::new(Tally {
            shared: Striped::new(),
            upstreams: Mutex::default(),
            groups: Mutex::default(),
        });
        made(registry.register(Box::new(Exposed::new(tally.clone()))));
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = made(IntGaugeVec::new(Opts::new(format!("{PREFIX}{name}"), help), labels));
            made(registry.register(Box::new(gauges.clone())));
            gauges
        };
        let build = gauges("build_info", "Always 1; the version is a label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let opts = Opts::new(format!("{PREFIX}reloads_total"), "Reloads of the configuration.");
        let reloads = made(IntCounterVec::new(opts, &["outcome"]));
        made(registry.register(Box::new(reloads.clone())));
        let states = gauges(
            "upstream_state",
            "1 for the state that an upstream is in, 0 for the others.",
            &["upstream", "state"],
        );
        let opts = Opts::new(
            format!("{PREFIX}upstream_cooldown_seconds"),
            "Until an upstream takes requests, or a probe, again.",
        );
        let cooldowns = made(GaugeVec::new(opts, &["upstream"]));
        made(registry.register(Box::new(cooldowns.clone())));
        Self {
            states,
            cooldowns,
            reloads: ReloadOutcome::ALL.map(|outcome| reloads.with_label_values(&[outcome.label()])),
            levels: [
                ("pins", "Sessions that are pinned to an upstream."),
                ("connections", "Open client connections."),
                ("buffered_bytes", "Bytes of request bodies held in memory."),
                ("waiting_requests", "Requests that wait for an upstream to take them."),
            ]
            .map(|(name, help)| gauges(name, help, &[]).with_label_values::<&str>(&[])),
            registry,
            tally,
        }
    }

    /// The counts of the upstream called `name`, the same ones each time.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        let mut upstreams = self.tally.upstreams.lock();
        if let Some(known) = upstreams.iter().find(|upstream| upstream.name == name) {
            return known.clone();
        }
        let upstream = Arc::new(UpstreamMetrics {
            name: name.to_owned(),
            in_flight: Gauge::default(),
            counts: Striped::new(),
        });
        upstreams.push(upstream.clone());
        upstream
    }

    /// The counts of the group called `name`, the same ones each time.
    pub fn group(&self, name: &str) -> Arc<GroupMetrics> {
        let mut groups = self.tally.groups.lock();
        if let Some(known) = groups.iter().find(|group| group.name == name) {
            return known.clone();
        }
        let group = Arc::new(GroupMetrics::new(name));
        groups.push(group.clone());
        group
    }

    /// Counts a request that Steadfast answered with this fault.
    pub fn count_rejected(&self, fault: &Fault) {
        self.count_reason(fault.reject_reason());
    }

    /// Counts a request whose head could not be read, for which there is not always a fault.
    pub fn count_rejected_head(&self) {
        self.count_reason(RejectReason::Head);
    }

    fn count_reason(&self, reason: RejectReason) {
        count(&self.tally.shared.mine().rejected[reason as usize]);
    }

    /// Counts a reload.
    pub fn count_reload(&self, outcome: ReloadOutcome) {
        self.reloads[outcome as usize].inc();
    }

    /// Records how long a request took from its arrival to the end of its response.
    pub fn observe_duration(&self, endpoint: Endpoint, took: Duration) {
        self.tally.shared.mine().durations[endpoint as usize].observe(took);
    }

    /// Records how long a request that was complete took to leave.
    pub fn observe_overhead(&self, took: Duration) {
        self.tally.shared.mine().overhead.observe(took);
    }

    /// How many requests have been sent to upstreams, each counted once.
    pub fn forwarded(&self) -> u64 {
        Observed::add_up(SHORT, self.tally.shared.blocks().map(|block| &block.overhead)).count
    }

    /// Shows the upstreams that there are at this moment: each one's name, its state, and for how long it stays away.
    pub(super) fn show_upstreams<'a>(&self, upstreams: impl Iterator<Item = (&'a str, State, Duration)>) {
        self.states.reset();
        self.cooldowns.reset();
        for (name, present, cooldown) in upstreams {
            for state in State::ALL {
                let gauge = self.states.with_label_values(&[name, state.label()]);
                gauge.set(i64::from(state == present));
            }
            self.cooldowns.with_label_values(&[name]).set(cooldown.as_secs_f64());
        }
    }

    pub(super) fn scrape(&self, levels: &[(Level, usize)]) -> String {
        for (level, value) in levels {
            if let Some(gauge) = self.levels.get(*level as usize) {
                gauge.set(i64::try_from(*value).unwrap_or(i64::MAX));
            }
        }
        let mut text = Vec::new();
        // Writing to memory cannot fail, and the encoder writes UTF-8 only.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// What one upstream has done.
pub struct UpstreamMetrics {
    name: String,
    /// Requests that the upstream is working on. Policy reads it too: there is one count, not two.
    pub in_flight: Gauge,
    counts: Striped<UpstreamCounts>,
}

impl UpstreamMetrics {
    /// Counts a request that this upstream answered.
    pub fn count(&self, labels: RequestLabels) {
        count(self.counts.mine().requests(labels));
    }

    /// Counts a request that this upstream failed and that went on to another.
    pub fn count_failover(&self, reason: FailoverReason) {
        count(&self.counts.mine().failovers[reason as usize]);
    }

    /// Counts the tokens of a request that came here by `route`.
    pub fn count_usage(&self, route: Route, usage: Usage) {
        self.counts.mine().tokens[route as usize].add(usage);
    }

    /// Counts a session that left this upstream for another.
    pub fn count_moved(&self) {
        count(&self.counts.mine().moved);
    }

    /// Records how long a request took from its arrival to this upstream's response head.
    pub fn observe_first_byte(&self, took: Duration) {
        self.counts.mine().first_byte.observe(took);
    }
}

/// A level that rises and falls.
///
/// One atomic for all threads, not striped: each pick compares the levels of upstreams, and a limit on requests in
/// flight must hold exactly, so the value must be as cheap to read as to change. It has cache lines of its own, so that
/// changing it disturbs nobody who reads something else, and only requests of one upstream meet here.
#[derive(Default)]
pub struct Gauge(Padded<AtomicI64>);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.0.fetch_add(1, SeqCst);
    }

    /// One more, if there are fewer than `limit`; false otherwise.
    pub fn try_inc(&self, limit: u32) -> bool {
        let more = |level: i64| (level < i64::from(limit)).then_some(level + 1);
        self.0.0.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// One less.
    pub fn dec(&self) {
        self.0.0.fetch_sub(1, SeqCst);
    }

    /// The value at this moment.
    pub fn get(&self) -> i64 {
        self.0.0.load(SeqCst)
    }
}

/// One thread's counts for one upstream.
struct UpstreamCounts {
    requests: [[[AtomicU64; StatusClass::ALL.len()]; Route::ALL.len()]; Endpoint::ALL.len()],
    first_byte: Histogram,
    failovers: [AtomicU64; FailoverReason::ALL.len()],
    moved: AtomicU64,
    tokens: [Tokens; Route::ALL.len()],
}

/// Tokens as upstreams tell them.
#[derive(Default)]
struct Tokens {
    input: AtomicU64,
    cached_input: AtomicU64,
    output: AtomicU64,
}

impl Tokens {
    /// Input, cached input and output.
    fn all(&self) -> [&AtomicU64; 3] {
        [&self.input, &self.cached_input, &self.output]
    }

    fn add(&self, usage: Usage) {
        add(&self.input, usage.input_tokens);
        add(&self.cached_input, usage.cached_input_tokens);
        add(&self.output, usage.output_tokens);
    }
}

impl Default for UpstreamCounts {
    fn default() -> Self {
        Self {
            requests: Default::default(),
            first_byte: Histogram::new(LONG),
            failovers: Default::default(),
            moved: AtomicU64::new(0),
            tokens: Default::default(),
        }
    }
}

impl UpstreamCounts {
    fn requests(&self, labels: RequestLabels) -> &AtomicU64 {
        &self.requests[labels.endpoint as usize][labels.route as usize][labels.status as usize]
    }
}

/// One thread's counts for all upstreams together.
struct SharedCounts {
    durations: [Histogram; Endpoint::ALL.len()],
    overhead: Histogram,
    rejected: [AtomicU64; RejectReason::ALL.len()],
}

impl Default for SharedCounts {
    fn default() -> Self {
        Self {
            durations: Endpoint::ALL.map(|_| Histogram::new(LONG)),
            overhead: Histogram::new(SHORT),
            rejected: Default::default(),
        }
    }
}

/// All that requests count.
struct Tally {
    shared: Striped<SharedCounts>,
    /// Upstreams that a reload took away stay, with what they have counted.
    upstreams: Mutex<Vec<Arc<UpstreamMetrics>>>,
    /// The same of groups.
    groups: Mutex<Vec<Arc<GroupMetrics>>>,
}

#[cfg(test)]
mod tests;
