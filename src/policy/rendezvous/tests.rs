//! Tests of rendezvous hashing. The oracle is the definition: draw for every member, take the earliest time.

use std::{collections::BTreeSet, sync::LazyLock, thread};

use proptest::prelude::*;

use super::*;
use crate::ids::{Namespace, OrganizationId, Weight};

const ALL: fn(u16) -> bool = |_| true;

fn member(name: usize, weight: u32, class: u16) -> Member {
    let id = UpstreamId::from_name(&format!("account-{name}"));
    Member {
        id,
        weight: Weight::new(weight).unwrap(),
        class,
        organization: OrganizationId::of_upstream(id),
    }
}

fn pool(size: usize, weight: impl Fn(usize) -> u32) -> Vec<Member> {
    (0..size).map(|name| member(name, weight(name), 0)).collect()
}

fn key(n: usize) -> SessionKey {
    SessionKey::from_text(Namespace::of_group(""), &format!("session-{n}"))
}

/// A million sessions.
static KEYS: LazyLock<Vec<SessionKey>> = LazyLock::new(|| (0..1_000_000).map(key).collect());

/// The plain weighted form: a logarithm for every member, by the platform's own function.
fn oracle(members: &[Member], key: SessionKey, eligible: impl Fn(u16) -> bool) -> Vec<MemberIndex> {
    let mut draws: Vec<_> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| eligible(member.class))
        .map(|(index, member)| {
            let u = unit(Key::new(key.as_u64()).hash(member.id.as_u64()));
            (-u.ln() / f64::from(member.weight.get()), index)
        })
        .collect();
    draws.sort_by(|a, b| a.0.total_cmp(&b.0));
    draws.into_iter().map(|(_, index)| MemberIndex::new(index)).collect()
}

