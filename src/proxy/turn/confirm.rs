//! Records the result of a served turn: the pin of its session, and the owner of its response and encrypted items.

use std::sync::Arc;

use crate::{
    ids::{Namespace, ObjectId, OwnedKey, SessionKey, UpstreamId},
    policy::{Claim, PinTakeover, PromptSize},
    scan::ResponseReader,
    state::{Gateway, NoLabels},
};

/// The change that an answer may make to the pin of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct PinUpdate {
    /// The length of the turn's prompt. The pin follows the session's longest conversation.
    pub prompt: PromptSize,
    /// The requests that take the pin from its upstream. `None` if the pin stays: the turn generates no text, or the
    /// session's own upstream does not serve this model, and its cache for other models is still there.
    pub takeover: Option<PinTakeover>,
}

/// Records that `upstream` has served the session `key`, which was pinned to `seen`: a prompt of the session is cached
/// there now.
pub(in crate::proxy) fn confirm_pin(
    gateway: &Gateway,
    key: Option<SessionKey>,
    seen: Option<UpstreamId>,
    update: PinUpdate,
    upstream: UpstreamId,
) {
    let (Some(key), Some(takeover)) = (key, update.takeover) else {
        return;
    };
    let claim = Claim {
        seen,
        upstream,
        prompt: update.prompt,
        takeover,
    };
    let pinned = gateway.runtime.pins.claim(key, claim, gateway.clock.now());
    if let Some(left) = seen.filter(|seen| *seen != upstream && pinned == upstream)
        && let Some(left) = gateway.runtime.upstream_state(left)
    {
        left.metrics.sessions_moved.increment(NoLabels);
    }
}

/// Records which upstream owns a response and its encrypted items, as the response streams by.
pub(in crate::proxy) struct OwnerRecorder {
    gateway: Arc<Gateway>,
    namespace: Namespace,
    upstream: UpstreamId,
    /// Whether the id of the response has been recorded.
    has_recorded_id: bool,
}

impl OwnerRecorder {
    /// A recorder for one response of `upstream` to a caller of the group `namespace`.
    pub fn new(gateway: Arc<Gateway>, namespace: Namespace, upstream: UpstreamId) -> Self {
        Self {
            gateway,
            namespace,
            upstream,
            has_recorded_id: false,
        }
    }

    /// Records what `reader` has found since the last call.
    pub fn record(&mut self, reader: &mut ResponseReader) {
        for content in reader.take_encrypted() {
            self.confirm(OwnedKey::from_encrypted_content(self.namespace, content));
        }
        if !self.has_recorded_id
            && let Some(id) = reader.response_id()
        {
            self.confirm(OwnedKey::from_object(
                self.namespace,
                ObjectId::from_text(id.as_bytes()),
            ));
            self.has_recorded_id = true;
        }
    }

    fn confirm(&self, key: OwnedKey) {
        let (gateway, upstream) = (&self.gateway, self.upstream);
        gateway.runtime.owners.confirm(key, None, upstream, gateway.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing;

    #[tokio::test]
    async fn a_pin_is_written_only_if_no_other_request_has_changed_it() {
        let gateway = testing::gateway("");
        let key = SessionKey::from_text(Namespace::of_group(""), "session");
        let [a, b] = ["a", "b"].map(UpstreamId::from_name);
        let pin = || gateway.runtime.pins.get(key, gateway.clock.now());
        let update = |takeover, bytes| PinUpdate {
            prompt: PromptSize::of_bytes(bytes),
            takeover,
        };
        let (if_as_long, always) = (Some(PinTakeover::IfAsLong), Some(PinTakeover::Always));
        for (seen, update, upstream, expected) in [
            (None, update(None, 90_000), a, None),
            (None, update(if_as_long, 90_000), a, Some(a)),
            (None, update(if_as_long, 90_000), b, Some(a)),
            (Some(a), update(None, 90_000), b, Some(a)),
            (Some(a), update(if_as_long, 20_000), b, Some(a)),
            (Some(a), update(if_as_long, 80_000), b, Some(b)),
            (Some(b), update(if_as_long, 20_000), a, Some(b)),
            (Some(b), update(always, 20_000), a, Some(a)),
            (Some(a), update(if_as_long, 20_000), b, Some(b)),
        ] {
            confirm_pin(&gateway, Some(key), seen, update, upstream);
            assert_eq!(pin(), expected, "{seen:?} {update:?}");
        }
        confirm_pin(&gateway, None, None, update(if_as_long, 90_000), a);
        assert_eq!(
            gateway.runtime.pins.len(),
            1,
            "a request without a session key pins nothing"
        );
        let scrape = gateway.scrape();
        let moved = |upstream| {
            let series = format!("steadfast_sessions_moved_total{{upstream=\"{upstream}\"}} ");
            scrape.lines().find_map(|line| line.strip_prefix(&series))
        };
        assert_eq!((moved("a"), moved("b")), (Some("2"), Some("1")));
    }

    #[tokio::test]
    async fn the_owner_of_a_response_and_its_items_is_recorded_for_its_group_only() {
        let gateway = testing::gateway("");
        let (ours, theirs) = (Namespace::of_group("ours"), Namespace::of_group("theirs"));
        let upstream = UpstreamId::from_name("a");
        let mut recorder = OwnerRecorder::new(gateway.clone(), ours, upstream);
        let mut reader = ResponseReader::json();
        reader.feed(br#"{"id":"resp_1","output":[{"type":"reasoning","encrypted_content":"gAAAAAB"}]}"#);
        reader.finish();
        recorder.record(&mut reader);
        let item = crate::ids::EncryptedContent::from_text(b"gAAAAAB");
        for (namespace, expected) in [(ours, Some(upstream)), (theirs, None)] {
            for key in [
                OwnedKey::from_object(namespace, ObjectId::from_text(b"resp_1")),
                OwnedKey::from_encrypted_content(namespace, item),
            ] {
                assert_eq!(gateway.runtime.owners.get(key, gateway.clock.now()), expected);
            }
        }
    }
}
