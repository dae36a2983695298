//! Random sequences of verdicts of one upstream.

use crate::policy::LimitCause;
use proptest::prelude::*;

use super::{super::cooldowns::BACKOFF_MEMORY, *};

#[derive(Clone, Debug)]
enum HealthStep {
    Pause(u64),
    Begin(Option<u8>),
    /// The request in flight with this index (modulo their number) gets this verdict.
    End(usize, Verdict),
    Abandon(usize),
    Expire,
    Drain,
    Enable,
    Reload,
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    let scope = prop_oneof![Just(Scope::Upstream), (0u8..20).prop_map(|n| Scope::Model(model(n)))];
    let reset = prop::option::of(prop_oneof![0u64..1_000, 0u64..100_000, any::<u64>()]);
    let limited = (reset, scope).prop_map(|(reset, scope)| Verdict::Limited {
        reset: reset.map(Duration::from_millis),
        scope,
        cause: LimitCause::Rate,
    });
    prop_oneof![
        2 => Just(Verdict::Served),
        1 => Just(Verdict::Answered),
        8 => Just(Verdict::Failed),
        3 => limited,
        1 => Just(Verdict::Refused),
    ]
}

fn steps() -> impl Strategy<Value = Vec<HealthStep>> {
    let pause = prop_oneof![0u64..2_000, 0u64..40_000, 0u64..400_000];
    let step = prop_oneof![
        6 => pause.prop_map(HealthStep::Pause),
        10 => prop::option::of(0u8..20).prop_map(HealthStep::Begin),
        10 => (any::<usize>(), verdicts()).prop_map(|(at, verdict)| HealthStep::End(at, verdict)),
        1 => any::<usize>().prop_map(HealthStep::Abandon),
        2 => Just(HealthStep::Expire),
        1 => Just(HealthStep::Drain),
        1 => Just(HealthStep::Enable),
        1 => Just(HealthStep::Reload),
    ];
    prop::collection::vec(step, 0..300)
}

/// One upstream, and the facts about it that an observer knows.
struct HealthRun {
    health: Health,
    now: Tick,
    in_flight: Vec<Attempt>,
    /// The number of failures since the upstream last answered.
    failures: u32,
    /// When the upstream was last ejected or its ejection was prolonged, unless it has recovered since.
    ejected: Option<Tick>,
}

impl HealthRun {
    fn new() -> Self {
        Self {
            health: Health::new(),
            now: Tick::ZERO,
            in_flight: Vec::new(),
            failures: 0,
            ejected: None,
        }
    }

    fn step(&mut self, step: HealthStep, random: u64) {
        let in_flight = self.in_flight.len();
        match step {
            HealthStep::Pause(millis) => self.now = self.now.after(Duration::from_millis(millis)),
            HealthStep::Begin(wanted) => self.begin(wanted.map(model)),
            HealthStep::End(at, verdict) if in_flight > 0 => {
                let attempt = self.in_flight.swap_remove(at % in_flight);
                self.end(attempt, verdict, random);
            }
            HealthStep::Abandon(at) if in_flight > 0 => {
                let attempt = self.in_flight.swap_remove(at % in_flight);
                self.health.abandon(attempt);
            }
            HealthStep::End(..) | HealthStep::Abandon(_) => {}
            HealthStep::Expire => while self.health.expire(self.now).is_some() {},
            HealthStep::Drain => _ = self.health.drain(),
            HealthStep::Enable => _ = self.health.enable(self.now),
            HealthStep::Reload => self.health.record_reload(self.now),
        }
        self.check();
    }

    fn begin(&mut self, model: Option<ModelKey>) {
        let was_plain = self.health.is_plain();
        let was_ready = self.health.availability(model, self.now) == Availability::Ready;
        let attempt = self.health.begin(model, self.now);
        if was_ready && matches!(self.health.phase, HealthPhase::Out(_)) {
            assert!(attempt.is_probe);
            assert_ne!(self.health.availability(model, self.now), Availability::Ready);
        }
        if was_plain {
            assert_eq!(attempt, Attempt::plain(model, self.now));
            assert!(self.health.is_plain());
        }
        self.in_flight.push(attempt);
    }

