//! Tests of limits with and without a named reset, of the upstream and of its models.

use super::*;

fn cooling(health: &Health, now: f64) -> Option<Tick> {
    match health.availability(ANY, at(now)) {
        Availability::Cooling { until, .. } => Some(until),
        Availability::Ready => None,
        other => panic!("{other:?}"),
    }
}

fn limited_model(n: u8, reset: f64) -> Verdict {
    Verdict::Limited {
        reset: Some(Duration::from_secs_f64(reset)),
        scope: Scope::Model(model(n)),
        cause: LimitCause::Rate,
    }
}

#[test]
fn a_cooldown_with_a_named_reset_ends_by_itself() {
    let mut health = Health::new();
    let over = Transition::CooldownOver {
        scope: Scope::Upstream,
        endpoint: EndpointClass::Generation,
    };
    let began = Transition::Cooling {
        until: at(11.0),
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
        named: true,
        endpoint: EndpointClass::Generation,
    };
    assert_eq!(request(&mut health, 0.0, 1.0, limited(Some(10.0))), Some(began));
    assert_eq!(cooling(&health, 10.9), Some(at(11.0)));
    assert_eq!(health.expire(at(10.9)), None);
    let status = health.describe(at(10.9));
    assert_eq!(
        (status.state, status.reason),
        (HealthState::Cooling, Some(Reason::LimitNamed))
    );
    assert_eq!(cooling(&health, 11.0), None);
    assert_eq!(state(&health, 11.0), HealthState::Ready);
    assert_eq!(health.expire(at(11.0)), Some(over));
    assert_eq!(health.expire(at(11.0)), None);
    assert!(health.is_plain());
}

#[test]
fn named_resets_are_bounded() {
    for (named, held) in [
        (0.0, 0.5),
        (0.499, 0.5),
        (0.5, 0.5),
        (604_800.0, 604_800.0),
        (604_801.0, 604_800.0),
        (1e12, 604_800.0),
    ] {
        let mut health = Health::new();
        request(&mut health, 0.0, 0.0, limited(Some(named)));
        assert_eq!(cooling(&health, 0.1), Some(at(held)), "{named}");
    }
}

#[test]
fn a_success_ends_a_cooldown_that_began_before_its_request() {
    let mut health = Health::new();
    let old = health.begin(ANY, at(0.0));
    request(&mut health, 0.0, 1.0, limited(Some(10.0)));
    assert_eq!(health.observe(old, Verdict::Served, at(2.0), MIDDLE, |_| true), None);
    assert_eq!(
        request(&mut health, 2.0, 3.0, Verdict::Answered),
        None,
        "the answer does not show whether the upstream has capacity"
    );
    assert_eq!(cooling(&health, 3.0), Some(at(11.0)));
    let over = Transition::CooldownOver {
        scope: Scope::Upstream,
        endpoint: EndpointClass::Generation,
    };
    let late = health.begin(ANY, at(3.5));
    assert_eq!(request(&mut health, 3.0, 4.0, Verdict::Served), Some(over));
    assert!(health.is_plain());
    assert_eq!(
        health.observe(old, limited(Some(60.0)), at(5.0), MIDDLE, |_| true),
        None,
        "a later request was served"
    );
    assert_eq!(health.observe(late, limited(None), at(5.0), MIDDLE, |_| true), None);
    assert!(health.is_plain());
    assert!(request(&mut health, 5.0, 6.0, limited(None)).is_some());
}

