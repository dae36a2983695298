//! File descriptors that a listener keeps for the time when the process has no others left.
//!
//! A listener with a reserve still accepts connections when the clients and the upstreams use all other descriptors. The
//! reserve consists of open sockets that nothing uses. One of them is closed for a client, and it is opened again when a
//! client's connection has ended.

use std::os::{fd::OwnedFd, unix::net::UnixDatagram};

/// Open descriptors that can be closed at any time.
#[derive(Debug, Default)]
pub(in crate::wire) struct DescriptorReserve {
    spare: Vec<OwnedFd>,
    /// The maximum number of spare descriptors.
    size: usize,
}

impl DescriptorReserve {
    /// Opens `size` descriptors, or fewer if the process has no more.
    pub fn new(size: usize) -> Self {
        let mut reserve = Self {
            spare: Vec::new(),
            size,
        };
        reserve.refill();
        reserve
    }

    /// Closes one descriptor. Returns `false` if none is left.
    pub fn release(&mut self) -> bool {
        self.spare.pop().is_some()
    }

    /// Opens the descriptors that are missing, as far as the process still has descriptors.
    pub fn refill(&mut self) {
        while self.spare.len() < self.size {
            match UnixDatagram::unbound() {
                Ok(socket) => self.spare.push(socket.into()),
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_releases_each_descriptor_once_until_it_is_refilled() {
        let mut reserve = DescriptorReserve::new(2);
        for _ in 0..2 {
            assert_eq!([(); 3].map(|()| reserve.release()), [true, true, false]);
            reserve.refill();
        }
        assert!(!DescriptorReserve::default().release());
    }
}
