//! How totals become Prometheus' metric families.

use std::{collections::HashMap, sync::Arc};

use prometheus::{
    core::{Collector, Desc},
    proto::{self, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    FailoverReason, GroupMetrics, LONG, PREFIX, RequestLabels, SHORT, StatusClass, Tally, UpstreamMetrics, made,
    striped::{Bounds, NANOS_PER_SECOND, Observed},
};
use crate::{endpoint::Endpoint, fault::RejectReason, policy::Route};

/// A tally as the registry knows it.
pub(super) struct Exposed {
    tally: Arc<Tally>,
    requests: Family,
    in_flight: Family,
    first_byte: Family,
    failovers: Family,
    moved: Family,
    durations: Family,
    overhead: Family,
    rejected: Family,
    tokens: TokenFamilies,
    groups: Family,
    group_tokens: TokenFamilies,
}

/// Input, cached input and output.
type TokenFamilies = [Family; 3];

fn token_families(prefix: &str, of: &str, labels: &[&str]) -> TokenFamilies {
    [
        ("input", "Input tokens"),
        ("cached_input", "Input tokens that came from a prompt cache"),
        ("output", "Output tokens"),
    ]
    .map(|(name, what)| {
        let help = format!("{what}, as upstreams reported them, {of}.");
        Family::new(
            MetricType::COUNTER,
            &format!("{prefix}{name}_tokens_total"),
            &help,
            labels,
        )
    })
}

impl Exposed {
    pub fn new(tally: Arc<Tally>) -> Self {
        Self {
            tally,
            requests: Family::new(
                MetricType::COUNTER,
                "requests_total",
                "Requests answered by an upstream.",
                &["upstream", "endpoint", "route", "status"],
            ),
            in_flight: Family::new(
                MetricType::GAUGE,
                "in_flight_requests",
                "Requests that an upstream is working on.",
                &["upstream"],
            ),
            first_byte: Family::new(
                MetricType::HISTOGRAM,
                "time_to_first_byte_seconds",
                "From a request's arrival to the upstream's response head.",
                &["upstream"],
            ),
            failovers: Family::new(
                MetricType::COUNTER,
                "failovers_total",
                "Requests that this upstream failed and that went on to another.",
                &["upstream", "reason"],
            ),
            moved: Family::new(
                MetricType::COUNTER,
                "sessions_moved_total",
                "Sessions that left this upstream for another, because it could not take them.",
                &["upstream"],
            ),
            durations: Family::new(
                MetricType::HISTOGRAM,
                "request_duration_seconds",
                "From a request's arrival to the end of its response.",
                &["endpoint"],
            ),
            overhead: Family::new(
                MetricType::HISTOGRAM,
                "proxy_overhead_seconds",
                "From a request's last byte to the call of its upstream.",
                &[],
            ),
            rejected: Family::new(
                MetricType::COUNTER,
                "rejected_requests_total",
                "Requests answered with an error of our own.",
                &["reason"],
            ),
            tokens: token_families("", "by upstream and route", &["upstream", "route"]),
            groups: Family::new(
                MetricType::COUNTER,
                "group_requests_total",
                "Requests with a key of this group, whoever answered them.",
                &["group", "status"],
            ),
            group_tokens: token_families("group_", "by group", &["group"]),
        }
    }

    fn shared(&self) -> [MetricFamily; 3] {
        let shared = &self.tally.shared;
        let duration = |endpoint: Endpoint| {
            let parts = shared.blocks().map(|block| &block.durations[endpoint as usize]);
            histogram(&[("endpoint", endpoint.label())], LONG, &Observed::add_up(LONG, parts))
        };
        let overhead = Observed::add_up(SHORT, shared.blocks().map(|block| &block.overhead));
        let rejected = |reason: RejectReason| {
            let total = shared.total(|block| &block.rejected[reason as usize]);
            counter(&[("reason", reason.label())], total)
        };
        [
            self.durations.of(Endpoint::ALL.map(duration)),
            self.overhead.of([histogram(&[], SHORT, &overhead)]),
            self.rejected.of(RejectReason::ALL.map(rejected)),
        ]
    }

    fn upstreams(&self) -> [MetricFamily; 5] {
        let upstreams = self.tally.upstreams.lock().clone();
        let first_byte = |upstream: &Arc<UpstreamMetrics>| {
            let parts = upstream.counts.blocks().map(|block| &block.first_byte);
            histogram(&[("upstream", &upstream.name)], LONG, &Observed::add_up(LONG, parts))
        };
        let in_flight =
            |upstream: &Arc<UpstreamMetrics>| gauge(&[("upstream", &upstream.name)], upstream.in_flight.get());
        let moved = |upstream: &Arc<UpstreamMetrics>| {
            let total = upstream.counts.total(|block| &block.moved);
            counter(&[("upstream", &upstream.name)], total)
        };
        [
            self.requests
                .of(upstreams.iter().flat_map(|upstream| requests(upstream))),
            self.in_flight.of(upstreams.iter().map(in_flight)),
            self.first_byte.of(upstreams.iter().map(first_byte)),
            self.failovers
                .of(upstreams.iter().flat_map(|upstream| failovers(upstream))),
            self.moved.of(upstreams.iter().map(moved)),
        ]
    }

    fn tokens(&self) -> [MetricFamily; 3] {
        let upstreams = self.tally.upstreams.lock().clone();
        let metrics = |at: usize| {
            let of_upstream = |upstream: &Arc<UpstreamMetrics>| -> Vec<Metric> {
                let of_route = |route: Route| {
                    let total = upstream.counts.total(|block| block.tokens[route as usize].all()[at]);
                    let labels = [("route", route.label()), ("upstream", &*upstream.name)];
                    // Together with the input, that a ratio has both of its sides.
                    let input = upstream.counts.total(|block| block.tokens[route as usize].all()[0]);
                    (input > 0 || total > 0).then(|| counter(&labels, total))
                };
                Route::ALL.into_iter().filter_map(of_route).collect()
            };
            self.tokens[at].of(upstreams.iter().flat_map(of_upstream))
        };
        std::array::from_fn(metrics)
    }

    fn groups(&self) -> Vec<MetricFamily> {
        let groups = self.tally.groups.lock().clone();
        let requests = |group: &Arc<GroupMetrics>| {
            StatusClass::ALL.map(|status| {
                let total = group.counts.total(|block| &block.requests[status as usize]);
                counter(&[("group", &*group.name), ("status", status.label())], total)
            })
        };
        let tokens = self.group_tokens.iter().enumerate().map(|(at, family)| {
            let of_group = |group: &Arc<GroupMetrics>| {
                let total = group.counts.total(|block| block.tokens.all()[at]);
                counter(&[("group", &*group.name)], total)
            };
            family.of(groups.iter().map(of_group))
        });
        let requests = self.groups.of(groups.iter().flat_map(requests));
        std::iter::once(requests).chain(tokens).collect()
    }
}

/// The reasons that have occurred.
fn failovers(upstream: &UpstreamMetrics) -> Vec<Metric> {
    let counted = |(at, reason): (usize, &FailoverReason)| {
        let total = upstream.counts.total(|block| &block.failovers[at]);
        let labels = [("reason", reason.label()), ("upstream", &*upstream.name)];
        (total > 0).then(|| counter(&labels, total))
    };
    FailoverReason::ALL.iter().enumerate().filter_map(counted).collect()
}

/// The combinations of labels that have occurred: most never do.
fn requests(upstream: &UpstreamMetrics) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for endpoint in Endpoint::ALL {
        for route in Route::ALL {
            for status in StatusClass::ALL {
                let labels = RequestLabels {
                    endpoint,
                    route,
                    status,
                };
                let total = upstream.counts.total(|block| block.requests(labels));
                if total > 0 {
                    let labels = [
                        ("endpoint", endpoint.label()),
                        ("route", route.label()),
                        ("status", status.label()),
                        ("upstream", &*upstream.name),
                    ];
                    metrics.push(counter(&labels, total));
                }
            }
        }
    }
    metrics
}

