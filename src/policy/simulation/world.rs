//! The state of a simulation: upstreams, sessions, requests, and the policies under test.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    rc::Rc,
    time::Duration,
};

use fastrand::Rng;

use super::{
    history::History,
    plan::{Focus, MAX_EJECTED, Plan, SHARE, START, SimulationCounts, secs},
    sent::SentRequest,
    upstream::{Condition, SimulatedUpstream},
};
use crate::{
    endpoint::EndpointClass,
    ids::{ModelKey, Namespace, OrganizationId, SessionKey, UpstreamId, Weight},
    policy::{
        Affinity, Availability, Candidate, EjectionCap, MemberIndex, Pins, Preference, Rendezvous, RequestClass,
        RetryBudget, candidates, outlier::ModelTime,
    },
    tick::Tick,
};

/// A configuration of the gateway.
pub(super) struct SimulatedConfig {
    pub pool: Rendezvous,
    /// For each member of the pool, the index of its upstream in [`World::upstreams`].
    upstreams: Vec<usize>,
}

impl SimulatedConfig {
    /// Returns the index in [`World::upstreams`] of the upstream at `index` in the pool.
    pub(super) fn upstream(&self, index: MemberIndex) -> usize {
        self.upstreams[index.as_usize()]
    }
}

/// A conversation of a client.
pub(super) struct SimulatedSession {
    pub key: SessionKey,
    /// The size of a request's body in bytes.
    pub bytes: u64,
    /// The upstream that made the latest response.
    pub owner: Option<UpstreamId>,
    /// Whether every upstream fails its requests.
    pub is_poisoned: bool,
    /// The organizations that have the prompt in their cache, and when they last read it.
    pub cached: BTreeMap<OrganizationId, Tick>,
}

/// The origin of a request: a session with this index, or a client without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RequestOrigin {
    Session(usize),
    Keyless,
}

pub(super) struct SimulatedRequest {
    pub origin: RequestOrigin,
    pub model: ModelKey,
    pub endpoint: EndpointClass,
    pub affinity: Affinity,
    pub pin: Option<UpstreamId>,
    /// The configuration with which the request began.
    pub snapshot: Rc<SimulatedConfig>,
    pub random: u64,
    pub stays_until: Tick,
    pub waits_until: Tick,
    pub resets_until: Tick,
    pub recovers_until: Tick,
    /// Whether every upstream fails the request.
    pub is_poisoned: bool,
    /// The failed attempts that count if another upstream serves the request.
    pub withheld: Vec<SentRequest>,
    /// The upstreams that have failed the request.
    pub tried: Vec<usize>,
    /// The upstreams whose limits the request can wait out.
    pub limited: Vec<usize>,
    pub sent: u32,
    pub stage: RequestStage,
    /// The number of the next step. A step that was scheduled for an earlier stage has another number and is not
    /// performed.
    pub step: u32,
}

