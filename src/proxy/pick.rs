//! The third stage: which upstream, and why.

use super::admit::Admitted;
use crate::{
    fault::Fault,
    ids::{OwnedKey, UpstreamId},
    policy::{self, Affinity, Route},
    scan::RequestFacts,
    state::{Endpoint, House, Snapshot, Upstream},
    tick::Tick,
};

/// The upstream that a request goes to.
pub(super) struct Pick<'a> {
    pub upstream: &'a Upstream,
    pub route: Route,
    pub affinity: Affinity,
    /// The session's pin at this moment.
    pub pin: Option<UpstreamId>,
}
pub(super) fn pick<'a>(
    house: &House,
    snapshot: &'a Snapshot,
    admitted: &Admitted,
    facts: &RequestFacts,
) -> Result<Pick<'a>, Fault> {
    Err(Fault::Internal)
}
