//! The upstream of a conversation by its beginning, for a compaction that does not name its session.
//!
//! Codex up to 0.98 names the session in every request but the compaction. So the upstream that served a conversation is
//! remembered under its beginning too, if the session has a key, and the compaction goes there.

use super::facts::{HeaderLookup, TurnFacts};
use crate::{
    endpoint::Endpoint,
    ids::{OwnedKey, SessionKey, UpstreamId},
    policy::Affinity,
    state::Gateway,
    tick::Tick,
};

/// The beginning of the conversation of a turn whose session has a key; `None` if the session has none, or if the body is
/// not the whole conversation.
#[inline]
pub(super) fn keyed<'a>(facts: &TurnFacts<'a, impl HeaderLookup<'a>>, affinity: &Affinity) -> Option<OwnedKey> {
    let content = facts
        .session
        .content
        .filter(|_| facts.endpoint == Endpoint::Responses)?;
    let namespace = facts.group.namespace;
    let by_content = SessionKey::from_content(namespace, content);
    let is_keyed = affinity.key.is_some_and(|key| key != by_content);
    (is_keyed && !facts.named_state.continues_stored_conversation()).then(|| OwnedKey::from_content(namespace, content))
}

/// The upstream that serves the session of a turn: that of the session's pin. For a compaction without a session key it is
/// the upstream that served the conversation with this beginning last.
#[inline]
pub(super) fn pin<'a>(
    gateway: &Gateway,
    facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
    affinity: &Affinity,
    now: Tick,
) -> Option<UpstreamId> {
    let key = affinity.key?;
    let namespace = facts.group.namespace;
    let by_beginning = match (facts.endpoint, facts.session.content) {
        (Endpoint::Compact, Some(content)) if key == SessionKey::from_content(namespace, content) => gateway
            .runtime
            .owners
            .get(OwnedKey::from_content(namespace, content), now),
        _ => None,
    };
    by_beginning.or_else(|| gateway.runtime.pins.get(key, now))
}

/// Records that `upstream` has served the conversation with this `beginning` last.
pub(super) fn confirm(gateway: &Gateway, beginning: OwnedKey, upstream: UpstreamId) {
    let (owners, now) = (&gateway.runtime.owners, gateway.clock.now());
    let seen = owners.peek(beginning, now);
    owners.confirm(beginning, seen, upstream, now);
}
