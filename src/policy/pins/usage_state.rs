//! Whether the usage of a response has been counted, as the entry of its owner remembers it.

use super::prompt_size::PromptSize;

/// What is known about the usage of a response. The states are in the order in which a response goes through them.
///
/// An entry of [`Owners`](super::Owners) has no prompt, so its state takes the room of one. Confirming an entry keeps the larger size,
/// so a state never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageState {
    /// Nothing: this process has not seen how the response was made.
    Unknown,
    /// The response is being made in the background. The request that made it was charged an estimate.
    Pending,
    /// The usage has been counted, or the request that made the response counts it.
    Counted,
}

impl UsageState {
    pub(super) fn of_size(size: PromptSize) -> Self {
        let states = [Self::Unknown, Self::Pending];
        let state = states.into_iter().find(|state| state.size() == size);
        state.unwrap_or(Self::Counted)
    }

    pub(super) fn size(self) -> PromptSize {
        PromptSize::of_bytes(match self {
            Self::Unknown => 0,
            Self::Pending => 1,
            Self::Counted => 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{
        ids::{Namespace, ObjectId, OwnedKey, UpstreamId},
        policy::{AffinityTable, Claim, Owners, PinTakeover},
        tick::Tick,
    };

    fn key(id: &str) -> OwnedKey {
        OwnedKey::from_object(Namespace::of_group(""), ObjectId::from_text(id.as_bytes()))
    }

    #[test]
    fn the_usage_of_a_response_is_counted_once() {
        let owners: Owners = AffinityTable::new(9, Duration::from_secs(60));
        let upstream = UpstreamId::from_name("a");
        let confirm = |id, usage| {
            owners.claim(key(id), Claim::of_owner(upstream, usage), Tick::ZERO);
        };
        let count = |id| owners.count_usage(key(id), upstream, Tick::ZERO);
        for (id, confirmed, before) in [
            ("resp_1", UsageState::Unknown, UsageState::Unknown),
            ("resp_2", UsageState::Pending, UsageState::Pending),
            ("resp_3", UsageState::Counted, UsageState::Counted),
        ] {
            confirm(id, confirmed);
            assert_eq!(owners.usage_state(key(id), Tick::ZERO), before);
            // A request that knows less changes nothing.
            confirm(id, UsageState::Unknown);
            owners.confirm(key(id), None, upstream, Tick::ZERO);
            assert_eq!([count(id), count(id)], [before, UsageState::Counted], "{id}");
        }
        assert_eq!(
            [count("resp_4"), count("resp_4")],
            [UsageState::Unknown, UsageState::Counted]
        );
        assert_eq!(owners.get(key("resp_4"), Tick::ZERO), Some(upstream));
        assert_eq!(owners.len(), 4);
        let idle = Tick::ZERO.after(Duration::from_secs(61));
        assert_eq!(owners.usage_state(key("resp_4"), idle), UsageState::Unknown);
    }

    #[test]
    fn an_owner_can_change_whatever_its_usage_is() {
        let owners: Owners = AffinityTable::new(9, Duration::from_secs(60));
        let [a, b] = ["a", "b"].map(UpstreamId::from_name);
        owners.count_usage(key("resp_1"), a, Tick::ZERO);
        let claim = Claim {
            seen: Some(a),
            takeover: PinTakeover::IfAsLong,
            ..Claim::of_owner(b, UsageState::Unknown)
        };
        assert_eq!(owners.claim(key("resp_1"), claim, Tick::ZERO), b);
    }

    #[test]
    fn of_many_threads_only_one_counts_a_usage() {
        let owners: Owners = AffinityTable::new(1_000, Duration::from_secs(60));
        let upstream = UpstreamId::from_name("a");
        for round in 0..200 {
            let id = format!("resp_{round}");
            let counted = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let before = owners.count_usage(key(&id), upstream, Tick::ZERO);
                        counted.fetch_add(usize::from(before != UsageState::Counted), Relaxed);
                    });
                }
            });
            assert_eq!(counted.into_inner(), 1);
        }
    }
}
