//! The selection among a request's candidates: the upstream to send the request to now, or the upstream to wait for.
//!
//! # The rules
//!
//! 1. If the request's own upstream (the first candidate) is ready, the request is sent to it.
//! 2. If the own upstream is full, or if it is limited and the limit ends before the session's
//!    [patience](super::Patience) does, the request waits for it. The end of a failure is not known, so a request
//!    leaves an ejected upstream at once.
//! 3. Otherwise, the request is sent to the first other candidate that is ready.
//! 4. If no candidate is ready, the request waits. It waits for a slot of the first candidate that is full, for a short
//!    time, and for the earliest reset of all candidates that are limited, for longer: a limit ends at a known moment, and
//!    a caller that is refused now can only come back later. It also waits for a probe that is due soon. A request that
//!    refers to state of its candidates waits for any of them to recover, because no other upstream can serve it.
//! 5. Otherwise, no upstream is selected, and the request is answered from memory.
//!
//! An upstream that was tried for this request and failed is excluded from all five rules.
//!
//! An upstream in an outage gets no request but its probes, for which its availability is [`Availability::Ready`] to one
//! request at a time. So if all upstreams are in an outage, the requests of all clients do not go to an upstream that is
//! overloaded at best and may be about to recover.

use super::{availability::Availability, rendezvous::MemberIndex, session::Candidate};
use crate::tick::Tick;

#[cfg(test)]
mod tests;

/// How long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    /// The current time.
    pub now: Tick,
    /// The time until which the request waits for its own upstream although others are ready. It lies in the past (for
    /// example [`Tick::ZERO`]) if the request loses nothing by moving.
    pub stays_until: Tick,
    /// The time until which the request waits for any upstream if none is ready. It has no effect if it is before
    /// `stays_until`.
    pub waits_until: Tick,
    /// The time until which the request waits for the reset of a limit of any upstream if none is ready. It has no effect
    /// if it is before `stays_until` or `waits_until`.
    pub resets_until: Tick,
    /// The time until which the request waits for any upstream to recover if none is ready, although it is not known
    /// that one will. It lies in the past if the request does not refer to state that only its candidates have.
    pub recovers_until: Tick,
}

/// The result of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment of a variant describes its fields")]
pub enum Decision {
    /// Send the request to this candidate.
    Send(Candidate),
    /// Wait for this candidate. Select again when the candidate has a slot for the request, when its health changes,
    /// and at `until` at the latest.
    Wait { candidate: Candidate, until: Tick },
    /// Wait for a change. No candidate is known to be ready soon. Select again when the health of a candidate changes, and
    /// at `until` at the latest.
    WaitForChange { until: Tick },
    /// No candidate can take the request, or will soon.
    NoUpstream,
}

/// Selects one of `candidates`, of which the first is the request's own upstream. See the [module](self).
///
/// `is_excluded` returns whether the request may not go to an upstream, for example because the upstream has failed it
/// already. `availability` returns whether an upstream can take the request. If the request's own upstream is ready, only its availability is computed.
pub fn select(
    mut candidates: impl Iterator<Item = Candidate>,
    is_excluded: impl Fn(MemberIndex) -> bool,
    mut availability: impl FnMut(MemberIndex) -> Availability,
    limits: &WaitLimits,
) -> Decision {
    let Some(own) = candidates.next() else {
        return Decision::NoUpstream;
    };
    let own = if is_excluded(own.index) {
        None
    } else {
        match availability(own.index) {
            Availability::Ready => return Decision::Send(own),
            availability => Some((own, availability)),
        }
    };
    if let Some((candidate, availability)) = own
        && let Some(until) = capacity_by(availability, limits.now, limits.stays_until)
    {
        return Decision::Wait { candidate, until };
    }
    let others = candidates.filter(|candidate| !is_excluded(candidate.index));
    let others = others.map(|candidate| (candidate, availability(candidate.index)));
    select_any(own.into_iter().chain(others), limits)
}

/// Applies rules 3 to 5.
#[cold]
fn select_any(untried: impl Iterator<Item = (Candidate, Availability)>, limits: &WaitLimits) -> Decision {
    let mut waits = Waits::new(limits);
    for (candidate, availability) in untried {
        if availability == Availability::Ready {
            return Decision::Send(candidate);
        }
        waits.add(candidate, availability);
    }
    waits.decision().unwrap_or(Decision::NoUpstream)
}

/// The candidates that a request can wait for if none is ready (rule 4).
struct Waits<'a> {
    limits: &'a WaitLimits,
    /// The first candidate that is full.
    full: Option<Candidate>,
    /// The candidate that will be ready first, and when.
    earliest: Option<(Tick, Candidate)>,
    /// Until when the request waits for a change of health.
    change: Option<Tick>,
}

impl<'a> Waits<'a> {
    fn new(limits: &'a WaitLimits) -> Self {
        Self {
            limits,
            full: None,
            earliest: None,
            change: None,
        }
    }

    /// The time until which the request waits for anything but a reset.
    fn limit(&self) -> Tick {
        self.limits.stays_until.max(self.limits.waits_until)
    }

    fn add(&mut self, candidate: Candidate, availability: Availability) {
        let (now, recovers_until) = (self.limits.now, self.limits.recovers_until);
        let ready = match availability {
            Availability::Full => {
                if self.full.is_none() && now < self.limit() {
                    self.full = Some(candidate);
                }
                None
            }
            Availability::Cooling { until, .. } => {
                Some(until).filter(|until| *until <= self.limits.resets_until.max(self.limit()))
            }
            Availability::Ejected { until } | Availability::Disabled { until } => {
                Some(until).filter(|until| *until <= self.limit())
            }
            Availability::Ready | Availability::Draining => None,
        };
        if let Some(until) = ready
            && self.earliest.is_none_or(|(earliest, _)| until < earliest)
        {
            self.earliest = Some((until, candidate));
        }
        match availability {
            Availability::Ejected { until } | Availability::Disabled { until } => {
                self.add_change(until.min(recovers_until));
            }
            Availability::Draining => self.add_change(recovers_until),
            Availability::Ready | Availability::Full | Availability::Cooling { .. } => {}
        }
    }

    /// Adds that the health of a candidate may change until `until`.
    fn add_change(&mut self, until: Tick) {
        if self.limits.now < until {
            self.change = Some(self.change.map_or(until, |change| change.min(until)));
        }
    }

    fn decision(self) -> Option<Decision> {
        let limit = self.limit();
        match (self.full, self.earliest) {
            (Some(candidate), earliest) => Some(Decision::Wait {
                candidate,
                until: earliest.map_or(limit, |(earliest, _)| earliest.min(limit)),
            }),
            (None, Some((until, candidate))) => Some(Decision::Wait { candidate, until }),
            (None, None) => self.change.map(|until| Decision::WaitForChange { until }),
        }
    }
}

/// Returns until when to wait for an upstream that works but has no capacity now; `None` if no capacity is known to
/// come before `limit`.
fn capacity_by(availability: Availability, now: Tick, limit: Tick) -> Option<Tick> {
    match availability {
        Availability::Full => (now < limit).then_some(limit),
        Availability::Cooling { until, .. } => (until <= limit).then_some(until),
        Availability::Ready | Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => {
            None
        }
    }
}
