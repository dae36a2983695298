//! Finds the session that a turn belongs to, and the upstreams that hold the state that the turn refers to.

use super::{
    confirm::PinUpdate,
    facts::{Effect, HeaderLookup, TurnFacts},
    ownership::{self, UnownedState},
};
use crate::{
    endpoint::{EndpointClass, KeylessRouting},
    policy::{Affinity, Clues, KeylessChoice, MemberIndex, PinTakeover, PromptSize},
    state::{Eligibility, Gateway, Group, Snapshot},
};

/// Reads the session key, the owner of the named state and the issuer of the turn state from `facts`. The session key comes
/// from the first of the configured sources that is present.
#[inline]
pub(super) fn affinity<'a>(
    gateway: &Gateway,
    snapshot: &Snapshot,
    facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
) -> Affinity {
    let namespace = facts.group.namespace;
    let session = &facts.session;
    let content = match facts.endpoint.keyless_routing() {
        KeylessRouting::ByContent => session.content,
        KeylessRouting::Balanced => None,
    };
    let clues = Clues {
        endpoint: facts.endpoint,
        paths: &snapshot.body_paths,
        texts: session.texts,
        header: &session.header,
        content,
        owner: ownership::owner(gateway, namespace, &facts.named_state),
        issuer: facts.named_state.turn_state_issuer,
    };
    Affinity::find(&snapshot.sources, namespace, &clues)
}

/// How the first upstream of a turn without session, owner and issuer is chosen, and the number that decides. Lists that a
/// group reads come from the same upstream, and a search for an object begins at the same upstream, at every replica.
#[inline]
pub(super) fn keyless_choice<'a>(
    facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
    unowned: Option<&UnownedState>,
) -> (KeylessChoice, u64) {
    match unowned {
        Some(unowned) => (KeylessChoice::ByHash, unowned.key().as_u64()),
        None if facts.effect == Effect::Read => (KeylessChoice::ByHash, facts.group.namespace.as_u64()),
        None => (KeylessChoice::LessLoaded, fastrand::u64(..)),
    }
}

/// Whether the prompt or the state of a turn is at its own upstream (the first candidate), so that it waits there for
/// its patience. `pinned` is the upstream to which its session is pinned.
///
/// If the issuer of the turn state comes before a pin in another organization, the turn goes to the pin at once when the
/// issuer cannot take it: its session moved there, and its cache is there by now. Only generations have a prompt.
#[inline]
pub(super) fn is_cached_at_own(
    snapshot: &Snapshot,
    eligibility: &Eligibility,
    endpoint: EndpointClass,
    affinity: &Affinity,
    pinned: Option<MemberIndex>,
) -> bool {
    let pool = &snapshot.rendezvous;
    let is_usable = |index: &MemberIndex| eligibility.allows(pool, *index);
    let organization = |index| pool.member(index).organization;
    let issuer = affinity.issuer.and_then(|id| pool.position(id)).filter(is_usable);
    let is_cached = || match (issuer, pinned.filter(is_usable)) {
        (Some(issuer), Some(pinned)) => organization(issuer) == organization(pinned),
        (issuer, pinned) => issuer.or(pinned).is_some(),
    };
    affinity.owner.is_some() || (endpoint == EndpointClass::Generation && is_cached())
}

/// The change that the turn makes to the pin of its session if an upstream serves it. `pinned` is the upstream of the pin,
/// if it is still configured.
///
/// The pin says where the prompt is cached, so a request that generates no text does not move it: if its account is limited
/// for images, for example, the session stays. A session that begins with a new object, such as a file, has its state
/// there, so that request writes the first pin.
#[inline]
pub(super) fn pin_update<'a>(
    snapshot: &Snapshot,
    eligibility: &Eligibility,
    facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
    pinned: Option<MemberIndex>,
) -> PinUpdate {
    let takeover = match pinned {
        None if facts.endpoint.class() == EndpointClass::Objects && facts.effect == Effect::Create => {
            Some(PinTakeover::IfAsLong)
        }
        _ if facts.endpoint.class() != EndpointClass::Generation || facts.effect == Effect::Read => None,
        Some(index) if eligibility.allows(&snapshot.rendezvous, index) => Some(PinTakeover::IfAsLong),
        Some(index) => takeover_from_ineligible(snapshot, facts.group, index),
        None => Some(PinTakeover::Always),
    };
    let has_prompt = facts.endpoint.class() == EndpointClass::Generation;
    let prompt = match has_prompt && !facts.named_state.continues_stored_conversation() {
        // There is no prompt, or the body is only its end, and the length of the whole is not known.
        false => PromptSize::NONE,
        true => PromptSize::of_bytes(facts.prompt_bytes),
    };
    PinUpdate { prompt, takeover }
}

