//! Log lines that would repeat.

use std::time::Duration;

use tokio::time::Instant;

/// Lets one through in a while.
#[derive(Default)]
pub(in crate::wire) struct Throttle {
    last: Option<Instant>,
}

impl Throttle {
    /// Whether at least `every` has passed since this last said yes.
    pub fn permits(&mut self, every: Duration) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= every);
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
    async fn one_in_a_while() {
        const SECOND: Duration = Duration::from_secs(1);
        let mut throttle = Throttle::default();
        let mut permitted = 0;
        for _ in 0..100 {
            permitted += usize::from(throttle.permits(SECOND));
            tokio::time::advance(SECOND / 20).await;
        }
        assert_eq!(permitted, 5);
    }
}
