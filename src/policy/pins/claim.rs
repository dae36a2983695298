//! The claim of a served request to the entry of its key.

use super::{prompt_size::PromptSize, shard::FoundPin, usage_state::UsageState};
use crate::ids::UpstreamId;

/// What a request that was served says about the entry of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The result of [`AffinityTable::get`](super::AffinityTable::get) for the request.
    pub seen: Option<UpstreamId>,
    /// The upstream that has served the request.
    pub upstream: UpstreamId,
    /// The length of the request's prompt.
    pub prompt: PromptSize,
    /// Whether a shorter prompt takes the entry too.
    pub takeover: PinTakeover,
}

/// Which requests take an entry from the upstream that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinTakeover {
    /// A request whose prompt is about as long as the one that confirmed the entry.
    IfAsLong,
    /// Every request, because the entry's upstream will serve the key no more.
    Always,
}

impl Claim {
    /// The claim of an upstream to an object that it has made, with the state of its usage.
    pub fn of_owner(upstream: UpstreamId, usage: UsageState) -> Self {
        Self {
            seen: None,
            upstream,
            prompt: usage.size(),
            takeover: PinTakeover::IfAsLong,
        }
    }

    /// Whether the claim moves the entry `found`, which has another upstream.
    pub(super) fn takes(&self, found: &FoundPin) -> bool {
        let may_take = self.takeover == PinTakeover::Always || self.prompt.is_as_long_as(found.prompt);
        Some(found.upstream) == self.seen && may_take
    }
}
