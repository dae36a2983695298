//! The values that labels take.

use http::StatusCode;

use crate::policy::Route;

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
    pub(super) const ALL: [Self; 7] = [
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

/// The hundreds of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Below 300.
    Success,
    /// 3xx
    Redirection,
    /// 4xx
    ClientError,
    /// From 500.
    ServerError,
}

impl StatusClass {
    pub(super) const ALL: [Self; 4] = [Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    /// The class of `status`.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    /// The label `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// The labels of one answered request beside its upstream.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// Why this upstream.
    pub route: Route,
    /// How it was answered.
    pub status: StatusClass,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// A new configuration took over.
    Applied,
    /// The configuration was what it had been.
    Unchanged,
    /// The new configuration was not valid, so the old one stayed.
    Refused,
}

impl ReloadOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}
