//! What a client's connection is doing, so that a slow head and an idle connection have limits of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Version;
use tokio::time::Instant;

/// The state of one client's connection.
///
/// One atomic holds it: `BUSY`, or when the present wait began, in milliseconds, with the kind of wait in the lowest bit.
pub(super) struct Activity {
    start: Instant,
    state: AtomicU64,
    /// The answer ends where the connection does, so only a reset tells a broken one from a whole one.
    until_close: AtomicBool,
    broke: AtomicBool,
}

const BUSY: u64 = u64::MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A request is being handled.
    No,
    /// For the rest of a request head, since this long.
    Head(Duration),
    /// For another request, since this long.
    Request(Duration),
}

impl Activity {
    /// A connection that was just accepted: its first head is due.
    pub fn accepted() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            state: AtomicU64::new(0),
            until_close: AtomicBool::new(false),
            broke: AtomicBool::new(false),
        })
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)
    }

    pub fn bytes_arrived(&self) {
        let state = self.state.load(Ordering::Relaxed);
        let waits_for_request = state != BUSY && state & 1 == 1;
        if waits_for_request {
            self.state.store(self.elapsed_millis() << 1, Ordering::Relaxed);
        }
    }

    pub fn is_busy(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BUSY
    }

    pub fn request_began(&self, version: Version) {
        self.until_close.store(version == Version::HTTP_10, Ordering::Relaxed);
        self.state.store(BUSY, Ordering::Relaxed);
    }

    pub fn answer_broke(&self) {
        self.broke.store(true, Ordering::Relaxed);
    }

    pub fn ends_in_reset(&self) -> bool {
        let is_cut = self.broke.load(Ordering::Relaxed) || self.is_busy();
        is_cut && self.until_close.load(Ordering::Relaxed)
    }

    pub fn request_ended(&self) {
        self.state.store(self.elapsed_millis() << 1 | 1, Ordering::Relaxed);
    }

    pub fn waiting(&self) -> Waiting {
        let state = self.state.load(Ordering::Relaxed);
        if state == BUSY {
            return Waiting::No;
        }
        let since = Duration::from_millis(self.elapsed_millis().saturating_sub(state >> 1));
        if state & 1 == 1 {
            Waiting::Request(since)
        } else {
            Waiting::Head(since)
        }
    }
}
