//! The program as its users meet it: the real binary, real sockets, scripted upstreams.

mod kit;

mod access_log;
mod affinity;
mod commands;
mod endpoints;
mod headers;
mod models;
mod operator;
mod readme;
mod recordings;
mod story;
