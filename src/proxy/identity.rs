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
    pub fn with_caller(self, identified: &Identified<'a>) -> Self {
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
    fn the_caller_adds_its_key_and_the_id_stays() {
        let snapshot = kit::snapshot(kit::GROUPS);
        let request = Request::get("/v1/models")
            .header("host", "gateway.test")
            .header("authorization", "Bearer key-alone")
            .body(())
            .expect("a request");
        let peer = Peer {
            address: None,
            is_secure: false,
        };
        let head = ReceivedHead::new(request.into_parts().0, Framing::None, peer);
        let identity = RequestIdentity::of_unknown_caller(head.request_id.clone());
        let (id, key) = (identity.id.clone(), identity.key);
        assert!(key.is_none());
        let identified = admit::identify(&snapshot, head, 0).expect("a known caller");
        let identity = identity.with_caller(&identified);
        assert_eq!(identity.id, id);
        assert_eq!(&*identity.key.expect("a key").group.name, "alone");
    }
}