/// Returns the home of each key, computed on all processors.
fn homes(members: &[Member], keys: &[SessionKey]) -> Vec<UpstreamId> {
    let pool = Rendezvous::new(members);
    let part = keys
        .len()
        .div_ceil(thread::available_parallelism().map_or(1, usize::from));
    thread::scope(|scope| {
        let parts: Vec<_> = keys
            .chunks(part)
            .map(|keys| {
                let pick = |key: &SessionKey| pool.member(pool.home(*key, ALL).unwrap()).id;
                scope.spawn(move || keys.iter().map(pick).collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Returns the number of keys that differ. Each of them must satisfy `needed(from, to)`.
fn moved(before: &[UpstreamId], after: &[UpstreamId], needed: impl Fn(UpstreamId, UpstreamId) -> bool) -> f64 {
    let moves = before.iter().zip(after).filter(|(from, to)| from != to);
    moves
        .inspect(|(from, to)| assert!(needed(**from, **to), "a key moved needlessly"))
        .count() as f64
}

fn assert_near(what: &str, count: f64, ideal: f64) {
    assert!(
        (count / ideal - 1.0).abs() <= 0.05,
        "{what}: {count} keys moved, ideal is {ideal}"
    );
}

/// A change of a value in this test moves every session of every deployment.
#[test]
fn homes_do_not_change_between_releases() {
    let golden = |members: &[Member]| -> Vec<Vec<usize>> {
        let pool = Rendezvous::new(members);
        let first_four = |n| pool.ranked(key(n), ALL).take(4).map(MemberIndex::as_usize);
        (0..6).map(|n| first_four(n).collect()).collect()
    };
    let equal = golden(&pool(10, |_| 1));
    let mixed = golden(&pool(10, |name| 1 + name as u32 % 4));
    assert_eq!(
        equal,
        [
            [5, 8, 7, 1],
            [0, 3, 8, 2],
            [2, 0, 7, 8],
            [6, 0, 4, 2],
            [5, 2, 3, 8],
            [0, 5, 8, 3]
        ]
    );
    assert_eq!(
        mixed,
        [
            [5, 8, 7, 1],
            [3, 0, 2, 6],
            [2, 7, 0, 6],
            [6, 7, 2, 0],
            [5, 3, 2, 7],
            [5, 0, 3, 2]
        ]
    );
}

#[test]
fn an_empty_pool_has_no_home() {
    let pool = Rendezvous::new(&[]);
    assert!(pool.is_empty());
    assert_eq!(pool.home(key(0), ALL), None);
    assert_eq!(pool.ranked(key(0), ALL).next(), None);
    assert_eq!(pool.position(UpstreamId::from_name("account-0")), None);
}

#[test]
fn a_million_homes_equal_those_of_the_plain_form() {
    let members: Vec<_> = (0..10)
        .map(|name| member(name, [1, 2, 2, 7, 1_000][name % 5], 0))
        .collect();
    let homes = homes(&members, &KEYS);
    for (key, home) in KEYS
        .iter()
        .zip(homes)
        .step_by(if cfg!(debug_assertions) { 10 } else { 1 })
    {
        assert_eq!(home, members[oracle(&members, *key, ALL)[0].as_usize()].id);
    }
}

#[test]
fn removing_a_member_moves_only_its_keys() {
    for size in [10, 100] {
        let members = pool(size, |_| 1);
        let before = homes(&members, &KEYS);
        let gone = members[size / 3].id;
        let rest: Vec<_> = members.iter().filter(|member| member.id != gone).copied().collect();
        let count = moved(&before, &homes(&rest, &KEYS), |from, _| from == gone);
        assert_near("remove", count, KEYS.len() as f64 / size as f64);
    }
}

#[test]
fn adding_a_member_moves_keys_only_to_it() {
    for size in [10, 100] {
        let members = pool(size + 1, |_| 1);
        let new = members[size].id;
        let before = homes(&members[..size], &KEYS);
        let count = moved(&before, &homes(&members, &KEYS), |_, to| to == new);
        assert_near("add", count, KEYS.len() as f64 / (size + 1) as f64);
    }
}

#[test]
fn a_changed_weight_moves_only_its_share_of_keys() {
    let members = pool(10, |name| 1 + name as u32 % 3);
    let total: u32 = members.iter().map(|member| member.weight.get()).sum();
    let before = homes(&members, &KEYS);
    for (changed, weight) in [(4, 3), (5, 1), (0, 10)] {
        let mut members = members.clone();
        let (id, old) = (members[changed].id, members[changed].weight.get());
        members[changed].weight = Weight::new(weight).unwrap();
        let count = moved(&before, &homes(&members, &KEYS), |from, to| {
            if weight > old { to == id } else { from == id }
        });
        let share = |weight: u32, total: u32| f64::from(weight) / f64::from(total);
        let ideal = (share(weight, total - old + weight) - share(old, total)).abs();
        assert_near("reweight", count, KEYS.len() as f64 * ideal);
    }
}

/// Returns the number of keys whose home is each member.
fn load(members: &[Member], keys: &[SessionKey]) -> Vec<f64> {
    let mut homes = homes(members, keys);
    homes.sort_unstable();
    let count =
        |member: &Member| homes.partition_point(|id| *id <= member.id) - homes.partition_point(|id| *id < member.id);
    members.iter().map(|member| count(member) as f64).collect()
}

#[test]
fn members_of_equal_weight_get_equal_shares() {
    // A debug build takes a second per hundred million draws. So with a thousand members, a debug build checks only a
    // quarter of the keys.
    let fewer = if cfg!(debug_assertions) { 4 } else { 1 };
    for (size, limit, keys) in [(10, 1.02, 1), (100, 1.05, 1), (1_000, 1.25, fewer)] {
        let keys = &KEYS[..KEYS.len() / keys];
        let most = load(&pool(size, |_| 1), keys).into_iter().fold(0.0, f64::max);
        let ratio = most / (keys.len() as f64 / size as f64);
        assert!(ratio <= limit, "max/mean is {ratio} at {size}");
    }
}

#[test]
fn shares_are_proportional_to_weights() {
    let members = pool(10, |name| [1, 2, 3, 5, 20][name % 5]);
    let total: u32 = members.iter().map(|member| member.weight.get()).sum();
    for (member, count) in members.iter().zip(load(&members, &KEYS)) {
        let ideal = KEYS.len() as f64 * f64::from(member.weight.get()) / f64::from(total);
        assert!((count / ideal - 1.0).abs() <= 0.05, "{count} keys, ideal is {ideal}");
    }
}

#[test]
fn keys_of_a_removed_member_spread_over_all_others() {
    let members = pool(10, |_| 1);
    let pool = Rendezvous::new(&members);
    let mut heirs = [0u32; 10];
    for key in &KEYS[..100_000] {
        let mut ranked = pool.ranked(*key, ALL);
        if ranked.next() == Some(MemberIndex::new(3)) {
            heirs[ranked.next().unwrap().as_usize()] += 1;
        }
    }
    let mean = f64::from(heirs.iter().sum::<u32>()) / 9.0;
    for (index, count) in heirs.into_iter().enumerate() {
        assert!(if index == 3 {
            count == 0
        } else {
            (f64::from(count) / mean - 1.0).abs() < 0.1
        });
    }
}

/// Pools of up to 40 different members with a few weights and classes, in random order.
fn pools() -> impl Strategy<Value = Vec<Member>> {
    let one = (any::<u16>(), prop_oneof![1u32..4, 1..=Weight::MAX], 0u16..4);
    prop::collection::vec(one, 0..40).prop_map(|picks| {
        let mut seen = BTreeSet::new();
        let fresh = picks.into_iter().filter(|(name, ..)| seen.insert(*name));
        fresh
            .map(|(name, weight, class)| member(name.into(), weight, class))
            .collect()
    })
}

/// All classes, without the members whose bits are set.
#[derive(Clone)]
struct Excluding(u64);

impl Eligible for Excluding {
    fn allows_class(&self, _: u16) -> bool {
        true
    }

    fn allows_member(&self, index: MemberIndex) -> bool {
        self.0 >> index.as_usize() & 1 == 0
    }
}

proptest! {
    #[test]
    fn excluded_members_change_nothing_for_the_others(members in pools(), n in any::<usize>(), excluded: u64) {
        let pool = Rendezvous::new(&members);
        let left = (0..).zip(&members).filter(|(at, _)| excluded >> at & 1 == 0).map(|(_, member)| *member);
        let left: Vec<Member> = left.collect();
        let ids = |pool: &Rendezvous, ranked: Vec<MemberIndex>| -> Vec<UpstreamId> {
            ranked.into_iter().map(|index| pool.member(index).id).collect()
        };
        let smaller = Rendezvous::new(&left);
        let expected = ids(&smaller, smaller.ranked(key(n), ALL).collect());
        let ranked = pool.ranked(key(n), Excluding(excluded));
        prop_assert_eq!(ids(&pool, ranked.clone().collect()), expected.clone());
        let mut among = ids(&pool, ranked.among(|_| true));
        among.reverse();
        prop_assert_eq!(among, expected);
    }

    #[test]
    fn every_rank_equals_the_plain_form(members in pools(), n in any::<usize>(), classes in any::<u16>()) {
        let pool = Rendezvous::new(&members);
        let eligible = |class: u16| classes >> class & 1 == 1;
        let expected = oracle(&members, key(n), eligible);
        prop_assert_eq!(pool.home(key(n), eligible), expected.first().copied());
        prop_assert_eq!(pool.ranked(key(n), eligible).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_order_of_the_members_changes_nothing(
        (members, shuffled) in pools().prop_flat_map(|pool| (Just(pool.clone()), Just(pool).prop_shuffle())),
        n in any::<usize>(),
    ) {
        let names = |members: &[Member]| -> Vec<UpstreamId> {
            let pool = Rendezvous::new(members);
            pool.ranked(key(n), ALL).map(|index| pool.member(index).id).collect()
        };
        prop_assert_eq!(names(&members), names(&shuffled));
    }

    #[test]
    fn every_id_has_the_position_of_its_member(members in pools()) {
        let pool = Rendezvous::new(&members);
        prop_assert_eq!(pool.len(), members.len());
        prop_assert!(pool.indexes().map(MemberIndex::as_usize).eq(0..members.len()));
        for (index, member) in pool.indexes().zip(&members) {
            prop_assert_eq!(pool.position(member.id), Some(index));
            prop_assert_eq!(pool.member(index), member);
        }
    }

    #[test]
    fn a_subset_comes_in_the_order_of_all_members(members in pools(), n in any::<usize>(), yielded in 0usize..8, chosen: u64) {
        let pool = Rendezvous::new(&members);
        let is_chosen = |member: &Member| chosen >> (member.id.as_u64() % 64) & 1 == 1;
        let eligible = |class: u16| class.is_multiple_of(2);
        let mut ranked = pool.ranked(key(n), eligible);
        let expected: Vec<MemberIndex> = ranked.clone().filter(|index| is_chosen(pool.member(*index))).collect();
        ranked.by_ref().take(yielded).for_each(drop);
        prop_assert!(ranked.among(is_chosen).into_iter().rev().eq(expected));
    }
}