#[test]
fn an_earlier_end_counts_only_from_a_later_request() {
    let mut health = Health::new();
    let old = [(); 3].map(|()| health.begin(ANY, at(0.0)));
    request(&mut health, 0.0, 1.0, limited(Some(30.0)));
    assert_eq!(
        health.observe(old[0], limited(Some(10.0)), at(2.0), MIDDLE, |_| true),
        None
    );
    assert_eq!(cooling(&health, 2.0), Some(at(31.0)));
    assert!(
        health
            .observe(old[1], limited(Some(40.0)), at(2.0), MIDDLE, |_| true)
            .is_some()
    );
    assert_eq!(
        cooling(&health, 2.0),
        Some(at(42.0)),
        "a later end counts from every request"
    );
    assert!(request(&mut health, 3.0, 4.0, limited(Some(5.0))).is_some());
    assert_eq!(cooling(&health, 4.0), Some(at(9.0)));
    assert_eq!(health.observe(old[2], limited(None), at(5.0), MIDDLE, |_| true), None);
    assert_eq!(cooling(&health, 5.0), Some(at(9.0)));
    assert_eq!(
        request(&mut health, 5.0, 5.5, limited(Some(4.0))),
        None,
        "half a second is not reported"
    );
    assert_eq!(cooling(&health, 5.5), Some(at(9.5)));
}

#[test]
fn without_a_named_reset_each_cooldown_is_twice_as_long_as_the_last() {
    let mut health = Health::new();
    let mut now = 0.0;
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let base = Duration::from_secs(seconds);
        let straggler = health.begin(ANY, at(now));
        let began = request(&mut health, now, now, limited(None));
        let until = at(now).after(jittered(base, MIDDLE).min(COOLDOWN_MAX));
        let scope = Scope::Upstream;
        assert_eq!(
            began,
            Some(Transition::Cooling {
                until,
                scope,
                cause: LimitCause::Rate,
                named: false,
                endpoint: EndpointClass::Generation,
            })
        );
        assert_eq!(health.describe(at(now)).reason, Some(Reason::LimitUnnamed));
        assert_eq!(
            health.observe(straggler, limited(None), at(now + 0.1), MIDDLE, |_| true),
            None
        );
        assert_eq!(
            request(&mut health, now + 0.1, now + 0.2, limited(None)),
            None,
            "the request was sent during the cooldown"
        );
        assert_eq!(cooling(&health, now + 0.2), Some(until));
        // A late verdict that arrives after the end does not double the cooldown either.
        now += base.as_secs_f64() * 1.01;
        assert_eq!(
            health.observe(straggler, limited(None), at(now), MIDDLE, |_| true),
            None
        );
        while health.expire(at(now)).is_some() {}
        assert!(!health.is_plain(), "the backoff is remembered");
    }
    request(&mut health, now, now + 1.0, Verdict::Served);
    assert!(health.is_plain());
    request(&mut health, now + 2.0, now + 2.0, limited(None));
    assert_eq!(
        cooling(&health, now + 2.0),
        Some(at(now + 2.0).after(jittered(COOLDOWN, MIDDLE)))
    );
}

#[test]
fn the_backoff_is_forgotten_after_some_time() {
    let mut health = Health::new();
    request(&mut health, 0.0, 0.0, limited(None));
    request(&mut health, 2.0, 2.0, limited(None));
    assert!(health.expire(at(5.0)).is_some());
    assert_eq!(health.expire(at(303.0)), None);
    assert!(!health.is_plain());
    assert_eq!(health.expire(at(304.1)), None);
    assert!(health.is_plain());
}

