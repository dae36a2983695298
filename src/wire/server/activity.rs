//! The state of a client's connection. The time limits of the connection depend on it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Version;
use tokio::time::Instant;

/// The state of one client's connection.
///
/// The connection's own task writes it, and the listener's task reads it from time to time. `state` is either `BUSY`,
/// or the time at which the current wait began, in milliseconds since `start`, shifted left by two bits. In the second
/// case, the lowest two bits say what the connection waits for.
pub(in crate::wire) struct Activity {
    /// When the connection was accepted. The time in `state` is relative to it.
    start: Instant,
    /// `BUSY`, or the beginning and the kind of the current wait, as described above.
    state: AtomicU64,
    /// Whether bytes wait until the client reads.
    is_write_blocked: AtomicBool,
    /// Whether the end of the connection marks the end of the response. In that case, only a reset shows that a
    /// response is incomplete.
    ends_with_connection: AtomicBool,
    /// Whether a response could not be sent completely.
    is_response_aborted: AtomicBool,
    /// The number of reads of an HTTP/2 connection, which wraps around.
    reads: AtomicU32,
}

const BUSY: u64 = u64::MAX;
const WAIT_MASK: u64 = 0b11;
const FIRST_BYTE: u64 = 0;
const HEAD: u64 = 1;
const NEXT_REQUEST: u64 = 2;
const FIRST_STREAM: u64 = 3;

/// The bytes that a connection waits for, and the time for which it has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum ConnectionWait {
    /// The connection waits for nothing from the client: a request is being handled, or bytes of its response are still
    /// to be sent.
    None,
    /// The first byte after the connection was accepted.
    FirstByte(Duration),
    /// The first request of an HTTP/2 connection. The time since the connection was accepted counts.
    FirstStream(Duration),
    /// The rest of a request head.
    Head(Duration),
    /// Another request.
    NextRequest(Duration),
}

