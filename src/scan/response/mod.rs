//! Reading of response bodies while they are forwarded.
//!
//! [`reader`] is the entry. It reads JSON bodies with the [`outline`] visitor of the JSON scanner, and event streams with
//! [`sse`] and [`events`], which look at the beginning of each event ([`peek`]) and scan only the events that matter. [`scope`] has the members that are read, and
//! [`usage`] the dialects of token counts.
//! [`opening`] follows a stream up to its first output, and keeps the events that report a failure. [`errors`] reads the
//! type and code of an error response or a failed event, and what its message is about ([`subject`], [`missing_model`]).
//! [`limits`] reads when the reported limit is reset.

mod duration;
mod error_object;
pub(super) mod errors;
mod events;
mod limits;
mod missing_model;
pub(super) mod opening;
mod outline;
mod peek;
pub(super) mod reader;
mod scope;
mod sse;
mod subject;
pub(super) mod terminal;
pub(super) mod usage;

#[cfg(test)]
mod tests;