#[test]
fn a_limit_of_one_model_affects_no_other_model() {
    let mut health = Health::new();
    let began = health.begin(of_model(1), at(0.0));
    let transition = health.observe(began, limited_model(1, 10.0), at(1.0), MIDDLE, |_| true);
    assert!(matches!(
        transition,
        Some(Transition::Cooling {
            scope: Scope::Model(_),
            ..
        })
    ));
    let until = at(11.0);
    assert_eq!(
        health.availability(of_model(1), at(2.0)),
        Availability::Cooling {
            until,
            cause: LimitCause::Rate
        }
    );
    assert_eq!(health.availability(of_model(2), at(2.0)), Availability::Ready);
    assert_eq!(health.availability(ANY, at(2.0)), Availability::Ready);
    let status = health.describe(at(2.0));
    assert_eq!(
        (status.state, status.cooling_models, status.models_until),
        (HealthState::Ready, 1, Some(until))
    );

    // With both cooldowns, the later end counts.
    request(&mut health, 2.0, 3.0, limited(Some(20.0)));
    let both = Availability::Cooling {
        until: at(23.0),
        cause: LimitCause::Rate,
    };
    assert_eq!(health.availability(of_model(1), at(4.0)), both);
    // A success with another model ends the upstream's cooldown, but not this model's.
    let other = health.begin(of_model(2), at(4.0));
    let over = |scope| {
        Some(Transition::CooldownOver {
            scope,
            endpoint: EndpointClass::Generation,
        })
    };
    assert_eq!(
        health.observe(other, Verdict::Served, at(5.0), MIDDLE, |_| true),
        over(Scope::Upstream)
    );
    assert_eq!(
        health.availability(of_model(1), at(5.0)),
        Availability::Cooling {
            until,
            cause: LimitCause::Rate
        }
    );
    let same = health.begin(of_model(1), at(6.0));
    assert_eq!(
        health.observe(same, Verdict::Served, at(7.0), MIDDLE, |_| true),
        over(Scope::Model(model(1)))
    );
    assert!(health.is_plain());
}

#[test]
fn the_end_of_each_cooldown_is_reported_once() {
    let mut health = Health::new();
    for n in 0..3 {
        request(&mut health, 0.0, 1.0, limited_model(n, 10.0));
    }
    request(&mut health, 0.0, 1.0, limited(Some(5.0)));
    let mut reported = Vec::new();
    while let Some(Transition::CooldownOver {
        scope,
        endpoint: EndpointClass::Generation,
    }) = health.expire(at(11.0))
    {
        reported.push(scope);
    }
    let models = (0..3).map(|n| Scope::Model(model(n)));
    assert_eq!(
        reported,
        [Scope::Upstream].into_iter().chain(models).collect::<Vec<_>>()
    );
    assert!(health.is_plain());
}

#[test]
fn over_the_bound_the_model_cooldown_that_ends_first_is_forgotten() {
    let mut health = Health::new();
    // 7 and 40 have no common factor, so the ends are in no order.
    let end = |n: u8| 100.0 + f64::from(u16::from(n) * 7 % 40);
    for n in 0..40 {
        request(&mut health, 0.0, 0.0, limited_model(n, end(n)));
    }
    assert_eq!(health.describe(at(1.0)).cooling_models, MODELS_MAX);
    for n in 0..40 {
        let kept = health.availability(of_model(n), at(1.0)) != Availability::Ready;
        assert_eq!(kept, end(n) >= 140.0 - MODELS_MAX as f64, "{n}");
    }
}

fn quota(reset: f64) -> Verdict {
    Verdict::Limited {
        reset: Some(Duration::from_secs_f64(reset)),
        scope: Scope::Upstream,
        cause: LimitCause::Quota,
    }
}

#[test]
fn the_limit_that_ends_last_tells_the_cause() {
    let mut health = Health::new();
    let cause = |health: &Health, class, now| match health.availability(class, at(now)) {
        Availability::Cooling { cause, .. } => Some(cause),
        _ => None,
    };
    request_of(&mut health, of_model(1), [0.0, 1.0], limited_model(1, 10.0));
    request(&mut health, 0.0, 1.0, quota(40.0));
    assert_eq!(cause(&health, of_model(1), 2.0), Some(LimitCause::Quota));
    request_of(&mut health, of_model(1), [2.0, 3.0], limited_model(1, 50.0));
    assert_eq!(cause(&health, of_model(1), 4.0), Some(LimitCause::Rate));
    assert_eq!(cause(&health, of_model(2), 4.0), Some(LimitCause::Quota));
    assert_eq!(cause(&health, of_model(1), 54.0), None);
}

