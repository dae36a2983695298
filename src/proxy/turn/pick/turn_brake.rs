//! What the brakes know of one turn.

use std::time::Duration;

use crate::{
    fault::{FailedSubject, Fault},
    ids::UpstreamId,
    policy::brake::MAX_RETRY_AFTER,
    state::{BrakeAdmission, BrakeKeys, BrakeKind, BrakeRefusal, Gateway, Probes},
};

/// What the brakes know of one turn, and what the turn has found out for them.
///
/// If it is dropped without a verdict (because the client has left, for example), the turn is no longer a probe, and the
/// next request is.
pub(super) struct TurnBrake<'a> {
    pub gateway: &'a Gateway,
    pub keys: BrakeKeys,
    /// The brakes that the turn is the probe of.
    pub probes: Probes,
    /// The upstreams that the session avoids, the oldest failure last.
    pub avoided: Vec<UpstreamId>,
    /// Whether the turn may only go to upstreams that are not avoided: a brake concerns all others.
    pub is_confined: bool,
    /// The upstreams that have failed the turn.
    pub failed: Vec<UpstreamId>,
}

impl<'a> TurnBrake<'a> {
    /// Admits a turn, or refuses it. `has_untried` returns whether an upstream other than these, which the brakes concern,
    /// may take the turn. The turn is then confined to such upstreams.
    ///
    /// # Errors
    /// The [`BrakeRefusal`], if the requests before have failed at every upstream, and no probe is due.
    #[cold]
    pub fn admit(
        gateway: &'a Gateway,
        keys: BrakeKeys,
        has_untried: impl FnOnce(&[UpstreamId]) -> bool,
    ) -> Result<Option<Box<Self>>, BrakeRefusal> {
        let admission = gateway.runtime.brakes.admit(&keys);
        let failed = match &admission {
            Ok(admission) => &admission.failed,
            Err(refusal) => &refusal.failed,
        };
        let mut brake = Self::of_failed_turn(gateway, keys);
        if !failed.is_empty() && has_untried(failed) {
            brake.avoided.clone_from(failed);
            brake.is_confined = true;
            if let Ok(admission) = admission {
                gateway.runtime.brakes.release(&brake.keys, admission.probes);
            }
            return Ok(Some(Box::new(brake)));
        }
        let BrakeAdmission {
            probes, mut avoided, ..
        } = admission?;
        if !probes.has_any() && avoided.is_empty() {
            return Ok(None);
        }
        avoided.reverse();
        brake.probes = probes;
        brake.avoided = avoided;
        Ok(Some(Box::new(brake)))
    }

    /// The brake of a turn that has failed at an upstream, and that no brake concerned before.
    pub fn of_failed_turn(gateway: &'a Gateway, keys: BrakeKeys) -> Self {
        Self {
            gateway,
            keys,
            probes: Probes::default(),
            avoided: Vec::new(),
            is_confined: false,
            failed: Vec::new(),
        }
    }
}

impl Drop for TurnBrake<'_> {
    fn drop(&mut self) {
        self.gateway.runtime.brakes.release(&self.keys, self.probes);
    }
}

/// What a failed attempt says about the other upstreams and the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::turn) enum FailureEvidence {
    /// The upstream has failed: it was not reached, broke the connection or a stream, or answered 5xx.
    Failed,
    /// The upstream has refused the request for a reason of its own: a limit, or its credential.
    Refused,
    /// The request may still be served: an upstream that sent no answer in time may be working on it. Or the caller is
    /// the cause of the failure. The turn then does not count as failed everywhere.
    Unclear,
}

/// The fault that tells of the refusal of a brake, which may admit the next request after `retry`.
pub(super) fn fault(brake: BrakeKind, retry: Duration) -> Fault {
    Fault::FailedEverywhere {
        subject: match brake {
            BrakeKind::Session => FailedSubject::Session,
            BrakeKind::Pool => FailedSubject::Pool,
        },
        retry: retry.min(MAX_RETRY_AFTER),
    }
}
