//! Applying a snapshot, which is immutable data, to the state that outlives it.

use std::sync::Arc;

use super::{RuntimeState, Snapshot, upstream_state::Membership};

impl RuntimeState {
    /// Applies the limits in `snapshot` from now on: the upstreams that are ejected at the same time, the requests in
    /// flight per upstream, and the quotas per client key. A disabled upstream is probed, because its credential may have
    /// changed. What is known about the models of an account that is not called any more is forgotten.
    pub(super) fn apply(&self, snapshot: &Snapshot) {
        let upstreams = snapshot.upstreams();
        self.ejections.lock().resize(upstreams.len(), snapshot.max_ejected);
        for state in self.upstream_states() {
            let is_member = upstreams.iter().any(|upstream| Arc::ptr_eq(&upstream.state, &state));
            state.set_membership(match is_member {
                true => Membership::Member,
                false => Membership::Outside,
            });
        }
        for upstream in snapshot.upstreams() {
            upstream.state.set_max_in_flight(upstream.max_in_flight);
        }
        for (rate_limits, quota) in snapshot.access.quotas() {
            rate_limits.set_quota(quota);
        }
        let accounts = upstreams.iter().map(|upstream| upstream.account);
        self.models.retain(accounts, self.clock.now());
        self.probe_credentials(snapshot);
    }

    /// Makes a probe due now at every upstream in `snapshot` that is disabled because it refused its credential.
    pub(super) fn probe_credentials(&self, snapshot: &Snapshot) {
        for upstream in snapshot.upstreams() {
            upstream.state.probe_credential();
        }
    }
}
