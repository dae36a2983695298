//! The bytes of request bodies that one caller holds.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The bytes that the bodies of one caller hold in memory: those of a client key or, without keys, of a client's network.
#[derive(Debug, Default)]
pub struct BodyAccount {
    held: AtomicUsize,
}

/// Distinguishes the accounts while a decision is made. It is the address of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::wire) struct AccountId(pub usize);

impl BodyAccount {
    /// The number of bytes that the caller's bodies hold.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    pub(in crate::wire) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
    }

    pub(in crate::wire) fn subtract(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    pub(in crate::wire) fn id(self: &Arc<Self>) -> AccountId {
        AccountId(Arc::as_ptr(self) as usize)
    }
}
