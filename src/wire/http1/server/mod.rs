//! The server's side of HTTP/1.1: a client's connection, the bodies of its requests, and the responses to them.

pub(in crate::wire) mod connection;
pub(in crate::wire) mod response;
pub(in crate::wire) mod serve;
