//! The health of one class of endpoints: its row of failures, its ejection, and its cooldowns.

use std::time::Duration;

use super::{
    attempt::Attempt,
    cooldowns::Cooldowns,
    outage::Outage,
    status::{ClassStatus, HealthState, Reason, Transition},
};
use crate::{endpoint::EndpointClass, policy::verdict::Scope, tick::Tick};

/// The number of failures in a row after which an upstream is ejected.
pub const EJECT_AFTER: u32 = 5;
/// A failure that is older than this no longer counts as part of a row.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(300);

/// The time after an ejection by the success rate during which the next one is twice as long.
pub const OUTLIER_MEMORY: Duration = Duration::from_secs(600);

/// The health of one class of endpoints of an upstream.
#[derive(Clone, Debug)]
pub(super) struct ClassHealth {
    endpoint: EndpointClass,
    phase: ClassPhase,
    pub(super) cooldowns: Cooldowns,
    /// When an ejection last ended. Failures of requests that were sent before do not count.
    recovered: Option<Tick>,
    /// The number of times that an ejection by the success rate was prolonged, and its end.
    outlier: Option<(u32, Tick)>,
}

#[derive(Clone, Copy, Debug)]
enum ClassPhase {
    /// The endpoints work, or nothing is known about them.
    Working {
        /// The number of failures in a row until now.
        failures: u32,
        /// When the last of these failures was observed.
        latest: Tick,
    },
    /// The upstream is ejected for these endpoints.
    Ejected(Outage),
}

const WORKING: ClassPhase = ClassPhase::Working {
    failures: 0,
    latest: Tick::ZERO,
};

impl ClassHealth {
    pub(super) const fn new(endpoint: EndpointClass) -> Self {
        Self {
            endpoint,
            phase: WORKING,
            cooldowns: Cooldowns::new(),
            recovered: None,
            outlier: None,
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.phase, ClassPhase::Working { failures: 0, .. }) && self.cooldowns.is_empty()
    }

    pub(super) fn ejection(&self) -> Option<&Outage> {
        match &self.phase {
            ClassPhase::Ejected(outage) => Some(outage),
            ClassPhase::Working { .. } => None,
        }
    }

    pub(super) fn ejection_mut(&mut self) -> Option<&mut Outage> {
        match &mut self.phase {
            ClassPhase::Ejected(outage) => Some(outage),
            ClassPhase::Working { .. } => None,
        }
    }

    /// Whether the request was sent before these endpoints recovered. A probe that was answered has ended the outage; what
    /// it says later is news.
    pub(super) fn is_outdated(&self, attempt: Attempt) -> bool {
        let is_later_news = attempt.is_probe() && attempt.is_answered;
        !is_later_news && self.recovered.is_some_and(|recovered| attempt.began <= recovered)
    }

    /// Records that the upstream has answered a request, which ends an ejection that began before the request.
    pub(super) fn record_answer(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        let outage = self.ejection().filter(|outage| outage.since() < attempt.began)?;
        self.outlier = outage
            .outlier_doublings()
            .map(|doublings| (doublings, now))
            .or(self.outlier);
        self.phase = WORKING;
        self.recovered = Some(now);
        Some(Transition::Recovered {
            from: HealthState::Ejected,
            endpoint: self.endpoint,
        })
    }

    /// Forgets the failures in a row until now, and keeps an ejection.
    pub(super) fn end_row(&mut self) {
        if let ClassPhase::Working { .. } = self.phase {
            self.phase = WORKING;
        }
    }

    /// Forgets all failures, and ends an ejection.
    pub(super) fn forget_failures(&mut self) {
        self.phase = WORKING;
    }

    /// Counts a failure. `may_eject` returns whether the upstream may be ejected; it is asked only if it should be. An
    /// upstream that should be ejected but may not keeps its failures, and is ejected at a later failure.
    pub(super) fn record_failure(
        &mut self,
        attempt: Attempt,
        now: Tick,
        random: u64,
        may_eject: impl FnOnce(EndpointClass) -> bool,
    ) -> Option<Transition> {
        match &mut self.phase {
            ClassPhase::Ejected(outage) => {
                let until = outage.record_failure(attempt, now, random)?;
                Some(self.ejected_until(until))
            }
            ClassPhase::Working { failures, latest } => {
                *failures = if now.since(*latest) > FAILURE_MEMORY {
                    1
                } else {
                    (*failures + 1).min(EJECT_AFTER)
                };
                *latest = now;
                if *failures < EJECT_AFTER || !may_eject(self.endpoint) {
                    return None;
                }
                Some(self.eject(Reason::ConsecutiveFailures, now, random))
            }
        }
    }

    /// Begins an ejection.
    pub(super) fn eject(&mut self, reason: Reason, now: Tick, random: u64) -> Transition {
        // A single probe that is served does not show that an upstream serves most requests. So an upstream that soon
        // becomes an outlier again is ejected for longer.
        let before = self.outlier.filter(|(_, ended)| now.since(*ended) <= OUTLIER_MEMORY);
        let doublings = match (reason, before) {
            (Reason::SuccessRate, Some((doublings, _))) => doublings.saturating_add(1),
            _ => 0,
        };
        let (outage, until) = Outage::ejected(self.failures(), doublings, reason, now, random);
        self.phase = ClassPhase::Ejected(outage);
        self.ejected_until(until)
    }

    fn ejected_until(&self, until: Tick) -> Transition {
        Transition::Ejected {
            until,
            failures: self.failures(),
            reason: self.ejection().map_or(Reason::ConsecutiveFailures, Outage::reason),
            endpoint: self.endpoint,
        }
    }

    /// Forgets failures and cooldowns that have expired. Returns the scope of a cooldown whose end is to be reported.
    pub(super) fn expire(&mut self, now: Tick) -> Option<Scope> {
        if let ClassPhase::Working { latest, .. } = self.phase
            && now.since(latest) > FAILURE_MEMORY
        {
            self.phase = WORKING;
        }
        self.cooldowns.expire(now)
    }

    pub(super) fn failures(&self) -> u32 {
        match &self.phase {
            ClassPhase::Working { failures, .. } => *failures,
            ClassPhase::Ejected(outage) => outage.failures(),
        }
    }

    /// Returns a summary for people; `None` if the upstream takes requests to these endpoints.
    pub(super) fn describe(&self, now: Tick) -> Option<ClassStatus> {
        let (state, reason, until) = match (self.ejection(), self.cooldowns.of_upstream(now)) {
            (Some(outage), _) => (outage.state(), outage.reason(), outage.next_probe()),
            (None, Some((until, reason))) => (HealthState::Cooling, reason, until),
            (None, None) => return None,
        };
        Some(ClassStatus {
            endpoint: self.endpoint,
            state,
            reason,
            until,
        })
    }
}
