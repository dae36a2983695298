//! A simulated upstream: the gateway's knowledge of it, and its real condition.

use crate::policy::LimitCause;
use std::time::Duration;

use fastrand::Rng;

use super::{outcomes::SimulatedOutcomes, plan::secs};
use crate::{
    endpoint::EndpointClass,
    ids::{ModelKey, OrganizationId, UpstreamId, Weight},
    policy::{Availability, Health, Member, RequestClass, Scope, Verdict},
    tick::Tick,
};

/// The time within which the response head must arrive.
const HEAD_TIMEOUT: Duration = secs(30);

pub(super) struct SimulatedUpstream {
    pub member: Member,
    pub is_configured: bool,
    pub slots: Option<u32>,
    pub health: Health,
    pub in_flight: u32,
    /// The waiting requests, the one that has waited the longest first.
    pub waiting: Vec<usize>,
    /// The real condition, which the gateway does not know.
    pub condition: Condition,
    /// The class of endpoints that the condition concerns; `None` for all of them.
    pub affected: Option<EndpointClass>,
    /// What the gateway counts for the comparison with the other upstreams.
    pub outcomes: SimulatedOutcomes,
}

/// The real condition of an upstream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Works,
    /// This many requests of a hundred fail.
    Fails {
        percent: u8,
    },
    /// Every answer takes this many times as long as usual.
    Slow {
        factor: u32,
    },
    Hangs,
    Refuses,
    /// `named` tells whether the upstream names the end of its limit, and `honest` whether that moment is right.
    Limited {
        until: Tick,
        named: bool,
        honest: bool,
        model: Option<ModelKey>,
    },
}

/// The answer of an upstream to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimulatedAnswer {
    /// The time until the verdict.
    pub after: Duration,
    pub verdict: Verdict,
    /// What a failure says about the upstream.
    pub evidence: Evidence,
    /// A second verdict at the end of a stream that breaks off after its first output.
    pub late: Option<Verdict>,
}

impl SimulatedAnswer {
    /// The failure of a request that every upstream fails.
    pub(super) fn failed(rng: &mut Rng) -> Self {
        Self {
            after: Duration::from_millis(rng.u64(20..400)),
            verdict: Verdict::Failed,
            evidence: Evidence::Withheld,
            late: None,
        }
    }
}

/// What a failure says about the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The upstream could not be reached, so the request is not the cause.
    Certain,
    /// The request may be the cause. The failure counts if another upstream serves the request.
    Withheld,
    /// The upstream may still be working on the request. The failure does not count, and the request is not repeated.
    Nothing,
}

impl SimulatedUpstream {
    pub(super) fn new(n: usize, rng: &mut Rng) -> Self {
        let id = UpstreamId::from_name(&format!("account-{n}"));
        let organization = match rng.u8(..4) {
            shared @ 0..2 => OrganizationId::from_name(&format!("organization-{shared}")),
            _ => OrganizationId::of_upstream(id),
        };
        Self {
            member: Member {
                id,
                weight: Weight::new(rng.u32(1..4)).expect("within bounds"),
                // Upstreams of class 1 serve one model only.
                class: u16::from(rng.u8(..5) == 0),
                organization,
            },
            is_configured: rng.u8(..5) > 0,
            slots: (rng.u8(..5) < 2).then(|| rng.u32(1..5)),
            health: Health::new(),
            in_flight: 0,
            waiting: Vec::new(),
            condition: Condition::Works,
            affected: None,
            outcomes: SimulatedOutcomes::default(),
        }
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.slots.is_none_or(|slots| self.in_flight < slots)
    }

    pub(super) fn is_ready(&self, request: RequestClass, now: Tick) -> bool {
        self.health.availability(request, now) == Availability::Ready
    }

    /// Returns the answer to a request that is sent now.
    pub(super) fn answer(&self, request: RequestClass, now: Tick, rng: &mut Rng) -> SimulatedAnswer {
        let soon = Duration::from_millis(rng.u64(20..400));
        let normal = Duration::from_millis(rng.u64(200..4_000));
        let answer = |after, verdict| SimulatedAnswer {
            after,
            verdict,
            evidence: Evidence::Withheld,
            late: None,
        };
        let is_affected = self.affected.is_none_or(|affected| affected == request.endpoint);
        match if is_affected { self.condition } else { Condition::Works } {
            Condition::Fails { percent } if rng.u8(..100) < percent => match rng.u8(..6) {
                0 => SimulatedAnswer {
                    evidence: Evidence::Certain,
                    ..answer(soon, Verdict::Failed)
                },
                1 | 2 => SimulatedAnswer {
                    late: Some(Verdict::Failed),
                    ..answer(normal, Verdict::Served)
                },
                _ => answer(soon, Verdict::Failed),
            },
            Condition::Hangs => SimulatedAnswer {
                evidence: Evidence::Nothing,
                ..answer(HEAD_TIMEOUT, Verdict::Failed)
            },
            Condition::Refuses => answer(soon, Verdict::Refused),
            Condition::Limited {
                until,
                named,
                honest,
                model: limited,
            } if now < until && (limited.is_none() || limited == request.model) => {
                let reset = until.since(now.after(soon));
                let verdict = Verdict::Limited {
                    reset: named.then_some(if honest { reset } else { reset / 4 }),
                    scope: limited.map_or(Scope::Upstream, Scope::Model),
                    cause: LimitCause::Rate,
                };
                answer(soon, verdict)
            }
            Condition::Slow { factor } => answer(normal * factor, Verdict::Served),
            Condition::Works | Condition::Fails { .. } | Condition::Limited { .. } if rng.u8(..20) == 0 => {
                answer(soon, Verdict::Answered)
            }
            Condition::Works | Condition::Fails { .. } | Condition::Limited { .. } => answer(normal, Verdict::Served),
        }
    }
}
