//! File descriptors that are kept for the admin listener, for the time when the process has no others left.
//!
//! The reserve consists of open sockets that nothing uses. When a connection to the admin listener cannot be accepted for
//! lack of a descriptor, one of them is closed. Any thread may then open a descriptor first, and take the place of the
//! reserved one. So the reserve is refilled whenever a client's connection ends, and before a new connection to an upstream
//! is used: that one [gives way](refill) if the reserve cannot be refilled otherwise.

use std::{
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// The reserve of this process. Descriptors belong to the process, so there is only one.
static RESERVE: DescriptorReserve = DescriptorReserve {
    spare: Mutex::new(Vec::new()),
    missing: AtomicUsize::new(0),
};

/// Adds `count` descriptors to the reserve of this process, or fewer as long as the process has no more.
pub(in crate::wire) fn add(count: usize) {
    RESERVE.add(count);
}

/// Closes one descriptor of the reserve. Returns `false` if none is left.
pub(in crate::wire) fn release() -> bool {
    RESERVE.release()
}

/// Opens the descriptors that the reserve lacks. Returns `false` if the process has too few. This costs one atomic load if
/// none is missing.
pub(in crate::wire) fn refill() -> bool {
    RESERVE.refill()
}

/// Open descriptors that can be closed at any time.
struct DescriptorReserve {
    spare: Mutex<Vec<OwnedFd>>,
    /// The number of descriptors that have been released and not opened again. It changes only under the lock of `spare`.
    missing: AtomicUsize,
}

impl DescriptorReserve {
    fn add(&self, count: usize) {
        {
            let _spare = self.spare.lock();
            self.missing.fetch_add(count, Ordering::Relaxed);
        }
        self.refill();
    }

    fn release(&self) -> bool {
        let mut spare = self.spare.lock();
        let is_released = spare.pop().is_some();
        self.missing.fetch_add(usize::from(is_released), Ordering::Relaxed);
        is_released
    }

    fn refill(&self) -> bool {
        if self.missing.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let mut spare = self.spare.lock();
        while self.missing.load(Ordering::Relaxed) > 0 {
            let Ok(socket) = UnixDatagram::unbound() else {
                return false;
            };
            spare.push(socket.into());
            self.missing.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_releases_each_descriptor_once_until_it_is_refilled() {
        let reserve = DescriptorReserve {
            spare: Mutex::default(),
            missing: AtomicUsize::default(),
        };
        assert!(reserve.refill());
        assert!(!reserve.release());
        reserve.add(2);
        for _ in 0..2 {
            assert_eq!([(); 3].map(|()| reserve.release()), [true, true, false]);
            assert!(reserve.refill());
        }
    }
}
