//! Requests that were refused before they could be handled: counted and logged like the others.

use super::Proxy;
use crate::wire::{Peer, Refusal};

impl Proxy {
    /// Records a request whose head could not be read.
    pub fn refused(&self, peer: Peer, refusal: Refusal) {
        self.house.meter.count_rejected_head();
        tracing::info!(
            target: "access",
            status = refusal.status(),
            outcome = "refused",
            reason = refusal.code(),
            peer = peer.address.map(tracing::field::display),
        );
    }
}
