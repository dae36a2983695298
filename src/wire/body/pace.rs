//! The rate with which a request body arrives, and the minimum for it.
//!
//! # What is measured
//!
//! Only the time counts in which Steadfast waits for the client: from a read that finds nothing to the read that finds
//! the next bytes. While Steadfast itself does not read, because it waits for memory or because the upstream does not
//! take the bytes that it has, no time passes for the client. The same holds before `100 Continue` has been sent.
//!
//! The bytes are counted in portions: a *portion* is as many bytes as the minimum rate brings within one window. Each
//! portion must arrive within one window. So a client that sends with the minimum rate all the time always passes, and a
//! client that sends a large part at once and then next to nothing is found within two windows. The last portion of a
//! body may be smaller. nginx (`client_body_timeout`), Apache (`mod_reqtimeout`) and Kestrel (`MinRequestBodyDataRate`)
//! bound slow bodies for the same reason.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::body::framing::BodyError;

/// The minimum rate with which a request body must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinBodyRate {
    /// The bytes per second; 0 for no minimum.
    bytes_per_second: u32,
    /// The time over which the rate is measured, in milliseconds: at least 1.
    window: u32,
}

impl MinBodyRate {
    /// No minimum.
    pub const OFF: Self = Self {
        bytes_per_second: 0,
        window: 1,
    };
    /// A minimum of `bytes_per_second` as an average over each `window`; 0 bytes for no minimum.
    pub fn new(bytes_per_second: u64, window: Duration) -> Self {
        Self {
            bytes_per_second: u32::try_from(bytes_per_second).unwrap_or(u32::MAX),
            window: u32::try_from(window.as_millis()).unwrap_or(u32::MAX).max(1),
        }
    }

    fn window(self) -> Duration {
        Duration::from_millis(self.window.into())
    }

    /// The number of bytes that must arrive within one window.
    fn portion(self) -> u64 {
        (u64::from(self.bytes_per_second) * u64::from(self.window) / 1000).max(1)
    }

    fn error(self) -> BodyError {
        BodyError::TooSlow {
            rate: self.bytes_per_second,
            window: self.window(),
        }
    }
}

/// The time in seconds over which the pace of a body is averaged: what arrived so long ago counts 1/e.
const MEMORY: f32 = 1.0;
/// The number of bytes of a burst that count. So a body that stalls is slow soon, no matter how much it sent before.
const BURST: f32 = (64 << 10) as f32;
/// The shortest time in seconds that a pace can be measured in. A body for which Steadfast has waited for less counts as
/// fast.
const MEASURABLE: f32 = 0.25;

/// The pace of a body at one moment, for the comparison with other bodies: an exponentially weighted average over the time
/// for which Steadfast waited for the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::wire) struct PaceReading {
    average: PaceAverage,
    /// When the wait in progress began; `None` if Steadfast does not wait for the client.
    since: Option<Instant>,
}

impl PaceReading {
    /// The bytes per second. Infinite if Steadfast has hardly had to wait.
    pub fn rate(&self, now: Instant) -> f64 {
        let mut average = self.average;
        if let Some(since) = self.since {
            average.wait(now.duration_since(since));
        }
        match average.waited < MEASURABLE {
            true => f64::INFINITY,
            false => f64::from(average.bytes / average.waited),
        }
    }
}

/// Bytes and seconds, of which older ones count less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PaceAverage {
    bytes: f32,
    /// At most [`MEMORY`].
    waited: f32,
}

impl PaceAverage {
    fn wait(&mut self, time: Duration) {
        let decay = (-time.as_secs_f32() / MEMORY).exp();
        self.bytes *= decay;
        self.waited = self.waited * decay + MEMORY * (1.0 - decay);
    }

    fn receive(&mut self, bytes: u64) {
        self.bytes += bytes as f32;
        if self.bytes > BURST {
            self.waited *= BURST / self.bytes;
            self.bytes = BURST;
        }
    }
}

/// Measures the rate of one body, and compares it with the minimum.
pub(in crate::wire) struct BodyPace {
    min: MinBodyRate,
    /// The bytes of the current portion that have arrived.
    bytes: u64,
    /// The time for which Steadfast has waited for them, without the wait in progress.
    waited: Duration,
    average: PaceAverage,
    /// When the wait in progress began.
    since: Option<Instant>,
}

impl BodyPace {
    /// The pace of a body that has not begun.
    pub fn new(min: MinBodyRate) -> Self {
        Self {
            min,
            bytes: 0,
            waited: Duration::ZERO,
            average: PaceAverage::default(),
            since: None,
        }
    }

    /// The time that a wait may last, if the maximum for a pause is `idle`.
    pub fn limit(&self, idle: Duration) -> Duration {
        match self.min.bytes_per_second {
            0 => idle,
            _ => idle.min(self.min.window().saturating_sub(self.waited)),
        }
    }

    /// The error of a wait that has reached its [limit](Self::limit), if the maximum for a pause is `idle`.
    pub fn timeout(&self, limit: Duration, idle: Duration) -> BodyError {
        match limit < idle {
            true => self.min.error(),
            false => BodyError::Idle(idle),
        }
    }

    /// Records that nothing has arrived yet.
    ///
    /// # Errors
    /// If the current portion has not arrived within the window.
    pub fn begin_wait(&mut self) -> Result<(), BodyError> {
        let current = match self.since {
            Some(since) => since.elapsed(),
            None => {
                self.since = Some(Instant::now());
                Duration::ZERO
            }
        };
        match self.min.bytes_per_second > 0 && self.waited + current >= self.min.window() {
            true => Err(self.min.error()),
            false => Ok(()),
        }
    }

