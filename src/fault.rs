//! The closed list of the errors with which Steadfast itself answers a request.
//!
//! An upstream's own error is not a fault: it is passed on byte for byte. The matches in `Fault::traits`,
//! [`Fault::message`] and [`Fault::retry`] are exhaustive, so that a new fault does not compile until it has a status,
//! a code, a type, a reason, a message and a retry advice. `proxy::reply` is the only place that makes error bodies of
//! faults. The access log and the metrics count them there, so a stage only returns the fault.

mod details;
mod message;
mod reason;
mod reference;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::StatusCode;

pub use self::{
    details::{FailedSubject, KeyProblem, LimitKind, UnavailableCause},
    reason::RejectReason,
    reference::ObjectReference,
};

/// An error with which Steadfast itself answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment of a variant describes its fields")]
pub enum Fault {
    /// No endpoint has this path. `suggestion` is the path that the caller probably meant.
    UnknownPath { path: String, suggestion: &'static str },
    /// Servers could read the request target in several ways (`..`, `%2e`, `//`, another authority than `Host`, …).
    AmbiguousTarget { problem: &'static str },
    /// The `Host` header is missing, repeated or invalid.
    BadHost { problem: &'static str },
    /// The listener needs no client key, and `Host` is a name that a web page could make resolve to this machine.
    ForeignHost,
    /// A web page sent the request through a browser, and its origin is not allowed. `origin` is that origin, if the
    /// browser named it.
    CrossSite { origin: Option<String> },
    /// The request's head is not valid HTTP/1. The connection is closed.
    BadHead { problem: &'static str },
    /// The request's head is over the limit in bytes or in fields. The connection is closed.
    HeadTooLarge,
    /// The request's framing is invalid or ambiguous, so that the end of its body is not certain. The connection is closed.
    BadFraming { problem: &'static str },
    /// The method is not supported.
    BadMethod { problem: &'static str },
    /// The body is not JSON. `offset` is in bytes of the decompressed body.
    InvalidJson { problem: String, offset: u64 },
    /// Parsers could read the body in several ways. `offset` is in bytes of the decompressed body.
    AmbiguousBody { problem: String, offset: u64 },
    /// The body is a form that parsers could read in several ways. `offset` is in bytes of the decompressed body.
    AmbiguousForm { problem: String, offset: u64 },
    /// The body is not a valid form. `offset` is in bytes of the decompressed body.
    InvalidForm { problem: String, offset: u64 },
    /// The boundary between the parts of a form, or whether the body is a form, is not certain by its `Content-Type`.
    AmbiguousFormType { problem: &'static str },
    /// The body cannot be decompressed as its `content-encoding` says.
    UndecodableBody { problem: String },
    /// The body ended before it was complete.
    IncompleteBody,
    /// The body is larger than `limit` bytes, as sent or after decompression.
    BodyTooLarge { limit: u64 },
    /// No part of the body arrived for the time `idle`.
    BodyTimeout { idle: Duration },
    /// The body arrived with fewer than `rate` bytes per second for the time `window`.
    BodyTooSlow { rate: u64, window: Duration },
    /// The bodies of all requests together have reached the memory limit for bodies.
    BuffersFull,
    /// The bodies of the caller's key, or of the client's address, have reached their share of the memory limit for bodies
    /// while other callers wait for memory.
    BufferShareFull,
    /// The memory for bodies was full, and this body arrived more slowly than the others, so its memory was given to them.
    BufferReclaimed,
    /// A field of the body has a value of another type than the API defines. `expected` is that type, such as `a string`.
    InvalidType {
        field: &'static str,
        expected: &'static str,
    },
    /// The request has passed through this gateway before, because an upstream leads back here, or through too many
    /// gateways.
    LoopDetected,
    /// Steadfast itself has no file descriptor, no port or no memory left for a connection to an upstream. `shortage` names
    /// what is missing.
    Overloaded { shortage: &'static str },
    /// The client asked for a WebSocket. Clients fall back to server-sent events.
    WebSocketUnsupported,
    /// The upstream is called with the caller's own credential, and the request has none.
    MissingCredential,
    /// The request has no client key.
    MissingKey,
    /// The request's client key is not valid.
    InvalidKey { problem: KeyProblem },
    /// The key's group may not use the model. It may use the models that match `allowed`.
    ModelForbidden { model: String, allowed: Vec<String> },
    /// The key's group may use only some models, and the request's model cannot be read. `problem` says why.
    ModelUnreadable { problem: &'static str },
    /// The key's group may not call this path. `why` says the reason and what the caller can do.
    PathForbidden { path: String, why: &'static str },
    /// No upstream of the key's group serves this model. They serve the models that match `served`.
    ModelNotServed { model: String, served: Vec<String> },
    /// The request names an object that is not known to be made by the caller's group.
    ObjectNotFound { reference: ObjectReference },
    /// The upstream has another name for the model, and Steadfast cannot write that name into a compressed body.
    RenameCompressed { model: String },
    /// The client key has reached one of its limits. `limit` is the limit in units of `kind`, and `retry` is the time
    /// until a request may succeed.
    RateLimited {
        kind: LimitKind,
        limit: u64,
        retry: Duration,
    },
    /// No upstream returned its list of models.
    ModelsUnavailable,
    /// The last requests of the session, or of several sessions, failed at every upstream. `retry` is the time after which
    /// the caller should try again.
    FailedEverywhere { subject: FailedSubject, retry: Duration },
    /// No connection to the upstream could be made. `upstream` is its name, here and below, or `None` if callers are not
    /// told the names of upstreams.
    UpstreamUnreachable { upstream: Option<String> },
    /// The upstream closed the connection, or sent something that is not HTTP, before its response head.
    UpstreamBroken { upstream: Option<String> },
    /// The upstream sent no response head within `limit`.
    UpstreamTimeout { upstream: Option<String>, limit: Duration },
    /// The upstream refuses its configured credential, and no other upstream serves the request. `retry` is the time until
    /// an upstream may serve it.
    CredentialRefused { upstream: Option<String>, retry: Duration },
    /// The upstreams that may serve the request have used up their quota, or their limits reset only after a long time.
    /// `resets_at` is the Unix time in seconds at which the first limit resets. If `is_owned` is true, the request refers
    /// to state that other upstreams do not have.
    Limited {
        resets_in: Duration,
        resets_at: u64,
        is_owned: bool,
    },
    /// The upstreams that may serve the request have reached limits that reset soon. `is_owned` is as in
    /// [`Fault::Limited`].
    UpstreamsRateLimited { resets_in: Duration, is_owned: bool },
    /// No upstream that may serve the request is available now. `retry` is the time until one may be. `is_owned` is as in
    /// [`Fault::Limited`].
    Unavailable {
        cause: UnavailableCause,
        retry: Duration,
        is_owned: bool,
    },
    /// The request refers to state of an upstream that is not configured, or that does not serve the request's model.
    OwnerGone,
    /// A bug in Steadfast.
    Internal,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAdvice {
    /// No: the caller has to change the request.
    Never,
    /// Yes, after this delay, which is sent as `retry-after`.
    After(Duration),
}

/// One row of the table of faults.
struct FaultTraits {
    status: StatusCode,
    /// The `error.code` of the answer.
    code: &'static str,
    /// The `error.type` of the answer.
    kind: &'static str,
    reason: RejectReason,
}

impl From<(StatusCode, &'static str, &'static str, RejectReason)> for FaultTraits {
    fn from((status, code, kind, reason): (StatusCode, &'static str, &'static str, RejectReason)) -> Self {
        Self {
            status,
            code,
            kind,
            reason,
        }
    }
}

/// The `error.type` if the caller has to change the request.
const INVALID: &str = "invalid_request_error";
/// The `error.type` if the caller has to prove its identity.
const AUTHENTICATION: &str = "authentication_error";
/// The `error.type` if the caller lacks a permission.
const PERMISSION: &str = "permission_error";
/// The `error.type` if the caller is not the cause.
const SERVER: &str = "server_error";
/// The `error.code` of a limit that resets soon.
const RATE_LIMIT: &str = "rate_limit_exceeded";
/// The `error.code` and `error.type` of an exhausted quota.
const USAGE_LIMIT: &str = "usage_limit_reached";

impl Fault {
    /// The table of faults.
    fn traits(&self) -> FaultTraits {
        use {RejectReason as R, StatusCode as S};
        FaultTraits::from(match self {
            Self::UnknownPath { .. } => (S::NOT_FOUND, "unknown_path", INVALID, R::Path),
            Self::AmbiguousTarget { .. } => (S::BAD_REQUEST, "ambiguous_target", INVALID, R::Head),
            Self::BadHost { .. } => (S::BAD_REQUEST, "bad_host", INVALID, R::Head),
            Self::ForeignHost => (S::FORBIDDEN, "host_not_allowed", PERMISSION, R::Forbidden),
            Self::CrossSite { .. } => (S::FORBIDDEN, "origin_not_allowed", PERMISSION, R::Forbidden),
            Self::BadHead { .. } => (S::BAD_REQUEST, "bad_head", INVALID, R::Head),
            Self::HeadTooLarge => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", INVALID, R::Head),
            Self::BadFraming { .. } => (S::BAD_REQUEST, "bad_framing", INVALID, R::Head),
            Self::BadMethod { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed", INVALID, R::Head),
            Self::InvalidJson { .. } => (S::BAD_REQUEST, "invalid_json", INVALID, R::Body),
            Self::AmbiguousBody { .. } | Self::AmbiguousForm { .. } | Self::AmbiguousFormType { .. } => {
                (S::BAD_REQUEST, "ambiguous_body", INVALID, R::Body)
            }
            Self::InvalidForm { .. } => (S::BAD_REQUEST, "invalid_multipart", INVALID, R::Body),
            Self::UndecodableBody { .. } => (S::BAD_REQUEST, "undecodable_body", INVALID, R::Body),
            Self::IncompleteBody => (S::BAD_REQUEST, "incomplete_body", INVALID, R::Body),
            Self::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "request_too_large", INVALID, R::TooLarge),
            Self::BodyTimeout { .. } | Self::BodyTooSlow { .. } => {
                (S::REQUEST_TIMEOUT, "request_timeout", INVALID, R::BodyTimeout)
            }
            Self::BuffersFull | Self::BufferShareFull | Self::BufferReclaimed => {
                (S::SERVICE_UNAVAILABLE, "server_overloaded", SERVER, R::BuffersFull)
            }
            Self::InvalidType { .. } => (S::BAD_REQUEST, "invalid_type", INVALID, R::Body),
            Self::LoopDetected => (S::LOOP_DETECTED, "loop_detected", SERVER, R::Loop),
            Self::Overloaded { .. } => (S::SERVICE_UNAVAILABLE, "overloaded", SERVER, R::Overloaded),
            Self::WebSocketUnsupported => (S::UPGRADE_REQUIRED, "websocket_unsupported", INVALID, R::WebSocket),
            Self::MissingCredential => (S::UNAUTHORIZED, "missing_api_key", AUTHENTICATION, R::Credential),
            Self::MissingKey => (S::UNAUTHORIZED, "missing_api_key", AUTHENTICATION, R::Key),
            Self::InvalidKey { .. } => (S::UNAUTHORIZED, "invalid_api_key", AUTHENTICATION, R::Key),
            Self::ModelForbidden { .. } => (S::FORBIDDEN, "model_not_allowed", PERMISSION, R::Forbidden),
            Self::ModelUnreadable { .. } => (S::FORBIDDEN, "model_unreadable", PERMISSION, R::Forbidden),
            Self::PathForbidden { .. } => (S::FORBIDDEN, "path_not_allowed", PERMISSION, R::Forbidden),
            Self::ModelNotServed { .. } => (S::NOT_FOUND, "model_not_found", INVALID, R::Model),
            Self::ObjectNotFound { reference } => (reference.status(), reference.code(), INVALID, R::OwnerUnknown),
            Self::RenameCompressed { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "compressed_body", INVALID, R::Body),
            // These are OpenAI's own types, which name the limit.
            Self::RateLimited { kind, .. } => (S::TOO_MANY_REQUESTS, RATE_LIMIT, kind.error_type(), R::RateLimited),
            Self::ModelsUnavailable => (S::BAD_GATEWAY, "models_unavailable", SERVER, R::Upstream),
            Self::UpstreamUnreachable { .. } => (S::BAD_GATEWAY, "upstream_unreachable", SERVER, R::Upstream),
            Self::UpstreamBroken { .. } => (S::BAD_GATEWAY, "upstream_broken", SERVER, R::Upstream),
            Self::UpstreamTimeout { .. } => (S::GATEWAY_TIMEOUT, "upstream_timeout", SERVER, R::Upstream),
            Self::CredentialRefused { .. } => (S::BAD_GATEWAY, "upstream_credential_refused", SERVER, R::Upstream),
            // Codex waits for `retry-after` if the type is this one.
            Self::UpstreamsRateLimited { .. } => (S::TOO_MANY_REQUESTS, RATE_LIMIT, RATE_LIMIT, R::Limited),
            // Codex recognises the type, shows when the limit resets, and gives up.
            Self::Limited { .. } => (S::TOO_MANY_REQUESTS, USAGE_LIMIT, USAGE_LIMIT, R::Limited),
            Self::FailedEverywhere { .. } | Self::Unavailable { .. } => {
                (S::SERVICE_UNAVAILABLE, "upstreams_unavailable", SERVER, R::Unavailable)
            }
            Self::OwnerGone => (S::BAD_REQUEST, "state_owner_gone", INVALID, R::OwnerGone),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal_error", SERVER, R::Internal),
        })
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.traits().status
    }

    /// The `error.code` of the answer. Programs may rely on it.
    pub fn code(&self) -> &'static str {
        self.traits().code
    }

    /// The `error.type` of the answer.
    pub fn kind(&self) -> &'static str {
        self.traits().kind
    }

    /// The reason by which the metrics count the rejected request.
    pub fn reject_reason(&self) -> RejectReason {
        self.traits().reason
    }

    /// Whether the caller may repeat the request unchanged.
    pub fn retry(&self) -> RetryAdvice {
        match self {
            Self::UnknownPath { .. }
            | Self::AmbiguousTarget { .. }
            | Self::BadHost { .. }
            | Self::ForeignHost
            | Self::CrossSite { .. }
            | Self::BadHead { .. }
            | Self::HeadTooLarge
            | Self::BadFraming { .. }
            | Self::BadMethod { .. }
            | Self::InvalidJson { .. }
            | Self::AmbiguousBody { .. }
            | Self::AmbiguousForm { .. }
            | Self::InvalidForm { .. }
            | Self::AmbiguousFormType { .. }
            | Self::UndecodableBody { .. }
            | Self::IncompleteBody
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout { .. }
            | Self::BodyTooSlow { .. }
            | Self::InvalidType { .. }
            | Self::LoopDetected
            | Self::WebSocketUnsupported
            | Self::MissingCredential
            | Self::MissingKey
            | Self::InvalidKey { .. }
            | Self::ModelForbidden { .. }
            | Self::ModelUnreadable { .. }
            | Self::PathForbidden { .. }
            | Self::ModelNotServed { .. }
            | Self::ObjectNotFound { .. }
            | Self::RenameCompressed { .. }
            | Self::OwnerGone => RetryAdvice::Never,
            Self::Limited { resets_in: retry, .. }
            | Self::UpstreamsRateLimited { resets_in: retry, .. }
            | Self::CredentialRefused { retry, .. }
            | Self::RateLimited { retry, .. }
            | Self::FailedEverywhere { retry, .. }
            | Self::Unavailable { retry, .. } => RetryAdvice::After(*retry),
            Self::BuffersFull | Self::BufferShareFull | Self::BufferReclaimed | Self::Overloaded { .. } => {
                RetryAdvice::After(Duration::from_secs(1))
            }
            Self::ModelsUnavailable
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamTimeout { .. }
            | Self::Internal => RetryAdvice::After(Duration::from_secs(2)),
        }
    }

    /// Whether the connection to the client must be closed, because the beginning of the next request is not certain.
    pub fn closes_connection(&self) -> bool {
        matches!(
            self,
            Self::BadHead { .. }
                | Self::HeadTooLarge
                | Self::BadFraming { .. }
                | Self::IncompleteBody
                | Self::BodyTimeout { .. }
                | Self::BodyTooSlow { .. }
                | Self::BufferReclaimed
        )
    }

    /// The time at which the first limit resets: the Unix time in seconds, and the number of seconds from now. `None`
    /// for faults without a reset.
    pub fn limit_reset(&self) -> Option<(u64, u64)> {
        match self {
            Self::Limited {
                resets_in, resets_at, ..
            } => Some((*resets_at, seconds(*resets_in))),
            _ => None,
        }
    }

    /// The `error.param` of the answer: the field of the request's body that is wrong.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::ModelNotServed { .. } | Self::ModelForbidden { .. } | Self::RenameCompressed { .. } => Some("model"),
            Self::ObjectNotFound { reference } => reference.param(),
            Self::InvalidType { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// A delay in whole seconds, at least one. It is rounded up: a caller that came back too early would be refused again.
pub fn seconds(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}
