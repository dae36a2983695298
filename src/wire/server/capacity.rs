//! The limit on the number of client connections.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The number of file descriptors that is assumed if the system does not report its limit. It is the usual default.
const USUAL_DESCRIPTORS: usize = 1024;
/// The number of file descriptors per client. Each client may need a connection to an upstream, and a simulated upstream has
/// the other end of that connection in the same process.
const DESCRIPTORS_PER_CLIENT: usize = 3;

/// Limits the number of open connections over all listeners that share it.
///
/// Before a listener accepts a connection, it acquires a permit. While no permit is available, new clients wait in the
/// system's queue.
#[derive(Debug)]
pub struct Capacity {
    /// The maximum number of open connections.
    limit: usize,
    /// One permit for each connection that may still be accepted.
    permits: Arc<Semaphore>,
    /// The number of open connections, for the metrics.
    open: Arc<AtomicUsize>,
}

impl Capacity {
    /// Allows at most `limit` connections, and counts the open ones in `open`.
    pub fn new(limit: usize, open: Arc<AtomicUsize>) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limit,
            permits: Arc::new(Semaphore::new(limit)),
            open,
        }
    }

    /// A capacity for as many clients as the process has file descriptors for. Each client may need connections to
    /// upstreams. The process's limit on descriptors is first raised as far as the system allows.
    pub fn of_process(open: Arc<AtomicUsize>) -> Self {
        Self::new(raise_descriptor_limit() / DESCRIPTORS_PER_CLIENT, open)
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

    /// Counts a connection that uses this permit.
    pub(in crate::wire) fn open(&self, permit: ConnectionPermit) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            open: self.open.clone(),
            _permit: permit,
        }
    }
}

/// Permission for one connection. A listener holds it while it waits for a client.
pub(in crate::wire) struct ConnectionPermit(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit);

/// One open connection, counted until it is dropped.
pub(in crate::wire) struct OpenConnection {
    open: Arc<AtomicUsize>,
    _permit: ConnectionPermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
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
    use super::*;

    #[test]
    fn a_process_allows_a_third_of_its_descriptors_as_clients() {
        let descriptors = raise_descriptor_limit();
        let capacity = Capacity::of_process(Arc::default());
        assert_eq!(capacity.limit(), (descriptors / 3).min(Semaphore::MAX_PERMITS));
    }

    #[tokio::test]
    async fn a_permit_returns_when_its_connection_is_dropped() {
        let open = Arc::default();
        let capacity = Capacity::new(1, Arc::clone(&open));
        let connection = capacity.open(capacity.acquire().await);
        assert_eq!(open.load(Ordering::Relaxed), 1);
        assert!(capacity.try_acquire().is_none());
        drop(connection);
        assert_eq!(open.load(Ordering::Relaxed), 0);
        assert!(capacity.try_acquire().is_some());
    }
}
