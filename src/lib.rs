//! Steadfast keeps every LLM session on one upstream account, so that its prompt cache stays warm.
//!
//! # The gateway
//!
//! Each floor uses only what is below it, and rooms on one floor do not know each other; `tests/layers.rs` checks both.
//!
//! | floor | room | its job |
//! | --- | --- | --- |
//! | 5 | `main`, [`app`] | command line; wiring, start, reload, drain |
//! | 4 | [`proxy`] | one request's story: `admit → inspect → pick → forward → settle`, and `reply` |
//! | 4 | [`ops`] | the operator's side: admin API, probes, reload |
//! | 3 | [`state`] | `snapshot` (configuration compiled, immutable), `roster` and `live` (what outlives a snapshot), `meter` (metrics) |
//! | 2 | [`config`] | file, flags and environment → a valid `Config`, or all its errors at once |
//! | 1 | [`scan`] | sans-IO readers: request fields, content encodings, response events |
//! | 1 | [`policy`] | pure decisions: rendezvous, pins, health, verdicts, patience, retry budget, selection |
//! | 1 | [`wire`] | all socket I/O: listen, TLS, dial, connections, bodies |
//! | 1 | [`sim`] | a simulated account: the embedded default, and the upstream of tests and benches |
//! | 0 | [`ids`], [`tick`], [`secret`], [`fault`], [`endpoint`], [`cache_padded`] | newtypes, time as a value, unprintable secrets, the closed lists of errors and endpoints, values on cache lines of their own |
#![warn(missing_docs)]

pub mod app;
pub mod cache_padded;
pub mod config;
pub mod endpoint;
pub mod fault;
pub mod ids;
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
