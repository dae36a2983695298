//! What may come in, and what it says: the head of a request, its caller, its target, and the facts in its body.
//!
//! The first stage, [`admit`], decides by the head alone:
//!
//! - [`received`] is the head as it arrived, with the request's id.
//! - [`target`] reads the endpoint from the method and the path, which `path` checks first; a new endpoint's path is added
//!   there. `host` checks the host.
//! - [`caller`] finds the client key, and `path_access` decides whether its group may call the path.
//! - [`headers`] leaves what every upstream may receive, and adds what one upstream needs.
//!
//! The second stage, [`inspect`], reads the body where an upstream reads it as JSON. `buffer` reserves memory for it, and
//! [`model_access`] decides whether the caller's group may use the model that it names.

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