#[test]
fn only_a_success_that_was_sent_during_a_cooldown_proves_the_limit_wrong() {
    let mut health = Health::new();
    request(&mut health, 0.0, 0.1, limited(Some(1.9)));
    // Both requests are sent after the end. The first is served, and the second is over the limit again.
    let (served, second) = (health.begin(ANY, at(2.1)), health.begin(ANY, at(2.1)));
    health.observe(served, Verdict::Served, at(2.5), MIDDLE, |_| true);
    health.observe(second, limited(Some(3.0)), at(2.6), MIDDLE, |_| true);
    assert_eq!(cooling(&health, 2.7), Some(at(5.6)));

    // A request that is sent during the new cooldown is served, so what earlier requests say is old news.
    let alongside = health.begin(ANY, at(2.8));
    let within = health.begin(ANY, at(2.9));
    health.observe(within, Verdict::Served, at(3.0), MIDDLE, |_| true);
    health.observe(alongside, limited(Some(30.0)), at(3.1), MIDDLE, |_| true);
    assert_eq!(cooling(&health, 3.2), None);
}

#[test]
fn a_success_of_one_model_is_no_news_about_a_limit_of_another() {
    let mut health = Health::new();
    request_of(&mut health, of_model(1), [0.0, 1.0], limited_model(1, 10.0));
    let other = health.begin(of_model(2), at(2.0));
    assert!(request_of(&mut health, of_model(1), [2.0, 3.0], Verdict::Served).is_some());
    health.observe(other, limited_model(2, 10.0), at(4.0), MIDDLE, |_| true);
    assert!(health.availability(of_model(2), at(5.0)) != Availability::Ready);
}

#[test]
fn a_long_cooldown_is_probed_once_a_minute() {
    for (verdict, end) in [(limited(Some(3_600.0)), 3_601.0), (quota(86_400.0), 86_401.0)] {
        let mut health = Health::new();
        request(&mut health, 0.0, 1.0, verdict);
        let mut sent = Vec::new();
        for second in 1..600 {
            let now = f64::from(second);
            if health.availability(ANY, at(now)) == Availability::Ready {
                sent.push(second);
                let probe = health.begin(ANY, at(now));
                assert_eq!(cooling(&health, now), Some(at(end)), "one request is the probe");
                let still = Verdict::Limited {
                    reset: Some(Duration::from_secs_f64(end - now - 0.5)),
                    scope: Scope::Upstream,
                    cause: LimitCause::Rate,
                };
                let confirmed = health.observe(probe, still, at(now + 0.5), MIDDLE, |_| true);
                assert_eq!(confirmed, None, "the end stays");
            }
        }
        assert_eq!(sent, (1..10).map(|minute| 60 * minute + 1).collect::<Vec<_>>());
        assert!(
            request(&mut health, 601.0, 602.0, Verdict::Served).is_some(),
            "the limit was lifted"
        );
        assert!(health.is_plain());
    }
}

#[test]
fn there_is_no_early_probe_in_the_last_minute_and_none_follows_an_abandoned_one_sooner() {
    let mut health = Health::new();
    request(&mut health, 0.0, 0.0, limited(Some(150.0)));
    let left = health.begin(ANY, at(70.0));
    health.abandon(left);
    assert_eq!(cooling(&health, 89.0), Some(at(150.0)));
    assert_eq!(cooling(&health, 149.0), Some(at(150.0)));

    // Both limits of a model must allow the probe, and it is the probe of both.
    let mut health = Health::new();
    request(&mut health, 0.0, 0.0, limited(Some(1_000.0)));
    request_of(&mut health, of_model(1), [0.0, 30.0], limited_model(1, 1_000.0));
    let until = |class, now, health: &Health| health.availability(class, at(now)) != Availability::Ready;
    assert!(until(of_model(1), 80.0, &health) && !until(ANY, 80.0, &health));
    assert!(!until(of_model(1), 90.0, &health));
    assert!(!health.begin(of_model(1), at(90.0)).is_probe());
    assert!(until(of_model(1), 149.0, &health) && until(ANY, 149.0, &health));
}
