//! An exchange carries turns over HTTP, from the request of a client to its response.
//!
//! ```text
//!  Admitted + Inspected ──▶ facts ──▶ (turn) ──▶ forward ──▶ peek ──▶ (turn) ──▶ response ──▶ body
//! ```
//!
//! - [`facts`] makes the input of a turn from a request.
//! - [`forward`] builds the request for one upstream, sends it, and reports the result to the turn's attempt loop.
//! - [`coding`] decompresses an answer that an upstream has compressed.
//! - [`peek`] reads the meaning of an answer from its head and as little of its body as possible.
//! - [`refusal`] asks an upstream whether it refuses a credential.
//! - [`stream_failure`] judges the failures that a stream reports in its events.
//! - [`response`] builds the caller's response head from the upstream's.
//! - [`response_headers`] removes from that head what the caller must not receive.
//! - [`rate_limit_headers`] tells the caller the remaining part of its limits.
//! - [`body`] passes the response body on, reads usage and the objects that it names from it, and ends the request's log and charge.
//! - [`own_body`] is the body of an answer that Steadfast makes.
//! - [`late_failure`] finds the failure of a stream that is being passed on, for the upstream's health.
//!
//! An exchange decides nothing. The [`turn`](super::turn) decides which upstream is called and what its answer means.
//! Relaying WebSocket messages is to be another exchange, in a file `websocket` beside these: it makes
//! [`TurnFacts`](super::turn::facts::TurnFacts) from a message, and a
//! [`RequestSender`](super::turn::attempts::RequestSender) that sends it on the upstream's connection.

pub(super) mod body;
mod coding;
pub(super) mod facts;
pub(super) mod forward;
mod late_failure;
pub(super) mod own_body;
pub(super) mod peek;
pub(super) mod rate_limit_headers;
mod refusal;
pub(super) mod response;
pub(super) mod response_headers;
mod stream_failure;
