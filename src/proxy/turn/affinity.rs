//! Finds the session that a turn belongs to, and the upstream that holds the state that the turn refers to.

use super::facts::{HeaderLookup, NamedState, TurnFacts};
use crate::{
    endpoint::KeylessRouting,
    fault::Fault,
    ids::{Namespace, OwnedKey, UpstreamId},
    policy::{Affinity, Clues, ConversationStart},
    state::{Gateway, Group, Snapshot},
};

/// Reads the session key and the owner of the named state from `facts`, in the configured order of sources.
#[inline]
pub(super) fn affinity<'a>(
    gateway: &Gateway,
    snapshot: &Snapshot,
    facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
) -> Affinity {
    let namespace = facts.group.namespace;
    let session = &facts.session;
    let content = match facts.endpoint.keyless_routing() {
        KeylessRouting::ByContent => ConversationStart {
            instructions: session.instructions,
            input: session.input,
        },
        KeylessRouting::Balanced => ConversationStart::default(),
    };
    let clues = Clues {
        prompt_cache_key: session.prompt_cache_key,
        session_id: session.session_id,
        header: &session.header,
        content,
        owner: owner(gateway, snapshot, namespace, &facts.named_state),
    };
    Affinity::find(&snapshot.sources, namespace, &clues)
}

/// Checks that the caller's group made every response that the request names. The check is only for a group that shares
/// its accounts with other groups, because such an account would also serve the responses of the other groups.
///
/// # Errors
/// [`Fault::ResponseNotFound`] if the group is not known to have made the response.
#[inline]
pub(super) fn check_named_responses(gateway: &Gateway, group: &Group, named: &NamedState<'_>) -> Result<(), Fault> {
    if !group.shares_accounts {
        return Ok(());
    }
    let now = gateway.clock.now();
    let is_unknown = |id: &str| {
        let key = OwnedKey::from_response_id(group.namespace, id);
        gateway.runtime.owners.get(key, now).is_none()
    };
    if named.response_in_path.is_some_and(is_unknown) {
        return Err(Fault::ResponseNotFound { in_path: true });
    }
    if named.previous_response.is_some_and(is_unknown) {
        return Err(Fault::ResponseNotFound { in_path: false });
    }
    Ok(())
}

/// The upstream that holds the state that a request refers to: an earlier response, the state of its turn, or the newest
/// encrypted item whose owner is known.
///
/// Turn state of an upstream that is no longer configured is ignored, because the turn can continue without it.
#[inline]
fn owner(gateway: &Gateway, snapshot: &Snapshot, namespace: Namespace, named: &NamedState<'_>) -> Option<UpstreamId> {
    let owners = &gateway.runtime.owners;
    let owner_of = |key| owners.get(key, gateway.clock.now());
    let response = named.previous_response.or(named.response_in_path);
    response
        .and_then(|id| owner_of(OwnedKey::from_response_id(namespace, id)))
        .or_else(|| {
            let issuer = named.turn_state_issuer?;
            snapshot.rendezvous.position(issuer).map(|_| issuer)
        })
        .or_else(|| {
            let newest_first = named.encrypted.iter().rev();
            newest_first
                .map(|item| OwnedKey::from_encrypted_content(namespace, *item))
                .find_map(owner_of)
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderName;

    use super::*;
    use crate::{
        endpoint::Endpoint,
        ids::{EncryptedContent, SessionKey},
        proxy::{testing, turn::facts::SessionFacts},
    };

    fn facts<'a>(
        group: &'a Group,
        endpoint: Endpoint,
        named_state: NamedState<'a>,
    ) -> TurnFacts<'a, impl HeaderLookup<'a>> {
        TurnFacts {
            group,
            endpoint,
            model: None,
            body_bytes: 0,
            session: SessionFacts {
                prompt_cache_key: None,
                session_id: None,
                header: |name: &HeaderName| (name == "x-none").then_some(""),
                instructions: b"\"be brief\"",
                input: b"\"hello\"",
            },
            named_state,
        }
    }

    #[tokio::test]
    async fn content_is_a_key_only_where_the_endpoint_carries_a_conversation() {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let group = snapshot.access.anonymous();
        let key = SessionKey::from_content(group.namespace, b"\"be brief\"", b"\"hello\"");
        for (endpoint, expected) in [
            (Endpoint::Responses, Some(key)),
            (Endpoint::Compact, Some(key)),
            (Endpoint::Embeddings, None),
            (Endpoint::Other, None),
        ] {
            let found = affinity(&gateway, &snapshot, &facts(group, endpoint, NamedState::default()));
            assert_eq!((found.key, found.owner), (expected, None), "{endpoint:?}");
        }
    }

    #[tokio::test]
    async fn the_owner_is_that_of_the_response_else_of_the_turn_state_else_of_the_newest_item() {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let group: &Arc<Group> = snapshot.access.anonymous();
        let [a, b, gone] = ["a", "b", "removed"].map(UpstreamId::from_name);
        let items = ["old", "new", "unknown"].map(|text| EncryptedContent::from_text(text.as_bytes()));
        let owners = &gateway.runtime.owners;
        let now = gateway.clock.now();
        owners.confirm(OwnedKey::from_response_id(group.namespace, "resp_a"), None, a, now);
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
        let response = |id| NamedState {
            previous_response: Some(id),
            turn_state_issuer: Some(b),
            ..NamedState::default()
        };
        let in_path = NamedState {
            response_in_path: Some("resp_a"),
            ..NamedState::default()
        };
        let encrypted = |encrypted| NamedState {
            turn_state_issuer: Some(gone),
            encrypted,
            ..NamedState::default()
        };
        for (named, expected) in [
            (NamedState::default(), None),
            (response("resp_a"), Some(a)),
            (response("resp_x"), Some(b)),
            (in_path, Some(a)),
            (encrypted(&items), Some(b)),
            (encrypted(&items[..1]), Some(a)),
            (encrypted(&items[2..]), None),
        ] {
            let found = affinity(&gateway, &snapshot, &facts(group, Endpoint::Responses, named));
            assert_eq!(found.owner, expected);
        }
    }
}
