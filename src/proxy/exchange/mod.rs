//! Carries a request to its upstream over HTTP, and the response back.

pub(super) mod body;
pub(super) mod forward;
pub(super) mod peek;
pub(super) mod response;
