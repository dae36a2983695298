//! HTTP/1.1 on both sides (RFC 9112). The one task that serves the client polls both connections.
//!
//! A request is not passed between tasks or through channels. The task that reads it from the client also writes it to
//! the upstream and relays the response. The bytes are read into a buffer that the connections of a thread share, are
//! passed on by reference count, and are written together. A connection that waits for a request holds no read buffer
//! and only a small write buffer.
//!
//! * `codec`: heads and bodies, without I/O of their own; strict wherever two readers could disagree.
//! * `server`: a client's connection, its requests and the responses to them.
//! * `upstream_connection`: a connection to an upstream.
//! * `exchange`: one request and its response on such a connection.

pub(super) mod codec;
pub(super) mod exchange;
pub(super) mod server;
pub(super) mod upstream_connection;
