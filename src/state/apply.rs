//! Applying a snapshot, which is immutable data, to the state that outlives it.

use super::{RuntimeState, Snapshot};

impl RuntimeState {
    /// Applies the limits in `snapshot` from now on: the requests in flight per upstream, and the quotas per client
    /// key. A disabled upstream is probed, because its credential may have changed.
    pub(super) fn apply(&self, snapshot: &Snapshot) {
        for upstream in snapshot.upstreams() {
            upstream.state.set_max_in_flight(upstream.max_in_flight);
        }
        for (rate_limits, quota) in snapshot.access.quotas() {
            rate_limits.set_quota(quota);
        }
        self.probe_credentials(snapshot);
    }

    /// Makes a probe due now at every upstream in `snapshot` that is disabled because it refused its credential.
    pub(super) fn probe_credentials(&self, snapshot: &Snapshot) {
        for upstream in snapshot.upstreams() {
            upstream.state.probe_credential();
        }
    }
}
