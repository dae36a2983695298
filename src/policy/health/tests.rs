//! Tests of each rule by itself. The module `properties` tests random sequences of events.

use std::time::Duration;

use super::{jitter::jittered, *};
use crate::{
    ids::ModelKey,
    policy::verdict::{LimitCause, Scope},
};

mod classes;
mod cooling;
mod ejection;
mod late;
mod properties;
mod quota;
mod texts;

/// A generation that names no model.
const ANY: RequestClass = RequestClass::generation(None);

/// The random number in the middle of the jitter, which leaves a duration as it is.
const MIDDLE: u64 = 1 << 63;

fn at(seconds: f64) -> Tick {
    Tick::ZERO.after(Duration::from_secs_f64(seconds))
}

fn model(n: u8) -> ModelKey {
    ModelKey::from_name(&n.to_string())
}

fn of_model(n: u8) -> RequestClass {
    RequestClass::generation(Some(model(n)))
}

/// Sends a request at `from`, which gets this verdict, and the whole response if it is served, at `to`.
fn request(health: &mut Health, from: f64, to: f64, verdict: Verdict) -> Option<Transition> {
    request_of(health, ANY, [from, to], verdict)
}

/// Does the same as [`request`] with a request of this class.
fn request_of(health: &mut Health, class: RequestClass, [from, to]: [f64; 2], verdict: Verdict) -> Option<Transition> {
    let attempt = health.begin(class, at(from));
    let transition = health.observe(attempt, verdict, at(to), MIDDLE, |_| true);
    if verdict == Verdict::Served {
        health.complete(attempt);
    }
    transition
}

/// The transition of an ejection for generations.
fn ejection(until: Tick, failures: u32) -> Transition {
    Transition::Ejected {
        until,
        failures,
        reason: Reason::ConsecutiveFailures,
        endpoint: EndpointClass::Generation,
    }
}

fn limited(reset: Option<f64>) -> Verdict {
    Verdict::Limited {
        reset: reset.map(Duration::from_secs_f64),
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    }
}

/// An upstream that was ejected at second 1. The first probe is due 30 s later.
fn ejected() -> Health {
    let mut health = Health::new();
    for _ in 1..EJECT_AFTER {
        assert_eq!(request(&mut health, 0.0, 1.0, Verdict::Failed), None);
    }
    let begun = ejection(about(31.0), EJECT_AFTER);
    assert_eq!(request(&mut health, 0.0, 1.0, Verdict::Failed), Some(begun));
    health
}

/// The moment `seconds` with the jitter of [`MIDDLE`], which is not exactly zero.
fn about(seconds: f64) -> Tick {
    let base = if seconds > 30.0 { seconds - 1.0 } else { seconds };
    at(seconds - base).after(jittered(Duration::from_secs_f64(base), MIDDLE))
}

fn state(health: &Health, now: f64) -> HealthState {
    health.describe(at(now)).state
}

#[test]
fn five_failures_in_a_row_eject() {
    let mut health = ejected();
    assert_eq!(
        health.availability(ANY, at(30.9)),
        Availability::Ejected { until: about(31.0) }
    );
    assert_eq!(
        health.availability(ANY, at(31.1)),
        Availability::Ready,
        "a probe is due"
    );
    assert_eq!(state(&health, 31.1), HealthState::Ejected);
    let status = health.describe(at(2.0));
    assert_eq!((status.failures, status.reason), (5, Some(Reason::ConsecutiveFailures)));
    assert_eq!(status.until, Some(about(31.0)));
    assert_eq!(health.enable(at(3.0)), Some(Transition::Enabled));
    assert!(health.is_plain());
}

#[test]
fn every_answer_interrupts_a_row_of_failures() {
    for verdict in [Verdict::Served, Verdict::Answered, limited(None)] {
        let mut health = Health::new();
        for n in 0..20 {
            let verdict = if n % 5 == 4 { verdict } else { Verdict::Failed };
            let transition = request(&mut health, 10.0 * f64::from(n), 10.0 * f64::from(n) + 1.0, verdict);
            assert!(!matches!(transition, Some(Transition::Ejected { .. })), "{verdict:?}");
        }
    }
}

#[test]
fn failures_are_forgotten_after_some_time() {
    let mut health = Health::new();
    for n in 0..20 {
        assert_eq!(
            request(&mut health, 301.0 * f64::from(n), 301.0 * f64::from(n), Verdict::Failed),
            None
        );
        assert_eq!(health.describe(at(301.0 * f64::from(n))).failures, 1);
    }
    assert_eq!(health.expire(at(19.0 * 301.0 + 300.0)), None);
    assert!(!health.is_plain());
    assert_eq!(health.expire(at(19.0 * 301.0 + 300.1)), None);
    assert!(health.is_plain());
}

