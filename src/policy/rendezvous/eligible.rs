//! Which members of a pool may serve a request.

use super::MemberIndex;

/// The members of a pool that may serve a request: the members of some classes, without those that are excluded one by one.
///
/// A function from a class to `bool` is such a set, which excludes no single member.
pub trait Eligible {
    /// Whether the members of `class` may serve the request.
    fn allows_class(&self, class: u16) -> bool;

    /// Whether the member at `index`, whose class is allowed, may serve the request.
    #[inline]
    fn allows_member(&self, _index: MemberIndex) -> bool {
        true
    }
}

impl<F: Fn(u16) -> bool> Eligible for F {
    #[inline]
    fn allows_class(&self, class: u16) -> bool {
        self(class)
    }
}
