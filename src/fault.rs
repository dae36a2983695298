//! The closed list of what can go wrong with a request on Steadfast's own account.
//!
//! An upstream's own error is no fault: it passes through byte for byte. Every match here is exhaustive, so a new fault
//! does not compile until it has a status, a code, a label and a retry rule. `proxy::reply` is the only maker of error bodies.

mod message;

use std::time::Duration;

use http::StatusCode;

/// Why Steadfast answers a request itself, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a variant's line says what its fields are")]
pub enum Fault {
    /// No endpoint has this path; `meant` is the one that the caller probably meant.
    UnknownPath { path: String, meant: &'static str },
    /// The request target has no single reading (`..`, `%2e`, `//`, a foreign authority, …).
    AmbiguousTarget { problem: &'static str },
    /// The `Host` header is missing, repeated or not a host.
    BadHost { problem: &'static str },
    /// The request's head is no HTTP/1; the connection closes.
    BadHead { problem: &'static str },
    /// The request's head is longer, or has more fields, than is read; the connection closes.
    HeadTooLarge,
    /// The message framing has no single reading; the connection closes.
    BadFraming { problem: &'static str },
    /// A method that this endpoint, or any, does not take.
    BadMethod { problem: &'static str },
    /// The body is not JSON with a single reading. `offset` counts bytes of the (decompressed) body.
    AmbiguousBody { problem: String, offset: u64 },
    /// The body does not decompress as its `content-encoding` says.
    UndecodableBody { problem: String },
    /// The body ended or broke off before it was complete.
    IncompleteBody,
    /// The body is over `limit` bytes, as sent or decompressed.
    BodyTooLarge { limit: u64 },
    /// No piece of the body arrived for this long.
    BodyTimeout { idle: Duration },
    /// Bodies held for all requests together are at their bound.
    BuffersFull,
    /// WebSocket was asked for; the caller falls back to server-sent events.
    WebSocketUnsupported,
    /// The upstream takes the caller's own credential, and the caller sent none.
    MissingCredential,
    /// The caller sent no client key.
    MissingKey,
    /// What the caller sent is no client key, or none that is good now.
    InvalidKey { problem: KeyProblem },
    /// The key's group may not use the model; it may use those that `allowed` matches.
    ModelForbidden { model: String, allowed: Vec<String> },
    /// The key's group may use some models only, and which one the upstream would use cannot be read.
    ModelUnreadable { problem: &'static str },
    /// The key's group may not call this path; `why` ends the message.
    PathForbidden { path: String, why: &'static str },
    /// No upstream of the key's group serves this model; those that `served` matches are served.
    ModelNotServed { model: String, served: Vec<String> },
    /// Nobody of the caller's group is known to have made the response that the request names: in its path, or else as
    /// `previous_response_id`.
    ResponseNotFound { in_path: bool },
    /// The upstream calls the model by another name, and a compressed body cannot be changed.
    RenameCompressed { model: String },
    /// The client key has reached one of its limits. `limit` is what it may use, in units of `kind`.
    RateLimited {
        kind: LimitKind,
        limit: u64,
        retry: Duration,
    },
    /// Nobody can say which models there are: no upstream answered.
    ModelsUnavailable,
    /// The upstream could not be connected to. Here and below it has no name where callers are not told who serves them.
    UpstreamUnreachable { upstream: Option<String> },
    /// The upstream broke off, or answered something that is not HTTP, before its response head.
    UpstreamBroken { upstream: Option<String> },
    /// The upstream sent no response head in time.
    UpstreamTimeout { upstream: Option<String>, limit: Duration },
    /// Every upstream that may serve the request has reached its limit. `is_owned`: others would not know the state that
    /// the request refers to. `resets_at` is in seconds of Unix time.
    Limited {
        resets_in: Duration,
        resets_at: u64,
        is_owned: bool,
    },
    /// No upstream that may serve the request can take it now.
    Unavailable { retry: Duration, is_owned: bool },
    /// Nobody who knows the state that the request refers to is configured for it.
    OwnerGone,
    /// A bug in Steadfast.
    Internal,
}

/// What is wrong with a client key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// Nobody has it, or it is not readable as one key.
    Unknown,
    /// Its time is over.
    Expired,
    /// The operator has switched it off.
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

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not as it stands: the caller has to change it.
    Never,
    /// After this delay, sent as `retry-after`.
    After(Duration),
}

/// What callers, and their programs, see of a fault.
struct Traits {
    status: StatusCode,
    /// `error.code`
    code: &'static str,
    /// `error.type`
    kind: &'static str,
    /// The metric label `reason`.
    label: &'static str,
}

/// The caller has to change the request.
const INVALID: &str = "invalid_request_error";
/// The caller has to prove who it is.
const AUTHENTICATION: &str = "authentication_error";
/// The caller may not.
const PERMISSION: &str = "permission_error";
/// The caller can do nothing about it.
const SERVER: &str = "server_error";

impl Fault {
    fn traits(&self) -> Traits {
        use StatusCode as S;
        let (status, code, kind, label) = match self {
            Self::UnknownPath { .. } => (S::NOT_FOUND, "unknown_path", INVALID, "path"),
            Self::AmbiguousTarget { .. } => (S::BAD_REQUEST, "ambiguous_target", INVALID, "head"),
            Self::BadHost { .. } => (S::BAD_REQUEST, "bad_host", INVALID, "head"),
            Self::BadHead { .. } => (S::BAD_REQUEST, "bad_head", INVALID, "head"),
            Self::HeadTooLarge => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", INVALID, "head"),
            Self::BadFraming { .. } => (S::BAD_REQUEST, "bad_framing", INVALID, "head"),
            Self::BadMethod { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed", INVALID, "head"),
            Self::AmbiguousBody { .. } => (S::BAD_REQUEST, "ambiguous_body", INVALID, "body"),
            Self::UndecodableBody { .. } => (S::BAD_REQUEST, "undecodable_body", INVALID, "body"),
            Self::IncompleteBody => (S::BAD_REQUEST, "incomplete_body", INVALID, "body"),
            Self::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "request_too_large", INVALID, "too_large"),
            Self::BodyTimeout { .. } => (S::REQUEST_TIMEOUT, "request_timeout", INVALID, "body_timeout"),
            Self::BuffersFull => (S::SERVICE_UNAVAILABLE, "server_overloaded", SERVER, "buffers_full"),
            Self::WebSocketUnsupported => (S::UPGRADE_REQUIRED, "websocket_unsupported", INVALID, "websocket"),
            Self::MissingCredential => (S::UNAUTHORIZED, "missing_api_key", AUTHENTICATION, "credential"),
            Self::MissingKey => (S::UNAUTHORIZED, "missing_api_key", AUTHENTICATION, "key"),
            Self::InvalidKey { .. } => (S::UNAUTHORIZED, "invalid_api_key", AUTHENTICATION, "key"),
            Self::ModelForbidden { .. } => (S::FORBIDDEN, "model_not_allowed", PERMISSION, "forbidden"),
            Self::ModelUnreadable { .. } => (S::FORBIDDEN, "model_unreadable", PERMISSION, "forbidden"),
            Self::PathForbidden { .. } => (S::FORBIDDEN, "path_not_allowed", PERMISSION, "forbidden"),
            Self::ModelNotServed { .. } => (S::NOT_FOUND, "model_not_found", INVALID, "model"),
            Self::ResponseNotFound { in_path: true } => (S::NOT_FOUND, "response_not_found", INVALID, "owner_unknown"),
            // The words of OpenAI, which clients know.
            Self::ResponseNotFound { in_path: false } => {
                (S::BAD_REQUEST, "previous_response_not_found", INVALID, "owner_unknown")
            }
            Self::RenameCompressed { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "compressed_body", INVALID, "body"),
            // OpenAI's types say which limit it was.
            Self::RateLimited { kind, .. } => {
                let which = match kind {
                    LimitKind::Requests => "requests",
                    LimitKind::Tokens => "tokens",
                    LimitKind::Concurrent => "concurrent_requests",
                };
                (S::TOO_MANY_REQUESTS, "rate_limit_exceeded", which, "rate_limited")
            }
            Self::ModelsUnavailable => (S::BAD_GATEWAY, "models_unavailable", SERVER, "upstream"),
            Self::UpstreamUnreachable { .. } => (S::BAD_GATEWAY, "upstream_unreachable", SERVER, "upstream"),
            Self::UpstreamBroken { .. } => (S::BAD_GATEWAY, "upstream_broken", SERVER, "upstream"),
            Self::UpstreamTimeout { .. } => (S::GATEWAY_TIMEOUT, "upstream_timeout", SERVER, "upstream"),
            // Codex goes by the type, and shows when the limit resets.
            Self::Limited { .. } => {
                let code = "usage_limit_reached";
                (S::TOO_MANY_REQUESTS, code, code, "limited")
            }
            Self::Unavailable { .. } => (S::SERVICE_UNAVAILABLE, "upstreams_unavailable", SERVER, "unavailable"),
            Self::OwnerGone => (S::BAD_REQUEST, "state_owner_gone", INVALID, "owner_gone"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal_error", SERVER, "internal"),
        };
        Traits {
            status,
            code,
            kind,
            label,
        }
    }

    /// The HTTP status that the caller gets.
    pub fn status(&self) -> StatusCode {
        self.traits().status
    }

    /// The `error.code` that the caller gets: stable, for programs.
    pub fn code(&self) -> &'static str {
        self.traits().code
    }

    /// The `error.type` that the caller gets.
    pub fn kind(&self) -> &'static str {
        self.traits().kind
    }

    /// The metric label `reason`: one of few.
    pub fn label(&self) -> &'static str {
        self.traits().label
    }

    /// Every value of [`Fault::label`], so that metrics can be registered up front.
    pub const LABELS: [&'static str; 18] = [
        "path",
        "head",
        "body",
        "too_large",
        "body_timeout",
        "buffers_full",
        "websocket",
        "credential",
        "key",
        "forbidden",
        "model",
        "owner_unknown",
        "rate_limited",
        "upstream",
        "limited",
        "unavailable",
        "owner_gone",
        "internal",
    ];

    /// Whether the caller may repeat the request as it stands.
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnknownPath { .. }
            | Self::AmbiguousTarget { .. }
            | Self::BadHost { .. }
            | Self::BadHead { .. }
            | Self::HeadTooLarge
            | Self::BadFraming { .. }
            | Self::BadMethod { .. }
            | Self::AmbiguousBody { .. }
            | Self::UndecodableBody { .. }
            | Self::IncompleteBody
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout { .. }
            | Self::WebSocketUnsupported
            | Self::MissingCredential
            | Self::MissingKey
            | Self::InvalidKey { .. }
            | Self::ModelForbidden { .. }
            | Self::ModelUnreadable { .. }
            | Self::PathForbidden { .. }
            | Self::ModelNotServed { .. }
            | Self::ResponseNotFound { .. }
            | Self::RenameCompressed { .. }
            | Self::OwnerGone => Retry::Never,
            Self::Limited { resets_in: retry, .. }
            | Self::RateLimited { retry, .. }
            | Self::Unavailable { retry, .. } => Retry::After(*retry),
            Self::BuffersFull => Retry::After(Duration::from_secs(1)),
            Self::ModelsUnavailable
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamTimeout { .. }
            | Self::Internal => Retry::After(Duration::from_secs(2)),
        }
    }

    /// Whether the connection to the caller must close: what follows on it has no certain beginning.
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadHead { .. }
                | Self::HeadTooLarge
                | Self::BadFraming { .. }
                | Self::IncompleteBody
                | Self::BodyTimeout { .. }
        )
    }

    /// When a limit resets: in seconds of Unix time, and from now.
    pub fn resets(&self) -> Option<(u64, u64)> {
        match self {
            Self::Limited {
                resets_in, resets_at, ..
            } => Some((*resets_at, seconds(*resets_in))),
            _ => None,
        }
    }

    /// The field of the request's body that is at fault, as `error.param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::ModelNotServed { .. } | Self::ModelForbidden { .. } | Self::RenameCompressed { .. } => Some("model"),
            Self::ResponseNotFound { in_path: false } => Some("previous_response_id"),
            _ => None,
        }
    }
}

/// Whole seconds, rounded up: who comes back too early is refused again. At least one.
pub fn seconds(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_listed_once() {
        let mut labels = Fault::LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Fault::LABELS.len());
    }
}
