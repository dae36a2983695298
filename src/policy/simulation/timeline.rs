//! The events of a simulation, in the order of time: requests of clients, and trouble of upstreams.

use std::{cmp::Reverse, rc::Rc, time::Duration};

use super::{
    plan::{MAX_EJECTED, SIMULATED_CLASSES, SimulationCounts, secs},
    upstream::Condition,
    world::{RequestOrigin, SimulatedEvent, World, configuration, session},
};
use crate::{
    endpoint::EndpointClass,
    policy::{Availability, EjectionCap, RequestClass},
};

/// The time without trouble at the end of a simulation. The longest ejection or cooldown without a named end lasts
/// 300 s, and its memory as long again; the last hanging request ends within 30 s.
const CALM: Duration = secs(800);
const CALM_ROUND: Duration = secs(50);

impl World {
    pub(super) fn run(mut self) -> SimulationCounts {
        self.schedule_all();
        while let Some(Reverse((at, _, event))) = self.event_queue.pop() {
            self.now = at;
            self.apply(event);
            while let Some(upstream) = self.changed.pop() {
                self.advance_waiting(upstream);
            }
            self.check_slots();
            self.check_ejections();
        }
        self.check_end();
        self.counts
    }

    fn schedule_all(&mut self) {
        let chaos = self.plan.chaos;
        for _ in 0..self.plan.requests {
            let origin = match self.rng.u8(..12) {
                0 if !self.plan.only_limits => RequestOrigin::Keyless,
                _ => RequestOrigin::Session(self.rng.usize(..self.sessions.len())),
            };
            let at = self.within(chaos);
            self.schedule(at, SimulatedEvent::Arrival(origin));
        }
        let troubled = if self.plan.focus.is_some() {
            0
        } else {
            self.upstreams.len()
        };
        for upstream in 0..troubled {
            for _ in 0..self.rng.u8(..6) {
                let at = self.within(chaos);
                self.schedule(at, SimulatedEvent::Trouble { upstream });
            }
        }
        if !self.plan.only_limits && self.plan.focus.is_none() {
            for _ in 0..self.rng.u8(..4) {
                let (at, upstream) = (self.within(chaos), self.rng.usize(..self.upstreams.len()));
                self.schedule(at, SimulatedEvent::Drain(upstream));
                let at = at + self.within(chaos);
                self.schedule(at, SimulatedEvent::Enable(upstream));
            }
            for _ in 0..self.rng.u8(..5) {
                let at = self.within(chaos);
                self.schedule(at, SimulatedEvent::Reload);
            }
        }
        self.schedule(secs(1), SimulatedEvent::Second);
        self.schedule(chaos, SimulatedEvent::TroubleEnds);
        let mut at = chaos;
        while at < chaos + CALM {
            self.schedule(at, SimulatedEvent::NewSessions);
            at += CALM_ROUND;
        }
    }

