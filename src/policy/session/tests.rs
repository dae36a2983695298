//! Which key and owner a request has, and the order of its candidates.

use proptest::prelude::*;

use super::*;
use crate::{ids::Weight, policy::rendezvous::Member};

const NAMESPACE: fn() -> Namespace = || Namespace::of_group("team");

fn upstream(n: usize) -> UpstreamId {
    UpstreamId::from_name(&format!("account-{n}"))
}

fn no_header(_: &HeaderName) -> Option<&'static str> {
    None
}

fn text(text: &str) -> Option<SessionKey> {
    Some(SessionKey::from_text(NAMESPACE(), text))
}

fn find<'a, H: Fn(&HeaderName) -> Option<&'a str>>(order: &[&str], clues: Clues<'a, H>) -> Affinity {
    let order: Vec<SessionSource> = order.iter().map(|source| source.parse().unwrap()).collect();
    Affinity::find(&order, NAMESPACE(), &clues)
}

const NOTHING: Clues<'static, fn(&HeaderName) -> Option<&'static str>> = Clues {
    prompt_cache_key: None,
    session_id: None,
    header: no_header,
    content: ConversationStart {
        instructions: b"",
        input: b"",
    },
    owner: None,
    issuer: None,
};
const CONTENT: ConversationStart<'static> = ConversationStart {
    instructions: b"Be brief.",
    input: b"Hello",
};

#[test]
fn the_same_text_from_any_source_is_the_same_key() {
    let order = SessionSource::default_order();
    let header: fn(&HeaderName) -> Option<&'static str> = |name| (name == "session_id").then_some("s-1");
    for clues in [
        Clues {
            prompt_cache_key: Some("s-1"),
            ..NOTHING
        },
        Clues {
            session_id: Some("s-1"),
            ..NOTHING
        },
        Clues { header, ..NOTHING },
        Clues {
            prompt_cache_key: Some(""),
            session_id: Some(" \t\n"),
            header,
            content: CONTENT,
            ..NOTHING
        },
        Clues {
            prompt_cache_key: Some("s-1"),
            session_id: Some("s-2"),
            header: |_| Some("s-3"),
            ..NOTHING
        },
    ] {
        assert_eq!(
            Affinity::find(&order, NAMESPACE(), &clues),
            Affinity {
                key: text("s-1"),
                owner: None,
                issuer: None
            }
        );
    }
    let other = Affinity::find(
        &order,
        Namespace::of_group("b"),
        &Clues {
            session_id: Some("s-1"),
            ..NOTHING
        },
    );
    assert_ne!(other.key, text("s-1"), "another tenant's session");
}

#[test]
fn the_text_of_a_key_is_not_trimmed() {
    let clues = Clues {
        prompt_cache_key: Some(" s-1 "),
        session_id: Some("s-1"),
        ..NOTHING
    };
    assert_eq!(find(&["body:prompt_cache_key"], clues).key, text(" s-1 "));
}

#[test]
fn only_configured_sources_count() {
    let clues = Clues {
        prompt_cache_key: Some("a"),
        session_id: Some("b"),
        header: |name: &HeaderName| (name == "x-conversation").then_some("c"),
        content: CONTENT,
        owner: Some(upstream(1)),
        issuer: Some(upstream(2)),
    };
    assert_eq!(find(&[], clues), Affinity::default());
    assert_eq!(
        find(&["header:x-conversation", "body:prompt_cache_key"], clues),
        Affinity {
            key: text("c"),
            owner: None,
            issuer: None
        }
    );
    assert_eq!(
        find(&["header:other", "body:client_metadata.session_id"], clues).key,
        text("b")
    );
    assert_eq!(
        find(&["owner"], clues),
        Affinity {
            key: None,
            owner: Some(upstream(1)),
            issuer: Some(upstream(2))
        }
    );
}

#[test]
fn content_makes_a_key_only_if_no_earlier_source_does() {
    let content = Some(SessionKey::from_content(
        NAMESPACE(),
        CONTENT.instructions,
        CONTENT.input,
    ));
    let named = Clues {
        session_id: Some("s-1"),
        content: CONTENT,
        ..NOTHING
    };
    let owned = Clues {
        owner: Some(upstream(1)),
        content: CONTENT,
        ..NOTHING
    };
    let session = "body:client_metadata.session_id";
    assert_eq!(find(&[session, "content"], named).key, text("s-1"));
    assert_eq!(find(&["content", session], named).key, content);
    assert_eq!(
        find(&["owner", "content"], owned),
        Affinity {
            key: None,
            owner: Some(upstream(1)),
            issuer: None
        }
    );
    assert_eq!(
        find(&["content", "owner"], owned),
        Affinity {
            key: content,
            owner: Some(upstream(1)),
            issuer: None
        }
    );
    assert_eq!(
        find(
            &["owner", "content"],
            Clues {
                content: CONTENT,
                ..NOTHING
            }
        )
        .key,
        content
    );
    let in_a_turn = Clues {
        issuer: Some(upstream(1)),
        content: CONTENT,
        ..NOTHING
    };
    let found = find(&["owner", "content"], in_a_turn);
    assert_eq!(
        (found.key, found.issuer),
        (content, Some(upstream(1))),
        "the whole conversation is there"
    );
    let blank = ConversationStart {
        instructions: b" ",
        input: b"\n",
    };
    assert_eq!(
        find(
            &["content"],
            Clues {
                content: blank,
                ..NOTHING
            }
        )
        .key,
        None
    );
}

#[test]
fn a_key_is_kept_beside_an_owner() {
    let clues = Clues {
        session_id: Some("s-1"),
        owner: Some(upstream(1)),
        ..NOTHING
    };
    for order in [
        ["body:client_metadata.session_id", "owner"],
        ["owner", "body:client_metadata.session_id"],
    ] {
        assert_eq!(
            find(&order, clues),
            Affinity {
                key: text("s-1"),
                owner: Some(upstream(1)),
                issuer: None
            }
        );
    }
}

#[test]
fn the_labels_of_routes_are_stable() {
    assert_eq!(
        Route::ALL.map(Route::label),
        ["home", "pin", "moved", "owner", "keyless"]
    );
}

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

proptest! {
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
        let all: Vec<Candidate> = candidates(&pool, Preference { affinity, pin }, eligible, random, |_| 0).collect();
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