/// The requests that take the pin from `pinned`, an upstream that may not serve the turn; `None` if this turn does not.
///
/// An upstream that serves other models to the group has the session's cache for these. An upstream that serves nothing
/// to the group will not see the session again.
#[cold]
fn takeover_from_ineligible(snapshot: &Snapshot, group: &Group, pinned: MemberIndex) -> Option<PinTakeover> {
    let serves_group = snapshot
        .eligibility(group, None)
        .is_some_and(|eligibility| eligibility.allows(&snapshot.rendezvous, pinned));
    (!serves_group).then_some(PinTakeover::Always)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use http::HeaderName;

    use super::*;
    use crate::{
        body_path::BodyTexts,
        endpoint::Endpoint,
        ids::{ContentDigest, EncryptedContent, ObjectId, OwnedKey, SessionKey, UpstreamId},
        proxy::{
            testing,
            turn::facts::{NamedState, SessionFacts},
        },
        scan::{NamedObject, ReferenceKind},
    };

    static NO_TEXTS: LazyLock<BodyTexts> = LazyLock::new(BodyTexts::default);

    fn object(id: &str) -> ObjectId {
        ObjectId::from_text(id.as_bytes())
    }

    fn facts<'a>(
        group: &'a Group,
        endpoint: Endpoint,
        named_state: NamedState<'a>,
    ) -> TurnFacts<'a, impl HeaderLookup<'a>> {
        TurnFacts {
            group,
            endpoint,
            effect: Effect::Create,
            model: None,
            prompt_bytes: 0,
            session: SessionFacts {
                texts: &NO_TEXTS,
                header: |name: &HeaderName| (name == "x-none").then_some(""),
                content: Some(ContentDigest::from_hash(1)),
            },
            named_state,
        }
    }

    #[tokio::test]
    async fn content_is_a_key_only_where_the_endpoint_carries_a_conversation() {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let group = snapshot.access.anonymous();
        let key = SessionKey::from_content(group.namespace, ContentDigest::from_hash(1));
        for (endpoint, expected) in [
            (Endpoint::Responses, Some(key)),
            (Endpoint::Compact, Some(key)),
            (Endpoint::ChatCompletions, Some(key)),
            (Endpoint::Messages, Some(key)),
            (Endpoint::Embeddings, None),
            (Endpoint::Other, None),
        ] {
            let found = affinity(&gateway, &snapshot, &facts(group, endpoint, NamedState::default()));
            assert_eq!((found.key, found.owner), (expected, None), "{endpoint:?}");
        }
    }

    #[tokio::test]
    async fn the_owner_is_that_of_the_response_else_of_the_newest_item_but_never_of_the_turn_state() {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let group: &Arc<Group> = snapshot.access.anonymous();
        let [a, b, gone] = ["a", "b", "removed"].map(UpstreamId::from_name);
        let items = ["old", "new", "unknown"].map(|text| EncryptedContent::from_text(text.as_bytes()));
        let owners = &gateway.runtime.owners;
        let now = gateway.clock.now();
        owners.confirm(OwnedKey::from_object(group.namespace, object("resp_a")), None, a, now);
        owners.confirm(
            OwnedKey::from_encrypted_content(group.namespace, items[0]),
            None,
            a,
            now,
        );
        owners.confirm(
            OwnedKey::from_encrypted_content(group.namespace, items[1]),
            None,
            b,
            now,
        );
        let [known, unknown] = ["resp_a", "resp_x"].map(|id| {
            [NamedObject {
                kind: ReferenceKind::PreviousResponse,
                id: object(id),
            }]
        });
        let response = |in_body| NamedState {
            in_body,
            turn_state_issuer: Some(b),
            ..NamedState::default()
        };
        let in_path = NamedState {
            in_path: [Some(object("resp_a")), None, None],
            ..NamedState::default()
        };
        let encrypted = |encrypted| NamedState {
            turn_state_issuer: Some(gone),
            encrypted,
            ..NamedState::default()
        };
        for (named, expected) in [
            (NamedState::default(), (None, None)),
            (response(&known), (Some(a), Some(b))),
            (response(&unknown), (None, Some(b))),
            (in_path, (Some(a), None)),
            (encrypted(&items), (Some(b), Some(gone))),
            (encrypted(&items[..1]), (Some(a), Some(gone))),
            (encrypted(&items[2..]), (None, Some(gone))),
        ] {
            let found = affinity(&gateway, &snapshot, &facts(group, Endpoint::Responses, named));
            assert_eq!((found.owner, found.issuer), expected);
        }
    }

    #[tokio::test]
    async fn lists_come_from_one_upstream_and_new_objects_are_balanced() {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let group = snapshot.access.anonymous();
        let choice = |named_state, effect| {
            let facts = TurnFacts {
                effect,
                ..facts(group, Endpoint::Other, named_state)
            };
            let unowned = UnownedState::find(&gateway, &snapshot, &facts, None);
            keyless_choice(&facts, unowned.as_deref())
        };
        let list = (KeylessChoice::ByHash, group.namespace.as_u64());
        assert_eq!(choice(NamedState::default(), Effect::Read), list);
        let (kind, _) = choice(NamedState::default(), Effect::Create);
        assert_eq!(kind, KeylessChoice::LessLoaded);
        let named = |id| NamedState {
            in_path: [Some(object(id)), None, None],
            ..NamedState::default()
        };
        let [one, other] = ["file-1", "file-2"].map(|id| choice(named(id), Effect::Read));
        assert_eq!(
            (one.0, one),
            (KeylessChoice::ByHash, choice(named("file-1"), Effect::Change))
        );
        assert_ne!(one, other);
    }

    /// The upstreams `a` and `b` of one organization, `c` of another, and `d`, which serves other models. The group `few`
    /// may use `a` and `d` only.
    const POOL: &str = r#"
        [[group]]
        name = "few"
        upstreams = ["a", "d"]
        [[upstream]]
        name = "a"
        base_url = "https://a.example/v1"
        api_key = "env:A"
        organization = "team"
        [[upstream]]
        name = "b"
        base_url = "https://b.example/v1"
        api_key = "env:B"
        organization = "team"
        [[upstream]]
        name = "c"
        base_url = "https://c.example/v1"
        api_key = "env:C"
        [[upstream]]
        name = "d"
        base_url = "https://d.example/v1"
        api_key = "env:D"
        models = ["other-*"]
    "#;

    fn member(snapshot: &Snapshot, name: &str) -> Option<MemberIndex> {
        snapshot.rendezvous.position(UpstreamId::from_name(name))
    }

    #[tokio::test]
    async fn a_turn_waits_where_its_state_or_its_newest_cache_is() {
        let gateway = testing::configured(POOL);
        let snapshot = gateway.snapshot();
        let group = snapshot.access.anonymous();
        let eligibility = snapshot.eligibility(group, Some("gpt-5.2")).expect("three upstreams");
        for (owner, issuer, pin, expected) in [
            ("", "", "", false),
            ("", "", "a", true),
            ("", "", "d", false),
            ("", "a", "", true),
            ("", "d", "", false),
            ("", "removed", "", false),
            ("", "removed", "a", true),
            ("", "a", "a", true),
            ("", "a", "b", true),
            ("", "a", "c", false),
            ("", "d", "c", true),
            ("", "a", "d", true),
            ("c", "", "", true),
            ("c", "a", "c", true),
            ("removed", "", "", true),
        ] {
            let id = |name: &str| (!name.is_empty()).then(|| UpstreamId::from_name(name));
            let affinity = Affinity {
                key: None,
                owner: id(owner),
                issuer: id(issuer),
            };
            let pinned = member(&snapshot, pin);
            let is_cached = |endpoint| is_cached_at_own(&snapshot, &eligibility, endpoint, &affinity, pinned);
            let label = format!("owner {owner}, issuer {issuer}, pin {pin}");
            assert_eq!(is_cached(EndpointClass::Generation), expected, "{label}");
            assert_eq!(is_cached(EndpointClass::Embeddings), !owner.is_empty(), "{label}");
        }
    }

    #[tokio::test]
    async fn a_pin_is_taken_by_any_prompt_only_if_its_upstream_serves_the_group_no_more() {
        let gateway = testing::configured(POOL);
        let snapshot = gateway.snapshot();
        let few = snapshot.access.group(Some("few")).expect("a configured group");
        let (if_as_long, always) = (Some(PinTakeover::IfAsLong), Some(PinTakeover::Always));
        for (pin, previous_response, takeover) in [
            ("", None, always),
            ("removed", None, always),
            ("a", None, if_as_long),
            ("a", Some("resp_1"), if_as_long),
            ("c", None, always),
            ("d", None, None),
        ] {
            let named = previous_response.map(|id| NamedObject {
                kind: ReferenceKind::PreviousResponse,
                id: object(id),
            });
            let named = NamedState {
                in_body: named.as_slice(),
                ..NamedState::default()
            };
            let mut facts = facts(few, Endpoint::Responses, named);
            (facts.model, facts.prompt_bytes) = (Some("gpt-5.2"), 90_000);
            let eligibility = snapshot.eligibility(few, facts.model).expect("one upstream");
            let update = pin_update(&snapshot, &eligibility, &facts, member(&snapshot, pin));
            let prompt = match previous_response {
                Some(_) => PromptSize::NONE,
                None => PromptSize::of_bytes(90_000),
            };
            assert_eq!(update, PinUpdate { prompt, takeover }, "{pin} {previous_response:?}");
            facts.endpoint = Endpoint::Embeddings;
            let update = pin_update(&snapshot, &eligibility, &facts, member(&snapshot, pin));
            assert_eq!(update.takeover, None, "{pin} {previous_response:?}");
            facts.endpoint = Endpoint::Other;
            let update = pin_update(&snapshot, &eligibility, &facts, member(&snapshot, pin));
            let has_pin = member(&snapshot, pin).is_some();
            let expected = PinUpdate {
                prompt: PromptSize::NONE,
                takeover: (!has_pin).then_some(PinTakeover::IfAsLong),
            };
            assert_eq!(update, expected, "{pin}: a new object writes the first pin only");
            (facts.endpoint, facts.effect) = (Endpoint::Responses, Effect::Read);
            let update = pin_update(&snapshot, &eligibility, &facts, member(&snapshot, pin));
            assert_eq!(update.takeover, None, "{pin}: a list has no prompt");
        }
    }
}
