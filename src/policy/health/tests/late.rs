//! Verdicts on a stream that was answered and has failed later.

use super::*;

/// Sends a request at `from` whose stream begins at `begun`, and gets another verdict at `to`.
fn stream(health: &mut Health, [from, begun, to]: [f64; 3], verdict: Verdict) -> Option<Transition> {
    let attempt = health.begin(ANY, at(from));
    health.observe(attempt, Verdict::Served, at(begun), MIDDLE, |_| true);
    health.observe(attempt.answered(), verdict, at(to), MIDDLE, |_| true)
}

#[test]
fn a_limit_that_ends_the_stream_of_an_early_probe_is_believed() {
    let mut health = Health::new();
    assert!(request(&mut health, 0.0, 1.0, limited(Some(600.0))).is_some());
    // The probe ends the cooldown, and its stream then reaches a limit.
    let cooling = stream(&mut health, [62.0, 63.0, 70.0], limited(Some(44.0)));
    assert!(
        matches!(cooling, Some(Transition::Cooling { until, .. }) if until == at(114.0)),
        "{cooling:?}"
    );
    assert_eq!(state(&health, 113.0), HealthState::Cooling);
    assert_eq!(state(&health, 115.0), HealthState::Ready);
}

#[test]
fn a_limit_that_ends_an_older_stream_is_believed() {
    let mut health = Health::new();
    let older = health.begin(ANY, at(0.0));
    health.observe(older, Verdict::Served, at(0.5), MIDDLE, |_| true);
    let refused = health.begin(ANY, at(0.6));
    assert!(request(&mut health, 0.5, 1.0, limited(Some(600.0))).is_some());
    request(&mut health, 62.0, 63.0, Verdict::Served);
    assert_eq!(state(&health, 64.0), HealthState::Ready);
    // A refusal of an old request is old news, but the end of a stream is not.
    health.observe(refused, limited(Some(44.0)), at(65.0), MIDDLE, |_| true);
    assert_eq!(state(&health, 66.0), HealthState::Ready);
    health.observe(older.answered(), limited(Some(44.0)), at(70.0), MIDDLE, |_| true);
    assert_eq!(state(&health, 71.0), HealthState::Cooling);
}

#[test]
fn the_failed_stream_of_the_probe_that_ended_an_ejection_counts() {
    let mut health = ejected();
    let other = health.begin(ANY, at(2.0));
    assert_eq!(stream(&mut health, [40.0, 41.0, 50.0], Verdict::Failed), None);
    let status = health.describe(at(51.0));
    assert_eq!((status.state, status.failures), (HealthState::Ready, 1));
    // The stream of a request from before the recovery does not count.
    health.observe(other.answered(), Verdict::Failed, at(52.0), MIDDLE, |_| true);
    assert_eq!(health.describe(at(52.0)).failures, 1);
}

#[test]
fn the_second_verdict_on_a_probe_does_not_release_the_probe_of_another_request() {
    let mut health = ejected();
    let first = health.begin(ANY, at(40.0));
    health.observe(first, Verdict::Served, at(41.0), MIDDLE, |_| true);
    for n in 0..5 {
        let now = 42.0 + f64::from(n);
        request(&mut health, now, now + 0.5, Verdict::Failed);
    }
    assert_eq!(state(&health, 50.0), HealthState::Ejected);
    let second = health.begin(ANY, at(100.0));
    assert!(first.is_probe() && second.is_probe());
    for verdict in [Verdict::Failed, Verdict::Refused] {
        health.observe(first.answered(), verdict, at(101.0), MIDDLE, |_| true);
        health.abandon(first);
        assert!(
            matches!(health.availability(ANY, at(102.0)), Availability::Ejected { .. }),
            "{verdict:?}"
        );
    }
    health.observe(second, Verdict::Served, at(103.0), MIDDLE, |_| true);
    assert_eq!(state(&health, 104.0), HealthState::Ready);
}
