//! The server's side of HTTP/1.1.

pub(in crate::wire) mod connection;
pub(in crate::wire) mod response;
pub(in crate::wire) mod serve;
