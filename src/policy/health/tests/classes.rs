//! Limits and failures of one class of endpoints, and what concerns all classes.

use super::*;

const fn class(endpoint: EndpointClass) -> RequestClass {
    RequestClass { endpoint, model: None }
}

const IMAGES: RequestClass = class(EndpointClass::Images);
const OBJECTS: RequestClass = class(EndpointClass::Objects);

#[test]
fn a_limit_and_failures_of_one_class_concern_no_other_class() {
    for endpoint in EndpointClass::ALL {
        let mut health = Health::new();
        let of_class = class(endpoint);
        request_of(&mut health, of_class, [0.0, 1.0], limited(Some(60.0)));
        (0..10).for_each(|_| _ = request_of(&mut health, of_class, [2.0, 3.0], Verdict::Failed));
        for other in EndpointClass::ALL {
            let is_ready = health.availability(class(other), at(4.0)) == Availability::Ready;
            assert_eq!(is_ready, other != endpoint, "{endpoint:?} {other:?}");
        }
    }
}

#[test]
fn the_state_is_that_of_generations_and_the_other_classes_are_listed() {
    let mut health = Health::new();
    request_of(&mut health, IMAGES, [0.0, 1.0], limited(Some(60.0)));
    (0..5).for_each(|_| _ = request_of(&mut health, OBJECTS, [0.0, 1.0], Verdict::Failed));
    let status = health.describe(at(2.0));
    assert_eq!((status.state, status.failures), (HealthState::Ready, 0));
    let listed = [
        ClassStatus {
            endpoint: EndpointClass::Objects,
            state: HealthState::Ejected,
            reason: Reason::ConsecutiveFailures,
            until: about(31.0),
        },
        ClassStatus {
            endpoint: EndpointClass::Images,
            state: HealthState::Cooling,
            reason: Reason::LimitNamed,
            until: at(61.0),
        },
    ];
    assert_eq!(status.classes, listed);
    assert_eq!(
        health.expire(at(61.0)),
        Some(Transition::CooldownOver {
            scope: Scope::Upstream,
            endpoint: EndpointClass::Images
        })
    );
}

#[test]
fn a_class_recovers_by_itself() {
    let mut health = ejected();
    (0..5).for_each(|_| _ = request_of(&mut health, OBJECTS, [0.0, 1.0], Verdict::Failed));
    assert_eq!(request_of(&mut health, IMAGES, [2.0, 3.0], Verdict::Served), None);
    let recovered = |endpoint| {
        Some(Transition::Recovered {
            from: HealthState::Ejected,
            endpoint,
        })
    };
    let probe = health.begin(OBJECTS, at(40.0));
    assert!(probe.is_probe());
    assert_eq!(
        health.availability(ANY, at(40.0)),
        Availability::Ready,
        "its probe is due too"
    );
    assert_eq!(
        health.observe(probe, Verdict::Served, at(41.0), MIDDLE, |_| true),
        recovered(EndpointClass::Objects)
    );
    assert!(health.is_ejected(EndpointClass::Generation) && !health.is_ejected(EndpointClass::Objects));
    assert_eq!(
        request(&mut health, 42.0, 43.0, Verdict::Served),
        recovered(EndpointClass::Generation)
    );
    assert!(health.is_plain());
}

#[test]
fn a_refused_credential_concerns_every_class_and_any_answer_shows_that_it_is_accepted() {
    let mut health = Health::new();
    (0..5).for_each(|_| _ = request_of(&mut health, OBJECTS, [0.0, 1.0], Verdict::Failed));
    assert_eq!(
        request_of(&mut health, IMAGES, [1.5, 2.0], Verdict::Refused),
        Some(Transition::Disabled)
    );
    for endpoint in EndpointClass::ALL {
        let availability = health.availability(class(endpoint), at(3.0));
        assert_eq!(availability, Availability::Disabled { until: at(302.0) });
    }
    let probe = health.begin(OBJECTS, at(302.0));
    assert!(probe.is_probe());
    assert_ne!(
        health.availability(ANY, at(302.0)),
        Availability::Ready,
        "one probe for all classes"
    );
    assert_eq!(
        health.observe(probe, Verdict::Answered, at(303.0), MIDDLE, |_| true),
        Some(Transition::Recovered {
            from: HealthState::Disabled,
            endpoint: EndpointClass::Generation
        })
    );
    assert!(health.is_plain(), "the failures from before are forgotten");
}
