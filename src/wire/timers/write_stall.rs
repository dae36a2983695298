//! A limit on how long a write may be blocked because the peer reads nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

/// Fails a write once the peer has read nothing for `limit`.
///
/// The timer exists only while a write is blocked, so a peer that reads in time costs nothing.
pub(in crate::wire) struct WriteStall {
    limit: Duration,
    /// The timer of the blocked write; `None` while no write is blocked.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl WriteStall {
    /// A limit for blocked writes, while no write is blocked yet.
    pub fn new(limit: Duration) -> Self {
        Self { limit, blocked: None }
    }

    /// Whether the last write is still blocked.
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Passes on the `result` of a write. A write that is blocked for longer than the limit becomes an error.
    pub fn guard<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let limit = self.limit;
        let timer = self.blocked.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        self.blocked = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_blocked_write_fails_after_the_limit() {
        let mut stall = WriteStall::new(LIMIT);
        let begun = Instant::now();
        let error = poll_fn(|cx| stall.guard::<()>(cx, Poll::Pending)).await;
        assert_eq!(error.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
        assert!(!stall.is_blocked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_makes_progress_starts_the_limit_anew() {
        let mut stall = WriteStall::new(LIMIT);
        let begun = Instant::now();
        for _ in 0..5 {
            let blocked = poll_fn(|cx| stall.guard::<()>(cx, Poll::Pending));
            assert!(tokio::time::timeout(LIMIT / 2, blocked).await.is_err());
            assert!(stall.is_blocked());
            let written = poll_fn(|cx| stall.guard(cx, Poll::Ready(Ok(1)))).await;
            assert!(written.is_ok() && !stall.is_blocked());
        }
        assert!(begun.elapsed() > LIMIT);
    }
}
