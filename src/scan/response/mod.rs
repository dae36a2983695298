//! Response bodies.

mod events;
pub(super) mod limits;
mod outline;
mod peek;
pub(super) mod reader;
mod sse;
pub(super) mod usage;

#[cfg(test)]
mod tests;
