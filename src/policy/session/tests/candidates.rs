//! The order of a request's candidates.

use proptest::prelude::*;

use super::{super::*, text, upstream};
use crate::{ids::Weight, policy::rendezvous::Member};

fn pool(size: usize) -> Rendezvous {
    pool_of(size, |n| OrganizationId::of_upstream(upstream(n)))
}

fn pool_of(size: usize, organization: impl Fn(usize) -> OrganizationId) -> Rendezvous {
    let member = |n| Member {
        id: upstream(n),
        weight: Weight::ONE,
        class: (n % 3) as u16,
        organization: organization(n),
    };
    Rendezvous::new(&(0..size).map(member).collect::<Vec<_>>())
}

#[test]
fn the_owner_takes_precedence_over_the_issuer_then_come_the_pin_and_the_home() {
    let pool = pool(6);
    let key = text("s-1");
    let home = pool.home(key.unwrap(), |_| true).unwrap().as_usize();
    let (pin, owner, issuer) = ((home + 1) % 6, (home + 2) % 6, (home + 3) % 6);
    let all = |owner: Option<usize>, issuer: Option<usize>, pin: Option<usize>| {
        let affinity = Affinity {
            key,
            owner: owner.map(upstream),
            issuer: issuer.map(upstream),
        };
        candidates(
            &pool,
            Preference {
                affinity,
                pin: pin.map(upstream),
                ..Preference::default()
            },
            |_| true,
            0,
            |_| panic!("a request with a session is not balanced"),
        )
        .map(|candidate| (candidate.index.as_usize(), candidate.route))
        .collect::<Vec<_>>()
    };
    let first = |owner, pin| all(owner, None, pin).first().copied();
    assert_eq!(first(None, None), Some((home, Route::Home)));
    assert_eq!(first(None, Some(pin)), Some((pin, Route::Pin)));
    assert_eq!(first(Some(owner), Some(pin)), Some((owner, Route::Owner)));
    assert_eq!(first(Some(owner), None), Some((owner, Route::Owner)));
    assert_eq!(first(Some(owner), Some(owner)), Some((owner, Route::Pin)));
    // Upstreams that are not in the pool.
    assert_eq!(first(None, Some(88)), Some((home, Route::Home)));
    assert_eq!(first(Some(owner), Some(88)), Some((owner, Route::Owner)));
    assert_eq!(first(Some(77), None), None, "the owner's organization is not known");
    assert_eq!(first(Some(77), Some(pin)), None);
    // The issuer of the turn state.
    assert_eq!(
        all(Some(owner), Some(issuer), None),
        [(owner, Route::Owner)],
        "the issuer is elsewhere"
    );
    assert_eq!(all(None, Some(issuer), Some(issuer))[0], (issuer, Route::Pin));
    let in_a_turn = all(None, Some(issuer), None);
    assert_eq!(in_a_turn[..2], [(issuer, Route::Owner), (home, Route::Moved)]);
    let moved = all(None, Some(issuer), Some(pin));
    assert_eq!(
        moved[..3],
        [(issuer, Route::Owner), (pin, Route::Moved), (home, Route::Moved)]
    );
    assert_eq!((in_a_turn.len(), moved.len()), (6, 6), "the turn can go on everywhere");
    assert_eq!(
        all(None, Some(77), None)[0],
        (home, Route::Home),
        "the issuer is not in the pool"
    );
}

#[test]
fn without_a_session_the_less_loaded_of_two_upstreams_is_first() {
    let pool = pool(2);
    let first = |loads: [u32; 2]| {
        let in_flight = |index: MemberIndex| loads[index.as_usize()];
        candidates(&pool, Preference::default(), |_| true, 7, in_flight)
            .next()
            .map(|first| (first.index.as_usize(), first.route))
    };
    assert_eq!(first([3, 2]), Some((1, Route::Keyless)));
    assert_eq!(first([2, 3]), Some((0, Route::Keyless)));
}

/// The order of candidates by its definition: all candidates are sorted by the most important criterion first.
fn oracle(
    pool: &Rendezvous,
    affinity: Affinity,
    pin: Option<UpstreamId>,
    eligible: impl Fn(u16) -> bool,
) -> Vec<Candidate> {
    let of = |id| pool.position(id).map(|index| *pool.member(index));
    let usable = |member: &Member| eligible(member.class);
    let key = affinity.key.expect("a request without a key is balanced");
    let ranked: Vec<Member> = pool.ranked(key, &eligible).map(|index| *pool.member(index)).collect();
    let owned_by = affinity.owner.map(|owner| of(owner).map(|owner| owner.organization));
    let is_allowed = |member: &Member| owned_by.is_none_or(|owned_by| owned_by == Some(member.organization));
    let mut firsts = vec![
        (pin.and_then(of), Route::Pin),
        (affinity.owner.and_then(of), Route::Owner),
    ];
    let mut second = None;
    if affinity.owner.is_none()
        && let Some(issuer) = affinity.issuer.and_then(of).filter(usable)
    {
        let is_sibling = |pin: &Member| pin.organization == issuer.organization;
        if !pin
            .and_then(of)
            .as_ref()
            .is_some_and(|pin| usable(pin) && is_sibling(pin))
        {
            second = pin.and_then(of).map(|pin| pin.id);
            firsts = vec![(Some(issuer), Route::Owner)];
        }
    }
    firsts.retain(|(first, _)| first.as_ref().is_some_and(|first| usable(first) && is_allowed(first)));
    let (own, route) = match (firsts.first(), owned_by) {
        (Some(first), _) => *first,
        (None, None) => (ranked.first().copied(), Route::Home),
        (None, Some(_)) => (None, Route::Owner),
    };
    let mut all: Vec<&Member> = ranked.iter().filter(|member| is_allowed(member)).collect();
    all.sort_by_key(|member| {
        let is_sibling = Some(member.organization) == own.map(|own| own.organization);
        (
            Some(member.id) != own.map(|own| own.id),
            Some(member.id) != second,
            !is_sibling,
        )
    });
    let routes = std::iter::once(route).chain(std::iter::repeat(Route::Moved));
    let index = |member: &Member| pool.position(member.id).unwrap();
    all.into_iter()
        .zip(routes)
        .map(|(member, route)| Candidate {
            index: index(member),
            route,
        })
        .collect()
}

