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

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        proxy::request::{admit, kit, received::ReceivedHead},
        wire::{Framing, Peer},
    };

    #[test]
    fn a_request_keeps_its_id_when_its_caller_becomes_known() {
        let snapshot = kit::snapshot(kit::GROUPS);
        let request = Request::post("/v1/responses").header("host", "gateway.test");
        let request = request.header("x-api-key", "key-alone").body(()).expect("a request");
        let peer = Peer {
            address: None,
            is_secure: false,
        };
        let head = ReceivedHead::new(request.into_parts().0, Framing::None, peer);
        let identified = admit::identify(&snapshot, head, 0).expect("a valid key");
        let unknown = RequestIdentity::of_unknown_caller(HeaderValue::from_static("id-1"));
        assert!(unknown.key.is_none());
        let known = unknown.of_caller(&identified);
        assert_eq!(known.id, "id-1");
        assert_eq!(known.key.map(|key| &*key.name), Some("alone"));
    }
}
