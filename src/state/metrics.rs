//! Metrics that requests count, and the text that a scrape returns.
//!
//! # Adding a metric
//!
//! A metric family is declared once, as a field of one of the blocks below: its name, its help text, its labels and its
//! kind are in one place. The code that counts calls the field:
//!
//! ```text
//! pub retries_exhausted: Counter<NoLabels> =
//!     Counter::new("retries_exhausted_total", "Requests that …", Zeros::Shown);
//!
//! gateway.metrics.retries_exhausted.increment(NoLabels);
//! ```
//!
//! Nothing else is needed: the macro `families!` makes the block from its fields, and a scrape visits every field. The label
//! sets are closed enums, so that an unknown label does not compile, and no look-up by name happens while a request runs.
//!
//! Numbers that steer requests (requests in flight, the retry budget) are not metrics. Their owners in
//! [`state`](super) count them, and `Gateway::scrape` reads them.
//!
//! # What striping gains
//!
//! Families are [striped](super::striped) over threads. `benches/contention.rs` measures this on two cores. Its threads
//! only count, and each call counts as much as one request: one counter and three histograms.
//!
//! | processor time in ns | 1 thread | 2 threads |
//! | --- | --- | --- |
//! | striped | 21 | 21 |
//! | plain atomics | 16 | 115 |
//! | `prometheus` | 49 | 300 to 1,200 |
//!
//! A request costs about 70,000 instructions, or 20 µs. So striping saves at most 0.5 % of a request against plain
//! atomics on two cores, and 1 to 5 % against the histograms of `prometheus`; the gain grows with the number of cores.
//! It comes from the histograms. A single counter (2 ns striped, 9 to 14 ns plain on two threads) and rare events, such
//! as failovers, gain nothing measurable. They are striped too, because one implementation is simpler than two.

mod exposition;
mod families;
mod labels;

#[cfg(test)]
mod tests;

