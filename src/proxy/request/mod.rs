//! Reads and checks a request: its head, its caller, its target, and the facts in its body.
//!
//! The first stage, [`admit`], uses the head alone:
//!
//! - [`received`] is the head as it arrived, with the request's id.
//! - [`web_page`] decides which web page may send the request, before the caller is known.
//! - [`target`] reads the endpoint from the method and the path. `path` checks the path first; the path of a new endpoint is
//!   added there. `host` checks the host.
//! - `object_path` finds the objects that the path names.
//! - [`caller`] finds the client key, and `path_access` checks whether its group may call the path.
//! - [`answer_content`] tells what a good answer to the request contains.
//! - `upgrade` recognises requests for a WebSocket, which are refused.
//! - `form` recognises a form by its content type.
//! - `accept_encoding` asks only for answers that Steadfast can decompress.
//! - [`hops`] finds requests that this gateway has sent itself.
//! - [`headers`] removes the headers that no upstream may receive, and adds those that one upstream needs.
//!
//! The second stage, [`inspect`], reads the body if an upstream reads it as JSON or as a form that names a model, and
//! reserves memory for it. [`field_types`] refuses fields whose values have another type than the API defines, and
//! [`model_access`] checks whether the caller's group may use the model that the body names.

mod accept_encoding;
pub(super) mod admit;
pub(super) mod answer_content;
pub(super) mod caller;
pub(super) mod field_types;
mod form;
pub(super) mod headers;
pub(super) mod hops;
mod host;
pub(super) mod inspect;
#[cfg(test)]
pub(super) mod kit;
pub(super) mod model_access;
pub(super) mod object_path;
mod path;
mod path_access;
pub(super) mod received;
pub(super) mod target;
mod upgrade;
pub(super) mod web_page;
