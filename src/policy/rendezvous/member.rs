//! The members of a pool, and their indexes.

use crate::ids::{OrganizationId, UpstreamId, Weight};

/// An upstream of a pool, with the facts that rendezvous hashing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The upstream's id. Within one pool every id is different.
    pub id: UpstreamId,
    /// The upstream's share of the keys, relative to the other eligible members.
    pub weight: Weight,
    /// The upstream's eligibility class: the members of one class serve the same models.
    pub class: u16,
    /// The organization of the upstream. It has no influence on the home of a key; see
    /// [`candidates`](crate::policy::candidates).
    pub organization: OrganizationId,
}

/// The index of a member in a [`Rendezvous`](super::Rendezvous). Only a pool makes such indexes.
///
/// It equals the index of the upstream in the snapshot that holds the pool. It must be used with that pool and that
/// snapshot only: after a reload, another upstream or no upstream may have the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIndex(u32);

impl MemberIndex {
    /// Returns the indexes of all members of a pool with `len` members, in ascending order.
    pub(super) fn all(len: usize) -> impl Iterator<Item = Self> + Clone {
        let len = u32::try_from(len).expect("a pool has fewer than 2^32 members");
        (0..len).map(Self)
    }

    /// Returns the index as a number, for a slice that has one element for each member.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// Makes an index for a test that has no pool, or that knows the order of its members.
    #[cfg(test)]
    pub(crate) const fn new(index: usize) -> Self {
        Self(index as u32)
    }
}