impl SimulatedRequest {
    pub(super) fn class(&self) -> RequestClass {
        RequestClass {
            endpoint: self.endpoint,
            model: Some(self.model),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum RequestStage {
    Arrived,
    Waiting { at: usize },
    Sent(SentRequest),
    Streaming(SentRequest),
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SimulatedEvent {
    Arrival(RequestOrigin),
    /// A request's next step, unless it was performed already.
    NextStep {
        request: usize,
        step: u32,
    },
    /// The client of a request leaves.
    ClientLeaves(usize),
    Trouble {
        upstream: usize,
    },
    Repaired {
        upstream: usize,
    },
    Drain(usize),
    Enable(usize),
    Reload,
    /// A second has passed.
    Second,
    /// All trouble ends.
    TroubleEnds,
    /// One new session begins for every upstream, so that every upstream gets a request.
    NewSessions,
}

pub(super) struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now: Tick,
    pub event_queue: BinaryHeap<Reverse<(Tick, u64, SimulatedEvent)>>,
    entries: u64,
    pub upstreams: Vec<SimulatedUpstream>,
    /// The typical time to the first output at all upstreams, which does not depend on the model here.
    pub model_time: ModelTime,
    /// The upstreams whose slots, health or queue have just changed.
    pub changed: Vec<usize>,
    pub snapshot: Rc<SimulatedConfig>,
    pub sessions: Vec<SimulatedSession>,
    pub requests: Vec<SimulatedRequest>,
    pub models: [ModelKey; 2],
    pub pins: Pins,
    pub budget: RetryBudget,
    pub cap: EjectionCap,
    /// The number of upstreams that were ejected at the last reload, for each class. It may be more than the new maximum.
    pub ejected_at_reload: [usize; EndpointClass::COUNT],
    pub history: History,
    pub counts: SimulationCounts,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let mut upstreams: Vec<SimulatedUpstream> = (0..rng.usize(2..7))
            .map(|n| SimulatedUpstream::new(n, &mut rng))
            .collect();
        // At least one upstream must be configured and serve every model.
        upstreams[0].is_configured = true;
        upstreams[0].member.class = 0;
        if let Some(focus) = plan.focus {
            focus_on(focus, &mut upstreams);
        }
        let sessions = match plan.focus {
            Some(_) => 60,
            None => rng.usize(3..40),
        };
        let mut sessions: Vec<SimulatedSession> = (0..sessions)
            .map(|n| session(&format!("session-{n}"), &mut rng))
            .collect();
        let poisoned = match plan.focus {
            Some(Focus::Poisoned) => 6,
            Some(_) => 0,
            None => usize::from(!plan.only_limits && rng.bool()),
        };
        sessions[..poisoned]
            .iter_mut()
            .for_each(|session| session.is_poisoned = true);
        Self {
            plan: *plan,
            rng,
            now: Tick::ZERO.after(START),
            event_queue: BinaryHeap::new(),
            entries: 0,
            snapshot: Rc::new(configuration(&upstreams)),
            cap: EjectionCap::new(upstreams.iter().filter(|it| it.is_configured).count(), MAX_EJECTED),
            ejected_at_reload: [0; EndpointClass::COUNT],
            upstreams,
            model_time: ModelTime::default(),
            changed: Vec::new(),
            sessions,
            requests: Vec::new(),
            models: ["a", "b"].map(ModelKey::from_name),
            pins: Pins::new(10_000, secs(3_600)),
            budget: RetryBudget::new(SHARE),
            history: History::default(),
            counts: SimulationCounts::default(),
        }
    }

    pub(super) fn schedule(&mut self, delay: Duration, event: SimulatedEvent) {
        self.entries += 1;
        self.event_queue
            .push(Reverse((self.now.after(delay), self.entries, event)));
    }

    /// Returns the candidates for the request, best first, as indexes in the pool of its configuration.
    pub(super) fn candidates(&self, request: usize) -> impl Iterator<Item = Candidate> {
        let SimulatedRequest {
            affinity,
            pin,
            model,
            random,
            snapshot,
            ..
        } = &self.requests[request];
        let serves_all = *model == self.models[0];
        let in_flight = |index| self.upstreams[snapshot.upstream(index)].in_flight;
        candidates(
            &snapshot.pool,
            Preference {
                affinity: *affinity,
                pin: *pin,
                ..Preference::default()
            },
            move |class| class == 0 || serves_all,
            *random,
            in_flight,
        )
    }

    pub(super) fn availability_to(&self, request: usize, upstream: usize) -> Availability {
        let it = &self.upstreams[upstream];
        let availability = it.health.availability(self.requests[request].class(), self.now);
        match availability {
            Availability::Ready if !self.has_slot(request, upstream) => Availability::Full,
            availability => availability,
        }
    }

    /// Whether there is a slot for the request for which no earlier request waits.
    pub(super) fn has_slot(&self, request: usize, upstream: usize) -> bool {
        let it = &self.upstreams[upstream];
        let mut before = it.waiting.iter().take_while(|waiting| **waiting != request);
        let wants = |waiting: &usize| it.is_ready(self.requests[*waiting].class(), self.now);
        it.slots.is_none() || (it.has_free_slot() && !before.any(wants))
    }

    /// Whether no other event happens at the same moment.
    pub(super) fn is_end_of_tick(&self) -> bool {
        self.event_queue.peek().is_none_or(|Reverse((at, ..))| self.now < *at)
    }
}

pub(super) fn session(name: &str, rng: &mut Rng) -> SimulatedSession {
    SimulatedSession {
        key: SessionKey::from_text(Namespace::of_group(""), name),
        bytes: rng.u64(..1_500_000),
        owner: None,
        is_poisoned: false,
        cached: BTreeMap::new(),
    }
}

/// Makes all upstreams work, except for the trouble of `focus`.
fn focus_on(focus: Focus, upstreams: &mut Vec<SimulatedUpstream>) {
    upstreams.truncate(4);
    for (n, upstream) in upstreams.iter_mut().enumerate() {
        upstream.is_configured = true;
        upstream.slots = None;
        upstream.member.class = 0;
        upstream.member.weight = Weight::ONE;
        upstream.member.organization = OrganizationId::from_name(&format!("organization-of-{n}"));
    }
    upstreams[0].condition = match focus {
        Focus::HalfBroken { percent } => Condition::Fails { percent },
        Focus::Slow { factor } => Condition::Slow { factor },
        Focus::Poisoned => Condition::Works,
    };
}

pub(super) fn configuration(upstreams: &[SimulatedUpstream]) -> SimulatedConfig {
    let configured = upstreams
        .iter()
        .enumerate()
        .filter(|(_, upstream)| upstream.is_configured);
    let (upstreams, members): (Vec<_>, Vec<_>) = configured.map(|(n, upstream)| (n, upstream.member)).unzip();
    SimulatedConfig {
        pool: Rendezvous::new(&members),
        upstreams,
    }
}
