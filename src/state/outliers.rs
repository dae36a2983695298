//! Compares the upstreams with each other, once per second. [`outlier`] decides; this module gives
//! it the numbers of all upstreams, and carries out its decisions.

use std::sync::atomic::Ordering::Relaxed;

use super::{RuntimeState, Snapshot};
use crate::policy::outlier::{self, OutcomeCounts, RecentOutcomes, Speed};

impl RuntimeState {
    /// Ejects the upstream that fails far more often than the others, and marks the upstreams that are far slower. Must be
    /// called once per second.
    pub(super) fn detect_outliers(&self, snapshot: &Snapshot) {
        let upstreams = snapshot.upstreams();
        let pool: Vec<RecentOutcomes> = upstreams
            .iter()
            .map(|upstream| upstream.state.sample_outcomes())
            .collect();
        let outcomes: Vec<OutcomeCounts> = pool.iter().map(|recent| recent.outcomes).collect();
        if let Some(worst) = outlier::success_outlier(&outcomes) {
            upstreams[worst].state.eject_outlier();
        }
        let speeds = outlier::speeds(&pool);
        for (upstream, speed) in upstreams.iter().zip(&speeds) {
            upstream.state.set_speed(*speed);
        }
        let has_slow = speeds.iter().any(|speed| *speed > Speed::Normal);
        self.has_slow_upstream.store(has_slow, Relaxed);
    }

    /// Whether any upstream is slower than the others. While none is, a request need not ask for the speed of each.
    pub fn has_slow_upstream(&self) -> bool {
        self.has_slow_upstream.load(Relaxed)
    }
}
