//! What the brakes know of one turn.

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
    /// The upstreams that have failed the turn.
    pub failed: Vec<UpstreamId>,
}

impl<'a> TurnBrake<'a> {
    /// Admits a turn, or refuses it.
    ///
    /// # Errors
    /// [`Fault::FailedEverywhere`] if the requests before have failed at every upstream, and no probe is due.
    #[cold]
    pub fn admit(gateway: &'a Gateway, keys: BrakeKeys) -> Result<Option<Box<Self>>, Fault> {
        let admission = gateway.runtime.brakes.admit(&keys);
        let BrakeAdmission { probes, mut avoided } = admission.map_err(|refusal| refuse(gateway, refusal))?;
        if !probes.has_any() && avoided.is_empty() {
            return Ok(None);
        }
        avoided.reverse();
        let mut brake = Self::of_failed_turn(gateway, keys);
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

/// Counts a refused request, and returns the fault that it is answered with.
fn refuse(gateway: &Gateway, refusal: BrakeRefusal) -> Fault {
    gateway.metrics.braked_requests.increment(refusal.by);
    Fault::FailedEverywhere {
        subject: match refusal.by {
            BrakeKind::Session => FailedSubject::Session,
            BrakeKind::Pool => FailedSubject::Pool,
        },
        retry: refusal.until.since(gateway.clock.now()).min(MAX_RETRY_AFTER),
    }
}
