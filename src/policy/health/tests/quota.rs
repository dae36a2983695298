//! Tests of quotas that are used up.

use super::*;

#[test]
fn a_quota_without_a_named_reset_cools_for_minutes_and_is_probed_once_a_minute() {
    let quota = Verdict::Limited {
        reset: None,
        scope: Scope::Upstream,
        cause: LimitCause::Quota,
    };
    let mut health = Health::new();
    let until = |from: f64| at(from).after(jittered(COOLDOWN_MAX, MIDDLE).min(COOLDOWN_MAX));
    assert!(request(&mut health, 0.0, 0.0, quota).is_some());
    let cooling = Availability::Cooling {
        until: until(0.0),
        cause: LimitCause::Quota,
    };
    assert_eq!(health.availability(ANY, at(1.0)), cooling);
    let mut asked = Vec::new();
    for second in 0..600 {
        let now = f64::from(second);
        if health.availability(ANY, at(now)) == Availability::Ready {
            asked.push(second);
            request(&mut health, now, now, quota);
        }
    }
    assert_eq!(asked, [60, 120, 180, 300, 360, 420, 480]);
    let topped_up = request(&mut health, 660.0, 660.0, Verdict::Served);
    assert!(
        matches!(topped_up, Some(Transition::CooldownOver { .. })),
        "{topped_up:?}"
    );
    assert!(health.is_plain());
}
