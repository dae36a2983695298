//! Picks the upstreams that are asked for an object whose owner is not known, after one has answered that it does not have
//! the object.
//!
//! Only an upstream that takes requests now is asked, and a full one if it has a slot soon. The upstreams of one organization
//! have the same objects, so one of them answers for all.

use super::Turn;
use crate::{
    ids::OrganizationId,
    policy::{Availability, MemberIndex},
    state::{Lease, Upstream},
};

impl<'a> Turn<'a> {
    /// Whether the turn may search for the object that the upstream at `index` does not have.
    pub fn may_search(&self, index: MemberIndex) -> bool {
        let is_searchable = self.unowned.as_ref().is_some_and(|unowned| unowned.is_searchable);
        let organization = self.organization(index);
        let is_other = |index| self.organization(index) != organization;
        is_searchable && !self.is_probe() && self.candidates().any(|candidate| is_other(candidate.index))
    }

    /// Whether the path of the request names an object without a known owner.
    pub fn searches_for_path(&self) -> bool {
        self.unowned.as_ref().is_some_and(|unowned| unowned.is_in_path)
    }

    /// The upstreams that may have the object, in rendezvous order, with their organizations.
    pub fn search_order(&self) -> Vec<(MemberIndex, OrganizationId)> {
        let order = self.candidates().map(|candidate| candidate.index);
        order.map(|index| (index, self.organization(index))).collect()
    }

    /// The upstream at `index` and a slot there; `None` if it takes no request now, or has failed this turn.
    pub async fn acquire_for_search(&self, index: MemberIndex) -> Option<(&'a Upstream, Lease)> {
        if self.is_excluded(index) {
            return None;
        }
        let upstream = self.upstream(index);
        let lease = match self.availability(index) {
            Availability::Ready => upstream.state.try_acquire(self.request),
            Availability::Full => {
                let _permit = self.gateway.runtime.wait_permit()?;
                let deadline = self.gateway.clock.now().after(self.snapshot.patience.wait);
                upstream.state.acquire(self.request, deadline).await
            }
            Availability::Cooling { .. }
            | Availability::Ejected { .. }
            | Availability::Disabled { .. }
            | Availability::Draining => None,
        };
        Some((upstream, lease?))
    }

    /// Records that no upstream has the object. `first` was asked first.
    pub fn record_absence(&self, first: &Upstream) {
        if let Some(unowned) = &self.unowned {
            unowned.record_absence(self.gateway, first.id);
        }
    }

    fn organization(&self, index: MemberIndex) -> OrganizationId {
        self.snapshot.rendezvous.member(index).organization
    }
}
