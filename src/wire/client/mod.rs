//! The client's side: connections to upstreams.

pub(super) mod dial;
pub(super) mod h2;
pub(super) mod h2_request;
pub(super) mod pool;
pub(super) mod send_error;
pub(super) mod socket;
