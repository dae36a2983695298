use proptest::prelude::*;

use super::*;

fn arriving(slot: u32, account: usize, bytes: usize, rate: f64) -> Arriving {
    Arriving {
        id: BodyId {
            stripe: 0,
            slot,
            generation: 0,
        },
        account: AccountId(account),
        account_held: 0,
        bytes,
        rate,
    }
}

fn waiting(account: usize, bytes: usize, rate: f64, waited: Duration) -> Waiting {
    Waiting {
        id: None,
        account: AccountId(account),
        account_held: 0,
        bytes,
        whole: bytes,
        rate,
        waited,
    }
}

/// The slots of the bodies that give way. Each caller holds its arriving bodies and `complete` bytes.
fn victims(waiting: &[Waiting], bodies: &[Arriving], complete: &[(usize, usize)], level: Level) -> Vec<u32> {
    let held = |account: AccountId| -> usize {
        let arriving = bodies
            .iter()
            .filter(|body| body.account == account)
            .map(|body| body.bytes);
        let complete = complete
            .iter()
            .filter(|(owner, _)| *owner == account.0)
            .map(|(_, bytes)| bytes);
        arriving.sum::<usize>() + complete.sum::<usize>()
    };
    let bodies = bodies.iter().map(|body| Arriving {
        account_held: held(body.account),
        ..*body
    });
    let waiting: Vec<Waiting> = waiting
        .iter()
        .map(|body| Waiting {
            account_held: held(body.account),
            ..*body
        })
        .collect();
    choose(&waiting, bodies.collect(), level)
        .iter()
        .map(|id| id.slot)
        .collect()
}

const SOON: Duration = Duration::ZERO;
const FAST: f64 = f64::INFINITY;

#[test]
fn no_body_gives_way_while_memory_is_free() {
    let bodies = [arriving(0, 1, 90, 0.0)];
    let level = Level { free: 10, share: 20 };
    assert!(victims(&[waiting(2, 10, FAST, OWN_PATIENCE)], &bodies, &[], level).is_empty());
}

#[test]
fn the_slowest_bodies_of_callers_over_their_share_give_way_first() {
    let bodies = [
        arriving(0, 1, 20, 7.0),
        arriving(1, 1, 20, 3.0),
        arriving(2, 1, 20, 5.0),
        arriving(3, 2, 20, 0.0),
    ];
    let level = Level { free: 0, share: 20 };
    assert_eq!(victims(&[waiting(3, 1, 0.0, SOON)], &bodies, &[], level), [1]);
    assert_eq!(victims(&[waiting(3, 20, 0.0, SOON)], &bodies, &[], level), [1]);
    // Two callers wait, so two bodies give way.
    let two = [waiting(3, 15, 0.0, SOON), waiting(4, 15, 0.0, SOON)];
    assert_eq!(victims(&two, &bodies, &[], level), [1, 2]);
}

#[test]
fn a_caller_keeps_its_share() {
    let bodies = [arriving(0, 1, 30, 1.0), arriving(1, 1, 30, 2.0)];
    let level = Level { free: 0, share: 40 };
    assert_eq!(victims(&[waiting(2, 40, 0.0, SOON)], &bodies, &[], level), [0]);
    // Complete bodies count, but do not give way.
    assert_eq!(
        victims(&[waiting(2, 40, 0.0, SOON)], &bodies[..1], &[(1, 70)], level),
        [0]
    );
    assert!(victims(&[waiting(2, 40, FAST, OWN_PATIENCE)], &[], &[(1, 100)], level).is_empty());
}

#[test]
fn a_slower_body_gives_way_if_no_caller_is_over_its_share() {
    let bodies = [
        arriving(0, 1, 30, 9.0),
        arriving(1, 2, 30, 2.0),
        arriving(2, 3, 30, 4.0),
    ];
    let level = Level { free: 0, share: 30 };
    assert!(victims(&[waiting(4, 10, FAST, SOON)], &bodies, &[], level).is_empty());
    assert_eq!(victims(&[waiting(4, 10, FAST, PATIENCE)], &bodies, &[], level), [1]);
    assert_eq!(victims(&[waiting(4, 30, 3.0, PATIENCE)], &bodies, &[], level), [1]);
    assert!(victims(&[waiting(4, 10, 2.0, PATIENCE)], &bodies, &[], level).is_empty());
    // One slower body is not enough, and the others are faster.
    let level = Level { free: 0, share: 40 };
    assert!(victims(&[waiting(4, 31, 3.0, PATIENCE)], &bodies, &[], level).is_empty());
}

