//! The brakes of all sessions and pools, and the upstreams that sessions avoid.
//!
//! [`policy::brake`](mod@crate::policy::brake) and [`policy::avoidance`](crate::policy::avoidance) decide. This table keeps
//! their state for the sessions and pools that have one. Most of the time there is none, and a request then only reads
//! one atomic number that no other request writes.

mod key;
mod probes;
mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use self::table::BrakeTable;
pub use self::{
    key::{BrakeKeys, ClassSession, PoolKey, SessionAge},
    probes::Probes,
};
use crate::{
    ids::{OrganizationId, UpstreamId},
    policy::{
        avoidance::SessionFailure,
        brake::{BrakeDecision, Probe},
    },
    tick::{Clock, Tick},
};

/// The brakes of all sessions and pools, and the upstreams that sessions avoid. The bounded table of them is behind a lock,
/// which a request takes only while the table has an entry.
pub struct Brakes {
    clock: Clock,
    /// The number of entries in `table`. It is written under the lock.
    entries: AtomicUsize,
    table: Mutex<BrakeTable>,
}

/// A request that the brakes admit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BrakeAdmission {
    /// The brakes that the request is the probe of.
    pub probes: Probes,
    /// The upstreams that the session avoids, the oldest failure first.
    pub avoided: Vec<UpstreamId>,
}

/// A request that a brake refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeRefusal {
    /// The time at which the next request may be admitted.
    pub until: Tick,
    /// The brake that refuses the request.
    pub by: BrakeKind,
}

/// The kinds of brakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeKind {
    /// The brake of the request's session.
    Session,
    /// The brake of the pool that the request may go to.
    Pool,
}

impl BrakeKind {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [Self; 2] = [Self::Session, Self::Pool];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Pool => "pool",
        }
    }
}

impl Brakes {
    /// Brakes without any failure.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            entries: AtomicUsize::new(0),
            table: Mutex::default(),
        }
    }

    /// Whether no session and no pool has a failure to remember. Every request is admitted then.
    #[inline]
    pub fn are_idle(&self) -> bool {
        self.entries.load(Relaxed) == 0
    }

    /// Admits or refuses a request.
    ///
    /// # Errors
    /// The [`BrakeRefusal`], if the brake of the session or of the pool refuses the request.
    pub fn admit(&self, keys: &BrakeKeys) -> Result<BrakeAdmission, BrakeRefusal> {
        self.change(|table, now| {
            let mut admission = BrakeAdmission::default();
            let mut trouble = keys.class_session().and_then(|session| table.session_mut(session));
            if let Some(trouble) = &mut trouble {
                admission.avoided = trouble.avoidance.upstreams(now).collect();
                admission.probes.session = probe_of(trouble.brake.admit(now), BrakeKind::Session)?;
            }
            let pool = table.pool_mut(&keys.pool).map(|pool| pool.admit(now));
            match probe_of(pool.unwrap_or(BrakeDecision::Normal), BrakeKind::Pool) {
                Ok(probe) => admission.probes.pool = probe,
                Err(refusal) => {
                    table.release(keys, admission.probes);
                    return Err(refusal);
                }
            }
            Ok(admission)
        })
    }

    /// Records that a request which began at `begun` has failed at the upstreams `failed`, and that no upstream has
    /// served it.
    pub fn record_failure(&self, keys: &BrakeKeys, begun: Tick, probes: Probes, failed: &[UpstreamId]) {
        let has_begun = self.change(|table, now| {
            if let Some(session) = keys.class_session() {
                let trouble = table.session_or_new(session, now);
                trouble.brake.record_failure(begun, probes.session, now);
                for upstream in failed {
                    trouble.avoidance.record(*upstream, SessionFailure::Everywhere, now);
                }
            }
            let pool = table.pool_or_new(&keys.pool, now);
            pool.record_failure(keys.session, probes.pool, now)
        });
        if has_begun {
            keys.pool.log_begin();
        }
    }

    /// Records that `upstream` has served a request, or has refused it as an upstream does that works. `organization` is
    /// the organization of the upstream.
    pub fn record_answer(&self, keys: &BrakeKeys, upstream: UpstreamId, organization: OrganizationId) {
        if self.are_idle() {
            return;
        }
        let ended = self.change(|table, now| {
            if let Some(trouble) = keys.class_session().and_then(|session| table.session_mut(session)) {
                trouble.brake.end();
                trouble.avoidance.record_answer(upstream, now);
            }
            table.end_pools(|pool| keys.pool.shares_upstreams_with(pool, organization))
        });
        log_ends(&ended);
    }

    /// Records that `upstream` has failed a request of the session after a part of the response had reached the client.
    /// The session avoids the upstream for its next request.
    pub fn record_failure_after_output(&self, session: ClassSession, upstream: UpstreamId) {
        self.change(|table, now| {
            let trouble = table.session_or_new(session, now);
            trouble.avoidance.record(upstream, SessionFailure::AfterOutput, now);
        });
    }

    /// Gives back the permissions of a request that has ended without a verdict.
    pub fn release(&self, keys: &BrakeKeys, probes: Probes) {
        if probes.has_any() {
            self.change(|table, _| table.release(keys, probes));
        }
    }

    /// Drops the entries that have nothing to remember. Must be called about once per second.
    pub(super) fn drop_forgotten(&self) {
        if !self.are_idle() {
            log_ends(&self.change(BrakeTable::drop_forgotten));
        }
    }

    /// Drops all entries, because the operator has changed something: what failed before may work now.
    pub fn clear(&self) {
        if !self.are_idle() {
            log_ends(&self.change(|table, _| table.clear()));
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut BrakeTable, Tick) -> R) -> R {
        let now = self.clock.now();
        let mut table = self.table.lock();
        let result = change(&mut table, now);
        self.entries.store(table.len(), Relaxed);
        result
    }
}

fn probe_of(admission: BrakeDecision, by: BrakeKind) -> Result<Option<Probe>, BrakeRefusal> {
    match admission {
        BrakeDecision::Normal => Ok(None),
        BrakeDecision::Probe(probe) => Ok(Some(probe)),
        BrakeDecision::Refuse { until } => Err(BrakeRefusal { until, by }),
    }
}

fn log_ends(pools: &[PoolKey]) {
    pools.iter().for_each(PoolKey::log_end);
}
