//! Time limits that cost no timer operation as long as they are kept.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// Tells when a connection has been waited for too long.
///
/// Its timer is armed at the first wait and then left to fire, however often the wait ends in between: so it fires once
/// in a limit's time, not once in a request's.
#[derive(Default)]
pub(in crate::wire) struct Alarm {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// What was waited for has come.
    pub fn reset(&mut self) {
        self.since = None;
    }

    /// Waits; ready once that has lasted for `limit`.
    pub fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = since + limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_over_after_its_limit_and_not_before() {
        let mut alarm = Alarm::default();
        for _ in 0..3 {
            let begun = Instant::now();
            // Waits that end soon, one after the other for longer than the limit.
            for _ in 0..7 {
                let soon = tokio::time::timeout(LIMIT / 5, poll_fn(|cx| alarm.poll(cx, LIMIT))).await;
                assert!(soon.is_err());
                alarm.reset();
            }
            let waited = Instant::now();
            poll_fn(|cx| alarm.poll(cx, LIMIT)).await;
            assert_eq!(waited.elapsed().as_secs(), LIMIT.as_secs());
            assert!(begun.elapsed() > LIMIT * 2);
            alarm.reset();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_limit_brings_the_timer_forward() {
        let mut alarm = Alarm::default();
        let long = tokio::time::timeout(LIMIT / 60, poll_fn(|cx| alarm.poll(cx, LIMIT))).await;
        assert!(long.is_err());
        alarm.reset();
        let waited = Instant::now();
        poll_fn(|cx| alarm.poll(cx, LIMIT / 30)).await;
        assert_eq!(waited.elapsed().as_secs(), 2);
    }
}
