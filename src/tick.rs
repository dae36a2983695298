//! Time as a value: decisions take a [`Tick`] as an argument, so that a test or a simulation can choose the time.

use std::time::Duration;

/// A moment, in nanoseconds since an arbitrary start within this process. A `u64` covers about 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The start of the process's time.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment, or zero if `earlier` is the later one.
    pub const fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `delay` later. The result saturates at the largest moment.
    pub fn after(self, delay: Duration) -> Tick {
        Tick(
            self.0
                .saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// The clock that all ticks of a process are read from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now. It follows tokio's time, so that tests with paused time control it.
    #[allow(
        clippy::new_without_default,
        reason = "a clock starts at the moment of the call, so it has no default value"
    )]
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
        // An instant may not be able to hold the sum if it is centuries away. The timer then fires after thirty years.
        let far = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        let offset = tick.since(Tick::ZERO);
        self.start.checked_add(offset).unwrap_or(self.start + far)
    }

    /// The time since the Unix epoch, which upstreams use to name a moment. Zero if the system's clock is before the epoch.
    pub fn unix_time(&self) -> Duration {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO)
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

    #[tokio::test(start_paused = true)]
    async fn a_clock_follows_the_time_of_tokio() {
        let clock = Clock::start();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now(), Tick::ZERO.after(Duration::from_secs(3)));
        assert_eq!(clock.instant(clock.now()), tokio::time::Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_moment_is_an_instant_in_the_far_future() {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let far = Clock::start().instant(Tick::from_nanos(u64::MAX));
        assert!(far - tokio::time::Instant::now() > 20 * year);
    }
}
