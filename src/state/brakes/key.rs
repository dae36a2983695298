//! The keys by which brakes are found.

use std::num::NonZeroU64;

use crate::{
    ids::{ModelKey, Namespace, OrganizationId, SessionKey},
    policy::{RequestClass, brake::POOL_SESSIONS},
};

/// The brakes that concern a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeKeys {
    /// The session of the request.
    pub session: Option<SessionKey>,
    /// The pool that the request may go to.
    pub pool: PoolKey,
}

/// A session, as far as it needs one part of an upstream. A failure of another part does not concern it.
///
/// It is the hash of the session key and the request class. Every response holds one until it ends, so it is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassSession(NonZeroU64);

impl ClassSession {
    /// The session `key`, as far as it needs the part `class` of an upstream.
    #[inline]
    pub fn new(key: SessionKey, class: RequestClass) -> Self {
        // The key and the model are hashes already. The factor is 2^64 divided by the golden ratio (D. Knuth, *The Art of
        // Computer Programming*, volume 3, section 6.4), so that the pair of the two is not symmetric.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let model = class.model.map_or(0, ModelKey::as_u64);
        let class = model.wrapping_add(class.endpoint as u64 + 1).wrapping_mul(FACTOR);
        Self(NonZeroU64::new(key.as_u64() ^ class).unwrap_or(NonZeroU64::MIN))
    }
}

/// The upstreams that a request may go to, and the requests that are judged together there.
///
/// The requests of each group are judged by themselves, and new sessions apart from sessions that an upstream has served
/// before. So a client that sends many different requests which no upstream can serve stops neither another group nor
/// the sessions that run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The group of the caller.
    pub group: Namespace,
    /// Whether the session has been served before.
    pub session: SessionAge,
    /// The part of an upstream that the request needs.
    pub class: RequestClass,
    /// The fingerprint of the upstreams that serve the model to the group.
    pub eligibility: u64,
    /// The organization that owns the state to which the request refers.
    pub owner: Option<OrganizationId>,
}

/// Whether a session has been served before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionAge {
    /// No upstream is known to have served the session.
    New,
    /// An upstream has the session's prompt cache or state.
    Running,
}

impl BrakeKeys {
    /// The session of the request, as far as it needs the same part of an upstream.
    pub(super) fn class_session(&self) -> Option<ClassSession> {
        self.session.map(|key| ClassSession::new(key, self.pool.class))
    }
}

impl PoolKey {
    /// Whether a request to `self` that was answered by an upstream of `organization` shows that `other` works too.
    pub(super) fn shares_upstreams_with(&self, other: &PoolKey, organization: OrganizationId) -> bool {
        let concerns = |key: &PoolKey| (key.class, key.eligibility);
        concerns(self) == concerns(other) && other.owner.is_none_or(|owner| owner == organization)
    }

    pub(super) fn log_begin(&self) {
        tracing::warn!(
            endpoint = self.class.endpoint.label(),
            "the requests of {POOL_SESSIONS} sessions in a row have failed at every upstream that they were sent to; \
             requests are answered with 503 until a probe is served, unless another upstream is ready"
        );
    }

    pub(super) fn log_end(&self) {
        tracing::info!(
            endpoint = self.class.endpoint.label(),
            "requests are sent to the upstreams again; before, requests had failed at every upstream"
        );
    }
}
