//! A limit on how long a connection waits for its peer, without a timer operation per wait.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// Limits how long a task waits for bytes from a peer.
///
/// The timer is armed at the first wait and stays armed when that wait ends. When it fires, it is set again for the
/// wait that is then in progress. So the timer wheel is used about once per limit, and not once per request.
#[derive(Default)]
pub(in crate::wire) struct WaitTimeout {
    /// When the current wait began; `None` between two waits.
    since: Option<Instant>,
    /// The timer, which may belong to an earlier wait; `None` before the first wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl WaitTimeout {
    /// Ends the current wait, because the bytes have arrived.
    pub fn reset(&mut self) {
        self.since = None;
    }

    /// Begins a wait, or continues the current one. Ready once the wait has lasted for `limit`.
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
    async fn a_wait_times_out_after_its_limit_and_not_before() {
        let mut timeout = WaitTimeout::default();
        for _ in 0..3 {
            let begun = Instant::now();
            // Several short waits, which together last longer than the limit.
            for _ in 0..7 {
                let short = tokio::time::timeout(LIMIT / 5, poll_fn(|cx| timeout.poll(cx, LIMIT))).await;
                assert!(short.is_err());
                timeout.reset();
            }
            let waited = Instant::now();
            poll_fn(|cx| timeout.poll(cx, LIMIT)).await;
            assert_eq!(waited.elapsed().as_secs(), LIMIT.as_secs());
            assert!(begun.elapsed() > LIMIT * 2);
            timeout.reset();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_limit_brings_the_timer_forward() {
        let mut timeout = WaitTimeout::default();
        let long = tokio::time::timeout(LIMIT / 60, poll_fn(|cx| timeout.poll(cx, LIMIT))).await;
        assert!(long.is_err());
        timeout.reset();
        let waited = Instant::now();
        poll_fn(|cx| timeout.poll(cx, LIMIT / 30)).await;
        assert_eq!(waited.elapsed().as_secs(), 2);
    }
}
