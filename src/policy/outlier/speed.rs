//! The time to the first output of an upstream, compared with the rest of its pool.
//!
//! # The typical time
//!
//! Times to the first output have a heavy tail: one long prompt takes a hundred times as long as a short one. A few such
//! requests would make any arithmetic mean of ten or twenty requests useless. So the average is taken over the
//! *logarithms* of the times, which is their geometric mean: an upstream that is five times as slow has five times the
//! mean, and a single slow request among ten normal ones moves it by little. The average is exponentially weighted
//! ([`WEIGHT`]), so that it follows a change within about twenty requests.
//!
//! An average without a sample for [`SPEED_MEMORY`] is forgotten. If it were kept, an upstream that all sessions avoid
//! would stay marked forever, because no request could show that it has become faster. Forgotten, it gets requests
//! again, and [`SPEED_SAMPLES_MIN`] of them decide anew.
//!
//! # The comparison
//!
//! Times are averaged and compared for each [`ResponseKind`] separately. Otherwise, an upstream with the sessions of a
//! client that does not stream would seem slow beside the others. For the same reason, times are compared relative to the
//! typical times of their models, see [`ModelTime`](super::ModelTime).
//!
//! An upstream is compared with the median of the others: the median hides a single upstream that is unusually fast or
//! slow. A factor alone would mark upstreams for differences that no caller notices, so the difference must also
//! be more than [`NOTICEABLE`].

use std::time::Duration;

use super::{log_time::LogTime, model_time::RelativeTime};
use crate::{
    policy::{
        rendezvous::MemberIndex,
        session::{Candidate, Route},
    },
    tick::Tick,
};

/// The number of requests from which the typical time of an upstream is known.
pub const SPEED_SAMPLES_MIN: u32 = 10;
/// The time without a sample after which the typical time of an upstream is forgotten.
pub const SPEED_MEMORY: Duration = Duration::from_secs(60);
/// The weight of the newest time in the average.
pub(super) const WEIGHT: f64 = 0.1;
/// The factor over the others' time from which an upstream is slow.
pub(super) const SLOW: f64 = 2.0;
/// The factor over the others' time from which an upstream is very slow.
pub(super) const VERY_SLOW: f64 = 4.0;
/// The difference from the others' time up to which an upstream is never slow.
pub(super) const NOTICEABLE: Duration = Duration::from_millis(500);

/// A kind of response, of which the times are compared only with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// A stream of events. Its first output comes long before the generation is complete.
    Stream,
    /// Any other response. Nothing of it comes before the generation is complete.
    Whole,
}

impl ResponseKind {
    /// The number of kinds.
    pub const COUNT: usize = 2;
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [Self::Stream, Self::Whole];
}

/// The sum of some times' logarithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSum {
    sum: u64,
    /// The sum of the same times relative to their models.
    relative: RelativeTime,
    count: u64,
}

impl TimeSum {
    /// The bits of a packed sum that hold the sum itself. The number of times is above them.
    const SUM_BITS: u32 = 40;

    /// Packs a single time, without its model, into a number. The sum of up to 2^24 of these numbers is a packed sum, so that threads can add
    /// up times in one atomic step.
    pub fn pack(time: LogTime) -> u64 {
        1 << Self::SUM_BITS | u64::from(time.bits())
    }

    /// The sum that is packed into `packed`, of times whose sum relative to their models is `relative`.
    pub const fn unpack(packed: u64, relative: RelativeTime) -> Self {
        Self {
            sum: packed & ((1 << Self::SUM_BITS) - 1),
            relative,
            count: packed >> Self::SUM_BITS,
        }
    }
}

/// The speed of an upstream, compared with the others of its pool. The fastest is the smallest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Speed {
    /// The upstream is about as fast as the others, or its speed is not known.
    #[default]
    Normal,
    /// The upstream takes more than twice as long as the others. New sessions avoid it.
    Slow,
    /// The upstream takes more than four times as long as the others. Pinned sessions leave it.
    VerySlow,
}

impl Speed {
    /// All speeds, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Slow, Self::VerySlow];

    /// The speed with this discriminant.
    ///
    /// # Panics
    /// If there is none.
    pub fn from_u8(discriminant: u8) -> Self {
        Self::ALL[usize::from(discriminant)]
    }

    /// The speed in one word, for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Slow => "slow",
            Self::VerySlow => "very_slow",
        }
    }
}

/// The typical time of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypicalTime {
    /// The time itself.
    pub time: LogTime,
    /// The time relative to the typical times of the models.
    pub relative: RelativeTime,
}

