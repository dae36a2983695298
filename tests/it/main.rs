//! The program as its users meet it: the real binary, real sockets, scripted upstreams.

mod kit;

mod bodies;
mod chaos;
mod departures;
mod drain;
mod faults;
mod framing;
mod heads;
mod readme;
mod story;
mod streams;
mod targets;
mod timeouts;
mod tls;
