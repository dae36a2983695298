//! Random sequences of verdicts of one upstream.

use proptest::prelude::*;

use super::{super::cooldowns::BACKOFF_MEMORY, *};

#[derive(Clone, Debug)]
enum HealthStep {
    Pause(u64),
    Begin(RequestClass),
    /// The request in flight with this index (modulo their number) gets this verdict.
    End(usize, Verdict),
    /// The whole response to the served request with this index (modulo their number) arrives.
    Complete(usize),
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

fn classes() -> impl Strategy<Value = RequestClass> {
    let endpoint = prop_oneof![
        Just(EndpointClass::Generation),
        prop::sample::select(&EndpointClass::ALL)
    ];
    (endpoint, prop::option::of(0u8..20)).prop_map(|(endpoint, n)| RequestClass {
        endpoint,
        model: n.map(model),
    })
}

fn steps() -> impl Strategy<Value = Vec<HealthStep>> {
    let pause = prop_oneof![0u64..2_000, 0u64..40_000, 0u64..400_000];
    let step = prop_oneof![
        6 => pause.prop_map(HealthStep::Pause),
        10 => classes().prop_map(HealthStep::Begin),
        10 => (any::<usize>(), verdicts()).prop_map(|(at, verdict)| HealthStep::End(at, verdict)),
        2 => any::<usize>().prop_map(HealthStep::Complete),
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
    /// The requests that were served, and whose responses still arrive.
    served: Vec<Attempt>,
    classes: [ClassRun; EndpointClass::COUNT],
}

/// The facts about one class of endpoints that an observer knows.
#[derive(Clone, Copy, Default)]
struct ClassRun {
    /// The number of failures since the upstream last answered to the end.
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
            served: Vec::new(),
            classes: [ClassRun::default(); EndpointClass::COUNT],
        }
    }

    fn step(&mut self, step: HealthStep, random: u64) {
        let in_flight = self.in_flight.len();
        match step {
            HealthStep::Pause(millis) => self.now = self.now.after(Duration::from_millis(millis)),
            HealthStep::Begin(class) => self.begin(class),
            HealthStep::End(at, verdict) if in_flight > 0 => {
                let attempt = self.in_flight.swap_remove(at % in_flight);
                self.end(attempt, verdict, random);
            }
            HealthStep::Abandon(at) if in_flight > 0 => {
                let attempt = self.in_flight.swap_remove(at % in_flight);
                self.health.abandon(attempt);
            }
            HealthStep::Complete(at) if !self.served.is_empty() => {
                let attempt = self.served.swap_remove(at % self.served.len());
                self.health.complete(attempt);
                self.classes[attempt.request.endpoint as usize].failures = 0;
            }
            HealthStep::End(..) | HealthStep::Abandon(_) | HealthStep::Complete(_) => {}
            HealthStep::Expire => while self.health.expire(self.now).is_some() {},
            HealthStep::Drain => _ = self.health.drain(),
            HealthStep::Enable => _ = self.health.enable(self.now),
            HealthStep::Reload => self.health.record_reload(self.now),
        }
        self.check();
    }

    fn begin(&mut self, class: RequestClass) {
        let was_plain = self.health.is_plain();
        let was_ready = self.health.availability(class, self.now) == Availability::Ready;
        let attempt = self.health.begin(class, self.now);
        let is_out = self.health.refusal.is_some() || self.health.is_ejected(class.endpoint);
        assert!(is_out || !attempt.is_probe());
        if was_ready && is_out {
            assert!(attempt.is_probe());
            assert_ne!(self.health.availability(class, self.now), Availability::Ready);
        }
        if was_plain {
            assert_eq!(attempt, Attempt::plain(class, self.now));
            assert!(self.health.is_plain());
        }
        self.in_flight.push(attempt);
    }

