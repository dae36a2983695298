//! The brake, step by step, against an oracle, and with a client that retries as Codex does.

mod client;

use proptest::prelude::*;

use super::*;
use crate::ids::{Namespace, SessionKey};

fn at(millis: u64) -> Tick {
    Tick::ZERO.after(Duration::from_millis(millis))
}

/// A request that begins at `begun` and fails everywhere at once.
fn fail(brake: &mut Brake, millis: u64) -> BrakeDecision {
    let admission = brake.admit(at(millis));
    match admission {
        BrakeDecision::Normal => drop(brake.record_failure(at(millis), None, at(millis))),
        BrakeDecision::Probe(probe) => drop(brake.record_failure(at(millis), Some(probe), at(millis))),
        BrakeDecision::Refuse { .. } => {}
    }
    admission
}

fn refused_until(admission: BrakeDecision) -> Option<Tick> {
    match admission {
        BrakeDecision::Refuse { until } => Some(until),
        BrakeDecision::Normal | BrakeDecision::Probe(_) => None,
    }
}

#[test]
fn two_failures_in_a_row_brake_a_session_and_probes_come_ever_more_rarely() {
    let mut brake = Brake::of_session();
    assert_eq!(fail(&mut brake, 0), BrakeDecision::Normal);
    assert_eq!(fail(&mut brake, 100), BrakeDecision::Normal);
    let mut due = 4_100;
    for delay in [8, 16, 32, 64, 120, 120] {
        assert_eq!(refused_until(fail(&mut brake, due - 1)), Some(at(due)));
        assert!(matches!(fail(&mut brake, due), BrakeDecision::Probe(_)));
        due += delay * 1_000;
    }
}

#[test]
fn requests_that_were_sent_at_the_same_time_count_once() {
    let mut brake = Brake::of_session();
    for wave in [100, 5_000] {
        assert_eq!(brake.admit(at(wave)), BrakeDecision::Normal);
        for request in 0..20 {
            let has_begun = brake.record_failure(at(wave), None, at(wave + 100 + request));
            assert_eq!(has_begun, wave > 100 && request == 0);
        }
    }
    // The requests that failed after the brake began did not delay the first probe.
    assert_eq!(refused_until(brake.admit(at(5_200))), Some(at(9_100)));
}

#[test]
fn there_is_one_probe_at_a_time() {
    let mut brake = Brake::of_session();
    fail(&mut brake, 0);
    fail(&mut brake, 0);
    let BrakeDecision::Probe(first) = brake.admit(at(4_000)) else {
        panic!("the probe is due")
    };
    assert_eq!(refused_until(brake.admit(at(4_001))), Some(at(8_001)));
    // The client of the probe has left.
    brake.release(first);
    let BrakeDecision::Probe(second) = brake.admit(at(4_002)) else {
        panic!("the probe is due")
    };
    // The first probe is a probe no longer.
    brake.record_failure(at(4_000), Some(first), at(5_000));
    brake.release(first);
    assert!(refused_until(brake.admit(at(5_001))).is_some());
    // A probe without a verdict prevents the next one only for some time.
    assert!(refused_until(brake.admit(at(34_001))).is_some());
    let BrakeDecision::Probe(third) = brake.admit(at(34_002)) else {
        panic!("the second probe has expired")
    };
    assert!(!brake.record_failure(at(4_002), Some(second), at(34_003)));
    assert!(refused_until(brake.admit(at(34_004))).is_some());
    brake.record_failure(at(34_002), Some(third), at(34_005));
    assert_eq!(refused_until(brake.admit(at(34_006))), Some(at(42_005)));
}

#[test]
fn a_served_request_ends_the_brake() {
    let mut brake = Brake::of_session();
    for round in 0..3 {
        let start = round * 60_000;
        fail(&mut brake, start);
        fail(&mut brake, start);
        assert!(brake.is_braking() && refused_until(brake.admit(at(start))).is_some());
        brake.end();
        assert_eq!(brake.admit(at(start)), BrakeDecision::Normal);
        assert!(brake.is_forgotten(at(start)));
    }
}

#[test]
fn a_failure_is_forgotten_after_some_time() {
    let forgotten = FORGOTTEN_AFTER.as_millis() as u64;
    let mut brake = Brake::of_session();
    fail(&mut brake, 0);
    assert_eq!(fail(&mut brake, forgotten), BrakeDecision::Normal);
    assert!(!brake.is_braking(), "the first failure was too long ago");
    fail(&mut brake, forgotten + 1);
    assert!(brake.is_braking());
    assert!(matches!(brake.admit(at(2 * forgotten)), BrakeDecision::Probe(_)));
    assert_eq!(brake.admit(at(2 * forgotten + 1)), BrakeDecision::Normal);
}

fn session(number: u64) -> Option<SessionKey> {
    Some(SessionKey::from_text(Namespace::of_group(""), &number.to_string()))
}

