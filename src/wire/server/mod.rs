//! The server's side: listeners, and the client connections that they accept.
//!
//! [`serve`](serve::serve) accepts the connections of one listener while the [`Capacity`](capacity::Capacity) allows, and
//! places each on one of the [`Workers`](workers::Workers). A connection's task serves HTTP/1.1, or HTTP/2 if the client
//! begins with its preface. [`Connections`](connections::Connections) closes the connections that wait for too long. At the
//! limit of the capacity, idle connections are closed for new clients, in the order of `shedding`.

pub(super) mod accept;
pub(super) mod activity;
pub(super) mod capacity;
pub(super) mod client_network;
pub(super) mod connections;
pub(super) mod h2;
pub(super) mod h2_response;
pub(super) mod handle;
pub(super) mod listen;
pub(super) mod refusal;
pub(super) mod reserve;
pub(super) mod rewound_socket;
pub(super) mod serve;
pub(super) mod service;
pub(super) mod shedding;
pub(super) mod socket;
pub(super) mod unix_socket_file;
pub(super) mod workers;
