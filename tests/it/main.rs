//! The program as its users meet it: the real binary, real sockets, scripted upstreams.

mod kit;

mod access_log;
mod affinity;
mod commands;
mod endpoints;
mod headers;
mod models;
mod operator;
mod bodies;
mod departures;
mod faults;
mod framing;
mod heads;
mod readme;
mod recordings;
mod story;
mod streams;
mod targets;
mod timeouts;