#[test]
fn a_body_of_a_caller_over_its_share_gets_memory_of_the_same_caller_only() {
    let bodies = [arriving(0, 1, 60, 1.0), arriving(1, 2, 20, 0.0)];
    let level = Level { free: 0, share: 20 };
    let wanting = |bytes, waited| victims(&[waiting(1, bytes, FAST, waited)], &bodies, &[], level);
    assert!(wanting(10, PATIENCE).is_empty());
    assert_eq!(wanting(10, OWN_PATIENCE), [0]);
    assert!(wanting(40, OWN_PATIENCE).is_empty(), "nothing would be gained");
}

#[test]
fn a_body_does_not_give_way_to_itself() {
    let own = arriving(0, 1, 10, 1.0);
    let mut body = waiting(1, 10, 5.0, OWN_PATIENCE);
    body.id = Some(own.id);
    let level = Level { free: 0, share: 20 };
    assert!(victims(&[body], &[own], &[], level).is_empty());
    let level = Level { free: 0, share: 10 };
    body.whole = 1;
    assert!(victims(&[body], &[own], &[], level).is_empty());
}

fn bodies() -> impl Strategy<Value = Vec<(usize, usize, u32)>> {
    prop::collection::vec((0..5_usize, 1..40_usize, 0..10_u32), 0..20)
}

proptest! {
    /// The rules, checked on the result: what gave way, and why.
    #[test]
    fn only_bodies_that_have_to_give_way(
        arrivals in bodies(),
        wants in prop::collection::vec((0..6_usize, 1..40_usize, 0..10_u32, 0..3_usize), 1..6),
        free in 0..30_usize,
        share in 40..100_usize,
    ) {
        let arrivals: Vec<Arriving> = arrivals.iter().enumerate()
            .map(|(slot, (account, bytes, rate))| arriving(slot as u32, *account, *bytes, f64::from(*rate)))
            .collect();
        let patience = [SOON, PATIENCE, OWN_PATIENCE];
        let wants: Vec<Waiting> = wants.iter()
            .map(|(account, bytes, rate, waited)| waiting(*account, *bytes, f64::from(*rate), patience[*waited]))
            .collect();
        let level = Level { free, share };
        let chosen = victims(&wants, &arrivals, &[], level);
        let mut distinct = chosen.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), chosen.len(), "a body gives way once");

        let held = |account: AccountId| -> usize {
            arrivals.iter().filter(|body| body.account == account).map(|body| body.bytes).sum()
        };
        let wanted: usize = wants.iter().map(|want| want.bytes).sum();
        prop_assert!(wanted > free || chosen.is_empty(), "memory is free");
        let is_within = |want: &&Waiting| held(want.account) + want.bytes <= share;
        let within: usize = wants.iter().filter(is_within).map(|want| want.bytes).sum();
        let over: usize = arrivals.iter().filter(|body| held(body.account) > share).map(|body| body.bytes).sum();
        let is_impatient = wants.iter().any(|want| want.waited >= PATIENCE);
        let mut rest: std::collections::HashMap<AccountId, usize> =
            arrivals.iter().map(|body| (body.account, held(body.account))).collect();
        let mut freed = 0;
        for slot in &chosen {
            let body = arrivals[*slot as usize];
            prop_assert!(rest[&body.account] > share || is_impatient, "a caller keeps its share");
            *rest.get_mut(&body.account).expect("counted") -= body.bytes;
            freed += body.bytes;
        }
        // Bodies within their share get memory as long as callers over their share have arriving bodies.
        let is_enough = free + freed >= within;
        let none_over = rest.values().all(|held| *held <= share);
        prop_assert!(is_enough || none_over, "{} + {} of {}, {} over", free, freed, within, over);
    }
}
