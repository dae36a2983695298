//! TLS by rustls: the configuration of each side, and the server's stream. The first read of that stream completes the
//! handshake.

pub(super) mod client;
pub(super) mod handshake_log;
pub(super) mod identity;
pub(super) mod server;
pub(super) mod server_stream;
