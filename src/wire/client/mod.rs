//! The client's side: it dials upstreams and pools the connections to them.
//!
//! A [`Pool`](pool::Pool) belongs to one upstream. It sends each request on an idle HTTP/1.1 connection
//! ([`IdleConnections`](idle::IdleConnections)), on a stream of an open HTTP/2 connection ([`H2Pool`](h2::H2Pool)), or on a
//! connection that its [`Dialer`](dial::Dialer) opens, through a [proxy](proxy::ProxyTarget) if there is one.

pub(super) mod age;
mod connector;
pub(super) mod dial;
pub(super) mod freshness;
pub(super) mod h2;
pub(super) mod h2_request;
pub(super) mod idle;
pub(super) mod pool;
pub(super) mod proxy;
pub(super) mod reclaim;
mod resolver;
pub(super) mod send_error;
pub(super) mod send_options;
pub(super) mod socket;
