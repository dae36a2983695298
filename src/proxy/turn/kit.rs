//! What the unit tests of turns share: a session, made without a request.

use std::sync::LazyLock;

use http::HeaderName;

use super::facts::{HeaderLookup, NamedState, SessionFacts, TurnFacts};
use crate::{
    body_path::BodyTexts,
    endpoint::Endpoint,
    ids::{ObjectId, SessionKey, UpstreamId},
    scan::{NamedObject, ReferenceKind},
    state::{Gateway, Snapshot},
};

/// The session key of every turn that [`facts`] describes.
pub const KEY: &str = "session-1";

/// The key, at the first of the default paths.
static TEXTS: LazyLock<BodyTexts> = LazyLock::new(|| {
    let mut texts = BodyTexts::default();
    texts.set(0, KEY.to_owned());
    texts
});

/// The facts of a turn of the session [`KEY`], which names a model and no state. Its body is large enough for the longest
/// wait.
pub fn facts(snapshot: &Snapshot) -> TurnFacts<'_, impl HeaderLookup<'_>> {
    TurnFacts {
        group: snapshot.access.anonymous(),
        endpoint: Endpoint::Responses,
        model: Some("gpt-5.2"),
        prompt_bytes: 1_000_000,
        session: SessionFacts {
            texts: &TEXTS,
            header: |_: &HeaderName| None,
            content: None,
        },
        named_state: NamedState::default(),
    }
}

/// The reference to an earlier response.
pub fn previous_response(id: &str) -> NamedObject {
    NamedObject {
        kind: ReferenceKind::PreviousResponse,
        id: ObjectId::from_text(id.as_bytes()),
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
