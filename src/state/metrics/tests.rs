//! The oracle is the crate `prometheus`, which counts the same events. It has families of every kind. A family that it does not have is
//! not compared, so that a new metric needs no change here.

use std::time::Duration;

use http::StatusCode;
use prometheus::{
    Histogram as TheirHistogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector,
};
use proptest::prelude::*;

use super::*;
use crate::scan::Usage;

const RESPONSES: RequestLabels = RequestLabels {
    endpoint: Endpoint::Responses,
    route: Route::Home,
    status: StatusClass::Success,
};

const UPSTREAM: Labels<'static> = &[("upstream", "a")];

fn text(metrics: &Metrics, upstream: &UpstreamMetrics) -> String {
    let mut exposition = Exposition::default();
    metrics.expose(&[], &mut exposition);
    upstream.expose(UPSTREAM, &mut exposition);
    exposition.into_text()
}

#[test]
fn counters_appear_with_their_labels() {
    let (metrics, upstream) = (Metrics::default(), UpstreamMetrics::default());
    let labels = RequestLabels {
        status: StatusClass::from_status(StatusCode::OK),
        ..RESPONSES
    };
    upstream.requests.increment(labels);
    upstream.requests.increment(labels);
    metrics.rejected_requests.increment(RejectReason::BuffersFull);
    metrics.reloads.increment(ReloadOutcome::Refused);
    let text = text(&metrics, &upstream);
    for line in [
        r#"steadfast_requests_total{endpoint="responses",route="home",status="2xx",upstream="a"} 2"#,
        r#"steadfast_rejected_requests_total{reason="buffers_full"} 1"#,
        r#"steadfast_reloads_total{outcome="refused"} 1"#,
        r#"steadfast_reloads_total{outcome="applied"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("steadfast_requests_total{").count(), 1);
}

#[test]
fn token_counters_are_shown_as_soon_as_there_was_input() {
    let (metrics, upstream) = (Metrics::default(), UpstreamMetrics::default());
    let usage = Usage {
        input_tokens: 10,
        cached_input_tokens: 0,
        cache_write_tokens: 7,
        output_tokens: 5,
        reasoning_tokens: 4,
    };
    upstream.tokens.add(Route::Pin, usage);
    let text = text(&metrics, &upstream);
    for line in [
        r#"steadfast_input_tokens_total{route="pin",upstream="a"} 10"#,
        r#"steadfast_cached_input_tokens_total{route="pin",upstream="a"} 0"#,
        r#"steadfast_cache_write_tokens_total{route="pin",upstream="a"} 7"#,
        r#"steadfast_output_tokens_total{route="pin",upstream="a"} 5"#,
        r#"steadfast_reasoning_tokens_total{route="pin",upstream="a"} 4"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert_eq!(
        text.matches("_tokens_total{").count(),
        5,
        "the other routes are not shown"
    );
}

#[test]
fn every_family_is_declared_once_and_is_valid_for_prometheus() {
    let mut exposition = Exposition::default();
    Metrics::default().expose(&[], &mut exposition);
    let upstream = UpstreamMetrics::default();
    upstream.requests.increment(RESPONSES);
    upstream.failovers.increment(FailoverReason::Connect);
    upstream.expose(UPSTREAM, &mut exposition);
    GroupMetrics::default().expose(&[("group", "team")], &mut exposition);
    let text = exposition.into_text();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut distinct = names.clone();
    distinct.dedup();
    assert!(names == distinct && names.is_sorted(), "{names:?}");
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').expect("a help text");
        let valid = prometheus::core::Desc::new(name.into(), help.into(), Vec::new(), Default::default());
        assert!(valid.is_ok() && help.ends_with('.'), "{line}");
    }
}

/// The same metrics, made of `prometheus`' own types.
struct PrometheusOracle {
    registry: Registry,
    requests: IntCounterVec,
    time_to_first_byte: TheirHistogram,
    failovers: IntCounterVec,
    sessions_moved: IntCounter,
    request_duration: HistogramVec,
    proxy_overhead: TheirHistogram,
    rejected_requests: IntCounterVec,
    reloads: IntCounterVec,
}

fn of_upstream(name: &str, help: &str) -> Opts {
    Opts::new(format!("steadfast_{name}"), help).const_label("upstream", "a")
}

