//! The identity of a request, which all its stages share.

use std::sync::Arc;

use http::HeaderValue;

use crate::{proxy::request::admit::Identified, state::ClientKey};

/// The identity of a request: its id and its client key. Each stage that needs it takes it as an input and does not
/// read it from the log.
pub(super) struct RequestIdentity<'a> {
    /// The id of the request: the caller's, or one that Steadfast has made.
    pub id: HeaderValue,
    /// The client key of the caller; `None` if no key is needed, or if the caller is not known yet.
    pub key: Option<&'a Arc<ClientKey>>,
}

impl<'a> RequestIdentity<'a> {
    /// A request whose caller is not known yet.
    pub fn of_unknown_caller(id: HeaderValue) -> Self {
        Self { id, key: None }
    }

    /// The same request, now that its caller is known.
    pub fn of_caller(self, identified: &Identified<'a>) -> Self {
        Self {
            key: identified.caller.key,
            ..self
        }
    }
}
