//! What a response has used, by its upstream's own account.

/// Tokens that a response has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, also those that came from a cache.
    pub input_tokens: u64,
    /// Of the prompt, those that came from a cache.
    pub cached_input_tokens: u64,
    /// Of the answer.
    pub output_tokens: u64,
}

impl Usage {
    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// The counts of a `usage` object, as far as they are there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub input: Option<u64>,
    pub cached_input: Option<u64>,
    pub output: Option<u64>,
}

impl Counts {
    /// The usage, where there is any count of input or output.
    pub fn usage(&self) -> Option<Usage> {
        self.input.or(self.output)?;
        Some(Usage {
            input_tokens: self.input.unwrap_or(0),
            cached_input_tokens: self.cached_input.unwrap_or(0),
            output_tokens: self.output.unwrap_or(0),
        })
    }
}
