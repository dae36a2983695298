//! What the unit tests of turns share: a session, made without a request.

use http::HeaderName;

use super::facts::{HeaderLookup, NamedState, SessionFacts, TurnFacts};
use crate::{
    endpoint::Endpoint,
    ids::{SessionKey, UpstreamId},
    state::{Gateway, Snapshot},
};

/// The session key of every turn that [`facts`] describes.
pub const KEY: &str = "session-1";

/// The facts of a turn of the session [`KEY`], which names a model and no state. Its body is large enough for the longest
/// wait.
pub fn facts(snapshot: &Snapshot) -> TurnFacts<'_, impl HeaderLookup<'_>> {
    TurnFacts {
        group: snapshot.access.anonymous(),
        endpoint: Endpoint::Responses,
        model: Some("gpt-5.2"),
        body_bytes: 1_000_000,
        session: SessionFacts {
            prompt_cache_key: Some(KEY),
            session_id: None,
            header: |_: &HeaderName| None,
            instructions: b"",
            input: b"",
        },
        named_state: NamedState::default(),
    }
}

/// The key of the session.
pub fn session_key(gateway: &Gateway) -> SessionKey {
    SessionKey::from_text(gateway.snapshot().access.anonymous().namespace, KEY)
}

/// The upstream that the session is pinned to.
pub fn pin(gateway: &Gateway) -> Option<UpstreamId> {
    gateway.runtime.pins.get(session_key(gateway), gateway.clock.now())
}

/// Pins the session to an upstream.
pub fn set_pin(gateway: &Gateway, upstream: &str) {
    let upstream = UpstreamId::from_name(upstream);
    let now = gateway.clock.now();
    gateway.runtime.pins.confirm(session_key(gateway), None, upstream, now);
}