impl Collector for Exposed {
    fn desc(&self) -> Vec<&Desc> {
        let families = [
            &self.requests,
            &self.in_flight,
            &self.first_byte,
            &self.failovers,
            &self.moved,
            &self.durations,
            &self.overhead,
            &self.rejected,
            &self.groups,
        ];
        let tokens = self.tokens.iter().chain(&self.group_tokens);
        families.into_iter().chain(tokens).map(Family::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (shared, upstreams) = (self.shared(), self.upstreams());
        let families = shared.into_iter().chain(upstreams).chain(self.tokens());
        // A family without a metric is not shown: without groups there is nothing to say about them.
        let families = families.chain(self.groups());
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// A metric's name, help and type.
struct Family {
    desc: Desc,
    kind: MetricType,
}

impl Family {
    /// `name` is without our prefix.
    fn new(kind: MetricType, name: &str, help: &str, labels: &[&str]) -> Self {
        let labels = labels.iter().map(ToString::to_string).collect();
        let name = format!("{}{name}", PREFIX);
        Self {
            desc: made(Desc::new(name, help.to_owned(), labels, HashMap::new())),
            kind,
        }
    }

    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn of(&self, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics.into_iter().collect());
        family
    }
}

/// Labels stand in the order of their names.
type Labels<'a> = &'a [(&'a str, &'a str)];

fn labelled(labels: Labels<'_>) -> Metric {
    debug_assert!(labels.is_sorted());
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn counter(labels: Labels<'_>, total: u64) -> Metric {
    let (mut metric, mut counter) = (labelled(labels), proto::Counter::default());
    counter.set_value(total as f64);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Labels<'_>, value: i64) -> Metric {
    let (mut metric, mut gauge) = (labelled(labels), proto::Gauge::default());
    gauge.set_value(value as f64);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: Labels<'_>, bounds: Bounds, observed: &Observed) -> Metric {
    let (mut metric, mut histogram) = (labelled(labels), proto::Histogram::default());
    let bucket = |(bound, count): (&u64, &u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound as f64 / NANOS_PER_SECOND);
        bucket.set_cumulative_count(*count);
        bucket
    };
    histogram.set_bucket(bounds.iter().zip(&observed.cumulative).map(bucket).collect());
    histogram.set_sample_count(observed.count);
    histogram.set_sample_sum(observed.sum);
    metric.set_histogram(histogram);
    metric
}
