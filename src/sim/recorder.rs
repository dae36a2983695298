//! The record of the requests that reached the account. It always has counters, and also whole requests if so
//! configured.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, Method};
use parking_lot::Mutex;

use super::head::RecordedHead;
use crate::tick::{Clock, Tick};

/// The maximum number of recorded requests. The latest ones are kept.
const MAX_RECORDED: usize = 10_000;
/// The maximum number of bytes of one body that are recorded.
const MAX_BODY: usize = 16 << 20;

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The request has not ended.
    Open,
    /// The whole response was passed to the connection, or all of it that a client needs (up to its terminal event).
    Complete,
    /// The client closed the connection before that.
    Aborted,
    /// The account ended the request early, because of a scripted fault or because it was stopped.
    Cut,
}

/// A request that reached the account.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The method of the request.
    pub method: Method,
    /// The path and query as they are in the request line.
    pub target: String,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The body as sent, without decompression, as far as it has been read, and at most 16 MiB of it.
    pub body: Bytes,
    /// The number of the request's connection, counted from 1.
    pub connection: u64,
    /// When the head arrived, measured from the start of the account.
    pub at: Tick,
    /// The end of the request.
    pub ending: Ending,
}

/// The counters of an account at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// The number of connections that are open now.
    pub open_connections: u64,
    /// The number of connections that were accepted since the start.
    pub connections: u64,
    /// The number of requests that are being read or answered now.
    pub in_flight: u64,
    /// The number of requests since the start.
    pub requests: u64,
    /// The number of requests that the client cancelled before the response was complete.
    pub aborted: u64,
}

/// The information that a recorder keeps about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recording {
    /// The recorder counts requests and keeps none.
    CountersOnly,
    /// The recorder also keeps whole requests.
    WholeRequests,
}

struct RecordEntry {
    head: RecordedHead,
    at: Tick,
    progress: Mutex<Progress>,
}

struct Progress {
    pieces: Vec<Bytes>,
    bytes: usize,
    ending: Ending,
}

/// The recorder of an account's requests.
pub(super) struct RequestRecorder {
    clock: Clock,
    entries: Option<Mutex<VecDeque<Arc<RecordEntry>>>>,
    stopping: AtomicBool,
    open_connections: AtomicU64,
    connections: AtomicU64,
    in_flight: AtomicU64,
    requests: AtomicU64,
    aborted: AtomicU64,
}

impl RequestRecorder {
    /// Creates a recorder that keeps the information selected by `recording`.
    pub(super) fn new(clock: Clock, recording: Recording) -> Self {
        Self {
            clock,
            entries: (recording == Recording::WholeRequests).then(Mutex::default),
            stopping: AtomicBool::new(false),
            open_connections: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
        }
    }

    /// Records that the account stops. Requests that end from now on were ended by the account, not by their clients.
    pub(super) fn mark_stopping(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Counts a connection for as long as the returned guard lives.
    pub(super) fn connect(self: &Arc<Self>) -> ConnectionGuard {
        self.open_connections.fetch_add(1, Relaxed);
        ConnectionGuard {
            number: self.connections.fetch_add(1, Relaxed) + 1,
            recorder: Arc::clone(self),
        }
    }

    /// Begins to record a request.
    pub(super) fn begin(self: &Arc<Self>, head: &RecordedHead) -> RequestGuard {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        let entry = self.entries.as_ref().map(|entries| {
            let entry = Arc::new(RecordEntry {
                head: head.clone(),
                at: self.clock.now(),
                progress: Mutex::new(Progress {
                    pieces: Vec::new(),
                    bytes: 0,
                    ending: Ending::Open,
                }),
            });
            let mut entries = entries.lock();
            if entries.len() == MAX_RECORDED {
                entries.pop_front();
            }
            entries.push_back(Arc::clone(&entry));
            entry
        });
        RequestGuard {
            recorder: Arc::clone(self),
            entry,
            ended: false,
        }
    }

    /// Returns the counters.
    pub(super) fn counts(&self) -> SimCounts {
        SimCounts {
            open_connections: self.open_connections.load(Relaxed),
            connections: self.connections.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            requests: self.requests.load(Relaxed),
            aborted: self.aborted.load(Relaxed),
        }
    }

    /// Returns the recorded requests in the order in which their heads arrived.
    pub(super) fn recorded(&self) -> Vec<RequestRecord> {
        let Some(entries) = &self.entries else {
            return Vec::new();
        };
        let entries: Vec<Arc<RecordEntry>> = entries.lock().iter().cloned().collect();
        entries.iter().map(|entry| entry.snapshot()).collect()
    }
}

impl RecordEntry {
    fn snapshot(&self) -> RequestRecord {
        let progress = self.progress.lock();
        RequestRecord {
            method: self.head.method.clone(),
            target: self.head.target.clone(),
            headers: self.head.headers.clone(),
            body: progress.pieces.concat().into(),
            connection: self.head.connection,
            at: self.at,
            ending: progress.ending,
        }
    }
}

/// A connection that is counted.
pub(super) struct ConnectionGuard {
    recorder: Arc<RequestRecorder>,
    /// The connection's number, from 1.
    pub number: u64,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.recorder.open_connections.fetch_sub(1, Relaxed);
    }
}

