//! An upstream: what the gateway knows of it, and how it really is.

use std::time::Duration;

use fastrand::Rng;

use super::secs;
use crate::{
    ids::{ModelKey, OrganizationId, UpstreamId, Weight},
    policy::{Availability, Health, Member, Scope, Verdict},
    tick::Tick,
};

/// The response head must come within this time.
const HEAD_TIMEOUT: Duration = secs(30);

pub(super) struct SimulatedUpstream {
    pub member: Member,
    pub is_configured: bool,
    pub slots: Option<u32>,
    pub health: Health,
    pub in_flight: u32,
    /// Requests, the longest waiting first.
    pub waiting: Vec<usize>,
    /// Nobody in the gateway knows it.
    pub mood: Mood,
}

/// What is wrong with an upstream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Works,
    /// So many requests of ten.
    Fails {
        of_ten: u8,
    },
    Hangs,
    Refuses,
    /// Whether it names the moment, and whether that is the right one.
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
                // Those of class 1 serve one model only.
                class: u16::from(rng.u8(..5) == 0),
                organization,
            },
            is_configured: rng.u8(..5) > 0,
            slots: (rng.u8(..5) < 2).then(|| rng.u32(1..5)),
            health: Health::new(),
            in_flight: 0,
            waiting: Vec::new(),
            mood: Mood::Works,
        }
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.slots.is_none_or(|slots| self.in_flight < slots)
    }

    pub(super) fn is_ready(&self, model: ModelKey, now: Tick) -> bool {
        self.health.availability(Some(model), now) == Availability::Ready
    }

    /// What a request comes to that is sent now, and after what time.
    pub(super) fn answer(&self, model: ModelKey, now: Tick, rng: &mut Rng) -> (Duration, Verdict) {
        let soon = Duration::from_millis(rng.u64(20..400));
        let normal = Duration::from_millis(rng.u64(200..4_000));
        match self.mood {
            Mood::Fails { of_ten } if rng.u8(..10) < of_ten => (soon, Verdict::Failed),
            Mood::Hangs => (HEAD_TIMEOUT, Verdict::Failed),
            Mood::Refuses => (soon, Verdict::Refused),
            Mood::Limited {
                until,
                named,
                honest,
                model: limited,
            } if now < until && limited.is_none_or(|it| it == model) => {
                let reset = until.since(now.after(soon));
                let event = Verdict::Limited {
                    reset: named.then_some(if honest { reset } else { reset / 4 }),
                    scope: limited.map_or(Scope::Upstream, Scope::Model),
                };
                (soon, event)
            }
            Mood::Works | Mood::Fails { .. } | Mood::Limited { .. } if rng.u8(..20) == 0 => (soon, Verdict::Answered),
            Mood::Works | Mood::Fails { .. } | Mood::Limited { .. } => (normal, Verdict::Served),
        }
    }
}
