//! The typical time to the first output of each model, so that an upstream is not slow because of its models.
//!
//! A large model takes ten times as long as a small one. An upstream whose sessions happen to use the large model would
//! seem slow beside the others, and its sessions would leave their warm caches for an upstream that is no faster. So a
//! time is compared as a ratio to the typical time of its model at *all* upstreams ([`RelativeTime`]). If one upstream is
//! slow for a model that others serve too, the ratio shows it. If it is the only one that is asked for the model, there is
//! nothing to compare with, and the ratio is about 1.

use super::log_time::LogTime;

/// The weight of the newest time in the average over all upstreams. It is small, so that requests which one upstream
/// answers in a row hardly move the average.
const WEIGHT: f64 = 1.0 / 64.0;
/// The bits of the packed number that hold the average. The number of times is above them.
const AVERAGE_BITS: u32 = 48;
/// The fractional bits of the average.
const FRACTION_BITS: u32 = 16;

/// The typical time of one model at all upstreams. It is one number, so that threads can share it without a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelTime(u64);

/// The binary logarithm of the ratio of a time to the typical time of its model, in the unit of [`LogTime`].
pub type RelativeTime = i64;

impl ModelTime {
    /// The typical time that [`ModelTime::to_bits`] returned as `bits`. 0 stands for a model without a request.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The typical time as a number.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Records one time. Returns the new typical time, and `time` relative to the old one.
    pub fn record(self, time: LogTime) -> (Self, RelativeTime) {
        const SCALE: f64 = (1u64 << FRACTION_BITS) as f64;
        let count = self.0 >> AVERAGE_BITS;
        let time = time.bits() as f64;
        let average = match count {
            0 => time,
            _ => (self.0 & ((1 << AVERAGE_BITS) - 1)) as f64 / SCALE,
        };
        let weight = WEIGHT.max(1.0 / (count + 1) as f64);
        let moved = ((average + (time - average) * weight) * SCALE) as u64;
        let count = (count + 1).min(u64::from(u16::MAX));
        (
            Self(count << AVERAGE_BITS | moved),
            (time - average).round() as RelativeTime,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn log(millis: u64) -> LogTime {
        LogTime::of(Duration::from_millis(millis))
    }

    #[test]
    fn a_time_is_relative_to_the_times_before() {
        let (first, relative) = ModelTime::default().record(log(1_000));
        assert_eq!(relative, 0, "there is nothing to compare the first time with");
        let (_, relative) = ModelTime::from_bits(first.to_bits()).record(log(4_000));
        assert_eq!(relative, 2 * 1_024, "four times as long");
        let (_, relative) = first.record(log(500));
        assert_eq!(relative, -1_024, "half as long");
    }

    #[test]
    fn the_typical_time_follows_a_lasting_change_and_no_single_time() {
        let mut typical = ModelTime::default();
        for _ in 0..100_000 {
            (typical, _) = typical.record(log(1_000));
        }
        let (after, _) = typical.record(log(64_000));
        let (_, relative) = after.record(log(1_000));
        assert!((-100..0).contains(&relative), "{relative}");
        for _ in 0..500 {
            (typical, _) = typical.record(log(64_000));
        }
        let (_, relative) = typical.record(log(64_000));
        assert!((0..10).contains(&relative), "{relative}");
    }
}
