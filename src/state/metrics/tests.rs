//! The oracle is what `prometheus` itself makes of the same events.

use http::StatusCode;
use prometheus::{Histogram as Theirs, HistogramOpts, HistogramVec, IntCounterVec};
use proptest::prelude::*;

use super::*;

const RESPONSES: RequestLabels = RequestLabels {
    endpoint: Endpoint::Responses,
    route: Route::Home,
    status: StatusClass::Success,
};

#[test]
fn counters_appear_with_their_labels() {
    let metrics = Metrics::new();
    let upstream = metrics.upstream("a");
    let labels = RequestLabels {
        status: StatusClass::of(StatusCode::OK),
        ..RESPONSES
    };
    upstream.count(labels);
    upstream.count(labels);
    metrics.count_rejected(&Fault::BuffersFull);
    metrics.count_reload(ReloadOutcome::Refused);
    let text = metrics.scrape(&[(Level::Pins, 3)]);
    for line in [
        r#"steadfast_requests_total{endpoint="responses",route="home",status="2xx",upstream="a"} 2"#,
        r#"steadfast_rejected_requests_total{reason="buffers_full"} 1"#,
        "steadfast_pins 3",
        r#"steadfast_reloads_total{outcome="refused"} 1"#,
        r#"steadfast_reloads_total{outcome="applied"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("steadfast_requests_total{").count(), 1);
}

#[test]
fn an_upstream_that_comes_back_counts_on() {
    let metrics = Metrics::new();
    metrics.upstream("a").count(RESPONSES);
    metrics.upstream("b").count(RESPONSES);
    metrics.upstream("a").count(RESPONSES);
    let text = metrics.scrape(&[]);
    assert!(
        text.contains(r#"upstream="a"} 2"#) && text.contains(r#"upstream="b"} 1"#),
        "{text}"
    );
}

/// The same metrics, made of `prometheus`' own types.
struct Oracle {
    registry: Registry,
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    first_byte: HistogramVec,
    failovers: IntCounterVec,
    moved: IntCounterVec,
    durations: HistogramVec,
    overhead: Theirs,
    rejected: IntCounterVec,
}

impl Oracle {
    fn new() -> Self {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(format!("steadfast_{name}"), help);
        let seconds = |bounds: Bounds| bounds.iter().map(|nanos| *nanos as f64 / 1e9).collect::<Vec<_>>();
        let long = |name, help, label| {
            HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(seconds(LONG)), &[label]).unwrap()
        };
        let oracle = Self {
            requests: IntCounterVec::new(
                opts("requests_total", "Requests answered by an upstream."),
                &["upstream", "endpoint", "route", "status"],
            )
            .unwrap(),
            in_flight: IntGaugeVec::new(
                opts("in_flight_requests", "Requests that an upstream is working on."),
                &["upstream"],
            )
            .unwrap(),
            first_byte: long(
                "time_to_first_byte_seconds",
                "From a request's arrival to the upstream's response head.",
                "upstream",
            ),
            failovers: IntCounterVec::new(
                opts(
                    "failovers_total",
                    "Requests that this upstream failed and that went on to another.",
                ),
                &["upstream", "reason"],
            )
            .unwrap(),
            moved: IntCounterVec::new(
                opts(
                    "sessions_moved_total",
                    "Sessions that left this upstream for another, because it could not take them.",
                ),
                &["upstream"],
            )
            .unwrap(),
            durations: long(
                "request_duration_seconds",
                "From a request's arrival to the end of its response.",
                "endpoint",
            ),
            overhead: Theirs::with_opts(
                HistogramOpts::from(opts(
                    "proxy_overhead_seconds",
                    "From a request's last byte to the call of its upstream.",
                ))
                .buckets(seconds(SHORT)),
            )
            .unwrap(),
            rejected: IntCounterVec::new(
                opts("rejected_requests_total", "Requests answered with an error of our own."),
                &["reason"],
            )
            .unwrap(),
            registry,
        };
        oracle.register(&oracle.failovers);
        oracle.register(&oracle.moved);
        oracle.register(&oracle.requests);
        oracle.register(&oracle.in_flight);
        oracle.register(&oracle.first_byte);
        oracle.register(&oracle.durations);
        oracle.register(&oracle.overhead);
        oracle.register(&oracle.rejected);
        for endpoint in Endpoint::ALL {
            oracle.durations.with_label_values(&[endpoint.label()]);
        }
        for reason in RejectReason::ALL {
            oracle.rejected.with_label_values(&[reason.label()]);
        }
        oracle
    }

    fn register(&self, collector: &(impl prometheus::core::Collector + Clone + 'static)) {
        self.registry.register(Box::new(collector.clone())).unwrap();
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }
}

/// Bounds, what is beside them, and anything up to a quarter of an hour; in tenths of a microsecond, so that sums differ
/// by the oracle's rounding alone.
fn duration() -> impl Strategy<Value = Duration> {
    let bound = prop::sample::select([SHORT, LONG].concat());
    let beside = (bound, 0..3u64).prop_map(|(nanos, by)| nanos / 100 + by - 1);
    prop_oneof![beside, 0u64..9_000_000_000].prop_map(|tenths| Duration::from_nanos(tenths * 100))
}

/// Lines of text, with the values of sums apart: they are added in another order and unit.
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

/// A scrape of `metrics` but for what `prometheus` keeps anyway.
fn tallied(metrics: &Metrics) -> String {
    let levels = [
        "build_info",
        "pins",
        "connections",
        "buffered_bytes",
        "waiting_requests",
        "reloads_total",
        "upstream_state",
        "upstream_cooldown_seconds",
    ];
    let is_level = |line: &str| levels.iter().any(|level| line.contains(&format!("steadfast_{level}")));
    let text = metrics.scrape(&[]);
    text.lines()
        .filter(|line| !is_level(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scrapes_read_as_if_prometheus_had_counted(
        events in prop::collection::vec((0u8..7, 0usize..7, 0usize..5, 0usize..4, duration()), 0..60),
    ) {
        let (metrics, oracle) = (Metrics::new(), Oracle::new());
        for name in ["b", "a"] {
            metrics.upstream(name);
            oracle.in_flight.with_label_values(&[name]);
            oracle.first_byte.with_label_values(&[name]);
            oracle.moved.with_label_values(&[name]);
        }
        for (what, endpoint, route, status, took) in events {
            let name = ["a", "b"][status % 2];
            let seconds = took.as_secs_f64();
            let labels = RequestLabels {
                endpoint: Endpoint::ALL[endpoint],
                route: Route::ALL[route],
                status: StatusClass::ALL[status],
            };
            match what {
                0 => {
                    metrics.upstream(name).count(labels);
                    let (endpoint, route) = (labels.endpoint.label(), labels.route.label());
                    oracle.requests.with_label_values(&[name, endpoint, route, labels.status.label()]).inc();
                }
                1 => {
                    metrics.upstream(name).observe_first_byte(took);
                    oracle.first_byte.with_label_values(&[name]).observe(seconds);
                }
                2 => {
                    metrics.observe_duration(labels.endpoint, took);
                    oracle.durations.with_label_values(&[labels.endpoint.label()]).observe(seconds);
                }
                3 => {
                    metrics.observe_overhead(took);
                    oracle.overhead.observe(seconds);
                }
                4 => {
                    let reason = FailoverReason::ALL[endpoint % FailoverReason::ALL.len()];
                    metrics.upstream(name).count_failover(reason);
                    oracle.failovers.with_label_values(&[name, reason.label()]).inc();
                }
                5 => {
                    metrics.upstream(name).count_moved();
                    oracle.moved.with_label_values(&[name]).inc();
                }
                _ => {
                    metrics.upstream(name).in_flight.inc();
                    oracle.in_flight.with_label_values(&[name]).inc();
                    metrics.count_rejected_head();
                    oracle.rejected.with_label_values(&["head"]).inc();
                }
            }
        }
        let ((lines, sums), (expected_lines, expected_sums)) =
            (without_sums(&tallied(&metrics)), without_sums(&oracle.text()));
        prop_assert_eq!(lines, expected_lines);
        for (sum, expected) in sums.iter().zip(&expected_sums) {
            prop_assert!((sum - expected).abs() <= 1e-9, "{sum} is not {expected}");
        }
    }
}
