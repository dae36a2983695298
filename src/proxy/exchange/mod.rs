//! Carries a request to its upstream over HTTP, and the response back.

pub(super) mod forward;
pub(super) mod judge;
pub(super) mod outgoing;
pub(super) mod response_headers;
pub(super) mod settle;
