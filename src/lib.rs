//! Steadfast keeps every LLM session on one upstream account, so that its prompt cache stays warm.
//!
//! This library is the whole program; the binary only calls [`app`]. Its interface may change with every release.
//!
//! # Layers
//!
//! Each module uses only the layers below it, and modules on one layer do not know each other. `tests/layers.rs` checks
//! both, and that no files or submodules import each other in a circle.
//!
//! | layer | module | its job |
//! | --- | --- | --- |
//! | 5 | `main`, [`app`] | the command line; wiring, start, reload, drain |
//! | 4 | [`proxy`] | the handling of a request: admit, inspect, pick an upstream, send, relay the response |
//! | 4 | [`ops`] | the admin listener: API, probes, reload |
//! | 3 | [`state`] | the `Snapshot` (configuration compiled, immutable), the runtime state (what survives a reload), the metrics |
//! | 2 | [`config`] | file, flags and environment → a valid `Config`, or all its errors at once |
//! | 1 | [`scan`] | sans-IO readers: request fields, content encodings, response events, usage |
//! | 1 | [`policy`] | pure decisions: rendezvous, pins, health, verdicts, limits, retry budget, selection |
//! | 1 | [`wire`] | all socket I/O: listen, TLS, dial, connections, bodies |
//! | 1 | [`sim`] | a simulated account: the embedded default, and the upstream of tests and benches |
//! | 0 | [`ids`], [`tick`], [`secret`], [`fault`], [`endpoint`], [`browser`], [`body_path`], [`media`], [`cache_padded`] | newtypes, time as a value, unprintable secrets, the closed lists of errors and endpoints, requests of web pages, paths into a JSON body, base64 data, values on cache lines of their own |
//!
//! # Where a request goes
//!
//! `wire::server` reads a request head and calls [`proxy::Proxy::handle`]. From there it takes one direction:
//!
//! ```text
//! proxy::request   identifies the caller and the target, and reads the body (with scan)
//!       │
//!       ▼
//! proxy::turn      chooses an upstream (with policy and state), and judges its answer
//!       │
//!       ▼
//! proxy::exchange  sends the request over HTTP (with wire), and relays the response to the client
//! ```
//!
//! The module documentation of [`proxy`] charts the phases one by one.
#![warn(missing_docs)]

pub mod app;
pub mod body_path;
pub mod browser;
pub mod cache_padded;
pub mod config;
pub mod endpoint;
pub mod fault;
pub mod ids;
pub mod media;
pub mod ops;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod policy;
pub mod proxy;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod scan;
pub mod secret;
pub mod sim;
pub mod state;
pub mod tick;
pub mod wire;
