//! The length of a prompt, as a pin remembers it.

/// The length of the prompt with which a request has confirmed a pin, in bytes. It takes four bytes, and lengths above
/// 4 GiB are cut there.
///
/// Several conversations can share one session key: a subagent has the key of its main session. Only the longest of
/// them has much to lose, so the pin follows it. A length has an effect only by comparison with an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromptSize(u32);

/// A prompt counts as equally long if it is at most this many bytes shorter. This is 256 tokens; upstreams cache no
/// prompt below 1,024 tokens.
const SLACK: u32 = 1024;

impl PromptSize {
    /// The size of a request without a prompt.
    pub const NONE: Self = Self(0);

    /// The size of a prompt of so many bytes.
    pub fn of_bytes(bytes: u64) -> Self {
        Self(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Returns whether this prompt is long enough to belong to the conversation whose prompt had the size `recorded`:
    /// it is at most an eighth or 1 KiB shorter.
    pub fn is_as_long_as(self, recorded: Self) -> bool {
        self.0 >= recorded.0 - recorded.0.min((recorded.0 / 8).max(SLACK))
    }

    /// Returns the size to record when this prompt confirms a pin with the size `recorded`: the longer of both, but
    /// the recorded one decays by an eighth. So a conversation that was compacted counts as the longest again after
    /// some requests. A request without a prompt changes nothing.
    pub fn confirming(self, recorded: Self) -> Self {
        match self {
            Self::NONE => recorded,
            _ => self.max(Self(recorded.0 - recorded.0 / 8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kib(kib: u64) -> PromptSize {
        PromptSize::of_bytes(kib * 1024)
    }

    #[test]
    fn a_compacted_conversation_counts_as_the_longest_after_some_requests() {
        let compacted = kib(200);
        let mut recorded = kib(1024);
        let mut requests = 0;
        while !compacted.is_as_long_as(recorded) {
            recorded = compacted.confirming(recorded);
            requests += 1;
        }
        assert!((8..=13).contains(&requests), "{requests}");
        assert_eq!(PromptSize::NONE.confirming(kib(1024)), kib(1024));
        assert_eq!(
            PromptSize::of_bytes(u64::MAX),
            PromptSize::of_bytes(u64::from(u32::MAX))
        );
    }

    proptest! {
        #[test]
        fn sizes_are_compared_as_their_numbers_are(bytes: u32, recorded: u32) {
            let size = |bytes: u32| PromptSize::of_bytes(u64::from(bytes));
            let shortfall = u64::from(recorded).saturating_sub(u64::from(bytes));
            let is_as_long = shortfall <= 1024 || shortfall * 8 <= u64::from(recorded);
            prop_assert_eq!(size(bytes).is_as_long_as(size(recorded)), is_as_long);
            let confirmed = size(bytes).confirming(size(recorded));
            prop_assert!(confirmed >= size(bytes) && confirmed <= size(recorded).max(size(bytes)));
        }
    }
}
