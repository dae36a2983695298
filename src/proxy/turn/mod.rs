//! Which upstream takes a request, and what its answer means.

pub(super) mod limits;
pub(super) mod pick;
pub(super) mod turn_state;
