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
/// Its own task writes it, and the task of its listener reads it now and then. `state` is `BUSY`, or when the present
/// wait began, in milliseconds, with what is waited for in the lowest two bits.
pub(in crate::wire) struct Activity {
    start: Instant,
    state: AtomicU64,
    /// Bytes wait for the client to read.
    write_blocked: AtomicBool,
    /// The answer ends where the connection does, so only a reset tells a broken one from a whole one.
    until_close: AtomicBool,
    broke: AtomicBool,
}

const BUSY: u64 = u64::MAX;
const KIND: u64 = 0b11;
const FIRST: u64 = 0;
const HEAD: u64 = 1;
const REQUEST: u64 = 2;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum Waiting {
    /// For nothing from the client: a request is being handled, or its answer is still being sent.
    No,
    /// For the first byte after it was accepted, since this long.
    First(Duration),
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
            state: AtomicU64::new(FIRST),
            write_blocked: AtomicBool::new(false),
            until_close: AtomicBool::new(false),
            broke: AtomicBool::new(false),
        })
    }

    fn elapsed_millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(0)
    }

    fn waits_from_now(&self, kind: u64) {
        self.state
            .store(self.elapsed_millis(Instant::now()) << 2 | kind, Ordering::Relaxed);
    }

    /// Bytes of a head are here.
    pub fn head_began(&self) {
        let state = self.state.load(Ordering::Relaxed);
        if state == BUSY {
            return;
        }
        match state & KIND {
            REQUEST => self.waits_from_now(HEAD),
            // The first head is due from accepting on.
            FIRST => self.state.store(state | HEAD, Ordering::Relaxed),
            _ => {}
        }
    }

    pub fn is_busy(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BUSY
    }

    pub fn request_began(&self, version: Version) {
        self.until_close.store(version == Version::HTTP_10, Ordering::Relaxed);
        self.state.store(BUSY, Ordering::Relaxed);
    }

    /// The answer has left to its end: how the connection closes says no more about it.
    pub fn answer_is_whole(&self) {
        self.until_close.store(false, Ordering::Relaxed);
    }

    pub fn answer_broke(&self) {
        self.broke.store(true, Ordering::Relaxed);
    }

    /// The last of the answer has left.
    pub fn request_ended(&self) {
        self.waits_from_now(REQUEST);
    }

    pub fn write_blocked(&self) {
        self.write_blocked.store(true, Ordering::Relaxed);
    }

    /// A blocked write went on; whatever the connection waits for, it waits from now.
    pub fn write_went_on(&self) {
        let state = self.state.load(Ordering::Relaxed);
        if state != BUSY {
            self.waits_from_now(state & KIND);
        }
        // Whoever sees the write go on sees the new time too, or it would take a long tail for a long pause.
        self.write_blocked.store(false, Ordering::Release);
    }

    pub fn ends_in_reset(&self) -> bool {
        let is_cut = self.broke.load(Ordering::Relaxed) || self.is_busy() || self.write_blocked.load(Ordering::Relaxed);
        is_cut && self.until_close.load(Ordering::Relaxed)
    }

    /// What the connection waits for at `now`.
    pub fn waiting(&self, now: Instant) -> Waiting {
        if self.write_blocked.load(Ordering::Acquire) {
            return Waiting::No;
        }
        let state = self.state.load(Ordering::Relaxed);
        if state == BUSY {
            return Waiting::No;
        }
        let since = Duration::from_millis(self.elapsed_millis(now).saturating_sub(state >> 2));
        match state & KIND {
            FIRST => Waiting::First(since),
            HEAD => Waiting::Head(since),
            _ => Waiting::Request(since),
        }
    }
}
