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

/// The counts of a `usage` object that have been read so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UsageCounts {
    /// `input_tokens` or `prompt_tokens`.
    pub input: Option<u64>,
    /// `cached_tokens` of the details of the input.
    pub cached_input: Option<u64>,
    /// `output_tokens` or `completion_tokens`.
    pub output: Option<u64>,
}

impl UsageCounts {
    /// The usage, or `None` if neither input nor output was reported. A count that the upstream does not report is 0.
    pub fn usage(&self) -> Option<Usage> {
        self.input.or(self.output)?;
        Some(Usage {
            input_tokens: self.input.unwrap_or(0),
            cached_input_tokens: self.cached_input.unwrap_or(0),
            cache_write_tokens: 0,
            output_tokens: self.output.unwrap_or(0),
            reasoning_tokens: 0,
        })
    }
}