    fn end(&mut self, attempt: Attempt, verdict: Verdict, random: u64) {
        let endpoint = attempt.request.endpoint;
        let run = &mut self.classes[endpoint as usize];
        match verdict {
            Verdict::Failed => run.failures += 1,
            // A refusal of a credential from before a reload has no effect. It does not even show that the upstream
            // works.
            Verdict::Refused | Verdict::Unauthorized | Verdict::Looped => {}
            Verdict::Served => self.served.push(attempt),
            Verdict::Answered | Verdict::ModelNotFound | Verdict::ObjectNotFound | Verdict::Limited { .. } => {
                run.failures = 0;
            }
        }
        let was_plain = self.health.is_plain();
        let before = self.health.clone();
        // At most places of the cap decide; here, odd random numbers leave no place.
        let mut asked = 0;
        let may_eject = |class| {
            assert_eq!(class, endpoint);
            asked += 1;
            random.is_multiple_of(2)
        };
        let transition = self.health.observe(attempt, verdict, self.now, random, may_eject);
        let after = &self.health;
        if was_plain && matches!(verdict, Verdict::Served | Verdict::Answered) {
            assert!(transition.is_none() && self.health.is_plain());
        }
        for other in EndpointClass::ALL.into_iter().filter(|other| *other != endpoint) {
            assert!(
                before.is_ejected(other) || !after.is_ejected(other),
                "a verdict ejects no other class"
            );
            assert!(
                after.is_ejected(other) || !before.is_ejected(other) || transition == Some(Transition::Disabled),
                "a verdict ends no ejection of another class"
            );
        }
        if after.is_ejected(endpoint) && !before.is_ejected(endpoint) {
            let run = self.classes[endpoint as usize];
            assert!(run.failures >= EJECT_AFTER && verdict == Verdict::Failed);
            assert!(matches!(transition, Some(Transition::Ejected { .. })));
            assert_eq!((asked, random % 2), (1, 0));
        }
        if let Some(Transition::Ejected { .. }) = transition {
            let earlier = self.classes[endpoint as usize].ejected.replace(self.now);
            let shortest = EJECTION.mul_f64(0.75);
            assert!(earlier.is_none_or(|earlier| self.now.since(earlier) >= shortest));
        }
        if after.refusal.is_some() && before.refusal.is_none() {
            assert_eq!((verdict, transition), (Verdict::Refused, Some(Transition::Disabled)));
        }
    }

    fn check(&mut self) {
        let status = self.health.describe(self.now);
        for endpoint in EndpointClass::ALL {
            if !self.health.is_ejected(endpoint) {
                self.classes[endpoint as usize].ejected = None;
            }
            for wanted in (0..20).map(model).map(Some).chain([None]) {
                self.check_availability(
                    RequestClass {
                        endpoint,
                        model: wanted,
                    },
                    &status,
                );
            }
            assert!(self.health.refusal.is_none() || !self.health.is_ejected(endpoint));
        }
        let out = matches!(status.state, HealthState::Ejected | HealthState::Disabled);
        assert!(!out || status.until.is_some_and(|until| until.since(self.now) <= EJECTION_MAX));
        assert!(status.cooling_models <= MODELS_MAX);
    }

    fn check_availability(&self, class: RequestClass, status: &HealthStatus) {
        let ahead = |until: Tick, most: Duration| self.now < until && until.since(self.now) <= most;
        let availability = self.health.availability(class, self.now);
        let is_possible = match availability {
            Availability::Ready => status.state != HealthState::Draining,
            Availability::Cooling { until, .. } => ahead(until, RESET_MAX),
            // An ejection lasts at most as long as a limit that was known before it.
            Availability::Ejected { until } => self.health.is_ejected(class.endpoint) && ahead(until, RESET_MAX),
            Availability::Disabled { until } => status.state == HealthState::Disabled && ahead(until, RESET_MAX),
            Availability::Draining => status.state == HealthState::Draining,
            Availability::Full => false,
        };
        assert!(is_possible, "{availability:?} at {:?}: {status:?}", self.now);
        assert!(availability == Availability::Ready || !self.health.is_plain());
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
        if run.health.availability(ANY, run.now) == Availability::Draining {
            run.health.enable(run.now);
        }
        run.now = run.now.after(RESET_MAX + PROBE_DISABLED + BACKOFF_MEMORY);
        while run.health.expire(run.now).is_some() {}
        for endpoint in EndpointClass::ALL {
            for wanted in (0..20).map(model).map(Some).chain([None]) {
                let class = RequestClass { endpoint, model: wanted };
                prop_assert_eq!(run.health.availability(class, run.now), Availability::Ready);
            }
            // One request of each class is enough to make the health plain again.
            let attempt = run.health.begin(RequestClass { endpoint, model: None }, run.now);
            let transition = run.health.observe(attempt, Verdict::Served, run.now, 0, |_| true);
            run.health.complete(attempt);
            // If the class was out until now, the requests in flight were sent before it recovered.
            if let Some(Transition::Recovered { from: HealthState::Ejected, .. }) = transition {
                let before = run.in_flight.iter().filter(|attempt| attempt.request.endpoint == endpoint);
                for attempt in before {
                    for verdict in [Verdict::Failed, Verdict::Refused] {
                        prop_assert_eq!(run.health.observe(*attempt, verdict, run.now, 0, |_| true), None);
                    }
                }
            }
        }
        prop_assert!(run.health.is_plain(), "{:?}", run.health);
    }

    #[test]
    fn the_jitter_is_at_most_a_quarter(seconds in 1u64..300, random: u64) {
        let base = Duration::from_secs(seconds);
        let got = jittered(base, random);
        prop_assert!(base.mul_f64(0.75) <= got && got <= base.mul_f64(1.25));
    }
}
