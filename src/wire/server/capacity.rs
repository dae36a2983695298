//! The limit on the number of client connections, and the idle connections that give way to new clients at that limit.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::wire::server::{
    handle::{ConnectionHandle, DrainMode},
    reserve,
    shedding::{ShedCandidate, choose},
};

/// The number of file descriptors that is assumed if the system does not report its limit. It is the usual default.
const USUAL_DESCRIPTORS: usize = 1024;
/// The number of file descriptors per client. Each client may need a connection to an upstream, and a simulated upstream has
/// the other end of that connection in the same process.
const DESCRIPTORS_PER_CLIENT: usize = 3;

/// The part of the limit that may be shed at once, as a divisor.
const SHED_DIVISOR: usize = 64;
/// The maximum number of connections that have been shed and are still open, as a divisor of the limit, and at least.
const CLOSING_DIVISOR: usize = 4;
const MIN_CLOSING: usize = 8;
/// The minimum time between two searches for idle connections after a search that has not found enough of them, and the
/// time that is added to it for each open connection. So a flood of clients takes only a few per cent of a processor.
const SEARCH_PERIOD: Duration = Duration::from_millis(20);
const SEARCH_PERIOD_PER_CONNECTION: Duration = Duration::from_micros(1);

/// The numbers of connections, for the metrics.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    open: AtomicUsize,
    shed: AtomicU64,
}

impl ConnectionCounts {
    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The number of idle connections that were closed for new clients.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

/// Limits the number of open connections over all listeners that share it.
///
/// Each connection needs a permit. When none is left, idle connections are closed for new clients (they are *shed*),
/// no matter which listener has accepted them. A connection that is shed gives its permit back at once, although it may take a
/// moment to close. If no connection is idle, new clients wait.
pub struct Capacity {
    /// The maximum number of open connections, without those that are being closed after they were shed.
    limit: usize,
    /// One permit for each connection that may still be accepted.
    permits: Arc<Semaphore>,
    /// The connections that hold a permit or have been shed.
    connections: Arc<Mutex<OpenConnections>>,
    counts: Arc<ConnectionCounts>,
    /// Whether the reserved descriptors are for these connections.
    may_use_reserve: bool,
}

/// All open connections. The lock around it is taken twice in the life of a connection, and for each search.
#[derive(Default)]
struct OpenConnections {
    by_id: HashMap<u64, (Arc<ConnectionHandle>, PermitState)>,
    next_id: u64,
    /// The number of connections that have been shed and are still open.
    closing: usize,
    /// When idle connections may be searched for again.
    next_search: Option<Instant>,
}

enum PermitState {
    Held(#[allow(dead_code, reason = "held")] ConnectionPermit),
    /// The connection has been shed, and a new client has its permit.
    Shed,
}

impl Capacity {
    /// Allows at most `limit` connections, and counts the open ones and the shed ones in `counts`.
    pub fn new(limit: usize, counts: Arc<ConnectionCounts>) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limit,
            permits: Arc::new(Semaphore::new(limit)),
            connections: Arc::default(),
            counts,
            may_use_reserve: false,
        }
    }

    /// A capacity for as many clients as the process has file descriptors for. Each client may need connections to
    /// upstreams. The process's limit on descriptors is first raised as far as the system allows.
    pub fn of_process(counts: Arc<ConnectionCounts>) -> Self {
        Self::new(raise_descriptor_limit() / DESCRIPTORS_PER_CLIENT, counts)
    }

    /// The same capacity with a reserve of `descriptors`, which are open from now on. They are used for connections when the
    /// process has no other descriptors left.
    #[must_use]
    pub fn with_reserve(self, descriptors: usize) -> Self {
        reserve::add(descriptors);
        Self {
            may_use_reserve: true,
            ..self
        }
    }

    /// Closes a descriptor of the reserve for a client that cannot be accepted without one. Returns `false` if there is none.
    pub(in crate::wire) fn release_reserved(&self) -> bool {
        self.may_use_reserve && reserve::release()
    }

    /// The maximum number of open connections.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Acquires a permit for one connection. Returns `None` if none is available.
    pub(in crate::wire) fn try_acquire(&self) -> Option<ConnectionPermit> {
        self.permits.clone().try_acquire_owned().ok().map(ConnectionPermit)
    }

    /// Waits for a permit for one connection.
    pub(in crate::wire) async fn acquire(&self) -> ConnectionPermit {
        let permit = self.permits.clone().acquire_owned().await;
        ConnectionPermit(permit.expect("the semaphore is never closed"))
    }

    /// The time after which a client that waits should search for idle connections again.
    pub(in crate::wire) fn search_period(&self) -> Duration {
        let open = u32::try_from(self.counts.open()).unwrap_or(u32::MAX);
        SEARCH_PERIOD + SEARCH_PERIOD_PER_CONNECTION * open
    }

    /// Tells idle connections to close, because a client waits for a permit. Returns their number.
    ///
    /// At most one in 64 of the connections is shed at once, and at least one, so that a search is rare while many clients
    /// connect. [`shedding`](super::shedding) has the order in which they are shed.
    pub(in crate::wire) fn shed_idle(&self, now: Instant) -> usize {
        let max_closing = (self.limit / CLOSING_DIVISOR).max(MIN_CLOSING);
        let mut connections = self.connections.lock();
        if connections.next_search.is_some_and(|next| now < next) {
            return 0;
        }
        let wanted = (self.limit / SHED_DIVISOR).max(1);
        let count = wanted.min(max_closing.saturating_sub(connections.closing));
        let shed = if count > 0 { connections.shed(count, now) } else { 0 };
        connections.next_search = (shed < wanted).then(|| now + self.search_period());
        self.counts.shed.fetch_add(shed as u64, Ordering::Relaxed);
        shed
    }

