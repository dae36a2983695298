//! The world: who calls, what happens to the upstreams, and in which order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    rc::Rc,
    time::Duration,
};

use fastrand::Rng;

use super::{
    Plan, SHARE, SimulationCounts,
    history::History,
    request::{RequestOrigin, SimulatedRequest},
    secs,
    upstream::{Mood, SimulatedUpstream},
};
use crate::{
    ids::{ModelKey, Namespace, OrganizationId, SessionKey, UpstreamId},
    policy::{Pins, Rendezvous, RetryBudget},
    tick::Tick,
};

/// How long all is well after the last of the trouble. The longest ejection or cooldown that names no end lasts 300 s,
/// the same goes for what is remembered of it; the last of the hanging requests ends within 30 s.
const CALM: Duration = secs(800);
const CALM_ROUND: Duration = secs(50);
/// How long an upstream keeps a prompt.
const CACHE_LIFE: Duration = secs(300);

/// A configuration.
pub(super) struct SimulatedConfig {
    pub pool: Rendezvous,
    /// For each member of the pool, which upstream of the world it is.
    pub upstreams: Vec<usize>,
}

/// A conversation.
pub(super) struct SimulatedSession {
    pub key: SessionKey,
    /// Of a request's body.
    pub bytes: u64,
    /// Who made its latest response.
    pub owner: Option<UpstreamId>,
    /// Who has its prompt, and when it was last read there.
    cached: BTreeMap<OrganizationId, Tick>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    Arrival(RequestOrigin),
    /// A request's next turn, unless it has had it already.
    Turn {
        request: usize,
        turn: u32,
    },
    /// A request's client leaves.
    Leave(usize),
    Trouble {
        upstream: usize,
    },
    Mended {
        upstream: usize,
    },
    Drain(usize),
    Enable(usize),
    Reload,
    /// All trouble is over.
    Calm,
    /// One new session for every upstream, so that nobody is left out.
    Round,
}

