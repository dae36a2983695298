//! The program as its users meet it: the real binary, real sockets, scripted upstreams.

mod kit;

mod framing;
mod story;
mod targets;
