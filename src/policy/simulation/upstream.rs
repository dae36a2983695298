//! A simulated upstream: the gateway's knowledge of it, and its real condition.

use crate::policy::LimitCause;
use std::time::Duration;

use fastrand::Rng;

use super::plan::secs;
use crate::{
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
}

/// The real condition of an upstream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Works,
    /// This many requests of ten fail.
    Fails {
        of_ten: u8,
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
        }
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.slots.is_none_or(|slots| self.in_flight < slots)
    }

    pub(super) fn is_ready(&self, model: ModelKey, now: Tick) -> bool {
        self.health.availability(RequestClass::generation(Some(model)), now) == Availability::Ready
    }

    /// Returns the time until the answer to a request that is sent now, and the verdict on it.
    pub(super) fn answer(&self, model: ModelKey, now: Tick, rng: &mut Rng) -> (Duration, Verdict) {
        let soon = Duration::from_millis(rng.u64(20..400));
        let normal = Duration::from_millis(rng.u64(200..4_000));
        match self.condition {
            Condition::Fails { of_ten } if rng.u8(..10) < of_ten => (soon, Verdict::Failed),
            Condition::Hangs => (HEAD_TIMEOUT, Verdict::Failed),
            Condition::Refuses => (soon, Verdict::Refused),
            Condition::Limited {
                until,
                named,
                honest,
                model: limited,
            } if now < until && limited.is_none_or(|it| it == model) => {
                let reset = until.since(now.after(soon));
                let event = Verdict::Limited {
                    reset: named.then_some(if honest { reset } else { reset / 4 }),
                    scope: limited.map_or(Scope::Upstream, Scope::Model),
                    cause: LimitCause::Rate,
                };
                (soon, event)
            }
            Condition::Works | Condition::Fails { .. } | Condition::Limited { .. } if rng.u8(..20) == 0 => {
                (soon, Verdict::Answered)
            }
            Condition::Works | Condition::Fails { .. } | Condition::Limited { .. } => (normal, Verdict::Served),
        }
    }
}
