//! How many clients may be connected at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is assumed where the system does not tell: the usual default.
const USUAL_DESCRIPTORS: usize = 1024;
/// Each client may need a connection to an upstream, and a simulated upstream has its end of that in the same process.
const DESCRIPTORS_PER_CLIENT: usize = 3;

/// A bound on open connections, over all listeners that share it. At the bound, new clients wait in the system's queue.
#[derive(Debug)]
pub struct Capacity {
    limit: usize,
    room: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
}

impl Capacity {
    /// At most `limit` connections; `open` counts those that there are.
    pub fn new(limit: usize, open: Arc<AtomicUsize>) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limit,
            room: Arc::new(Semaphore::new(limit)),
            open,
        }
    }

    /// As many clients as the process has file descriptors for, when each may need connections to upstreams as well.
    /// Raises the process's limit on descriptors as far as it may be first.
    pub fn of_process(open: Arc<AtomicUsize>) -> Self {
        let descriptors = raise_descriptor_limit().unwrap_or(USUAL_DESCRIPTORS);
        Self::new(descriptors / DESCRIPTORS_PER_CLIENT, open)
    }

    /// How many connections there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Room for one connection, if there is any.
    pub(in crate::wire) fn try_room(&self) -> Option<Room> {
        self.room.clone().try_acquire_owned().ok().map(Room)
    }

    /// Waits for room.
    pub(in crate::wire) async fn room(&self) -> Room {
        match self.room.clone().acquire_owned().await {
            Ok(room) => Room(room),
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Counts a connection that takes this room.
    pub(in crate::wire) fn occupy(&self, room: Room) -> Occupied {
        self.open.fetch_add(1, Ordering::Relaxed);
        Occupied {
            open: self.open.clone(),
            _room: room,
        }
    }
}

/// Room for one connection. A listener holds it while it waits for a client.
pub(in crate::wire) struct Room(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit);

/// One open connection.
pub(in crate::wire) struct Occupied {
    open: Arc<AtomicUsize>,
    _room: Room,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Raises the number of file descriptors that this process may open as far as it may, and returns it. The default is
/// low for the sake of programs that use `select(2)`.
fn raise_descriptor_limit() -> io::Result<usize> {
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
    fn a_process_has_room_for_a_third_of_its_descriptors() {
        let descriptors = raise_descriptor_limit().expect("a limit");
        let capacity = Capacity::of_process(Arc::default());
        assert_eq!(capacity.limit(), (descriptors / 3).min(Semaphore::MAX_PERMITS));
    }
}