pub(super) struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now: Tick,
    agenda: BinaryHeap<Reverse<(Tick, u64, Happening)>>,
    entries: u64,
    pub upstreams: Vec<SimulatedUpstream>,
    /// Those whose slots, health or queue have changed just now.
    pub changed: Vec<usize>,
    pub snapshot: Rc<SimulatedConfig>,
    pub sessions: Vec<SimulatedSession>,
    pub requests: Vec<SimulatedRequest>,
    pub models: [ModelKey; 2],
    pub pins: Pins,
    pub budget: RetryBudget,
    pub history: History,
    pub counts: SimulationCounts,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let mut upstreams: Vec<SimulatedUpstream> = (0..rng.usize(2..7))
            .map(|n| SimulatedUpstream::new(n, &mut rng))
            .collect();
        // Somebody must be there who serves everything.
        upstreams[0].is_configured = true;
        upstreams[0].member.class = 0;
        let sessions = (0..rng.usize(3..40))
            .map(|n| session(&format!("session-{n}"), &mut rng))
            .collect();
        let mut world = Self {
            plan: *plan,
            rng,
            now: Tick::ZERO.after(secs(1_000)),
            agenda: BinaryHeap::new(),
            entries: 0,
            snapshot: Rc::new(configuration(&upstreams)),
            upstreams,
            changed: Vec::new(),
            sessions,
            requests: Vec::new(),
            models: ["a", "b"].map(ModelKey::from_name),
            pins: Pins::new(10_000, secs(3_600)),
            budget: RetryBudget::new(SHARE),
            history: History::default(),
            counts: SimulationCounts::default(),
        };
        world.make_plans();
        world
    }

    pub(super) fn run(mut self) -> SimulationCounts {
        while let Some(Reverse((at, _, happening))) = self.agenda.pop() {
            self.now = at;
            self.happens(happening);
            while let Some(upstream) = self.changed.pop() {
                self.look_again(upstream);
            }
            self.check_slots();
        }
        self.check_end();
        self.counts
    }

    pub(super) fn schedule(&mut self, delay: Duration, happening: Happening) {
        self.entries += 1;
        self.agenda
            .push(Reverse((self.now.after(delay), self.entries, happening)));
    }

    /// Whether nothing more happens at this very moment.
    pub(super) fn is_end_of_tick(&self) -> bool {
        self.agenda.peek().is_none_or(|Reverse((at, ..))| self.now < *at)
    }

    fn make_plans(&mut self) {
        let chaos = self.plan.chaos;
        for _ in 0..self.plan.requests {
            let caller = match self.rng.u8(..12) {
                0 if !self.plan.only_limits => RequestOrigin::Keyless,
                _ => RequestOrigin::Session(self.rng.usize(..self.sessions.len())),
            };
            let at = self.within(chaos);
            self.schedule(at, Happening::Arrival(caller));
        }
        for upstream in 0..self.upstreams.len() {
            for _ in 0..self.rng.u8(..6) {
                let at = self.within(chaos);
                self.schedule(at, Happening::Trouble { upstream });
            }
        }
        if !self.plan.only_limits {
            for _ in 0..self.rng.u8(..4) {
                let (at, upstream) = (self.within(chaos), self.rng.usize(..self.upstreams.len()));
                self.schedule(at, Happening::Drain(upstream));
                let at = at + self.within(chaos);
                self.schedule(at, Happening::Enable(upstream));
            }
            for _ in 0..self.rng.u8(..5) {
                let at = self.within(chaos);
                self.schedule(at, Happening::Reload);
            }
        }
        self.schedule(chaos, Happening::Calm);
        let mut at = chaos;
        while at < chaos + CALM {
            self.schedule(at, Happening::Round);
            at += CALM_ROUND;
        }
    }

    fn within(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.f64())
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival(caller) => self.arrive(caller),
            Happening::Turn { request, turn } => self.turn(request, turn),
            Happening::Leave(request) => self.leave(request),
            Happening::Trouble { upstream } => self.trouble(upstream),
            Happening::Mended { upstream } => self.upstreams[upstream].mood = Mood::Works,
            Happening::Drain(upstream) => {
                self.upstreams[upstream].health.drain();
                self.changed.push(upstream);
            }
            Happening::Enable(upstream) => {
                self.upstreams[upstream].health.enable(self.now);
                self.history.enabled(upstream);
                self.changed.push(upstream);
            }
            Happening::Reload => {
                for upstream in self.upstreams.iter_mut().skip(1) {
                    upstream.is_configured ^= self.rng.u8(..4) == 0;
                }
                self.reload();
            }
            Happening::Calm => self.calm(),
            Happening::Round => self.round(),
        }
    }

    fn trouble(&mut self, upstream: usize) {
        let lasts = Duration::from_millis(self.rng.u64(1_000..60_000));
        let limited = Mood::Limited {
            until: self.now.after(lasts),
            named: self.plan.only_limits || self.rng.bool(),
            honest: self.plan.only_limits || self.rng.u8(..4) > 0,
            model: self.rng.bool().then_some(self.models[0]),
        };
        self.upstreams[upstream].mood = match self.rng.u8(..8) {
            _ if self.plan.only_limits => limited,
            0..4 => limited,
            4 | 5 => Mood::Fails {
                of_ten: self.rng.u8(3..11),
            },
            6 => Mood::Hangs,
            _ => Mood::Refuses,
        };
        self.schedule(lasts, Happening::Mended { upstream });
    }

    fn reload(&mut self) {
        self.snapshot = Rc::new(configuration(&self.upstreams));
        for upstream in 0..self.upstreams.len() {
            self.upstreams[upstream].health.record_reload(self.now);
            self.history.reloaded(upstream, self.now);
            self.changed.push(upstream);
        }
    }

    /// What was drained is enabled, everybody is configured, and nothing is wrong from now on. What the gateway has
    /// against an upstream it must find out for itself to be over.
    fn calm(&mut self) {
        self.agenda = std::mem::take(&mut self.agenda)
            .into_iter()
            .filter(|Reverse((.., happening))| {
                use Happening::{Drain, Enable, Reload, Trouble};
                !matches!(happening, Trouble { .. } | Drain(_) | Enable(_) | Reload)
            })
            .collect();
        for upstream in 0..self.upstreams.len() {
            let it = &mut self.upstreams[upstream];
            (it.mood, it.is_configured) = (Mood::Works, true);
            if it.health.badness(None, self.now).is_none() {
                self.happens(Happening::Enable(upstream));
            }
        }
        // Not a reload: that would have the disabled ones probed sooner.
        self.snapshot = Rc::new(configuration(&self.upstreams));
    }

    fn round(&mut self) {
        for home in 0..self.upstreams.len() {
            let session = loop {
                let session = session(&format!("late-{}", self.rng.u64(..)), &mut self.rng);
                let found = self.snapshot.pool.home(session.key, |_| true);
                if found.is_some_and(|index| self.snapshot.upstreams[index] == home) {
                    break session;
                }
            };
            self.sessions.push(session);
            self.arrive(RequestOrigin::Session(self.sessions.len() - 1));
        }
    }

    /// A session's prompt was read by this upstream.
    pub(super) fn read(&mut self, session: usize, upstream: usize) {
        let organization = self.upstreams[upstream].member.organization;
        let session = &mut self.sessions[session];
        let last = session.cached.insert(organization, self.now);
        let is_warm = last.is_some_and(|last| self.now.since(last) < CACHE_LIFE);
        self.counts.input_bytes += session.bytes;
        self.counts.cached_bytes += if is_warm { session.bytes } else { 0 };
    }
}

fn session(name: &str, rng: &mut Rng) -> SimulatedSession {
    SimulatedSession {
        key: SessionKey::from_text(Namespace::of_group(""), name),
        bytes: rng.u64(..1_500_000),
        owner: None,
        cached: BTreeMap::new(),
    }
}

fn configuration(upstreams: &[SimulatedUpstream]) -> SimulatedConfig {
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
