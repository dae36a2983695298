//! The closed list of what can go wrong with a request on Steadfast's own account.
//!
//! An upstream's own error is no fault: it passes through byte for byte. Every match here is exhaustive, so a new fault
//! does not compile until it has a status, a code, a label and a retry rule. `proxy::reply` is the only maker of error bodies.

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
    /// No upstream serves this model.
    ModelNotServed { model: String },
    /// Nobody can say which models there are: no upstream answered.
    ModelsUnavailable,
    /// The upstream could not be connected to.
    UpstreamUnreachable { upstream: String },
    /// The upstream broke off, or answered something that is not HTTP, before its response head.
    UpstreamBroken { upstream: String },
    /// The upstream sent no response head in time.
    UpstreamTimeout { upstream: String, limit: Duration },
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

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not as it stands: the caller has to change it.
    Never,
    /// After this delay, sent as `retry-after`.
    After(Duration),
}

impl Fault {
    /// The HTTP status that the caller gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::AmbiguousTarget { .. }
            | Self::BadHost { .. }
            | Self::BadHead { .. }
            | Self::BadFraming { .. }
            | Self::AmbiguousBody { .. }
            | Self::UndecodableBody { .. }
            | Self::IncompleteBody
            | Self::OwnerGone => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MissingCredential => StatusCode::UNAUTHORIZED,
            Self::UnknownPath { .. } | Self::ModelNotServed { .. } => StatusCode::NOT_FOUND,
            Self::BadMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::WebSocketUnsupported => StatusCode::UPGRADE_REQUIRED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ModelsUnavailable | Self::UpstreamUnreachable { .. } | Self::UpstreamBroken { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BuffersFull | Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The `error.code` that the caller gets: stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownPath { .. } => "unknown_path",
            Self::AmbiguousTarget { .. } => "ambiguous_target",
            Self::BadHost { .. } => "bad_host",
            Self::BadHead { .. } => "bad_head",
            Self::HeadTooLarge => "head_too_large",
            Self::BadFraming { .. } => "bad_framing",
            Self::BadMethod { .. } => "method_not_allowed",
            Self::AmbiguousBody { .. } => "ambiguous_body",
            Self::UndecodableBody { .. } => "undecodable_body",
            Self::IncompleteBody => "incomplete_body",
            Self::BodyTooLarge { .. } => "request_too_large",
            Self::BodyTimeout { .. } => "request_timeout",
            Self::BuffersFull => "server_overloaded",
            Self::WebSocketUnsupported => "websocket_unsupported",
            Self::MissingCredential => "missing_api_key",
            Self::ModelNotServed { .. } => "model_not_found",
            Self::ModelsUnavailable => "models_unavailable",
            Self::UpstreamUnreachable { .. } => "upstream_unreachable",
            Self::UpstreamBroken { .. } => "upstream_broken",
            Self::UpstreamTimeout { .. } => "upstream_timeout",
            Self::Limited { .. } => "usage_limit_reached",
            Self::Unavailable { .. } => "upstreams_unavailable",
            Self::OwnerGone => "state_owner_gone",
            Self::Internal => "internal_error",
        }
    }

    /// The `error.type` that the caller gets.
    pub fn kind(&self) -> &'static str {
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
            | Self::ModelNotServed { .. }
            | Self::OwnerGone => "invalid_request_error",
            // Codex goes by the type, and shows when the limit resets.
            Self::Limited { .. } => "usage_limit_reached",
            Self::MissingCredential => "authentication_error",
            Self::BuffersFull
            | Self::ModelsUnavailable
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamTimeout { .. }
            | Self::Unavailable { .. }
            | Self::Internal => "server_error",
        }
    }

    /// The metric label `reason`: one of few.
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownPath { .. } => "path",
            Self::AmbiguousTarget { .. }
            | Self::BadHost { .. }
            | Self::BadHead { .. }
            | Self::HeadTooLarge
            | Self::BadFraming { .. }
            | Self::BadMethod { .. } => "head",
            Self::AmbiguousBody { .. } | Self::UndecodableBody { .. } | Self::IncompleteBody => "body",
            Self::BodyTooLarge { .. } => "too_large",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::BuffersFull => "buffers_full",
            Self::WebSocketUnsupported => "websocket",
            Self::MissingCredential => "credential",
            Self::ModelNotServed { .. } => "model",
            Self::ModelsUnavailable
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamTimeout { .. } => "upstream",
            Self::Limited { .. } => "limited",
            Self::Unavailable { .. } => "unavailable",
            Self::OwnerGone => "owner_gone",
            Self::Internal => "internal",
        }
    }

    /// Every value of [`Fault::label`], so that metrics can be registered up front.
    pub const LABELS: [&'static str; 14] = [
        "path",
        "head",
        "body",
        "too_large",
        "body_timeout",
        "buffers_full",
        "websocket",
        "credential",
        "model",
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
            | Self::ModelNotServed { .. }
            | Self::OwnerGone => Retry::Never,
            Self::Limited { resets_in: retry, .. } | Self::Unavailable { retry, .. } => Retry::After(*retry),
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
        match self {
            Self::BadHead { .. }
            | Self::HeadTooLarge
            | Self::BadFraming { .. }
            | Self::IncompleteBody
            | Self::BodyTimeout { .. } => true,
            Self::UnknownPath { .. }
            | Self::AmbiguousTarget { .. }
            | Self::BadHost { .. }
            | Self::BadMethod { .. }
            | Self::AmbiguousBody { .. }
            | Self::UndecodableBody { .. }
            | Self::BodyTooLarge { .. }
            | Self::BuffersFull
            | Self::WebSocketUnsupported
            | Self::MissingCredential
            | Self::ModelNotServed { .. }
            | Self::ModelsUnavailable
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamTimeout { .. }
            | Self::Limited { .. }
            | Self::Unavailable { .. }
            | Self::OwnerGone
            | Self::Internal => false,
        }
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

    /// What was wrong, where, and what to do.
    pub fn message(&self) -> String {
        match self {
            Self::UnknownPath { path, meant } => format!("No such path: {path}. Did you mean {meant}?"),
            Self::AmbiguousTarget { problem } => format!("The request target {problem}. Send one plain absolute path."),
            Self::BadHost { problem } => format!("The Host header {problem}. Send exactly one, as host or host:port."),
            Self::BadHead { problem } => format!("The request's head is not HTTP/1.1: {problem}. Check what sends it, and anything between."),
            Self::HeadTooLarge => "The request's head has over 64 KiB or 100 fields. Send fewer or shorter header fields.".to_owned(),
            Self::BadFraming { problem } => format!("The request's framing {problem}. Send one Content-Length, or Transfer-Encoding: chunked alone."),
            Self::BadMethod { problem } => format!("The request's method {problem}."),
            Self::AmbiguousBody { problem, offset } => {
                format!("The request body has no single reading: {problem} at byte {offset}. Send one UTF-8 JSON object in which every routing field stands once.")
            }
            Self::UndecodableBody { problem } => format!("The request body does not decompress: {problem}. Check it against its Content-Encoding, or send it uncompressed."),
            Self::IncompleteBody => "The request body broke off before it was complete. Send it again.".to_owned(),
            Self::BodyTooLarge { limit } => format!("The request body is over the limit of {limit} bytes. Send less, or raise server.max_body."),
            Self::BodyTimeout { idle } => format!("No piece of the request body arrived for {idle:?}. Send it again without pauses."),
            Self::BuffersFull => "Too many request bodies are being held at once. Try again shortly.".to_owned(),
            Self::WebSocketUnsupported => "WebSocket is not supported here. POST to /v1/responses with \"stream\": true instead.".to_owned(),
            Self::MissingCredential => "This upstream is called with your own API key. Send it as Authorization: Bearer.".to_owned(),
            Self::ModelNotServed { model } => format!("The model '{model}' is served by no upstream. GET /v1/models lists those that are."),
            Self::ModelsUnavailable => "No upstream answered with its list of models. Try again shortly.".to_owned(),
            Self::UpstreamUnreachable { upstream } => format!("The upstream '{upstream}' could not be reached. Try again shortly."),
            Self::UpstreamBroken { upstream } => format!("The upstream '{upstream}' broke off before it answered. Try again shortly."),
            Self::UpstreamTimeout { upstream, limit } => format!("The upstream '{upstream}' did not answer within {limit:?}. Try again shortly."),
            Self::Limited { resets_in, is_owned, .. } => {
                let who = if *is_owned { OWNER } else { "Every upstream that may serve this request" };
                format!("{who} has reached its usage limit. The first resets in {}; try again then.", in_words(*resets_in))
            }
            Self::Unavailable { retry, is_owned } => {
                let who = if *is_owned { OWNER } else { "Every upstream that may serve this request" };
                format!("{who} is busy or out of order. Try again in {}.", in_words(*retry))
            }
            Self::OwnerGone => "The request refers to a response, a turn or encrypted content of an upstream that is not configured (any more) for this model. Start anew, without them.".to_owned(),
            Self::Internal => "Steadfast failed to handle this request. Try again; if it stays, report it with this response's x-request-id.".to_owned(),
        }
    }
}

const OWNER: &str = "What this request refers to (an earlier response, a turn or encrypted content) is known to one upstream organization only, which";

/// Whole seconds, rounded up: who comes back too early is refused again. At least one.
pub fn seconds(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}

/// The two largest units that matter to somebody who waits.
fn in_words(delay: Duration) -> String {
    let seconds = seconds(delay);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_told_in_units_that_people_use() {
        for (seconds, told) in [
            (0.0, "1 s"),
            (1.2, "2 s"),
            (119.0, "119 s"),
            (150.0, "2 min"),
            (7500.0, "2 h 5 min"),
            (176_400.0, "2 d 1 h"),
        ] {
            assert_eq!(in_words(Duration::from_secs_f64(seconds)), told);
        }
    }

    #[test]
    fn every_label_is_listed_once() {
        let mut labels = Fault::LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Fault::LABELS.len());
    }
}
