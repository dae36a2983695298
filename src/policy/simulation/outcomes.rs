//! The outcomes of a simulated upstream's requests, for the comparison with the other upstreams.

use std::time::Duration;

use super::plan::secs;
use crate::{
    policy::{
        Verdict,
        health::HealthState,
        outlier::{LogTime, ModelTime, OutcomeCounts, OutlierRecord, RecentOutcomes, SUCCESS_WINDOW, Speed, TimeSum},
    },
    tick::Tick,
};

/// What the gateway counts at an upstream, and a list of everything that has happened, for the invariants.
#[derive(Default)]
pub(super) struct SimulatedOutcomes {
    total: OutcomeCounts,
    /// A packed [`TimeSum`], and the same times relative to their model.
    times: u64,
    relative: i64,
    record: OutlierRecord,
    pub speed: Speed,
    /// When the upstream was last out of service.
    returned: Option<Tick>,
    /// The failures that have counted, and when.
    failures: Vec<Tick>,
}

impl SimulatedOutcomes {
    pub(super) fn record(&mut self, sent: Tick, verdict: Verdict, now: Tick) {
        let count = match verdict {
            Verdict::Served | Verdict::Answered => &mut self.total.succeeded,
            Verdict::Failed => &mut self.total.failed,
            _ => return,
        };
        if self.returned.is_none_or(|returned| sent >= returned) {
            *count += 1;
            self.failures.extend((verdict == Verdict::Failed).then_some(now));
        }
    }

    pub(super) fn take_back_success(&mut self, sent: Tick) {
        if self.returned.is_none_or(|returned| sent >= returned) {
            // The success may have been counted before the upstream was out of service.
            self.total.succeeded = self.total.succeeded.saturating_sub(1);
        }
    }

    /// Counts a time. `model` is the typical time of the only model at all upstreams.
    pub(super) fn record_first_output(&mut self, took: Duration, model: &mut ModelTime) {
        let time = LogTime::of(took);
        let (typical, relative) = model.record(time);
        *model = typical;
        self.times += TimeSum::pack(time);
        self.relative += relative;
    }

    pub(super) fn sample(&mut self, state: HealthState, now: Tick) -> RecentOutcomes {
        let times = [
            TimeSum::unpack(std::mem::take(&mut self.times), std::mem::take(&mut self.relative)),
            TimeSum::default(),
        ];
        match state {
            HealthState::Ready | HealthState::Cooling => self.record.sample(now, self.total, times),
            HealthState::Ejected | HealthState::Disabled | HealthState::Draining => {
                self.returned = Some(now);
                self.record.restart(now, self.total, times);
                RecentOutcomes::default()
            }
        }
    }

    /// The number of failures within the window and a second before it.
    pub(super) fn recent_failures(&self, now: Tick) -> usize {
        let window = SUCCESS_WINDOW + secs(1);
        self.failures
            .iter()
            .filter(|failed| now.since(**failed) <= window)
            .count()
    }
}
