//! The server's side: listening, accepting and serving the connections of clients.

pub(super) mod accept;
pub(super) mod activity;
pub(super) mod capacity;
pub(super) mod connections;
pub(super) mod h2;
pub(super) mod listen;
pub(super) mod refusal;
pub(super) mod serve;
pub(super) mod service;
pub(super) mod socket;
pub(super) mod workers;
