//! The tokens that a response has used, as its upstream reports them.

/// The tokens that a response has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the prompt, including those that were read from the cache.
    pub input_tokens: u64,
    /// The tokens of the prompt that were read from the cache.
    pub cached_input_tokens: u64,
    /// The tokens of the prompt that were written to the cache.
    pub cache_write_tokens: u64,
    /// The tokens of the generated output, including those of reasoning.
    pub output_tokens: u64,
    /// The tokens of the generated output that were spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// The sum of input and output tokens.
    pub fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// A count in a `usage` object. The comment of each variant names its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// `input_tokens`. In the Messages API, it does not include the tokens that were read from the cache or written to it.
    Input,
    /// `prompt_tokens`, which includes all tokens of the prompt.
    Prompt,
    /// `cached_tokens` of the usage (Kimi) or of its details, and `prompt_cache_hit_tokens` (DeepSeek).
    CacheRead,
    /// `prompt_cache_miss_tokens` (DeepSeek).
    CacheMiss,
    /// `cache_write_tokens` or `cache_creation_tokens` of the details.
    CacheWrite,
    /// `cache_write_tokens` of one lifetime: `ttl_30m_tokens` and the like. The shares of all lifetimes are added.
    CacheWriteShare,
    /// `cache_read_input_tokens` (Messages API).
    MessagesRead,
    /// `cache_creation_input_tokens` (Messages API).
    MessagesWrite,
    /// `output_tokens` or `completion_tokens`.
    Output,
    /// `reasoning_tokens` of the details.
    Reasoning,
}

/// The number of variants of [`TokenKind`].
const KINDS: usize = TokenKind::Reasoning as usize + 1;
/// Stands for a count that was not reported. No count that is read is so large.
const UNREPORTED: u64 = u64::MAX;

/// The counts of a response's usage that have been read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsageCounts([u64; KINDS]);

impl Default for UsageCounts {
    fn default() -> Self {
        Self([UNREPORTED; KINDS])
    }
}

impl UsageCounts {
    /// The maximum length in bytes of a number that is read.
    pub const MAX_NUMBER: usize = 24;

    /// Notes a count. One JSON text may report a count in several places, of which some contain 0 only: the largest one
    /// counts.
    pub fn note(&mut self, kind: TokenKind, count: u64) {
        let noted = self.get(kind);
        let count = match kind {
            TokenKind::CacheWriteShare => noted.unwrap_or(0).saturating_add(count),
            _ => noted.unwrap_or(0).max(count),
        };
        self.0[kind as usize] = count.min(UNREPORTED - 1);
    }

    /// Adds the counts of a later event of the same response, which replace earlier ones.
    pub fn replace_by(&mut self, later: &Self) {
        for (count, later) in self.0.iter_mut().zip(later.0) {
            if later != UNREPORTED {
                *count = later;
            }
        }
    }

    /// The usage, or `None` if neither input nor output was reported. A count that the upstream does not report is 0.
    pub fn usage(&self) -> Option<Usage> {
        use TokenKind::{
            CacheMiss, CacheRead, CacheWrite, CacheWriteShare, Input, MessagesRead, MessagesWrite, Output, Prompt,
            Reasoning,
        };
        let get = |kind| self.get(kind);
        let by_parts = || {
            let missed = get(CacheMiss)?;
            Some(missed.saturating_add(get(CacheRead).unwrap_or(0)))
        };
        let input = get(Prompt).max(get(Input)).or_else(by_parts);
        input.or(get(Output))?;
        let mut input_tokens = input.unwrap_or(0);
        // Gateways add these counts to usages of other dialects too, and there the input includes them.
        if get(Prompt).or(get(CacheRead)).is_none() {
            for part in [get(MessagesRead), get(MessagesWrite)] {
                input_tokens = input_tokens.saturating_add(part.unwrap_or(0));
            }
        }
        let written = get(CacheWrite).or(get(CacheWriteShare)).or(get(MessagesWrite));
        Some(Usage {
            input_tokens,
            cached_input_tokens: get(CacheRead).or(get(MessagesRead)).unwrap_or(0),
            cache_write_tokens: written.unwrap_or(0),
            output_tokens: get(Output).unwrap_or(0),
            reasoning_tokens: get(Reasoning).unwrap_or(0),
        })
    }

    fn get(&self, kind: TokenKind) -> Option<u64> {
        let count = self.0[kind as usize];
        (count != UNREPORTED).then_some(count)
    }
}

/// The count that a number stands for, as written. Some upstreams write integers as `29567.0`. A number that is not a whole
/// number is no count, nor is one so large that it would make the sums of limits and metrics overflow.
pub(super) fn count_of(raw: &[u8]) -> Option<u64> {
    /// Up to here, every whole number is a double.
    const MAX_EXACT: u64 = 1 << 53;
    let written = std::str::from_utf8(raw).ok()?;
    if let Ok(count) = written.parse() {
        return (count <= MAX_EXACT).then_some(count);
    }
    let number: f64 = written.parse().ok()?;
    (number.fract() == 0.0 && (0.0..=MAX_EXACT as f64).contains(&number)).then_some(number as u64)
}
