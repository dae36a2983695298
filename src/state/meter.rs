//! Metrics: handles made once, in a registry of our own.
//!
//! Labels have bounded values only: never a key, a session or a model. The counters of an upstream are made when they
//! are first counted, because most combinations of their labels never occur.

use std::{sync::OnceLock, time::Duration};

use http::StatusCode;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

use crate::{fault::Fault, policy::Route};

/// What a request asks for, as far as metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/responses/compact`
    Compact,
    /// `/v1/responses/{id}` and below
    Response,
    /// `/v1/models` and `/v1/models/{id}`
    Models,
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/embeddings`
    Embeddings,
    /// Any other path under `/v1`
    Other,
}

impl Endpoint {
    const ALL: [Self; 7] = [
        Self::Responses,
        Self::Compact,
        Self::Response,
        Self::Models,
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Other,
    ];

    /// The label `endpoint`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Compact => "compact",
            Self::Response => "response",
            Self::Models => "models",
            Self::ChatCompletions => "chat_completions",
            Self::Embeddings => "embeddings",
            Self::Other => "other",
        }
    }
}

/// The hundreds of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Below 300.
    Success,
    /// 3xx
    Redirection,
    /// 4xx
    ClientError,
    /// From 500.
    ServerError,
}

impl StatusClass {
    const COUNT: usize = 4;

    /// The class of `status`.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    /// The label `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// The labels of one answered request beside its upstream.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// Why this upstream.
    pub route: Route,
    /// How it was answered.
    pub status: StatusClass,
}

/// Figures that are read when they are scraped.
#[derive(Clone, Copy)]
pub(super) enum Level {
    Pins,
    Connections,
    BufferedBytes,
}

/// The metrics of a process.
pub struct Meter {
    registry: Registry,
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    time_to_first_byte: HistogramVec,
    durations: [Histogram; Endpoint::ALL.len()],
    overhead: Histogram,
    rejected: [(&'static str, IntCounter); Fault::LABELS.len()],
    levels: [IntGauge; 3],
}

/// From a millisecond to ten minutes: generations take seconds to minutes.
const LONG: &[f64] = &[
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// From ten microseconds to a tenth of a second.
const SHORT: &[f64] = &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 0.1];

const PREFIX: &str = "steadfast_";

/// Every name and label set here is a constant and distinct, so making and registering them cannot fail.
fn made<T>(result: prometheus::Result<T>) -> T {
    result.unwrap_or_else(|error| unreachable!("a metric of ours is malformed: {error}"))
}

impl Meter {
    /// A registry with every metric in it.
    #[allow(clippy::new_without_default, reason = "a registry is made once and on purpose")]
    pub fn new() -> Self {
        let make = Maker(Registry::new());
        let rejected = make.counters(
            "rejected_requests_total",
            "Requests answered with an error of our own.",
            &["reason"],
        );
        let durations = make.histograms(
            "request_duration_seconds",
            "From a request's arrival to the end of its response.",
            &["endpoint"],
            LONG,
        );
        let build = make.gauges("build_info", "Always 1; the version is a label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: make.counters(
                "requests_total",
                "Requests answered by an upstream.",
                &["upstream", "endpoint", "route", "status"],
            ),
            in_flight: make.gauges(
                "in_flight_requests",
                "Requests that an upstream is working on.",
                &["upstream"],
            ),
            time_to_first_byte: make.histograms(
                "time_to_first_byte_seconds",
                "From a request's arrival to the upstream's response head.",
                &["upstream"],
                LONG,
            ),
            durations: Endpoint::ALL.map(|endpoint| durations.with_label_values(&[endpoint.label()])),
            overhead: make
                .histograms(
                    "proxy_overhead_seconds",
                    "From a request's last byte to the call of its upstream.",
                    &[],
                    SHORT,
                )
                .with_label_values::<&str>(&[]),
            rejected: Fault::LABELS.map(|reason| (reason, rejected.with_label_values(&[reason]))),
            levels: [
                ("pins", "Sessions that are pinned to an upstream."),
                ("connections", "Open client connections."),
                ("buffered_bytes", "Bytes of request bodies held in memory."),
            ]
            .map(|(name, help)| make.gauges(name, help, &[]).with_label_values::<&str>(&[])),
            registry: make.0,
        }
    }

    /// The handles of the upstream called `name`.
    pub fn upstream(&self, name: &str) -> UpstreamMeter {
        UpstreamMeter {
            name: name.to_owned(),
            requests: self.requests.clone(),
            counters: Default::default(),
            in_flight: self.in_flight.with_label_values(&[name]),
            time_to_first_byte: self.time_to_first_byte.with_label_values(&[name]),
        }
    }

    /// Counts a fault by its label.
    pub fn count_rejected(&self, fault: &Fault) {
        self.count_reason(fault.label());
    }

    /// Counts a request whose head could not be read, so that no fault tells of it.
    pub fn count_rejected_head(&self) {
        self.count_reason("head");
    }

    fn count_reason(&self, label: &str) {
        if let Some((_, counter)) = self.rejected.iter().find(|(reason, _)| *reason == label) {
            counter.inc();
        }
    }

    /// Records how long a request took from its arrival to the end of its response.
    pub fn observe_duration(&self, endpoint: Endpoint, took: Duration) {
        if let Some(histogram) = self.durations.get(endpoint as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Records how long a request that was complete took to leave.
    pub fn observe_overhead(&self, took: Duration) {
        self.overhead.observe(took.as_secs_f64());
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

/// Makes metrics and registers them under our prefix.
struct Maker(Registry);

impl Maker {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(format!("{PREFIX}{name}"), help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(format!("{PREFIX}{name}"), help), labels))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = made(collector);
        made(self.0.register(Box::new(collector.clone())));
        collector
    }
}

/// The handles of one upstream.
pub struct UpstreamMeter {
    name: String,
    requests: IntCounterVec,
    counters: [[[OnceLock<IntCounter>; StatusClass::COUNT]; Route::ALL.len()]; Endpoint::ALL.len()],
    /// Requests that the upstream is working on. Policy reads it too: there is one count, not two.
    pub in_flight: IntGauge,
    time_to_first_byte: Histogram,
}

impl UpstreamMeter {
    /// Counts a request that this upstream answered.
    pub fn count(&self, labels: RequestLabels) {
        let RequestLabels {
            endpoint,
            route,
            status,
        } = labels;
        let slot = &self.counters[endpoint as usize][route as usize][status as usize];
        slot.get_or_init(|| {
            self.requests
                .with_label_values(&[&self.name, endpoint.label(), route.label(), status.label()])
        })
        .inc();
    }

    /// Records how long a request took from its arrival to this upstream's response head.
    pub fn observe_first_byte(&self, took: Duration) {
        self.time_to_first_byte.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_appear_with_their_labels() {
        let meter = Meter::new();
        let upstream = meter.upstream("a");
        let labels = RequestLabels {
            endpoint: Endpoint::Responses,
            route: Route::Home,
            status: StatusClass::of(StatusCode::OK),
        };
        upstream.count(labels);
        upstream.count(labels);
        meter.count_rejected(&Fault::BuffersFull);
        let text = meter.scrape(&[(Level::Pins, 3)]);
        for line in [
            r#"steadfast_requests_total{endpoint="responses",route="home",status="2xx",upstream="a"} 2"#,
            r#"steadfast_rejected_requests_total{reason="buffers_full"} 1"#,
            "steadfast_pins 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
