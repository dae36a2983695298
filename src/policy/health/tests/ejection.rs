//! Which failures make a row, and which upstreams may be ejected.

use super::*;

#[test]
fn streams_that_fail_after_their_first_output_make_a_row() {
    let mut health = Health::new();
    for n in 0..5 {
        let now = f64::from(n);
        let attempt = health.begin(ANY, at(now));
        assert_eq!(
            health.observe(attempt, Verdict::Served, at(now + 0.1), MIDDLE, |_| true),
            None
        );
        let transition = health.observe(attempt, Verdict::Failed, at(now + 0.5), MIDDLE, |_| true);
        assert_eq!(transition.is_some(), n == 4, "{n}");
    }
    assert!(health.is_ejected(EndpointClass::Generation));
}

#[test]
fn only_a_whole_response_ends_a_row() {
    let mut health = Health::new();
    (0..4).for_each(|_| _ = request(&mut health, 0.0, 1.0, Verdict::Failed));
    let attempt = health.begin(ANY, at(2.0));
    health.observe(attempt, Verdict::Served, at(3.0), MIDDLE, |_| true);
    assert_eq!(health.describe(at(3.0)).failures, 4);
    health.complete(attempt);
    assert_eq!(health.describe(at(3.0)).failures, 0);
    assert!(health.is_plain());
}

#[test]
fn an_upstream_that_may_not_be_ejected_is_ejected_at_its_next_failure_with_a_place() {
    let mut health = Health::new();
    let fail = |health: &mut Health, now, may_eject: bool| {
        let attempt = health.begin(ANY, at(now));
        health.observe(attempt, Verdict::Failed, at(now), MIDDLE, |_| may_eject)
    };
    for n in 1..20 {
        assert_eq!(fail(&mut health, f64::from(n), false), None);
        assert_eq!(health.describe(at(f64::from(n))).failures, EJECT_AFTER.min(n as u32));
        assert_eq!(health.availability(ANY, at(f64::from(n))), Availability::Ready);
    }
    assert_eq!(
        fail(&mut health, 20.0, true),
        Some(ejection(at(20.0).after(jittered(EJECTION, MIDDLE)), 5))
    );
    // A probe that fails prolongs the ejection. That needs no other place.
    assert!(fail(&mut health, 60.0, false).is_some());
}

#[test]
fn an_outlier_is_ejected_through_the_same_cap() {
    let mut health = Health::new();
    assert_eq!(health.eject(Reason::SuccessRate, at(1.0), MIDDLE, |_| false), None);
    assert!(health.is_plain());
    let begun = health.eject(Reason::SuccessRate, at(1.0), MIDDLE, |class| {
        class == EndpointClass::Generation
    });
    let line = begun.map(|transition| transition.to_string());
    assert_eq!(
        line.as_deref(),
        Some("ejected because more requests fail than at the other upstreams")
    );
    assert_eq!(health.describe(at(2.0)).reason, Some(Reason::SuccessRate));
    assert_eq!(
        health.eject(Reason::SuccessRate, at(2.0), MIDDLE, |_| true),
        None,
        "it is out already"
    );
    assert!(request(&mut health, 40.0, 41.0, Verdict::Failed).is_some());
    assert_eq!(health.describe(at(42.0)).reason, Some(Reason::SuccessRate));
    assert!(request(&mut health, 200.0, 201.0, Verdict::Served).is_some());
    assert!(health.is_plain());
}

#[test]
fn an_outlier_that_relapses_within_ten_minutes_is_ejected_for_twice_as_long() {
    let mut health = Health::new();
    let eject = |health: &mut Health, now| match health.eject(Reason::SuccessRate, at(now), MIDDLE, |_| true) {
        Some(Transition::Ejected { until, .. }) => until.since(at(now)),
        other => panic!("{other:?}"),
    };
    let recover = |health: &mut Health, now| {
        assert!(request(health, now, now + 1.0, Verdict::Served).is_some());
        assert!(health.is_plain());
    };
    let long = |doublings: u32| jittered(EJECTION * 2_u32.pow(doublings), MIDDLE);
    assert_eq!(eject(&mut health, 0.0), long(0));
    recover(&mut health, 60.0);
    assert_eq!(eject(&mut health, 100.0), long(1));
    // A probe that fails prolongs the ejection, and that counts too.
    assert!(request(&mut health, 200.0, 201.0, Verdict::Failed).is_some());
    recover(&mut health, 400.0);
    assert_eq!(eject(&mut health, 1_001.0), long(3));
    recover(&mut health, 2_000.0);
    assert_eq!(
        eject(&mut health, 2_602.0),
        long(0),
        "the memory ends after ten minutes"
    );
    // A row of failures is another reason.
    recover(&mut health, 2_700.0);
    (0..EJECT_AFTER).for_each(|_| _ = request(&mut health, 2_710.0, 2_711.0, Verdict::Failed));
    assert_eq!(
        health.availability(ANY, at(2_712.0)),
        Availability::Ejected {
            until: at(2_711.0).after(long(0))
        }
    );
}
