//! The typical time to the first output of each model at all upstreams.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    ids::ModelKey,
    policy::outlier::{LogTime, ModelTime, RelativeTime, ResponseKind},
};

/// The number of slots. Models are few; two that share a slot also share their typical time.
const SLOTS: usize = 256;

/// The typical time of each model, by the [`ResponseKind`].
///
/// A slot is read and written in two steps. If two threads do that at the same time, one of the two times is not counted,
/// which hardly moves an average.
pub struct ModelTimes {
    slots: [[AtomicU64; ResponseKind::COUNT]; SLOTS],
}

impl Default for ModelTimes {
    fn default() -> Self {
        Self {
            slots: [const { [const { AtomicU64::new(0) }; ResponseKind::COUNT] }; SLOTS],
        }
    }
}

impl ModelTimes {
    /// Records one time of `model`, and returns it relative to the typical time of the model.
    pub fn record(&self, model: Option<ModelKey>, kind: ResponseKind, time: LogTime) -> RelativeTime {
        let model = model.map_or(0, ModelKey::as_u64) as usize % SLOTS;
        let slot = &self.slots[model][kind as usize];
        let (typical, relative) = ModelTime::from_bits(slot.load(Relaxed)).record(time);
        slot.store(typical.to_bits(), Relaxed);
        relative
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn models_and_kinds_of_responses_have_typical_times_of_their_own() {
        let times = ModelTimes::default();
        let second = LogTime::of(Duration::from_secs(1));
        let record = |model: &str, kind, secs| {
            let time = LogTime::of(Duration::from_secs(secs));
            times.record(Some(ModelKey::from_name(model)), kind, time)
        };
        assert_eq!(record("small", ResponseKind::Stream, 1), 0);
        assert_eq!(record("large", ResponseKind::Stream, 16), 0);
        assert_eq!(record("small", ResponseKind::Whole, 32), 0);
        assert_eq!(times.record(None, ResponseKind::Stream, second), 0);
        assert_eq!(record("small", ResponseKind::Stream, 4), 2 * 1_024);
        assert_eq!(record("large", ResponseKind::Stream, 8), -1_024);
    }
}
