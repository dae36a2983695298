//! TLS by rustls: the configuration of each side, and the server's stream, whose first read completes the handshake.

pub(super) mod client;
pub(super) mod server;
pub(super) mod server_stream;
