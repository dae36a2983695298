//! Bodies in both directions, independent of the version of HTTP that carries them.
//!
//! A request body comes in as [`RequestBody`](request::RequestBody), is bounded by [`Intake`](intake::Intake), and goes to
//! an upstream as [`Replay`](replay::Replay), from memory ([`KeptBody`](kept::KeptBody)) or as it arrives. [`memory`] bounds
//! the bytes that all bodies together hold, and shares them fairly. [`reservation`] reserves memory for a body as it arrives,
//! and [`pace`] measures how fast it arrives. A response body goes back as [`Relay`](relay::Relay), which can decode it.
//! Bodies are passed on as reference-counted pieces and are not copied, except large bodies in memory. [`disposal`] frees
//! those in steps.

mod disposal;
pub(super) mod framing;
pub(super) mod h2_data;
pub(super) mod h2_request_body;
pub(super) mod intake;
pub(super) mod kept;
pub(super) mod memory;
pub(super) mod pace;
pub(super) mod relay;
pub(super) mod replay;
pub(super) mod request;
pub(super) mod reservation;