impl Activity {
    /// The state of a connection that has just been accepted. It waits for its first request head.
    pub fn accepted() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            state: AtomicU64::new(FIRST_BYTE),
            is_write_blocked: AtomicBool::new(false),
            ends_with_connection: AtomicBool::new(false),
            is_response_aborted: AtomicBool::new(false),
            reads: AtomicU32::new(0),
        })
    }

    fn elapsed_millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis())
            .expect("no connection lasts for 584 million years")
    }

    fn begin_wait(&self, wait: u64) {
        self.state
            .store(self.elapsed_millis(Instant::now()) << 2 | wait, Ordering::Relaxed);
    }

    /// Records that bytes of a request head have arrived.
    pub fn record_head_start(&self) {
        let state = self.state.load(Ordering::Relaxed);
        if state == BUSY {
            return;
        }
        match state & WAIT_MASK {
            NEXT_REQUEST => self.begin_wait(HEAD),
            // The time limit of the first head begins when the connection is accepted.
            FIRST_BYTE => self.state.store(state | HEAD, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Records that the connection carries HTTP/2. It still waits for its first request, but no head has begun.
    pub fn record_http2(&self) {
        self.state.fetch_or(FIRST_STREAM, Ordering::Relaxed);
    }

    /// Records a read. Only one task may call this.
    pub fn record_read(&self) {
        let reads = self.reads.load(Ordering::Relaxed);
        self.reads.store(reads.wrapping_add(1), Ordering::Relaxed);
    }

    /// The number of recorded reads, for comparison with a later one.
    pub fn reads(&self) -> u32 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Whether a request is being handled.
    pub fn is_busy(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BUSY
    }

    /// Records that a request of this version is being handled.
    pub fn record_request_start(&self, version: Version) {
        self.ends_with_connection
            .store(version == Version::HTTP_10, Ordering::Relaxed);
        self.state.store(BUSY, Ordering::Relaxed);
    }

    /// Records that all of the response has been written. The way in which the connection closes no longer matters to
    /// it.
    pub fn record_response_complete(&self) {
        self.ends_with_connection.store(false, Ordering::Relaxed);
    }

    /// Records that the response could not be sent completely.
    pub fn record_response_aborted(&self) {
        self.is_response_aborted.store(true, Ordering::Relaxed);
    }

    /// Records that the connection waits for another request.
    pub fn record_request_end(&self) {
        self.begin_wait(NEXT_REQUEST);
    }

    /// Records that a write is blocked because the client does not read.
    pub fn record_write_blocked(&self) {
        self.is_write_blocked.store(true, Ordering::Relaxed);
    }

    /// Records that a blocked write has made progress. If the connection waits for something, the wait begins now.
    pub fn record_write_progress(&self) {
        let state = self.state.load(Ordering::Relaxed);
        if state != BUSY {
            self.begin_wait(state & WAIT_MASK);
        }
        // The store is a release, paired with the acquire in `current_wait`: a reader that sees the write unblocked
        // also sees the new time. Otherwise it would count the time of a slow response as time in which the client was
        // idle.
        self.is_write_blocked.store(false, Ordering::Release);
    }

    /// Whether the connection must end in a reset, because an orderly close would make an incomplete response look
    /// complete.
    pub fn must_reset(&self) -> bool {
        let is_cut = self.is_response_aborted.load(Ordering::Relaxed)
            || self.is_busy()
            || self.is_write_blocked.load(Ordering::Relaxed);
        is_cut && self.ends_with_connection.load(Ordering::Relaxed)
    }

    /// Returns what the connection waits for at `now`.
    pub fn current_wait(&self, now: Instant) -> ConnectionWait {
        if self.is_write_blocked.load(Ordering::Acquire) {
            return ConnectionWait::None;
        }
        let state = self.state.load(Ordering::Relaxed);
        if state == BUSY {
            return ConnectionWait::None;
        }
        let waited = Duration::from_millis(self.elapsed_millis(now).saturating_sub(state >> 2));
        match state & WAIT_MASK {
            FIRST_BYTE => ConnectionWait::FirstByte(waited),
            FIRST_STREAM => ConnectionWait::FirstStream(waited),
            HEAD => ConnectionWait::Head(waited),
            _ => ConnectionWait::NextRequest(waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_is_measured_from_its_own_beginning() {
        let activity = Activity::accepted();
        let wait = || activity.current_wait(Instant::now());
        tokio::time::advance(SECOND).await;
        assert_eq!(wait(), ConnectionWait::FirstByte(SECOND));
        activity.record_head_start();
        assert_eq!(wait(), ConnectionWait::Head(SECOND), "from accepting the connection");
        activity.record_http2();
        assert_eq!(wait(), ConnectionWait::FirstStream(SECOND), "no head has begun");
        activity.record_request_start(Version::HTTP_11);
        assert_eq!(wait(), ConnectionWait::None);
        tokio::time::advance(SECOND).await;
        activity.record_request_end();
        tokio::time::advance(SECOND).await;
        assert_eq!(wait(), ConnectionWait::NextRequest(SECOND));
        activity.record_head_start();
        assert_eq!(wait(), ConnectionWait::Head(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_write_suspends_the_wait() {
        let activity = Activity::accepted();
        activity.record_request_end();
        activity.record_write_blocked();
        tokio::time::advance(SECOND).await;
        assert_eq!(activity.current_wait(Instant::now()), ConnectionWait::None);
        activity.record_write_progress();
        assert_eq!(
            activity.current_wait(Instant::now()),
            ConnectionWait::NextRequest(Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_cut_response_to_http_1_0_needs_a_reset() {
        for (version, is_reset) in [(Version::HTTP_10, true), (Version::HTTP_11, false)] {
            let activity = Activity::accepted();
            assert!(!activity.must_reset());
            activity.record_request_start(version);
            assert_eq!(activity.must_reset(), is_reset, "{version:?}");
            activity.record_response_complete();
            assert!(!activity.must_reset());
        }
    }
}
