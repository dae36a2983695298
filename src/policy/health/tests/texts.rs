//! The texts of transitions, as the log has them.

use super::*;

#[test]
fn every_state_has_its_own_label() {
    let mut labels: Vec<_> = HealthState::ALL.into_iter().map(HealthState::label).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), HealthState::ALL.len());
    for (transition, line) in [
        (ejection(at(1.0), 5), "ejected after 5 failures in a row"),
        (
            Transition::Cooling {
                until: at(1.0),
                scope: Scope::Model(model(1)),
                cause: LimitCause::Quota,
                named: true,
                endpoint: EndpointClass::Images,
            },
            "out of quota for one model for requests of the class images until the moment that the upstream named",
        ),
        (
            Transition::CooldownOver {
                scope: Scope::Upstream,
                endpoint: EndpointClass::Generation,
            },
            "cooldown over",
        ),
    ] {
        assert_eq!(transition.to_string(), line);
    }
}
