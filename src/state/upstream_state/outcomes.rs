//! The outcomes of one upstream's requests, counted for the comparison with the other upstreams.
//!
//! Requests count in atomics. Once per second, these counts are taken into the [`OutlierRecord`], and
//! [`outlier`](crate::policy::outlier) compares the upstreams. No request reads what it counts, so all orderings are
//! relaxed: a request that is counted a second later is compared a second later.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::{
    cache_padded::CachePadded,
    endpoint::EndpointClass,
    policy::{
        Attempt, Verdict,
        outlier::{
            LogTime, OutcomeCounts, OutlierRecord, RecentOutcomes, RelativeTime, ResponseKind, Speed, TimeSum, TimeSums,
        },
    },
    tick::Tick,
};

/// The outcomes of one upstream's requests for generations.
#[derive(Default)]
pub(super) struct Outcomes {
    /// Every request writes these, so they have cache lines of their own.
    shared: CachePadded<SharedCounts>,
    record: Mutex<OutlierRecord>,
    /// The [`Speed`] by the latest comparison.
    speed: AtomicU8,
}

#[derive(Default)]
struct SharedCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The packed [`TimeSum`] of the times since the latest sample, by the [`ResponseKind`].
    times: [AtomicU64; ResponseKind::COUNT],
    /// The sum of the same times relative to their models.
    relative: [AtomicI64; ResponseKind::COUNT],
    /// When the upstream was last out of service, in nanoseconds. Requests that were sent before do not count.
    returned: AtomicU64,
}

impl Outcomes {
    /// Counts the verdict on a request.
    pub fn record(&self, attempt: Attempt, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Served | Verdict::Answered | Verdict::ModelNotFound | Verdict::ObjectNotFound => {
                &self.shared.succeeded
            }
            Verdict::Failed => &self.shared.failed,
            Verdict::Limited { .. } | Verdict::Refused | Verdict::Unauthorized | Verdict::Looped => return,
        };
        if self.counts(attempt) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Takes back the success of a request, because its response has broken off after the verdict.
    pub fn take_back_success(&self, attempt: Attempt) {
        if self.counts(attempt) {
            self.shared.succeeded.fetch_sub(1, Relaxed);
        }
    }

    /// Counts the time to the first output of a response, which is also given relative to the typical time of its model.
    pub fn record_first_output(&self, kind: ResponseKind, time: LogTime, relative: RelativeTime) {
        self.shared.times[kind as usize].fetch_add(TimeSum::pack(time), Relaxed);
        self.shared.relative[kind as usize].fetch_add(relative, Relaxed);
    }

    /// Returns what was observed lately. Must be called once per second while the upstream is in service.
    pub fn sample(&self, now: Tick) -> RecentOutcomes {
        let (total, times) = self.take();
        self.record.lock().sample(now, total, times)
    }

    /// Begins to count anew. Must be called once per second while the upstream is out of service.
    pub fn restart(&self, now: Tick) {
        self.shared.returned.store(now.as_nanos(), Relaxed);
        let (total, times) = self.take();
        self.record.lock().restart(now, total, times);
    }

    /// The speed by the latest comparison.
    pub fn speed(&self) -> Speed {
        Speed::from_u8(self.speed.load(Relaxed))
    }

    /// Records the speed, and returns the one before.
    pub fn replace_speed(&self, speed: Speed) -> Speed {
        Speed::from_u8(self.speed.swap(speed as u8, Relaxed))
    }

    fn counts(&self, attempt: Attempt) -> bool {
        attempt.request().endpoint == EndpointClass::Generation
            && attempt.began().as_nanos() >= self.shared.returned.load(Relaxed)
    }

    fn take(&self) -> (OutcomeCounts, TimeSums) {
        let total = OutcomeCounts {
            succeeded: self.shared.succeeded.load(Relaxed),
            failed: self.shared.failed.load(Relaxed),
        };
        let take = |kind: ResponseKind| {
            let times = self.shared.times[kind as usize].swap(0, Relaxed);
            TimeSum::unpack(times, self.shared.relative[kind as usize].swap(0, Relaxed))
        };
        (total, ResponseKind::ALL.map(take))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{LimitCause, RequestClass, Scope, outlier::SPEED_SAMPLES_MIN};

    fn at(secs: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(secs))
    }

    fn sent_at(secs: u64) -> Attempt {
        Attempt::plain(RequestClass::generation(None), at(secs))
    }

    #[test]
    fn answers_and_failures_count_and_limits_and_refusals_do_not() {
        let outcomes = Outcomes::default();
        for verdict in [
            Verdict::Served,
            Verdict::Answered,
            Verdict::Failed,
            Verdict::Refused,
            Verdict::Limited {
                reset: None,
                scope: Scope::Upstream,
                cause: LimitCause::Rate,
            },
        ] {
            outcomes.record(sent_at(1), verdict);
        }
        let counted = |succeeded, failed| OutcomeCounts { succeeded, failed };
        assert_eq!(outcomes.sample(at(2)).outcomes, counted(2, 1));
        // Other endpoints do not count.
        let of_images = RequestClass {
            endpoint: EndpointClass::Images,
            model: None,
        };
        outcomes.record(Attempt::plain(of_images, at(1)), Verdict::Failed);
        assert_eq!(outcomes.sample(at(2)).outcomes, counted(2, 1));
        // A stream that breaks off late was counted as a success before.
        outcomes.record(sent_at(1), Verdict::Failed);
        outcomes.take_back_success(sent_at(1));
        assert_eq!(outcomes.sample(at(3)).outcomes, counted(1, 2));
    }

    #[test]
    fn requests_from_before_the_return_of_the_upstream_do_not_count() {
        let outcomes = Outcomes::default();
        outcomes.restart(at(10));
        outcomes.record(sent_at(9), Verdict::Failed);
        outcomes.record(sent_at(9), Verdict::Served);
        outcomes.take_back_success(sent_at(9));
        assert_eq!(outcomes.sample(at(11)).outcomes, OutcomeCounts::default());
        outcomes.record(sent_at(10), Verdict::Failed);
        assert_eq!(outcomes.sample(at(12)).outcomes.failed, 1);
    }

    #[test]
    fn times_of_all_threads_add_up() {
        let outcomes = Outcomes::default();
        let (outcomes_ref, second) = (&outcomes, LogTime::of(Duration::from_secs(1)));
        std::thread::scope(|scope| {
            for _ in 0..SPEED_SAMPLES_MIN {
                scope.spawn(move || outcomes_ref.record_first_output(ResponseKind::Whole, second, -7));
            }
        });
        let typical =
            outcomes.sample(at(1)).first_output[ResponseKind::Whole as usize].expect("there are enough times");
        assert_eq!(typical.relative, -7);
        let typical = typical.time.time();
        assert!((typical.as_secs_f64() - 1.0).abs() < 0.01, "{typical:?}");
        assert_eq!(outcomes.speed(), Speed::Normal);
        for speed in Speed::ALL {
            outcomes.replace_speed(speed);
            assert_eq!(outcomes.speed(), speed);
        }
    }
}