    /// Counts a connection that uses this permit. It may be shed through `handle` while it is idle.
    pub(in crate::wire) fn open(&self, permit: ConnectionPermit, handle: Arc<ConnectionHandle>) -> OpenConnection {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        let mut connections = self.connections.lock();
        let id = connections.next_id;
        connections.next_id += 1;
        connections.by_id.insert(id, (handle, PermitState::Held(permit)));
        OpenConnection {
            id,
            connections: self.connections.clone(),
            counts: self.counts.clone(),
        }
    }
}

impl OpenConnections {
    /// Tells at most `count` idle connections to close. Returns their number.
    fn shed(&mut self, count: usize, now: Instant) -> usize {
        let held = self
            .by_id
            .iter()
            .filter(|(_, (_, state))| matches!(state, PermitState::Held(_)));
        let idle = held.filter_map(|(id, (handle, _))| ShedCandidate::of(*id, handle, now));
        let mut shed = 0;
        for id in choose(idle.collect(), count) {
            let (handle, state) = self.by_id.get_mut(&id).expect("only open connections are chosen");
            // A connection that was told before to close, or has just closed, returns its permit when it ends.
            if handle.drain(DrainMode::Shed) {
                *state = PermitState::Shed;
                shed += 1;
            }
        }
        self.closing += shed;
        shed
    }
}

impl fmt::Debug for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capacity")
            .field("limit", &self.limit)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Permission for one connection.
pub(in crate::wire) struct ConnectionPermit(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit);

/// One open connection, counted until it is dropped.
pub(in crate::wire) struct OpenConnection {
    id: u64,
    connections: Arc<Mutex<OpenConnections>>,
    counts: Arc<ConnectionCounts>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        // The connection's descriptor is free already.
        reserve::refill();
        let mut connections = self.connections.lock();
        if let Some((_, PermitState::Shed)) = connections.by_id.remove(&self.id) {
            connections.closing -= 1;
        }
    }
}

/// Raises the number of file descriptors that this process may open to the maximum that the system allows, and returns the
/// number that it may open now. The default is low only for programs that use `select(2)`.
pub fn raise_descriptor_limit() -> usize {
    raise_limit().unwrap_or(USUAL_DESCRIPTORS)
}

fn raise_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live `rlimit`, and the call writes nothing else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // A system may refuse an unlimited number, and the limit then stays as it is.
    // SAFETY: the pointer is to a live `rlimit`, which the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_process_allows_a_third_of_its_descriptors_as_clients() {
        let descriptors = raise_descriptor_limit();
        let capacity = Capacity::of_process(Arc::default());
        assert_eq!(capacity.limit(), (descriptors / 3).min(Semaphore::MAX_PERMITS));
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Opens a connection with a permit that must be available, and begins a request on it.
    fn open_busy(capacity: &Capacity) -> (Arc<ConnectionHandle>, oneshot::Receiver<DrainMode>, OpenConnection) {
        let (handle, drain) = ConnectionHandle::new(None, Duration::ZERO);
        handle.activity.record_request_start(http::Version::HTTP_11);
        let permit = capacity.try_acquire().expect("a permit is left");
        (handle.clone(), drain, capacity.open(permit, handle))
    }

    #[tokio::test]
    async fn a_permit_returns_when_its_connection_is_dropped() {
        let counts = Arc::default();
        let capacity = Capacity::new(1, Arc::clone(&counts));
        let (_, _, connection) = open_busy(&capacity);
        assert_eq!(counts.open(), 1);
        assert!(capacity.try_acquire().is_none());
        drop(connection);
        assert_eq!(counts.open(), 0);
        assert!(capacity.try_acquire().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_gives_its_permit_to_a_new_client() {
        let counts = Arc::default();
        let capacity = Capacity::new(3, Arc::clone(&counts));
        let [mut busy, mut old, mut young] = [(); 3].map(|()| open_busy(&capacity));
        tokio::time::advance(SECOND).await;
        assert_eq!(capacity.shed_idle(Instant::now()), 0, "all are busy");
        for idle in [&old, &young] {
            idle.0.activity.record_request_end();
            tokio::time::advance(SECOND).await;
        }
        assert_eq!(capacity.shed_idle(Instant::now()), 1);
        assert_eq!(old.1.try_recv(), Ok(DrainMode::Shed));
        assert!(busy.1.try_recv().is_err() && young.1.try_recv().is_err());
        let (_, _, next) = open_busy(&capacity);
        assert!(capacity.try_acquire().is_none());
        assert_eq!(
            (counts.open(), counts.shed()),
            (4, 1),
            "the shed connection is still open"
        );
        drop(old);
        assert!(capacity.try_acquire().is_none(), "its permit is not returned twice");
        drop(next);
        assert!(capacity.try_acquire().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_do_not_close_after_they_were_shed_are_bounded() {
        let capacity = Capacity::new(64, Arc::default());
        let mut open = Vec::new();
        for _ in 0..200 {
            match capacity.try_acquire() {
                Some(permit) => {
                    let (handle, drain) = ConnectionHandle::new(None, Duration::ZERO);
                    open.push((drain, capacity.open(permit, handle)));
                }
                None => {
                    tokio::time::advance(SECOND).await;
                    capacity.shed_idle(Instant::now());
                }
            }
        }
        assert_eq!(open.len(), 64 + 16);
        // A search that finds nothing is not repeated at once.
        drop(open.remove(0));
        assert_eq!(capacity.shed_idle(Instant::now()), 0);
        tokio::time::advance(SECOND).await;
        assert_eq!(capacity.shed_idle(Instant::now()), 1);
    }
}