    /// Records that `bytes` have arrived.
    #[inline]
    pub fn receive(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            let waited = since.elapsed();
            self.waited += waited;
            self.average.wait(waited);
        }
        self.average.receive(bytes);
        self.bytes += bytes;
        if self.bytes >= self.min.portion() {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// The pace at this moment.
    pub fn reading(&self) -> PaceReading {
        PaceReading {
            average: self.average,
            since: self.since,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::{advance, pause};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);
    const RATE: u64 = 10 << 10;

    fn pace() -> BodyPace {
        BodyPace::new(MinBodyRate::new(RATE, WINDOW))
    }

    /// Lets the client wait for `wait`, and then send `bytes`.
    async fn step(pace: &mut BodyPace, wait: Duration, bytes: u64) -> Result<(), BodyError> {
        pace.begin_wait()?;
        advance(wait).await;
        pace.receive(bytes);
        pace.begin_wait()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_the_minimum_rate_passes_and_a_slower_one_does_not() {
        let second = Duration::from_secs(1);
        let mut legal = pace();
        for _ in 0..200 {
            assert_eq!(step(&mut legal, second, RATE).await, Ok(()));
        }
        let mut slow = pace();
        for _ in 0..29 {
            assert_eq!(step(&mut slow, second, RATE - 1).await, Ok(()));
        }
        let too_slow = BodyError::TooSlow {
            rate: RATE as u32,
            window: WINDOW,
        };
        assert_eq!(step(&mut slow, second, RATE - 1).await, Err(too_slow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_no_credit_for_later_windows() {
        let mut pace = pace();
        assert_eq!(step(&mut pace, Duration::from_secs(1), 64 << 20).await, Ok(()));
        for _ in 0..29 {
            assert_eq!(step(&mut pace, Duration::from_secs(1), 1).await, Ok(()));
        }
        assert!(step(&mut pace, Duration::from_secs(1), 1).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_nothing_is_read_does_not_count() {
        let mut pace = pace();
        for _ in 0..5 {
            assert_eq!(pace.limit(Duration::MAX), WINDOW.saturating_sub(pace.waited));
            assert_eq!(pace.begin_wait(), Ok(()));
            advance(Duration::from_secs(5)).await;
            pace.receive(1);
            // The body waits for memory.
            advance(WINDOW * 10).await;
        }
        assert_eq!(pace.limit(Duration::MAX), Duration::from_secs(5));
        assert_eq!(pace.begin_wait(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn wake_ups_without_bytes_do_not_extend_the_window() {
        let mut pace = pace();
        for _ in 0..30 {
            assert_eq!(pace.begin_wait(), Ok(()));
            advance(Duration::from_secs(1)).await;
        }
        assert!(pace.begin_wait().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_minimum_a_pause_has_only_its_own_limit() {
        let mut pace = BodyPace::new(MinBodyRate::new(0, WINDOW));
        assert_eq!(step(&mut pace, WINDOW * 10, 1).await, Ok(()));
        assert_eq!(pace.limit(WINDOW), WINDOW);
        assert_eq!(pace.timeout(WINDOW, WINDOW), BodyError::Idle(WINDOW));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_slow_soon() {
        let mut pace = pace();
        assert_eq!(pace.reading().rate(Instant::now()), f64::INFINITY);
        let _ = step(&mut pace, Duration::from_millis(100), 1 << 30).await;
        assert_eq!(pace.reading().rate(Instant::now()), f64::INFINITY);
        advance(Duration::from_secs(1)).await;
        let rate = pace.reading().rate(Instant::now());
        assert!(rate > 10_000.0 && rate < 50_000.0, "{rate}");
        for _ in 0..9 {
            let _ = step(&mut pace, Duration::from_secs(1), 1).await;
        }
        let rate = pace.reading().rate(Instant::now());
        assert!(rate > 0.1 && rate < 10.0, "{rate}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_of_a_steady_body_is_its_rate() {
        let mut pace = pace();
        for _ in 0..100 {
            assert_eq!(step(&mut pace, Duration::from_millis(100), 20_000).await, Ok(()));
        }
        let rate = pace.reading().rate(Instant::now());
        assert!((rate - 200_000.0).abs() < 20_000.0, "{rate}");
    }

    proptest! {
        /// No body whose bytes arrive with the minimum rate in every window is refused, and no body passes that brings
        /// less than half of that in each of two windows.
        #[test]
        fn only_slow_bodies_are_refused(waits in prop::collection::vec((1_u64..5_000, 0_u64..100_000), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let (refused, arrivals) = runtime.block_on(async {
                pause();
                let (mut pace, mut at, mut arrivals) = (pace(), 0, Vec::new());
                for (wait, bytes) in waits {
                    at += wait;
                    arrivals.push((at, bytes));
                    if step(&mut pace, Duration::from_millis(wait), bytes).await.is_err() {
                        return (Some(at), arrivals);
                    }
                }
                (None, arrivals)
            });
            let window = WINDOW.as_millis() as u64;
            let end = arrivals.last().expect("at least one").0;
            let brought = |from: u64, to: u64| -> u64 {
                arrivals.iter().filter(|(at, _)| *at > from && *at <= to).map(|(_, bytes)| bytes).sum()
            };
            let starts = || std::iter::once(0).chain(arrivals.iter().map(|(at, _)| *at));
            let portion = RATE * window / 1000;
            if refused.is_some() {
                let is_slow = |start: u64| start + window <= end && brought(start, end) < portion;
                prop_assert!(starts().any(is_slow));
            } else {
                let is_very_slow = |start: u64| start + 2 * window <= end && brought(start, start + 2 * window) < portion / 2;
                prop_assert!(!starts().any(is_very_slow));
            }
        }
    }
}
