//! Reads and checks a request: its head, its caller, its target, and the facts in its body.

pub(super) mod admit;
mod buffer;
pub(super) mod caller;
pub(super) mod headers;
mod host;
pub(super) mod inspect;
#[cfg(test)]
pub(super) mod kit;
pub(super) mod model_access;
mod path;
mod path_access;
pub(super) mod received;
pub(super) mod target;