/// All classes, without the members whose bits are set.
struct ExcludedCandidates(u16);

impl Eligible for ExcludedCandidates {
    fn allows_class(&self, _: u16) -> bool {
        true
    }

    fn allows_member(&self, index: MemberIndex) -> bool {
        self.0 >> index.as_usize() & 1 == 0
    }
}

proptest! {
    #[test]
    fn an_excluded_upstream_is_like_one_of_a_class_that_is_not_eligible(
        (size, organizations) in (0usize..12, 1usize..12),
        key in prop::option::of("[a-z]{1,3}"),
        (owner, issuer, pin) in (
            prop::option::weighted(0.3, 0usize..14),
            prop::option::of(0usize..14),
            prop::option::of(0usize..14),
        ),
        (excluded, random) in any::<(u16, u64)>(),
    ) {
        let pool_with = |class: &dyn Fn(usize) -> u16| {
            let member = |n| Member {
                id: upstream(n),
                weight: Weight::ONE,
                class: class(n),
                organization: OrganizationId::from_name(&(n % organizations).to_string()),
            };
            Rendezvous::new(&(0..size).map(member).collect::<Vec<_>>())
        };
        let affinity = Affinity {
            key: key.and_then(|key| text(&key)),
            owner: owner.map(upstream),
            issuer: issuer.map(upstream),
        };
        let preference = Preference { affinity, pin: pin.map(upstream), ..Preference::default() };
        let one_class = pool_with(&|_| 0);
        let classes = pool_with(&|n| excluded >> n & 1);
        let found = candidates(&one_class, preference, ExcludedCandidates(excluded), random, |_| 0);
        let expected = candidates(&classes, preference, |class| class == 0, random, |_| 0);
        prop_assert!(found.eq(expected));
    }

    #[test]
    fn candidates_come_in_the_order_of_their_definition(
        (size, organizations) in (0usize..12, 1u64..12),
        key in "[a-z]{1,3}",
        (owner, issuer, pin) in (
            prop::option::weighted(0.3, 0usize..14),
            prop::option::of(0usize..14),
            prop::option::of(0usize..14),
        ),
        classes in 0u16..8,
        random: u64,
    ) {
        let organization = |n: usize| match n as u64 % (organizations + 2) {
            n if n < organizations => OrganizationId::from_name(&n.to_string()),
            _ => OrganizationId::of_upstream(upstream(n)),
        };
        let pool = pool_of(size, organization);
        let eligible = |class: u16| classes >> class & 1 == 1;
        let affinity = Affinity { key: text(&key), owner: owner.map(upstream), issuer: issuer.map(upstream) };
        let pin = pin.map(upstream);
        let all: Vec<Candidate> =
            candidates(&pool, Preference { affinity, pin, ..Preference::default() }, eligible, random, |_| 0).collect();
        prop_assert_eq!(all, oracle(&pool, affinity, pin, eligible));
    }

    #[test]
    fn a_request_without_a_session_may_go_to_every_upstream(
        size in 0usize..12, organizations in 1usize..4, classes in 0u16..8, random: u64,
    ) {
        let pool = pool_of(size, |n| OrganizationId::from_name(&(n % organizations).to_string()));
        let eligible = |class: u16| classes >> class & 1 == 1;
        let all: Vec<Candidate> = candidates(&pool, Preference::default(), eligible, random, |_| 0).collect();
        prop_assert!(all.iter().all(|candidate| candidate.route == Route::Keyless));
        let mut indexes: Vec<MemberIndex> = all.iter().map(|candidate| candidate.index).collect();
        let after_first = pool.ranked_by(random, eligible).filter(|index| Some(index) != indexes.first());
        prop_assert!(after_first.eq(indexes.iter().skip(1).copied()), "a weighted shuffle");
        indexes.sort_unstable();
        let eligible_numbers = (0..size).filter(|n| eligible((n % 3) as u16));
        prop_assert!(indexes.into_iter().map(MemberIndex::as_usize).eq(eligible_numbers), "each candidate comes once");
    }
}