pub(super) use self::exposition::{Description, Exposition, Labels};
use self::families::{Bounds, Family, Zeros};
pub use self::{
    families::{Counter, Histogram, TokenCounter},
    labels::{FailoverReason, LabelSet, NoLabels, ReloadOutcome, RequestLabels, StatusClass},
};
use super::BrakeKind;
use crate::{
    endpoint::Endpoint,
    fault::RejectReason,
    policy::{Route, health::HealthState},
};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Bounds from a millisecond to ten minutes, because generations take seconds to minutes.
const MILLISECONDS_TO_MINUTES: Bounds = &[
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

/// Bounds from ten microseconds to a tenth of a second.
const MICROSECONDS_TO_TENTHS: Bounds = &[
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    10 * MILLISECOND,
    100 * MILLISECOND,
];

/// Declares a block of metric families: a struct whose fields are families, with a `Default` that makes them and an
/// `expose` that adds all of them to a scrape.
macro_rules! families {
    (
        $(#[$block_meta:meta])*
        pub struct $block:ident {
            $($(#[$meta:meta])* pub $field:ident: $kind:ty = $family:expr;)*
        }
    ) => {
        $(#[$block_meta])*
        pub struct $block {
            $($(#[$meta])* pub $field: $kind,)*
        }

        impl Default for $block {
            fn default() -> Self {
                Self { $($field: $family,)* }
            }
        }

        impl $block {
            /// Adds every family to `exposition`; each time series also gets the labels in `shared`.
            pub(super) fn expose(&self, shared: Labels<'_>, exposition: &mut Exposition) {
                let families: &[&dyn Family] = &[$(&self.$field,)*];
                families.iter().for_each(|family| family.expose(shared, exposition));
            }
        }
    };
}

families! {
    /// The metrics of all requests together. There is one block per process.
    pub struct Metrics {
        /// The time from a request's arrival to the end of its response, for requests whose endpoint is known.
        pub request_duration: Histogram<Endpoint> = Histogram::new(
            "request_duration_seconds",
            "From a request's arrival to the end of its response.",
            MILLISECONDS_TO_MINUTES,
        );
        /// The time that a request spends in Steadfast after its body is complete and before the first upstream is
        /// called. Time that it waits for a slot does not count.
        pub proxy_overhead: Histogram<NoLabels> = Histogram::new(
            "proxy_overhead_seconds",
            "From a request's last byte to the call of its upstream.",
            MICROSECONDS_TO_TENTHS,
        );
        /// Requests that Steadfast answered with an error of its own.
        pub rejected_requests: Counter<RejectReason> = Counter::new(
            "rejected_requests_total",
            "Requests that Steadfast answered with an error of its own.",
            Zeros::Shown,
        );
        /// Requests that a brake refused. They are rejected requests too.
        pub braked_requests: Counter<BrakeKind> = Counter::new(
            "braked_requests_total",
            "Requests refused because the last ones of their session, or of several sessions (pool), failed everywhere.",
            Zeros::Shown,
        );
        /// Reloads of the configuration.
        pub reloads: Counter<ReloadOutcome> =
            Counter::new("reloads_total", "Reloads of the configuration.", Zeros::Shown);
    }
}

families! {
    /// The metrics of one upstream. A scrape adds the label `upstream`.
    pub struct UpstreamMetrics {
        /// Requests whose response head came from this upstream.
        pub requests: Counter<RequestLabels> =
            Counter::new("requests_total", "Requests answered by an upstream.", Zeros::Hidden);
        /// The time from a request's arrival to this upstream's response head.
        pub time_to_first_byte: Histogram<NoLabels> = Histogram::new(
            "time_to_first_byte_seconds",
            "From a request's arrival to the upstream's response head.",
            MILLISECONDS_TO_MINUTES,
        );
        /// Requests that failed at this upstream and were then sent to another upstream.
        pub failovers: Counter<FailoverReason> = Counter::new(
            "failovers_total",
            "Requests that failed at this upstream and were sent to another.",
            Zeros::Hidden,
        );
        /// Requests that failed at this upstream before they had an answer to pass on.
        pub failed_attempts: Counter<FailoverReason> = Counter::new(
            "failed_attempts_total",
            "Requests that failed at this upstream, whether they were then sent to another or not.",
            Zeros::Hidden,
        );
        /// Responses that failed after a part of them had reached the caller.
        pub late_failures: Counter<NoLabels> = Counter::new(
            "late_failures_total",
            "Responses of this upstream that failed after their first output.",
            Zeros::Shown,
        );
        /// Requests that showed whether this upstream takes requests again, by the state that it was in.
        pub probes: Counter<HealthState> = Counter::new(
            "probes_total",
            "Requests sent to this upstream while it was ejected, disabled or cooling, to see whether it works again.",
            Zeros::Hidden,
        );
        /// Sessions whose pin moved from this upstream to another.
        pub sessions_moved: Counter<NoLabels> = Counter::new(
            "sessions_moved_total",
            "Sessions that moved from this upstream to another, because it could not serve them.",
            Zeros::Shown,
        );
        /// The tokens of this upstream's requests, by the route that the requests took.
        pub tokens: TokenCounter<Route> = TokenCounter::new(
            [
                (
                    "input_tokens_total",
                    "Input tokens, as upstreams reported them, by upstream and route.",
                ),
                (
                    "cached_input_tokens_total",
                    "Input tokens that came from a prompt cache, as upstreams reported them, by upstream and route.",
                ),
                (
                    "cache_write_tokens_total",
                    "Input tokens that were written to a prompt cache, as upstreams reported them, by upstream and route.",
                ),
                (
                    "output_tokens_total",
                    "Output tokens, as upstreams reported them, by upstream and route.",
                ),
                (
                    "reasoning_tokens_total",
                    "Output tokens that were spent on reasoning, as upstreams reported them, by upstream and route.",
                ),
            ],
            Zeros::Hidden,
        );
    }
}

families! {
    /// The metrics of one group of client keys. A scrape adds the label `group`.
    pub struct GroupMetrics {
        /// Requests with a key of this group, whether an upstream or Steadfast answered them.
        pub requests: Counter<StatusClass> = Counter::new(
            "group_requests_total",
            "Requests with a key of this group, whether an upstream or Steadfast answered them.",
            Zeros::Shown,
        );
        /// The tokens of this group's requests.
        pub tokens: TokenCounter<NoLabels> = TokenCounter::new(
            [
                (
                    "group_input_tokens_total",
                    "Input tokens, as upstreams reported them, by group.",
                ),
                (
                    "group_cached_input_tokens_total",
                    "Input tokens that came from a prompt cache, as upstreams reported them, by group.",
                ),
                (
                    "group_cache_write_tokens_total",
                    "Input tokens that were written to a prompt cache, as upstreams reported them, by group.",
                ),
                (
                    "group_output_tokens_total",
                    "Output tokens, as upstreams reported them, by group.",
                ),
                (
                    "group_reasoning_tokens_total",
                    "Output tokens that were spent on reasoning, as upstreams reported them, by group.",
                ),
            ],
            Zeros::Shown,
        );
    }
}