fn of_process(name: &str, help: &str) -> Opts {
    Opts::new(format!("steadfast_{name}"), help)
}

fn histogram(opts: Opts, bounds: Bounds) -> HistogramOpts {
    let seconds = bounds.iter().map(|nanos| *nanos as f64 / 1e9);
    HistogramOpts::from(opts).buckets(seconds.collect())
}

impl PrometheusOracle {
    fn new() -> Self {
        let requests = of_upstream("requests_total", "Requests answered by an upstream.");
        let first_byte = of_upstream(
            "time_to_first_byte_seconds",
            "From a request's arrival to the upstream's response head.",
        );
        let failovers = of_upstream(
            "failovers_total",
            "Requests that failed at this upstream and were sent to another.",
        );
        let moved = of_upstream(
            "sessions_moved_total",
            "Sessions that moved from this upstream to another, because it could not serve them.",
        );
        let duration = of_process(
            "request_duration_seconds",
            "From a request's arrival to the end of its response.",
        );
        let overhead = of_process(
            "proxy_overhead_seconds",
            "From a request's last byte to the call of its upstream.",
        );
        let rejected = of_process(
            "rejected_requests_total",
            "Requests that Steadfast answered with an error of its own.",
        );
        let reloads = of_process("reloads_total", "Reloads of the configuration.");
        let oracle = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &["endpoint", "route", "status"]).unwrap(),
            time_to_first_byte: TheirHistogram::with_opts(histogram(first_byte, MILLISECONDS_TO_MINUTES)).unwrap(),
            failovers: IntCounterVec::new(failovers, &["reason"]).unwrap(),
            sessions_moved: IntCounter::with_opts(moved).unwrap(),
            request_duration: HistogramVec::new(histogram(duration, MILLISECONDS_TO_MINUTES), &["endpoint"]).unwrap(),
            proxy_overhead: TheirHistogram::with_opts(histogram(overhead, MICROSECONDS_TO_TENTHS)).unwrap(),
            rejected_requests: IntCounterVec::new(rejected, &["reason"]).unwrap(),
            reloads: IntCounterVec::new(reloads, &["outcome"]).unwrap(),
        };
        oracle.register_all();
        oracle
    }

    /// Registers every family, with the time series that are shown from the start.
    fn register_all(&self) {
        for family in self.families() {
            self.registry.register(family).unwrap();
        }
        for endpoint in Endpoint::ALL {
            self.request_duration.with_label_values(&[endpoint.label()]);
        }
        for reason in RejectReason::ALL {
            self.rejected_requests.with_label_values(&[reason.label()]);
        }
        for outcome in ReloadOutcome::ALL {
            self.reloads.with_label_values(&[outcome.label()]);
        }
    }

    fn families(&self) -> [Box<dyn Collector>; 8] {
        [
            Box::new(self.requests.clone()),
            Box::new(self.time_to_first_byte.clone()),
            Box::new(self.failovers.clone()),
            Box::new(self.sessions_moved.clone()),
            Box::new(self.request_duration.clone()),
            Box::new(self.proxy_overhead.clone()),
            Box::new(self.rejected_requests.clone()),
            Box::new(self.reloads.clone()),
        ]
    }

    /// Whether the family with this name is one of the oracle's.
    fn has(&self, name: &str) -> bool {
        let families = self.families();
        families
            .iter()
            .any(|family| family.desc().iter().any(|known| known.fq_name == name))
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }
}

/// An event that is counted.
#[derive(Clone, Copy, Debug)]
enum Counted {
    Answered(RequestLabels),
    FirstByte(Duration),
    Ended(Endpoint, Duration),
    Forwarded(Duration),
    FailedOver(FailoverReason),
    Moved,
    Rejected(RejectReason),
    Reloaded(ReloadOutcome),
}

impl Counted {
    fn count(self, metrics: &Metrics, upstream: &UpstreamMetrics) {
        match self {
            Self::Answered(labels) => upstream.requests.increment(labels),
            Self::FirstByte(duration) => upstream.time_to_first_byte.observe(NoLabels, duration),
            Self::Ended(endpoint, duration) => metrics.request_duration.observe(endpoint, duration),
            Self::Forwarded(duration) => metrics.proxy_overhead.observe(NoLabels, duration),
            Self::FailedOver(reason) => upstream.failovers.increment(reason),
            Self::Moved => upstream.sessions_moved.increment(NoLabels),
            Self::Rejected(reason) => metrics.rejected_requests.increment(reason),
            Self::Reloaded(outcome) => metrics.reloads.increment(outcome),
        }
    }

