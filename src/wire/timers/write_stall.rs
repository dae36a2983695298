//! The limit on blocked writes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

/// Fails writes once the peer has read nothing for `limit`.
///
/// The timer exists only while a write is blocked, so a peer that keeps up costs nothing.
pub(in crate::wire) struct Stall {
    limit: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub fn after(limit: Duration) -> Self {
        Self { limit, blocked: None }
    }

    /// Whether the last write is still blocked.
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Turns a blocked write into an error once it has been blocked for too long.
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