/// A request in flight. It ends once. If the guard is dropped before the end, the client has closed the connection.
pub(super) struct RequestGuard {
    recorder: Arc<RequestRecorder>,
    entry: Option<Arc<RecordEntry>>,
    ended: bool,
}

impl RequestGuard {
    /// Records a piece of the body that has been read.
    pub(super) fn record_piece(&self, piece: &Bytes) {
        let Some(entry) = &self.entry else { return };
        let mut progress = entry.progress.lock();
        let kept = MAX_BODY.saturating_sub(progress.bytes).min(piece.len());
        progress.bytes += kept;
        progress.pieces.push(piece.slice(..kept));
    }

    /// Ends the request. Only the first end counts.
    pub(super) fn end(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(entry) = &self.entry {
            entry.progress.lock().ending = ending;
        }
        if ending == Ending::Aborted {
            self.recorder.aborted.fetch_add(1, Relaxed);
        }
        self.recorder.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let stopping = self.recorder.stopping.load(Relaxed);
        self.end(if stopping { Ending::Cut } else { Ending::Aborted });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> RecordedHead {
        RecordedHead {
            method: Method::GET,
            target: "/t".into(),
            headers: HeaderMap::new(),
            connection: 7,
            nth: 1,
        }
    }

    #[test]
    fn a_request_ends_once_and_a_dropped_one_is_aborted() {
        let recorder = Arc::new(RequestRecorder::new(Clock::start(), Recording::WholeRequests));
        let mut guard = recorder.begin(&head());
        guard.record_piece(&Bytes::from_static(b"ab"));
        guard.record_piece(&Bytes::from_static(b"c"));
        assert_eq!(recorder.recorded()[0].ending, Ending::Open);
        guard.end(Ending::Complete);
        drop(guard);
        drop(recorder.begin(&head()));
        let recorded = recorder.recorded();
        assert_eq!(
            (recorded[0].body.as_ref(), recorded[0].ending),
            (&b"abc"[..], Ending::Complete)
        );
        assert_eq!((recorded[1].connection, recorded[1].ending), (7, Ending::Aborted));
        let counts = recorder.counts();
        assert_eq!((counts.requests, counts.in_flight, counts.aborted), (2, 0, 1));
    }

    #[test]
    fn without_recording_only_counters_are_kept() {
        let recorder = Arc::new(RequestRecorder::new(Clock::start(), Recording::CountersOnly));
        recorder.begin(&head()).end(Ending::Complete);
        assert!(recorder.recorded().is_empty());
        assert_eq!(recorder.counts().requests, 1);
        let connected = recorder.connect();
        assert_eq!((connected.number, recorder.counts().open_connections), (1, 1));
        drop(connected);
        assert_eq!(recorder.counts().open_connections, 0);
    }

    #[test]
    fn records_are_bounded() {
        let recorder = Arc::new(RequestRecorder::new(Clock::start(), Recording::WholeRequests));
        (0..=MAX_RECORDED).for_each(|_| drop(recorder.begin(&head())));
        assert_eq!(recorder.recorded().len(), MAX_RECORDED);
        let guard = recorder.begin(&head());
        guard.record_piece(&Bytes::from(vec![b'x'; MAX_BODY - 1]));
        guard.record_piece(&Bytes::from_static(b"yz"));
        assert_eq!(recorder.recorded().last().unwrap().body.len(), MAX_BODY);
    }
}
