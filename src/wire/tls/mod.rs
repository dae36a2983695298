//! TLS on both sides.

pub(super) mod client;
pub(super) mod server;
