//! Records the result of a served turn: the pin of its session, and the owner of the objects and encrypted items in its answer.

use std::sync::Arc;

use super::{answer_content::AnswerContent, limits::FinalUsage};
use crate::{
    ids::{Namespace, OwnedKey, SessionKey, UpstreamId},
    policy::{Claim, PinTakeover, PromptSize, UsageState},
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

/// Records which upstream owns the objects that an answer names, as the answer streams by, and counts the usage of each
/// response once.
pub(in crate::proxy) struct OwnerRecorder {
    gateway: Arc<Gateway>,
    namespace: Namespace,
    upstream: UpstreamId,
    content: AnswerContent,
}

impl OwnerRecorder {
    /// A recorder for one answer of `upstream` to a caller of the group `namespace`; `None` if a good answer with this
    /// `content` names no objects.
    pub fn new(
        gateway: &Arc<Gateway>,
        namespace: Namespace,
        upstream: UpstreamId,
        content: AnswerContent,
    ) -> Option<Self> {
        content.names_objects().then(|| Self {
            gateway: gateway.clone(),
            namespace,
            upstream,
            content,
        })
    }

    /// Records what `reader` has found since the last call.
    pub fn record(&self, reader: &mut ResponseReader) {
        for content in reader.take_encrypted() {
            let key = OwnedKey::from_encrypted_content(self.namespace, content);
            self.confirm(key, UsageState::Unknown);
        }
        let usage = match self.content {
            AnswerContent::NewResponse if reader.is_background() => UsageState::Pending,
            // The request that makes the response counts its usage when it ends.
            AnswerContent::NewResponse => UsageState::Counted,
            _ => UsageState::Unknown,
        };
        for object in reader.drain_objects() {
            self.confirm(OwnedKey::from_object(self.namespace, object), usage);
        }
    }

    /// How the usage of the answer counts that `reader` has read, of which `stream_bytes` of an event stream have been
    /// passed on.
    ///
    /// The usage of a response counts when it is first known. A response that is made in the background is charged an
    /// estimate, until the answer to another request contains its usage. An earlier response that was not made in the
    /// background, or that this process has seen made, has been counted.
    pub fn final_usage(&self, reader: &ResponseReader, stream_bytes: u64) -> FinalUsage {
        let response = || {
            let ids = reader.response_ids().into_iter().flatten();
            ids.map(|id| OwnedKey::from_object(self.namespace, id)).last()
        };
        let reported = FinalUsage::of_reader(reader, stream_bytes);
        match (self.content, reported) {
            (AnswerContent::NewResponse, FinalUsage::Unreported { .. }) if reader.is_background() => match response() {
                Some(response) => FinalUsage::Deferred { response, stream_bytes },
                None => reported,
            },
            (AnswerContent::NewResponse, FinalUsage::Reported(usage)) if reader.is_background() => {
                match self.count_usage(reader) {
                    UsageState::Counted => FinalUsage::CountedElsewhere(usage),
                    UsageState::Unknown | UsageState::Pending => reported,
                }
            }
            (AnswerContent::EarlierResponse, FinalUsage::Reported(usage)) => {
                let state = response().map_or(UsageState::Unknown, |response| {
                    let now = self.gateway.clock.now();
                    self.gateway.runtime.owners.usage_state(response, now)
                });
                // A response that the client waited for was counted by the process that passed it on.
                if state == UsageState::Unknown && !reader.is_background() {
                    return FinalUsage::CountedBefore;
                }
                match (self.count_usage(reader), response()) {
                    (UsageState::Unknown, _) => reported,
                    (UsageState::Pending, Some(response)) => FinalUsage::Settled { response, usage },
                    (UsageState::Pending, None) | (UsageState::Counted, _) => FinalUsage::CountedBefore,
                }
            }
            (AnswerContent::EarlierResponse | AnswerContent::Object, _) => FinalUsage::CountedBefore,
            (AnswerContent::NewResponse | AnswerContent::StoredResult, _) => reported,
            (AnswerContent::Nothing | AnswerContent::Result, _) => reported,
        }
    }

    /// Marks the usage of the response as counted under each of its ids. Returns the furthest state before.
    fn count_usage(&self, reader: &ResponseReader) -> UsageState {
        let now = self.gateway.clock.now();
        let count = |id| {
            let key = OwnedKey::from_object(self.namespace, id);
            self.gateway.runtime.owners.count_usage(key, self.upstream, now)
        };
        let states = reader.response_ids().into_iter().flatten().map(count);
        states.max().unwrap_or(UsageState::Unknown)
    }

    fn confirm(&self, key: OwnedKey, usage: UsageState) {
        let gateway = &self.gateway;
        let claim = Claim::of_owner(self.upstream, usage);
        gateway.runtime.owners.claim(key, claim, gateway.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::ObjectId, proxy::testing};

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
        let recorder = OwnerRecorder::new(&gateway, ours, upstream, AnswerContent::NewResponse);
        let mut reader = ResponseReader::json();
        reader.feed(br#"{"id":"resp_1","output":[{"type":"reasoning","encrypted_content":"gAAAAAB"}]}"#);
        reader.finish();
        recorder.expect("responses have owners").record(&mut reader);
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