#[test]
fn one_probe_at_a_time_is_sent() {
    let mut health = ejected();
    let probe = health.begin(ANY, at(40.0));
    assert!(probe.is_probe());
    assert_eq!(
        health.availability(ANY, at(40.0)),
        Availability::Ejected { until: at(50.0) }
    );
    assert!(!health.begin(ANY, at(41.0)).is_probe());
    assert_eq!(
        health.observe(probe, Verdict::Served, at(42.0), MIDDLE, |_| true),
        Some(Transition::Recovered {
            from: HealthState::Ejected,
            endpoint: EndpointClass::Generation,
        })
    );
    assert!(health.is_plain());
}

#[test]
fn a_probe_that_is_abandoned_or_late_does_not_block_the_next_one() {
    let mut health = ejected();
    let left = health.begin(ANY, at(40.0));
    health.abandon(left);
    assert_eq!(health.availability(ANY, at(40.0)), Availability::Ready);
    let silent = health.begin(ANY, at(40.5));
    assert!(silent.is_probe());
    health.abandon(left);
    assert!(
        !health.begin(ANY, at(50.4)).is_probe(),
        "an abandoned probe is released only once"
    );
    assert_eq!(health.availability(ANY, at(50.5)), Availability::Ready);
    let second = health.begin(ANY, at(50.5));
    assert!(second.is_probe());
    // The first verdict still counts, and the second no longer does.
    assert_eq!(
        health.observe(silent, Verdict::Answered, at(51.0), MIDDLE, |_| true),
        Some(Transition::Recovered {
            from: HealthState::Ejected,
            endpoint: EndpointClass::Generation,
        })
    );
    assert_eq!(
        health.observe(second, Verdict::Failed, at(52.0), MIDDLE, |_| true),
        None
    );
    assert!(health.is_plain());
}

#[test]
fn a_failed_probe_doubles_the_ejection_up_to_five_minutes() {
    let mut health = ejected();
    let mut now = 1.0;
    for (count, seconds) in [(6, 60.0), (7, 120.0), (8, 240.0), (9, 300.0), (10, 300.0)] {
        now += 400.0;
        let probe = health.begin(ANY, at(now));
        let transition = health.observe(probe, Verdict::Failed, at(now), MIDDLE, |_| true);
        let until = at(now).after(jittered(Duration::from_secs_f64(seconds), MIDDLE).min(EJECTION_MAX));
        assert_eq!(transition, Some(ejection(until, count)));
    }
    assert!(request(&mut health, now + 400.0, now + 401.0, Verdict::Served).is_some());
    now += 500.0;
    (1..EJECT_AFTER).for_each(|_| assert_eq!(request(&mut health, now, now, Verdict::Failed), None));
    let again = request(&mut health, now, now, Verdict::Failed);
    let until = at(now).after(jittered(EJECTION, MIDDLE));
    assert_eq!(again, Some(ejection(until, 5)), "the length starts anew");
}

#[test]
fn outdated_verdicts_change_nothing() {
    let mut health = Health::new();
    let old: Vec<_> = (0..20).map(|_| health.begin(ANY, at(0.0))).collect();
    let observe_old =
        |health: &mut Health, n: usize, verdict, now| health.observe(old[n], verdict, at(now), MIDDLE, |_| true);
    (0..5).for_each(|n| _ = observe_old(&mut health, n, Verdict::Failed, 1.0));
    let before = health.describe(at(2.0));
    for (n, verdict) in [Verdict::Failed, Verdict::Served, Verdict::Answered, Verdict::Refused]
        .into_iter()
        .enumerate()
    {
        assert_eq!(observe_old(&mut health, 5 + n, verdict, 2.0), None, "{verdict:?}");
        assert_eq!(health.describe(at(2.0)), before, "{verdict:?}");
    }
    assert!(request(&mut health, 40.0, 41.0, Verdict::Served).is_some());
    (9..20).for_each(|n| assert_eq!(observe_old(&mut health, n, Verdict::Failed, 42.0), None));
    assert!(health.is_plain());
    assert_eq!(observe_old(&mut health, 19, Verdict::Refused, 43.0), None);
    assert!(health.is_plain());
}

#[test]
fn a_request_that_is_sent_before_a_probe_is_due_is_no_probe_and_prolongs_nothing() {
    let mut health = ejected();
    let early = health.begin(ANY, at(5.0));
    assert!(!early.is_probe());
    assert_eq!(health.observe(early, Verdict::Failed, at(7.0), MIDDLE, |_| true), None);
    assert_eq!(
        health.availability(ANY, at(7.0)),
        Availability::Ejected { until: about(31.0) }
    );
    assert!(request(&mut health, 8.0, 9.0, Verdict::Served).is_some());
    assert!(health.is_plain());
}

#[test]
fn a_limited_probe_ends_the_ejection() {
    let mut health = ejected();
    let transition = request(&mut health, 40.0, 41.0, limited(Some(5.0)));
    assert!(matches!(transition, Some(Transition::Cooling { .. })));
    assert_eq!(
        health.availability(ANY, at(42.0)),
        Availability::Cooling {
            until: at(46.0),
            cause: LimitCause::Rate
        }
    );
    assert_eq!(health.availability(ANY, at(46.0)), Availability::Ready);
}

