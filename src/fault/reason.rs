//! The reasons for which Steadfast rejects requests: the values of the metric label `reason`.

/// The reason of a rejected request. Several faults share one reason, so that the metric has few series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// No endpoint has the request's path.
    Path,
    /// The request's head is invalid, ambiguous or too large.
    Head,
    /// The request's body is incomplete, invalid or ambiguous.
    Body,
    /// The request's body is over the limit.
    TooLarge,
    /// The request's body stopped arriving.
    BodyTimeout,
    /// The buffers for request bodies are full.
    BuffersFull,
    /// Steadfast has no file descriptor, port or memory left.
    Overloaded,
    /// The request has passed through this proxy before.
    Loop,
    /// The client asked for a WebSocket.
    WebSocket,
    /// The upstream needs the caller's own credential, and the request has none.
    Credential,
    /// The client key is missing or invalid.
    Key,
    /// The group of the client key, or the web page that sent the request, may not send it.
    Forbidden,
    /// No upstream serves the model.
    Model,
    /// The response that the request names is unknown to the caller's group.
    OwnerUnknown,
    /// The client key has reached one of its limits.
    RateLimited,
    /// An upstream failed, and no other could take over.
    Upstream,
    /// All upstreams that may serve the request have reached their limits.
    Limited,
    /// No upstream that may serve the request is available, or the last requests have failed at all of them.
    Unavailable,
    /// The upstream that owns the state is no longer configured.
    OwnerGone,
    /// A bug in Steadfast.
    Internal,
}

impl RejectReason {
    /// Every reason, in the order of its discriminants, so that a metric can keep one counter per reason in an array.
    pub const ALL: [Self; 20] = [
        Self::Path,
        Self::Head,
        Self::Body,
        Self::TooLarge,
        Self::BodyTimeout,
        Self::BuffersFull,
        Self::Overloaded,
        Self::Loop,
        Self::WebSocket,
        Self::Credential,
        Self::Key,
        Self::Forbidden,
        Self::Model,
        Self::OwnerUnknown,
        Self::RateLimited,
        Self::Upstream,
        Self::Limited,
        Self::Unavailable,
        Self::OwnerGone,
        Self::Internal,
    ];

    /// The metric label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Head => "head",
            Self::Body => "body",
            Self::TooLarge => "too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BuffersFull => "buffers_full",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::WebSocket => "websocket",
            Self::Credential => "credential",
            Self::Key => "key",
            Self::Forbidden => "forbidden",
            Self::Model => "model",
            Self::OwnerUnknown => "owner_unknown",
            Self::RateLimited => "rate_limited",
            Self::Upstream => "upstream",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::OwnerGone => "owner_gone",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_reasons_are_listed_in_the_order_of_their_discriminants() {
        for (index, reason) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let labels: HashSet<&str> = RejectReason::ALL.into_iter().map(RejectReason::label).collect();
        assert_eq!(labels.len(), RejectReason::ALL.len());
    }
}
