//! Records the result of a served turn: the pin of its session, and the owner of its response and encrypted items.

use std::sync::Arc;

use crate::{
    ids::{Namespace, OwnedKey, SessionKey, UpstreamId},
    scan::ResponseReader,
    state::{Gateway, NoLabels},
};

/// The change that an answer may make to the pin of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum PinUpdate {
    /// The pin is set to the upstream that answers, if the pin still is this one.
    IfUnchanged(Option<UpstreamId>),
    /// The pin stays: the session's own upstream does not serve this model, and its cache for other models is still there.
    Never,
}

/// Records that `upstream` has served the session `key`: the session's prompt cache is there now.
pub(in crate::proxy) fn confirm_pin(
    gateway: &Gateway,
    key: Option<SessionKey>,
    update: PinUpdate,
    upstream: UpstreamId,
) {
    let (Some(key), PinUpdate::IfUnchanged(seen)) = (key, update) else {
        return;
    };
    let pinned = gateway.runtime.pins.confirm(key, seen, upstream, gateway.clock.now());
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
            self.confirm(OwnedKey::from_response_id(self.namespace, id));
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
        for (update, upstream, expected) in [
            (PinUpdate::Never, a, None),
            (PinUpdate::IfUnchanged(None), a, Some(a)),
            (PinUpdate::IfUnchanged(None), b, Some(a)),
            (PinUpdate::Never, b, Some(a)),
            (PinUpdate::IfUnchanged(Some(a)), b, Some(b)),
        ] {
            confirm_pin(&gateway, Some(key), update, upstream);
            assert_eq!(pin(), expected, "{update:?}");
        }
        confirm_pin(&gateway, None, PinUpdate::IfUnchanged(None), a);
        assert_eq!(
            gateway.runtime.pins.len(),
            1,
            "a request without a session key pins nothing"
        );
        let scrape = gateway.scrape();
        let moved = scrape
            .lines()
            .find(|line| line.starts_with("steadfast_sessions_moved_total{"));
        assert!(
            moved.is_none_or(|line| line.ends_with(" 1") || line.ends_with(" 0")),
            "{moved:?}"
        );
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
                OwnedKey::from_response_id(namespace, "resp_1"),
                OwnedKey::from_encrypted_content(namespace, item),
            ] {
                assert_eq!(gateway.runtime.owners.get(key, gateway.clock.now()), expected);
            }
        }
    }
}
