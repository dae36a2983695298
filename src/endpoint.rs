//! The closed list of endpoints: what a request asks for.

/// What a request asks for, as far as metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/responses/compact`
    Compact,
    /// `/v1/responses/{id}` and below
    Response,
    /// `/v1/models` and `/v1/models/{id}`
    Models,
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/embeddings`
    Embeddings,
    /// Any other path under `/v1`
    Other,
}

impl Endpoint {
    /// Every endpoint, in the order of its discriminants.
    pub const ALL: [Self; 7] = [
        Self::Responses,
        Self::Compact,
        Self::Response,
        Self::Models,
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Other,
    ];

    /// The label `endpoint`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Compact => "compact",
            Self::Response => "response",
            Self::Models => "models",
            Self::ChatCompletions => "chat_completions",
            Self::Embeddings => "embeddings",
            Self::Other => "other",
        }
    }
}