    fn end(&mut self, attempt: Attempt, verdict: Verdict, random: u64) {
        match verdict {
            Verdict::Failed => self.failures += 1,
            // A refusal of a credential from before a reload has no effect. It does not even show that the upstream
            // works.
            Verdict::Refused | Verdict::Unauthorized => {}
            Verdict::Served | Verdict::Answered | Verdict::Limited { .. } => self.failures = 0,
        }
        let was_plain = self.health.is_plain();
        let before = self.health.describe(self.now);
        let transition = self.health.observe(attempt, verdict, self.now, random);
        let after = self.health.describe(self.now);
        if was_plain && matches!(verdict, Verdict::Served | Verdict::Answered) {
            assert!(transition.is_none() && self.health.is_plain());
        }
        if after.state == HealthState::Ejected && before.state != HealthState::Ejected {
            assert!(self.failures >= EJECT_AFTER && verdict == Verdict::Failed);
            assert!(matches!(transition, Some(Transition::Ejected { .. })));
        }
        if let Some(Transition::Ejected { .. }) = transition {
            let earlier = self.ejected.replace(self.now);
            let shortest = EJECTION.mul_f64(0.75);
            assert!(earlier.is_none_or(|earlier| self.now.since(earlier) >= shortest));
        }
        if after.state == HealthState::Disabled && before.state != HealthState::Disabled {
            assert_eq!((verdict, transition), (Verdict::Refused, Some(Transition::Disabled)));
        }
    }

    fn check(&mut self) {
        let ahead = |until: Tick, most: Duration| self.now < until && until.since(self.now) <= most;
        let status = self.health.describe(self.now);
        let is_ejected =
            matches!(&self.health.phase, HealthPhase::Out(outage) if outage.state() == HealthState::Ejected);
        if !is_ejected {
            self.ejected = None;
        }
        for wanted in (0..20).map(model).map(Some).chain([None]) {
            let availability = self.health.availability(wanted, self.now);
            let is_possible = match availability {
                Availability::Ready => {
                    assert!(matches!(
                        status.state,
                        HealthState::Ready | HealthState::Ejected | HealthState::Disabled
                    ));
                    true
                }
                Availability::Cooling { until, .. } => ahead(until, RESET_MAX),
                // An ejection lasts at most as long as a limit that was known before it.
                Availability::Ejected { until } => status.state == HealthState::Ejected && ahead(until, RESET_MAX),
                Availability::Disabled { until } => status.state == HealthState::Disabled && ahead(until, RESET_MAX),
                Availability::Draining => status.state == HealthState::Draining,
                Availability::Full => false,
            };
            assert!(is_possible, "{availability:?} at {:?}: {status:?}", self.now);
            assert!(availability == Availability::Ready || !self.health.is_plain());
            let badness = self.health.badness(wanted, self.now);
            assert_eq!(badness.is_none(), availability == Availability::Draining);
        }
        let out = matches!(status.state, HealthState::Ejected | HealthState::Disabled);
        assert!(!out || status.until.is_some_and(|until| until.since(self.now) <= EJECTION_MAX));
        assert!(status.cooling_models <= MODELS_MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_state_is_possible_and_none_outlives_its_cause(steps in steps(), seed: u64) {
        let mut run = HealthRun::new();
        let mut rng = fastrand::Rng::with_seed(seed);
        for step in steps {
            run.step(step, rng.u64(..));
        }

        // All causes end: the operator enables the upstream, and every limit has passed.
        if run.health.availability(None, run.now) == Availability::Draining {
            run.health.enable(run.now);
        }
        run.now = run.now.after(RESET_MAX + PROBE_DISABLED + BACKOFF_MEMORY);
        while run.health.expire(run.now).is_some() {}
        for wanted in (0..20).map(model).map(Some).chain([None]) {
            prop_assert_eq!(run.health.availability(wanted, run.now), Availability::Ready);
        }
        // One request is enough to make the health plain again.
        let attempt = run.health.begin(None, run.now);
        let transition = run.health.observe(attempt, Verdict::Served, run.now, 0);
        prop_assert!(run.health.is_plain(), "{:?}", run.health);
        // If the upstream was out until now, the requests in flight were sent before it recovered.
        if let Some(Transition::Recovered { .. }) = transition {
            for attempt in run.in_flight {
                for verdict in [Verdict::Failed, Verdict::Refused] {
                    prop_assert_eq!(run.health.observe(attempt, verdict, run.now, 0), None);
                }
            }
            prop_assert!(run.health.is_plain());
        }
    }

    #[test]
    fn the_jitter_is_at_most_a_quarter(seconds in 1u64..300, random: u64) {
        let base = Duration::from_secs(seconds);
        let got = jittered(base, random);
        prop_assert!(base.mul_f64(0.75) <= got && got <= base.mul_f64(1.25));
    }
}