/// The exponentially weighted average of one upstream's times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FirstOutputTime {
    /// The average of the [`LogTime`]s.
    average: f64,
    /// The average of the times relative to their models.
    relative: f64,
    /// The number of times in the average, up to [`u32::MAX`].
    samples: u32,
    /// When the latest time was recorded.
    latest: Option<Tick>,
}

impl FirstOutputTime {
    /// Records the times since the last call.
    pub fn record(&mut self, now: Tick, times: TimeSum) {
        if self.latest.is_some_and(|latest| now.since(latest) > SPEED_MEMORY) {
            self.samples = 0;
        }
        if times.count == 0 {
            return;
        }
        self.latest = Some(now);
        let count = times.count as f64;
        // `count` steps with the same value are one step with this weight. The first times have equal weights, because an
        // average that begins with one of them would depend on it too much.
        let weight = (1.0 - (1.0 - WEIGHT).powf(count)).max(count / (f64::from(self.samples) + count));
        self.average += (times.sum as f64 / count - self.average) * weight;
        self.relative += (times.relative as f64 / count - self.relative) * weight;
        self.samples = self
            .samples
            .saturating_add(u32::try_from(times.count).unwrap_or(u32::MAX));
    }

    /// The typical time; `None` if there are too few.
    pub fn typical(&self) -> Option<TypicalTime> {
        (self.samples >= SPEED_SAMPLES_MIN).then_some(TypicalTime {
            time: LogTime::from_bits(self.average.round() as u32),
            relative: self.relative.round() as RelativeTime,
        })
    }
}

/// Returns the speed of each upstream in `pool`, which has the typical times of all its upstreams.
pub(super) fn compare_all(pool: &[Option<TypicalTime>]) -> Vec<Speed> {
    let speed_of = |(index, own): (usize, &Option<TypicalTime>)| {
        let others = pool[..index].iter().chain(&pool[index + 1..]).flatten();
        let mut others: Vec<RelativeTime> = others.map(|typical| typical.relative).collect();
        match (own, median(&mut others)) {
            (Some(own), Some(others)) => {
                // The time that the others would take for the same models.
                let expected = (i64::from(own.time.bits()) - own.relative + others).max(0);
                compare(own.time.time(), LogTime::from_bits(expected as u32).time())
            }
            _ => Speed::Normal,
        }
    };
    pool.iter().enumerate().map(speed_of).collect()
}

fn compare(own: Duration, others: Duration) -> Speed {
    if own.saturating_sub(others) <= NOTICEABLE {
        return Speed::Normal;
    }
    match own.as_secs_f64() / others.as_secs_f64() {
        factor if factor > VERY_SLOW => Speed::VerySlow,
        factor if factor > SLOW => Speed::Slow,
        _ => Speed::Normal,
    }
}

/// The median. Of an even number of values it is the geometric mean of the two in the middle.
fn median(times: &mut [RelativeTime]) -> Option<RelativeTime> {
    times.sort_unstable();
    let (low, high) = (
        *times.get(times.len().checked_sub(1)? / 2)?,
        *times.get(times.len() / 2)?,
    );
    Some(low.midpoint(high))
}

/// Moves slow upstreams behind faster ones in `candidates`, of which the first is the request's own upstream.
///
/// The own upstream stays first unless it is slower than the request tolerates and a faster candidate is ready. A request
/// with an owner tolerates any speed, because the state that it refers to is nowhere else. A session with a pin
/// tolerates a slow upstream, because it would have to read its prompt again elsewhere. Any other request tolerates no
/// slow upstream. The other candidates keep their order among those of the same speed.
///
/// `is_ready` returns whether an upstream can take the request now and has not failed it.
pub fn order_by_speed(
    candidates: &mut [Candidate],
    is_ready: impl Fn(MemberIndex) -> bool,
    speed: impl Fn(MemberIndex) -> Speed,
) {
    let Some(own) = candidates.first().copied() else {
        return;
    };
    let tolerated = match own.route {
        Route::Owner => Speed::VerySlow,
        Route::Pin => Speed::Slow,
        Route::Home | Route::Moved | Route::Keyless => Speed::Normal,
    };
    let own_speed = speed(own.index);
    candidates[1..].sort_by_key(|candidate| speed(candidate.index));
    if own_speed <= tolerated {
        return;
    }
    let faster = candidates
        .iter()
        .position(|candidate| speed(candidate.index) < own_speed && is_ready(candidate.index));
    if let Some(faster) = faster {
        candidates[..=faster].rotate_right(1);
    }
}
