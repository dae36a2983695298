//! What identifies a request, from its first stage to its last.

use std::sync::Arc;

use http::HeaderValue;

use crate::{proxy::request::admit::Identified, state::ClientKey};

/// What identifies a request to its caller and in its response. Each stage that needs it takes it as an input; none reads
/// it from the log.
pub(super) struct RequestIdentity<'a> {
    /// The caller's id of the request, or the one that was made for it.
    pub id: HeaderValue,
    /// The client key of the caller; `None` where no key is needed, or the caller is not known yet.
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
