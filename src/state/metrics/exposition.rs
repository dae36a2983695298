//! The text that a scrape returns, in Prometheus' exposition format.

use std::collections::BTreeMap;

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{self, LabelPair, Metric, MetricFamily, MetricType},
};

/// The beginning of every metric's name.
const PREFIX: &str = "steadfast_";

/// The name and the help text of a metric family.
#[derive(Clone, Copy, Debug)]
pub(in crate::state) struct Description {
    name: &'static str,
    help: &'static str,
}

impl Description {
    /// Describes a family. `name` is without the common prefix.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help }
    }
}

/// Names and values of labels, in any order.
pub(in crate::state) type Labels<'a> = &'a [(&'a str, &'a str)];

/// The buckets of one histogram, added up over all threads.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Distribution {
    /// For each bucket, its upper bound in seconds and the number of observations up to it.
    pub cumulative: Vec<(f64, u64)>,
    /// The number of all observations.
    pub count: u64,
    /// The sum of all observations in seconds.
    pub sum: f64,
}

/// The time series of one scrape. A family that has no time series does not appear in the text.
#[derive(Default)]
pub(in crate::state) struct Exposition {
    families: BTreeMap<&'static str, MetricFamily>,
}

impl Exposition {
    /// Adds a time series to a family of counters.
    pub fn counter(&mut self, family: Description, labels: Labels<'_>, total: u64) {
        let mut counter = proto::Counter::default();
        counter.set_value(total as f64);
        self.metric(family, MetricType::COUNTER, labels).set_counter(counter);
    }

    /// Adds a time series to a family of gauges.
    pub fn gauge(&mut self, family: Description, labels: Labels<'_>, value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        self.metric(family, MetricType::GAUGE, labels).set_gauge(gauge);
    }

    /// Adds a time series to a family of histograms.
    pub(super) fn histogram(&mut self, family: Description, labels: Labels<'_>, distribution: &Distribution) {
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(distribution.cumulative.iter().map(bucket).collect());
        histogram.set_sample_count(distribution.count);
        histogram.set_sample_sum(distribution.sum);
        self.metric(family, MetricType::HISTOGRAM, labels)
            .set_histogram(histogram);
    }

    /// Adds a time series without a value, and returns it.
    fn metric(&mut self, description: Description, kind: MetricType, labels: Labels<'_>) -> &mut Metric {
        let Description { name, help } = description;
        let family = self.families.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(format!("{PREFIX}{name}"));
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        debug_assert!(
            family.get_field_type() == kind && family.help() == help,
            "the family {name} is declared twice"
        );
        family.mut_metric().push(Metric::from_label(label_pairs(labels)));
        family.mut_metric().last_mut().expect("a metric was just added")
    }

    /// Returns the text. Families are in the order of their names, and the time series of a family in the order of the
    /// values of their labels.
    pub fn into_text(self) -> String {
        let mut families: Vec<MetricFamily> = self.families.into_values().collect();
        for family in &mut families {
            let values = |metric: &Metric| {
                let labels = metric.get_label().iter();
                labels.map(|pair| pair.value().to_owned()).collect::<Vec<_>>()
            };
            family.mut_metric().sort_by_cached_key(values);
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("every family has a name and a metric, and writing to memory does not fail");
        String::from_utf8(text).expect("the encoder writes UTF-8")
    }
}

/// Prometheus' own libraries put the labels of a time series in the order of their names.
fn label_pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.into_iter().map(pair).collect()
}
