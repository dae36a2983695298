//! Requests that were refused before they could be handled: answered, counted and logged like the others.

use http::{HeaderMap, Response};

use super::{Proxy, exchange::body::Outgoing, reply, request::admit};
use crate::{
    fault::Fault,
    wire::{Peer, Refusal},
};

impl Proxy {
    /// The answer to a request whose head could not be read; none where nobody would understand it.
    pub fn refuse(&self, peer: Peer, refusal: Refusal) -> Option<Response<Outgoing>> {
        let request_id = admit::request_id(&mut HeaderMap::new());
        self.gateway.metrics.count_rejected_head();
        let (fault, code) = match refusal {
            Refusal::BadHead { problem } => (Some(Fault::BadHead { problem }), "bad_head"),
            Refusal::BadFraming { problem } => (Some(Fault::BadFraming { problem }), "bad_framing"),
            Refusal::HeadTooLarge => (Some(Fault::HeadTooLarge), "head_too_large"),
            Refusal::SlowHead => (None, "slow_head"),
        };
        tracing::info!(
            target: "access",
            request_id = request_id.to_str().unwrap_or_default(),
            status = fault.as_ref().map(|fault| fault.status().as_u16()),
            outcome = "refused",
            reason = code,
            peer = peer.address.map(tracing::field::display),
        );
        fault.map(|fault| reply::unread(&fault, request_id))
    }
}
