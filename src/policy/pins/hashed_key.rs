//! The keys of affinity tables.

use crate::ids::{OwnedKey, SessionKey};

/// A key of an affinity table: an identity that is a hash already.
pub trait HashedKey: Copy + Eq {
    /// Returns the hash.
    fn as_u64(self) -> u64;
}

impl HashedKey for SessionKey {
    fn as_u64(self) -> u64 {
        self.as_u64()
    }
}

impl HashedKey for OwnedKey {
    fn as_u64(self) -> u64 {
        self.as_u64()
    }
}