    fn count_in_oracle(self, oracle: &PrometheusOracle) {
        match self {
            Self::Answered(labels) => {
                let (endpoint, route) = (labels.endpoint.label(), labels.route.label());
                let counter = &oracle.requests;
                counter
                    .with_label_values(&[endpoint, route, labels.status.label()])
                    .inc();
            }
            Self::FirstByte(duration) => oracle.time_to_first_byte.observe(duration.as_secs_f64()),
            Self::Ended(endpoint, duration) => {
                let histogram = oracle.request_duration.with_label_values(&[endpoint.label()]);
                histogram.observe(duration.as_secs_f64());
            }
            Self::Forwarded(duration) => oracle.proxy_overhead.observe(duration.as_secs_f64()),
            Self::FailedOver(reason) => oracle.failovers.with_label_values(&[reason.label()]).inc(),
            Self::Moved => oracle.sessions_moved.inc(),
            Self::Rejected(reason) => oracle.rejected_requests.with_label_values(&[reason.label()]).inc(),
            Self::Reloaded(outcome) => oracle.reloads.with_label_values(&[outcome.label()]).inc(),
        }
    }
}

/// The bounds of buckets, durations beside them, and any duration up to a quarter of an hour. They are multiples of 0.1
/// microseconds, so that sums differ only by the oracle's rounding.
fn duration() -> impl Strategy<Value = Duration> {
    let bound = prop::sample::select([MICROSECONDS_TO_TENTHS, MILLISECONDS_TO_MINUTES].concat());
    let beside = (bound, 0..3u64).prop_map(|(nanos, by)| nanos / 100 + by - 1);
    prop_oneof![beside, 0u64..9_000_000_000].prop_map(|tenths| Duration::from_nanos(tenths * 100))
}

fn any_of<L: LabelSet + std::fmt::Debug>() -> impl Strategy<Value = L> {
    prop::sample::select(L::all())
}

fn counted() -> impl Strategy<Value = Counted> {
    prop_oneof![
        any_of().prop_map(Counted::Answered),
        duration().prop_map(Counted::FirstByte),
        (any_of(), duration()).prop_map(|(endpoint, duration)| Counted::Ended(endpoint, duration)),
        duration().prop_map(Counted::Forwarded),
        any_of().prop_map(Counted::FailedOver),
        Just(Counted::Moved),
        any_of().prop_map(Counted::Rejected),
        any_of().prop_map(Counted::Reloaded),
    ]
}

/// The part of `text` that is about families which `oracle` has.
fn known_to(oracle: &PrometheusOracle, text: &str) -> String {
    let mut is_known = false;
    let lines = text.split_inclusive('\n').filter(|line| {
        if let Some(family) = line.strip_prefix("# HELP ") {
            let name = family.split(' ').next().expect("a split has at least one part");
            is_known = oracle.has(name);
        }
        is_known
    });
    lines.collect()
}

/// The lines of `text`, with the values of sums apart, which are added in another order and unit.
fn without_sums(text: &str) -> (Vec<String>, Vec<f64>) {
    let (mut lines, mut sums) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match line.rsplit_once(' ') {
            Some((name, value)) if name.split('{').next().is_some_and(|name| name.ends_with("_sum")) => {
                lines.push(name.to_owned());
                sums.push(value.parse().unwrap());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    (lines, sums)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_scrape_is_the_same_as_one_of_the_prometheus_crate(events in prop::collection::vec(counted(), 0..60)) {
        let (metrics, upstream, oracle) = (Metrics::default(), UpstreamMetrics::default(), PrometheusOracle::new());
        for event in events {
            event.count(&metrics, &upstream);
            event.count_in_oracle(&oracle);
        }
        let (lines, sums) = without_sums(&known_to(&oracle, &text(&metrics, &upstream)));
        let (expected_lines, expected_sums) = without_sums(&oracle.text());
        prop_assert_eq!(lines, expected_lines);
        for (sum, expected) in sums.iter().zip(&expected_sums) {
            prop_assert!((sum - expected).abs() <= 1e-9, "{sum} is not {expected}");
        }
    }
}
