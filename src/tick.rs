//! Time as a value: decisions take a [`Tick`] as an argument, so that a test or a simulation can pass any time it likes.

use std::time::Duration;

/// A moment: nanoseconds since an arbitrary start within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `delay` later, saturating after some 584 years.
    pub fn after(self, delay: Duration) -> Tick {
        Tick(
            self.0
                .saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// The one place where ticks come from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now. It follows tokio's time, so paused tests control it.
    #[allow(clippy::new_without_default, reason = "starting a clock is an act, not a default")]
    pub fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Tick {
        Tick::ZERO.after(self.start.elapsed())
    }

    /// The moment `tick` on the runtime's clock, for its timers.
    pub fn instant(&self, tick: Tick) -> tokio::time::Instant {
        // Where the sum does not fit it is some centuries away.
        let far = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        let offset = tick.since(Tick::ZERO);
        self.start.checked_add(offset).unwrap_or(self.start + far)
    }

    /// The time of day, as the time since the Unix epoch: what upstreams name moments by.
    pub fn unix_time(&self) -> Duration {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Tick::from_nanos(5);
        assert_eq!(t.since(Tick::from_nanos(9)), Duration::ZERO);
        assert_eq!(t.after(Duration::from_nanos(4)).since(t), Duration::from_nanos(4));
        assert_eq!(t.after(Duration::MAX), Tick::from_nanos(u64::MAX));
    }
}
