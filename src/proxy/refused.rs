//! Requests that were refused before they could be handled: answered, counted and logged like the others.

use http::Response;

use super::{Proxy, exchange::outgoing::Outgoing, reply, request::received};
use crate::{
    fault::Fault,
    wire::{HeadRefusal, Peer},
};

impl Proxy {
    /// The answer to a request whose head could not be read; none where nobody would understand it.
    pub fn refuse(&self, peer: Peer, refusal: HeadRefusal) -> Option<Response<Outgoing>> {
        let request_id = received::new_request_id();
        self.gateway.metrics.count_rejected_head();
        let (fault, code) = match refusal {
            HeadRefusal::BadHead { problem } => (Some(Fault::BadHead { problem }), "bad_head"),
            HeadRefusal::BadFraming { problem } => (Some(Fault::BadFraming { problem }), "bad_framing"),
            HeadRefusal::HeadTooLarge => (Some(Fault::HeadTooLarge), "head_too_large"),
            HeadRefusal::SlowHead => (None, "slow_head"),
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