#[test]
fn a_refused_credential_disables_the_upstream_until_a_probe_is_answered() {
    let mut health = Health::new();
    let others = [(); 3].map(|()| health.begin(ANY, at(0.0)));
    assert_eq!(
        request(&mut health, 0.0, 1.0, Verdict::Refused),
        Some(Transition::Disabled)
    );
    let disabled = |until| Availability::Disabled { until: at(until) };
    assert_eq!(health.availability(ANY, at(2.0)), disabled(301.0));
    for other in others {
        assert_eq!(health.observe(other, Verdict::Refused, at(3.0), MIDDLE, |_| true), None);
    }
    assert_eq!(health.availability(ANY, at(4.0)), disabled(301.0), "not prolonged");
    assert_eq!(health.availability(ANY, at(301.0)), Availability::Ready);
    assert_eq!(
        request(&mut health, 301.0, 302.0, Verdict::Refused),
        None,
        "the upstream is disabled already"
    );
    assert_eq!(health.availability(ANY, at(303.0)), disabled(602.0));
    assert_eq!(
        request(&mut health, 700.0, 701.0, Verdict::Failed),
        None,
        "a failure does not show that the credential is accepted"
    );
    assert_eq!(health.availability(ANY, at(702.0)), disabled(1001.0));
    assert_eq!(
        request(&mut health, 1002.0, 1003.0, Verdict::Answered),
        Some(Transition::Recovered {
            from: HealthState::Disabled,
            endpoint: EndpointClass::Generation,
        })
    );
    assert!(health.is_plain());
}

#[test]
fn after_a_reload_a_disabled_upstream_is_probed_at_once() {
    let mut health = Health::new();
    let old = [(); 2].map(|()| health.begin(ANY, at(0.0)));
    request(&mut health, 0.0, 1.0, Verdict::Refused);
    health.record_reload(at(10.0));
    assert_eq!(health.availability(ANY, at(10.0)), Availability::Ready);
    let probe = health.begin(ANY, at(10.0));
    assert!(probe.is_probe());
    assert_eq!(
        health.observe(old[0], Verdict::Refused, at(11.0), MIDDLE, |_| true),
        None
    );
    assert!(
        health
            .observe(probe, Verdict::Served, at(12.0), MIDDLE, |_| true)
            .is_some()
    );
    // The refusal of the old credential arrives after the new one was accepted.
    assert_eq!(
        health.observe(old[1], Verdict::Refused, at(13.0), MIDDLE, |_| true),
        None
    );
    assert!(health.is_plain());

    let mut health = ejected();
    health.record_reload(at(10.0));
    assert_eq!(state(&health, 11.0), HealthState::Ejected);
    assert_eq!(
        health.availability(ANY, at(11.0)),
        Availability::Ejected { until: about(31.0) }
    );
}

#[test]
fn an_ejected_upstream_that_refuses_the_credential_is_disabled() {
    let mut health = ejected();
    assert_eq!(
        request(&mut health, 40.0, 41.0, Verdict::Refused),
        Some(Transition::Disabled)
    );
    assert_eq!(state(&health, 42.0), HealthState::Disabled);
    assert_eq!(health.describe(at(42.0)).reason, Some(Reason::CredentialRefused));
}

#[test]
fn only_the_operator_begins_and_ends_draining() {
    let mut health = Health::new();
    assert_eq!(health.drain(), Some(Transition::Drained));
    assert_eq!(health.drain(), None);
    assert!(!health.is_plain());
    assert_eq!(request(&mut health, 0.0, 1.0, Verdict::Served), None);
    assert_eq!(health.expire(at(1e6)), None);
    assert_eq!(health.availability(ANY, at(1e6)), Availability::Draining);
    assert_eq!(health.describe(at(1e6)).reason, Some(Reason::Operator));
    assert_eq!(health.enable(at(1e6)), Some(Transition::Enabled));
    assert_eq!(health.enable(at(1e6)), None);
    assert!(health.is_plain());
}

#[test]
fn enabling_forgets_failures_limits_and_refusals() {
    let mut disabled = Health::new();
    request(&mut disabled, 0.0, 1.0, Verdict::Refused);
    let mut cooling = Health::new();
    request(&mut cooling, 0.0, 1.0, limited(Some(1e5)));
    for mut health in [ejected(), disabled, cooling] {
        let old = health.begin(ANY, at(2.0));
        health.drain();
        assert_eq!(health.enable(at(3.0)), Some(Transition::Enabled));
        for verdict in [Verdict::Failed, Verdict::Refused, limited(Some(9.0)), limited(None)] {
            assert_eq!(
                health.observe(old, verdict, at(4.0), MIDDLE, |_| true),
                None,
                "{verdict:?} is outdated"
            );
        }
        assert!(health.is_plain());
    }
}
