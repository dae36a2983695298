//! A wrapper that keeps a value on cache lines of its own.

use std::ops::{Deref, DerefMut};

/// A value that shares no cache line with its neighbours, so that a write to it slows down no other core that reads
/// something beside it (*false sharing*).
///
/// The alignment is 128 bytes, which is two cache lines on x86-64, because its prefetcher fetches lines in pairs. It is
/// also the line size of Apple's processors. Crossbeam's type of the same name does the same.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    /// Pads `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for CachePadded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_at_least_two_lines_of_64_bytes_apart() {
        let pair = [CachePadded::new(1_u8), CachePadded::new(2_u8)];
        let address = |value: &CachePadded<u8>| std::ptr::from_ref(&**value).addr();
        assert_eq!((*pair[0], *pair[1]), (1, 2));
        assert_eq!(
            (address(&pair[0]) % 128, address(&pair[1]) - address(&pair[0])),
            (0, 128)
        );
    }
}
