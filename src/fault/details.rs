//! What a fault says about its cause.

/// The reason why no upstream that may serve a request takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnavailableCause {
    /// The upstreams refuse their configured credentials.
    Disabled,
    /// The upstreams have failed several times.
    Ejected,
    /// The operator is draining the upstreams.
    Draining,
    /// The upstreams have as many requests as they may have at a time.
    Busy,
    /// The upstreams are unavailable for different reasons.
    Mixed,
}

/// The requests that have failed at every upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSubject {
    /// The requests of the caller's session.
    Session,
    /// The requests of several sessions.
    Pool,
}

/// The reason why a client key is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// The key is not in the configuration, or cannot be read.
    Unknown,
    /// The key has expired.
    Expired,
    /// The operator has disabled the key.
    Disabled,
}

/// The quantity that a client key's limit bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// Requests at the same time.
    Concurrent,
}

impl LimitKind {
    /// The `error.type` of the answer.
    pub(super) fn error_type(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrent => "concurrent_requests",
        }
    }
}
