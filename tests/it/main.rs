//! The program as its users meet it: the real binary, real sockets, scripted upstreams.

mod kit;

mod access_log;
mod affinity;
mod bodies;
mod bounds;
mod chaos;
mod client_connections;
mod commands;
mod departures;
mod drain;
mod endpoints;
mod failover;
mod faults;
mod framing;
mod headers;
mod heads;
mod hostile;
mod http1;
mod listener_tls;
mod models;
mod operator;
mod owned;
mod pins;
mod readme;
mod recordings;
mod reload;
mod storm;
mod story;
mod streams;
mod targets;
mod timeouts;
mod tls;
mod upstream_connections;
mod waiting;
