//! What a server knows of a client, and what it grants one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::wire::{server::capacity::Capacity, server::workers::Workers};

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address, where the transport has one.
    pub address: Option<SocketAddr>,
    /// Whether it came over TLS.
    pub is_secure: bool,
}

/// Time limits of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// From the first byte of a request head (or from accepting the connection) to its last.
    pub client_header: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// For a client that reads nothing.
    pub stall: Duration,
}

/// How connections are served, over all listeners that share it.
#[derive(Clone)]
pub struct Service {
    /// Time limits of each connection.
    pub limits: ServeLimits,
    /// How many there may be.
    pub capacity: Arc<Capacity>,
    /// Who runs them; without any, the runtime that the listener is served in.
    pub workers: Option<Arc<Workers>>,
}