#[test]
fn five_different_sessions_brake_a_pool() {
    let mut pool = PoolBrake::default();
    for round in 0..10 {
        for number in 0..4 {
            assert!(!pool.record_failure(session(number), None, at(round)));
        }
    }
    assert_eq!(pool.admit(at(10)), BrakeDecision::Normal);
    assert!(pool.record_failure(session(4), None, at(10)));
    assert!(
        !pool.record_failure(session(5), None, at(11)),
        "this request was sent before the brake began"
    );
    let mut due = 1_010;
    for delay in [2, 4, 8, 16, 30, 30] {
        assert_eq!(refused_until(pool.admit(at(due - 1))), Some(at(due)));
        let BrakeDecision::Probe(probe) = pool.admit(at(due)) else {
            panic!("the probe is due")
        };
        pool.record_failure(session(6), Some(probe), at(due));
        due += delay * 1_000;
    }
}

#[test]
fn requests_without_a_session_are_one_session_of_a_pool() {
    let mut pool = PoolBrake::default();
    for round in 0..100 {
        assert!(!pool.record_failure(None, None, at(round)));
    }
    for number in 0..3 {
        assert!(!pool.record_failure(session(number), None, at(100)));
    }
    assert!(pool.record_failure(session(3), None, at(100)));
}

#[test]
fn a_pool_forgets_its_sessions_with_its_failures() {
    let forgotten = FORGOTTEN_AFTER.as_millis() as u64;
    let mut pool = PoolBrake::default();
    for number in 0..4 {
        pool.record_failure(session(number), None, at(0));
    }
    assert!(pool.is_forgotten(at(forgotten)));
    assert!(!pool.record_failure(session(0), None, at(forgotten)));
    assert!(!pool.record_failure(session(4), None, at(forgotten)));
    assert!(!pool.is_braking());
}

/// The oracle of a session's brake. It keeps every counted failure, and computes everything from them.
#[derive(Default)]
struct OracleBrake {
    /// The times of the failures that count, since the last served request.
    counted: Vec<Tick>,
    /// The probe that was admitted last, if it has no verdict and was not given back.
    probe: Option<Tick>,
}

impl OracleBrake {
    fn forget(&mut self, now: Tick) {
        if self
            .counted
            .last()
            .is_some_and(|last| now.since(*last).as_secs() >= 900)
        {
            *self = Self::default();
        }
    }

    fn admits(&mut self, now: Tick) -> &'static str {
        self.forget(now);
        let Some(failed_probes) = self.counted.len().checked_sub(2) else {
            return "normal";
        };
        let delay = *[4, 8, 16, 32, 64].get(failed_probes).unwrap_or(&120);
        let last = self.counted.last().expect("there are two failures");
        let is_due = now >= last.after(Duration::from_secs(delay));
        let is_being_probed = self.probe.is_some_and(|probe| now.since(probe).as_secs() < 30);
        if !is_due || is_being_probed {
            return "refused";
        }
        self.probe = Some(now);
        "probe"
    }

    fn record_failure(&mut self, begun: Tick, probe: Option<Probe>, now: Tick) {
        self.forget(now);
        let is_braking = self.counted.len() >= 2;
        let counts = match is_braking {
            true => probe.is_some() && self.probe == Some(begun),
            false => self.counted.last().is_none_or(|last| begun >= *last),
        };
        if counts {
            self.counted.push(now);
            self.probe = None;
        }
    }
}

/// A request in flight: when it began, and its permission if it is a probe.
type InFlight = (Tick, Option<Probe>);

proptest! {
    #[test]
    fn the_brake_does_as_the_oracle_says(
        steps in prop::collection::vec((0u64..20_000, 0u8..8, any::<prop::sample::Index>()), 1..200),
    ) {
        let (mut brake, mut oracle) = (Brake::of_session(), OracleBrake::default());
        let mut requests: Vec<InFlight> = Vec::new();
        let mut millis = 1;
        for (pause, step, which) in steps {
            // Short pauses are frequent, and a long one now and then.
            millis += 1 + if pause > 19_900 { 900_000 } else { pause % 6_000 };
            let now = at(millis);
            if step < 3 || requests.is_empty() {
                let admission = brake.admit(now);
                let probes = requests.iter().filter_map(|(_, probe)| *probe);
                let said = match admission {
                    BrakeDecision::Normal => {
                        requests.push((now, None));
                        "normal"
                    }
                    BrakeDecision::Probe(probe) => {
                        for other in probes.collect::<Vec<_>>() {
                            let is_current = brake.probing.is_some_and(|probing| probing.current == Some(other));
                            prop_assert!(!is_current, "there are two probes");
                        }
                        requests.push((now, Some(probe)));
                        "probe"
                    }
                    BrakeDecision::Refuse { until } => {
                        prop_assert!(until > now && until.since(now) <= SESSION.max_delay);
                        "refused"
                    }
                };
                prop_assert_eq!(said, oracle.admits(now));
                continue;
            }
            let (begun, probe) = requests.swap_remove(which.index(requests.len()));
            match step {
                3..6 => {
                    brake.record_failure(begun, probe, now);
                    oracle.record_failure(begun, probe, now);
                }
                6 => {
                    brake.end();
                    oracle = OracleBrake::default();
                    prop_assert!(!brake.is_braking());
                }
                _ => {
                    if let Some(probe) = probe {
                        brake.release(probe);
                        oracle.probe = oracle.probe.filter(|admitted| *admitted != begun);
                    }
                }
            }
            prop_assert_eq!(brake.is_forgotten(now), { oracle.forget(now); oracle.counted.is_empty() });
        }
    }
}
