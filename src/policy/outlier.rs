//! Outlier detection: compares the upstreams of a pool with each other.
//!
//! [`health`](super::health) judges an upstream by itself: it ejects an upstream that fails several times in a row, and
//! notices nothing at one that fails every third request or that answers five times as slowly as the others. This
//! module compares. It answers two questions, once per second:
//!
//! - Does an upstream fail far more often than the rest of the pool? [`success_outlier`] finds it, and it is ejected.
//! - Is an upstream far slower than the rest of the pool? [`speeds`] finds it. New sessions avoid a slow upstream, and
//!   pinned sessions leave a very slow one, while a faster upstream is ready: [`order_by_speed`].
//!
//! Only requests for generations are compared. Other requests are so different in length and in their causes of failure
//! that an upstream that happens to get many of them would seem worse than it is.
//!
//! Requests count their outcomes and times. An [`OutlierRecord`] per upstream turns these counts into what was observed
//! lately ([`RecentOutcomes`]), and the two functions compare the results of all upstreams.

use self::{
    speed::{FirstOutputTime, compare_all},
    success::SuccessWindow,
};
use crate::tick::Tick;

mod log_time;
mod model_time;
mod speed;
mod success;
#[cfg(test)]
mod tests;

pub use self::{
    log_time::LogTime,
    model_time::{ModelTime, RelativeTime},
    speed::{ResponseKind, SPEED_MEMORY, SPEED_SAMPLES_MIN, Speed, TimeSum, TypicalTime, order_by_speed},
    success::{MARGIN, OutcomeCounts, REQUESTS_MIN, SUCCESS_WINDOW, success_outlier},
};

/// What was observed at one upstream lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecentOutcomes {
    /// The requests within the [window](SUCCESS_WINDOW).
    pub outcomes: OutcomeCounts,
    /// The typical time to the first output, by the [`ResponseKind`]; `None` if there are too few recent requests.
    pub first_output: [Option<TypicalTime>; ResponseKind::COUNT],
}

/// The sums of times to the first output, by the [`ResponseKind`].
pub type TimeSums = [TimeSum; ResponseKind::COUNT];

/// The memory of one upstream's outcomes.
#[derive(Clone, Debug, Default)]
pub struct OutlierRecord {
    window: SuccessWindow,
    first_output: [FirstOutputTime; ResponseKind::COUNT],
}

impl OutlierRecord {
    /// Records the running total of the outcomes at `now` and the times since the last call, and returns what was observed
    /// lately. Must be called once per second while the upstream is in service.
    pub fn sample(&mut self, now: Tick, total: OutcomeCounts, times: TimeSums) -> RecentOutcomes {
        self.record_times(now, times);
        RecentOutcomes {
            outcomes: self.window.sample(now, total),
            first_output: self.first_output.map(|times| times.typical()),
        }
    }

    /// Begins a new window: what has happened until `now` does not count against the upstream any more. Must be called
    /// instead of [`OutlierRecord::sample`] while the upstream is out of service. Otherwise, the failures before an
    /// ejection would eject the upstream again as soon as it is back.
    pub fn restart(&mut self, now: Tick, total: OutcomeCounts, times: TimeSums) {
        self.record_times(now, times);
        self.window.restart(now, total);
    }

    fn record_times(&mut self, now: Tick, times: TimeSums) {
        for (average, times) in self.first_output.iter_mut().zip(times) {
            average.record(now, times);
        }
    }
}

/// Returns the speed of each upstream in `pool`, compared with the others. An upstream that is slow for one kind of
/// response counts as slow.
pub fn speeds(pool: &[RecentOutcomes]) -> Vec<Speed> {
    let mut speeds = vec![Speed::Normal; pool.len()];
    for kind in 0..ResponseKind::COUNT {
        let times: Vec<_> = pool.iter().map(|upstream| upstream.first_output[kind]).collect();
        for (speed, of_kind) in speeds.iter_mut().zip(compare_all(&times)) {
            *speed = of_kind.max(*speed);
        }
    }
    speeds
}
