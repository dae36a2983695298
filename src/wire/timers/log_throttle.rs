//! A limit on how often a repeated log line is written.

use std::time::Duration;

use tokio::time::Instant;

/// Lets one log line per period through and suppresses the others.
#[derive(Default)]
pub(in crate::wire) struct LogThrottle {
    /// When a line was last let through.
    last: Option<Instant>,
}

impl LogThrottle {
    /// Whether at least `period` has passed since a line was last let through. If so, a new period begins.
    pub fn try_pass(&mut self, period: Duration) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= period);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_per_period() {
        const SECOND: Duration = Duration::from_secs(1);
        let mut throttle = LogThrottle::default();
        let mut passed = 0;
        for _ in 0..100 {
            passed += usize::from(throttle.try_pass(SECOND));
            tokio::time::advance(SECOND / 20).await;
        }
        assert_eq!(passed, 5);
    }
}
