//! The parts that all connections of a server share: its limits, its capacity and its workers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::wire::server::{capacity::Capacity, workers::Workers};

/// The client that sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's address; `None` over a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether the connection uses TLS.
    pub is_secure: bool,
}

/// The time limits of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// The maximum time for a request head, from its first byte to its last. For the first head of a connection, the
    /// time begins when the connection is accepted.
    pub client_header: Duration,
    /// The maximum pause between two requests.
    pub keep_alive: Duration,
    /// The maximum time for which a write may be blocked because the client reads nothing.
    pub stall: Duration,
}

/// The settings and resources for serving connections. All listeners of a server share them.
#[derive(Clone)]
pub struct Service {
    /// The time limits of each connection.
    pub limits: ServeLimits,
    /// The limit on the number of connections.
    pub capacity: Arc<Capacity>,
    /// The threads that run the connections. Without them, the connections run in the listener's own runtime.
    pub workers: Option<Arc<Workers>>,
}