    fn within(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.f64())
    }

    fn apply(&mut self, event: SimulatedEvent) {
        match event {
            SimulatedEvent::Arrival(origin) => self.arrive(origin),
            SimulatedEvent::NextStep { request, step } => self.step(request, step),
            SimulatedEvent::ClientLeaves(request) => self.leave(request),
            SimulatedEvent::Trouble { upstream } => self.start_trouble(upstream),
            SimulatedEvent::Repaired { upstream } => self.upstreams[upstream].condition = Condition::Works,
            SimulatedEvent::Drain(upstream) => {
                self.upstreams[upstream].health.drain();
                self.changed.push(upstream);
            }
            SimulatedEvent::Enable(upstream) => {
                let was_ejected = self.ejections(upstream);
                self.upstreams[upstream].health.enable(self.now);
                self.count_end_of_ejection(upstream, was_ejected);
                self.history.record_enabling(upstream);
                self.changed.push(upstream);
            }
            SimulatedEvent::Reload => {
                for upstream in self.upstreams.iter_mut().skip(1) {
                    upstream.is_configured ^= self.rng.u8(..4) == 0;
                }
                self.reload();
            }
            SimulatedEvent::Second => self.pass_second(),
            SimulatedEvent::TroubleEnds => self.end_trouble(),
            SimulatedEvent::NewSessions => self.start_new_sessions(),
        }
    }

    fn start_trouble(&mut self, upstream: usize) {
        // Some limits last so long that they are probed before their end.
        let is_long = !self.plan.only_limits && self.rng.bool();
        let lasts = Duration::from_millis(self.rng.u64(1_000..if is_long { 400_000 } else { 60_000 }));
        let limited = Condition::Limited {
            until: self.now.after(lasts),
            named: self.plan.only_limits || self.rng.bool(),
            honest: self.plan.only_limits || self.rng.u8(..4) > 0,
            model: self.rng.bool().then_some(self.models[0]),
        };
        self.upstreams[upstream].condition = match self.rng.u8(..10) {
            _ if self.plan.only_limits => limited,
            // In a storm, most upstreams fail at the same time.
            0..6 if self.plan.is_storm() => Condition::Fails {
                percent: self.rng.u8(60..101),
            },
            0..4 => limited,
            4 => Condition::Fails {
                percent: self.rng.u8(20..46),
            },
            5 | 6 => Condition::Fails {
                percent: self.rng.u8(46..101),
            },
            7 => Condition::Slow {
                factor: self.rng.u32(2..10),
            },
            8 => Condition::Hangs,
            _ => Condition::Refuses,
        };
        let affected = self.rng.u8(..4) == 0 && !self.plan.only_limits;
        self.upstreams[upstream].affected = affected.then(|| self.endpoint());
        self.schedule(lasts, SimulatedEvent::Repaired { upstream });
    }

    fn reload(&mut self) {
        self.configure();
        for upstream in 0..self.upstreams.len() {
            self.upstreams[upstream].health.record_reload(self.now);
            self.history.record_reload(upstream, self.now);
            self.changed.push(upstream);
        }
    }

    /// Ends all trouble: draining upstreams are enabled, all upstreams are configured, and all upstreams work from
    /// now on. The gateway must find out by itself that an outage is over.
    fn end_trouble(&mut self) {
        self.event_queue = std::mem::take(&mut self.event_queue)
            .into_iter()
            .filter(|Reverse((.., event))| {
                use SimulatedEvent::{Drain, Enable, Reload, Trouble};
                !matches!(event, Trouble { .. } | Drain(_) | Enable(_) | Reload)
            })
            .collect();
        self.sessions.iter_mut().for_each(|session| session.is_poisoned = false);
        for it in &mut self.upstreams {
            (it.condition, it.is_configured) = (Condition::Works, true);
        }
        // This is not a reload, because a reload would make a probe of disabled upstreams due at once.
        self.configure();
        for upstream in 0..self.upstreams.len() {
            let it = &self.upstreams[upstream];
            if it.health.availability(RequestClass::generation(None), self.now) == Availability::Draining {
                self.apply(SimulatedEvent::Enable(upstream));
            }
        }
    }

    /// Makes a snapshot of the configured upstreams, and counts which of them are ejected.
    fn configure(&mut self) {
        self.snapshot = Rc::new(configuration(&self.upstreams));
        let configured = self.upstreams.iter().filter(|upstream| upstream.is_configured);
        self.cap = EjectionCap::new(configured.clone().count(), MAX_EJECTED);
        for class in EndpointClass::ALL {
            let ejected = configured.clone().filter(|upstream| upstream.health.is_ejected(class));
            ejected.for_each(|_| self.cap.take(class));
            self.ejected_at_reload[class as usize] = self.cap.ejected(class);
        }
    }

    fn start_new_sessions(&mut self) {
        for home in 0..self.upstreams.len() {
            let session = loop {
                let session = session(&format!("late-{}", self.rng.u64(..)), &mut self.rng);
                let found = self.snapshot.pool.home(session.key, |_| true);
                if found.is_some_and(|index| self.snapshot.upstream(index) == home) {
                    break session;
                }
            };
            self.sessions.push(session);
            for endpoint in SIMULATED_CLASSES {
                self.arrive_at(RequestOrigin::Session(self.sessions.len() - 1), endpoint);
            }
        }
    }
}
