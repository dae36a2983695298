//! The closed list of what can go wrong with a request on Steadfast's own account.
//!
//! An upstream's own error is no fault: it passes through byte for byte. Every match here is exhaustive, so a new fault
//! does not compile until it has a status, a code, a reason and a retry rule. `proxy::reply` is the only maker of error bodies.

mod message;
mod reason;

use std::time::Duration;

use http::StatusCode;

pub use self::reason::RejectReason;

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
pub enum RetryAdvice {
    /// Not as it stands: the caller has to change it.
    Never,
    /// After this delay, sent as `retry-after`.
    After(Duration),
}

/// What callers, and their programs, see of a fault.
struct FaultTraits {
    status: StatusCode,
    /// `error.code`
    code: &'static str,
    /// `error.type`
    kind: &'static str,
    reason: RejectReason,
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
    fn traits(&self) -> FaultTraits {
        use {RejectReason as R, StatusCode as S};
        let (status, code, kind, reason) = match self {
            Self::UnknownPath { .. } => (S::NOT_FOUND, "unknown_path", INVALID, R::Path),
            Self::AmbiguousTarget { .. } => (S::BAD_REQUEST, "ambiguous_target", INVALID, R::Head),
            Self::BadHost { .. } => (S::BAD_REQUEST, "bad_host", INVALID, R::Head),
            Self::BadHead { .. } => (S::BAD_REQUEST, "bad_head", INVALID, R::Head),
            Self::HeadTooLarge => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", INVALID, R::Head),
            Self::BadFraming { .. } => (S::BAD_REQUEST, "bad_framing", INVALID, R::Head),
            Self::BadMethod { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed", INVALID, R::Head),
            Self::AmbiguousBody { .. } => (S::BAD_REQUEST, "ambiguous_body", INVALID, R::Body),
            Self::UndecodableBody { .. } => (S::BAD_REQUEST, "undecodable_body", INVALID, R::Body),
            Self::IncompleteBody => (S::BAD_REQUEST, "incomplete_body", INVALID, R::Body),
            Self::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "request_too_large", INVALID, R::TooLarge),
            Self::BodyTimeout { .. } => (S::REQUEST_TIMEOUT, "request_timeout", INVALID, R::BodyTimeout),
            Self::BuffersFull => (S::SERVICE_UNAVAILABLE, "server_overloaded", SERVER, R::BuffersFull),
            Self::WebSocketUnsupported => (S::UPGRADE_REQUIRED, "websocket_unsupported", INVALID, R::WebSocket),
            Self::MissingCredential => (S::UNAUTHORIZED, "missing_api_key", AUTHENTICATION, R::Credential),
            Self::MissingKey => (S::UNAUTHORIZED, "missing_api_key", AUTHENTICATION, R::Key),
            Self::InvalidKey { .. } => (S::UNAUTHORIZED, "invalid_api_key", AUTHENTICATION, R::Key),
            Self::ModelForbidden { .. } => (S::FORBIDDEN, "model_not_allowed", PERMISSION, R::Forbidden),
            Self::ModelUnreadable { .. } => (S::FORBIDDEN, "model_unreadable", PERMISSION, R::Forbidden),
            Self::PathForbidden { .. } => (S::FORBIDDEN, "path_not_allowed", PERMISSION, R::Forbidden),
            Self::ModelNotServed { .. } => (S::NOT_FOUND, "model_not_found", INVALID, R::Model),
            Self::ResponseNotFound { in_path: true } => (S::NOT_FOUND, "response_not_found", INVALID, R::OwnerUnknown),
            // The words of OpenAI, which clients know.
            Self::ResponseNotFound { in_path: false } => {
                (S::BAD_REQUEST, "previous_response_not_found", INVALID, R::OwnerUnknown)
            }
            Self::RenameCompressed { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "compressed_body", INVALID, R::Body),
            // OpenAI's types say which limit it was.
            Self::RateLimited { kind, .. } => {
                let which = match kind {
                    LimitKind::Requests => "requests",
                    LimitKind::Tokens => "tokens",
                    LimitKind::Concurrent => "concurrent_requests",
                };
                (S::TOO_MANY_REQUESTS, "rate_limit_exceeded", which, R::RateLimited)
            }
            Self::ModelsUnavailable => (S::BAD_GATEWAY, "models_unavailable", SERVER, R::Upstream),
            Self::UpstreamUnreachable { .. } => (S::BAD_GATEWAY, "upstream_unreachable", SERVER, R::Upstream),
            Self::UpstreamBroken { .. } => (S::BAD_GATEWAY, "upstream_broken", SERVER, R::Upstream),
            Self::UpstreamTimeout { .. } => (S::GATEWAY_TIMEOUT, "upstream_timeout", SERVER, R::Upstream),
            // Codex goes by the type, and shows when the limit resets.
            Self::Limited { .. } => {
                let code = "usage_limit_reached";
                (S::TOO_MANY_REQUESTS, code, code, R::Limited)
            }
            Self::Unavailable { .. } => (S::SERVICE_UNAVAILABLE, "upstreams_unavailable", SERVER, R::Unavailable),
            Self::OwnerGone => (S::BAD_REQUEST, "state_owner_gone", INVALID, R::OwnerGone),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal_error", SERVER, R::Internal),
        };
        FaultTraits {
            status,
            code,
            kind,
            reason,
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

    /// Why the request is rejected, for metrics.
    pub fn reject_reason(&self) -> RejectReason {
        self.traits().reason
    }

    /// Whether the caller may repeat the request as it stands.
    pub fn retry(&self) -> RetryAdvice {
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
            | Self::OwnerGone => RetryAdvice::Never,
            Self::Limited { resets_in: retry, .. }
            | Self::RateLimited { retry, .. }
            | Self::Unavailable { retry, .. } => RetryAdvice::After(*retry),
            Self::BuffersFull => RetryAdvice::After(Duration::from_secs(1)),
            Self::ModelsUnavailable
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamTimeout { .. }
            | Self::Internal => RetryAdvice::After(Duration::from_secs(2)),
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
