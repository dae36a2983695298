//! What a server knows of a client, and what it grants one.

use std::{net::SocketAddr, time::Duration};

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
