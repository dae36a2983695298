//! The message of each fault: what was wrong, where, and what the caller can do.

use std::time::Duration;

use super::{FailedSubject, Fault, KeyProblem, LimitKind, ObjectReference, UnavailableCause, seconds};

/// The subject of a sentence about the organization that owns the state to which a request refers.
const OWNER: &str = "This request refers to an earlier response, another object or encrypted content that belongs to one upstream organization. That organization";
/// The subject of a sentence about all upstreams that may serve a request.
const EVERY_UPSTREAM: &str = "Every upstream that may serve this request";

impl Fault {
    /// What was wrong, where, and what the caller can do.
    pub fn message(&self) -> String {
        match self {
            Self::UnknownPath { path, suggestion } => format!("No such path: {path}. Did you mean {suggestion}?"),
            Self::AmbiguousTarget { problem } => format!("The request target {problem}. Send a plain absolute path."),
            Self::ForeignHost => "Without client keys, Host must be localhost or a loopback address, because a web page may have any other name resolve to this machine. Call http://127.0.0.1 or http://localhost with the port of Steadfast, or configure client keys.".to_owned(),
            Self::CrossSite { origin: Some(origin) } => format!("A web page of '{origin}' sent this request through a browser. If its pages may use this proxy, add the origin to server.allow_origins."),
            Self::CrossSite { origin: None } => "A web page of another site sent this request through a browser. Send it from a command line, or add the origin of the page to server.allow_origins.".to_owned(),
            Self::BadHost { problem } => format!("The Host header {problem}. Send exactly one, as host or host:port."),
            Self::BadHead { problem } => format!("Invalid HTTP/1.1 request head: {problem}. Check the client, and any proxy between it and Steadfast."),
            Self::HeadTooLarge => "The request head is larger than 64 KiB or has more than 100 header fields. Send fewer or shorter header fields.".to_owned(),
            Self::BadFraming { problem } => format!("The request {problem}. Send one Content-Length, or Transfer-Encoding: chunked alone."),
            Self::BadMethod { problem } => format!("Invalid method: {problem}. Use GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS."),
            Self::InvalidJson { problem, offset } => format!("The request body is invalid JSON at byte {offset}: {problem}. Send one UTF-8 JSON object."),
            Self::AmbiguousBody { problem, offset } => {
                format!("Steadfast cannot inspect the request body reliably: {problem} at byte {offset}. Send one JSON object in which every routing field appears once, as a text without lone surrogates.")
            }
            Self::AmbiguousForm { problem, offset } => {
                format!("The form in the request body is ambiguous: {problem} at byte {offset}. Send multipart/form-data with CRLF line ends, in which every routing field appears once, as plain text.")
            }
            Self::InvalidForm { problem, offset } => format!("The form in the request body is invalid: {problem} at byte {offset}. Send multipart/form-data (RFC 7578)."),
            Self::AmbiguousFormType { problem } => format!("The Content-Type of the form {problem}. Send one Content-Type header: multipart/form-data with one boundary."),
            Self::UndecodableBody { problem } => format!("The request body cannot be decompressed: {problem}. Check it against its Content-Encoding, or send it uncompressed."),
            Self::IncompleteBody => "The request body ended before it was complete. Send the request again.".to_owned(),
            Self::BodyTooLarge { limit } => format!("The request body is larger than the limit of {limit} bytes. Send a smaller body, or ask the operator of this gateway to raise server.max_body."),
            Self::BodyTimeout { idle } => format!("No part of the request body arrived for {idle:?}. Send the request again without pauses."),
            Self::BuffersFull => "The memory for request bodies (server.buffered_bodies) is full at the moment. Try again shortly.".to_owned(),
            Self::BodyTooSlow { rate, window } => format!("The request body arrived with fewer than {rate} bytes per second for {window:?}. Send it faster, or ask the operator of this gateway to lower server.min_body_rate."),
            Self::BufferShareFull => "The request bodies that you send at the moment fill your share of the memory for request bodies (server.buffered_share), and the rest is for other callers. Send fewer large bodies at a time.".to_owned(),
            Self::BufferReclaimed => "The memory for request bodies (server.buffered_bodies) is full at the moment, and this body arrived more slowly than the others. Send it again, and faster.".to_owned(),
            Self::InvalidType { field, expected } => format!("The field '{field}' of the request body must be {expected}. Correct it, or leave it out."),
            Self::LoopDetected => "This request has passed through this gateway before, so an upstream leads back to it. The operator of this gateway has to correct the base_url of that upstream.".to_owned(),
            Self::Overloaded { shortage } => format!("This gateway has no {shortage} left at the moment for a connection to an upstream. Try again shortly."),
            Self::WebSocketUnsupported => "WebSocket is not supported. Send POST /v1/responses with \"stream\": true instead.".to_owned(),
            Self::MissingCredential => "This upstream needs your own API key. Send it as Authorization: Bearer KEY.".to_owned(),
            Self::MissingKey => "You didn't provide an API key. Send the key that you were given as Authorization: Bearer KEY.".to_owned(),
            Self::InvalidKey { problem } => invalid_key(*problem).to_owned(),
            Self::ModelForbidden { model, allowed } => format!("Your API key may not use the model '{model}'. It may use: {}.", list(allowed)),
            Self::ModelUnreadable { problem } => format!("Your API key may use only some models, and {problem}. Send a JSON body or a multipart/form-data body with \"model\"."),
            Self::PathForbidden { path, why } => format!("Your API key may not call {path}: {why}."),
            Self::ModelNotServed { model, served } if served.is_empty() => format!("The model '{model}' does not exist here. GET /v1/models lists the models that exist."),
            Self::ModelNotServed { model, served } => format!("The model '{model}' does not exist here. You may use: {}. GET /v1/models lists them.", list(served)),
            Self::ObjectNotFound { reference } => object_not_found(*reference),
            Self::RenameCompressed { model } => format!("The upstream has another name for the model '{model}', and Steadfast cannot write that name into a compressed body. Send the body uncompressed."),
            // Codex reads the delay from this text and waits for that time.
            Self::RateLimited { kind, limit, retry } => format!("Rate limit reached: your API key may use {limit} {}. Please try again in {}s.", unit(*kind), seconds(*retry)),
            Self::ModelsUnavailable => "No upstream returned its list of models. Try again shortly.".to_owned(),
            Self::FailedEverywhere { subject, retry } => failed_everywhere(*subject, *retry),
            Self::UpstreamUnreachable { upstream } => format!("{} could not be reached. Try again shortly.", named(upstream.as_deref())),
            Self::UpstreamBroken { upstream } => format!("{} closed the connection before it sent a valid response. Try again shortly.", named(upstream.as_deref())),
            Self::UpstreamTimeout { upstream, limit } => format!("{} did not answer within {limit:?}. Try again shortly.", named(upstream.as_deref())),
            Self::Limited { resets_in, .. } => format!("{} has reached its usage limit. The first limit resets in {}; try again then.", self.subject(), in_words(*resets_in)),
            Self::CredentialRefused { upstream, .. } => format!("{} refuses the credential that this gateway has for it, and no other upstream can serve this request. The operator of this gateway has to renew that credential.", named(upstream.as_deref())),
            // Codex reads the delay from this text and waits for that time.
            Self::UpstreamsRateLimited { resets_in, is_owned: true } => format!("Rate limit reached. {OWNER} may not take more requests at the moment. Please try again in {}s.", seconds(*resets_in)),
            Self::UpstreamsRateLimited { resets_in, is_owned: false } => format!("Rate limit reached. The upstreams that may serve this request may not take more requests at the moment. Please try again in {}s.", seconds(*resets_in)),
            Self::Unavailable { cause, retry, .. } => format!("{} {}. Try again in {}.", self.subject(), predicate(*cause), in_words(*retry)),
            Self::OwnerGone => "The request refers to a response or encrypted content. The upstream that issued it is not configured, or does not serve this model. Start a new conversation without it.".to_owned(),
            Self::Internal => "Steadfast failed to handle this request because of a bug. Try again; if it fails again, report it with the x-request-id of this response.".to_owned(),
        }
    }
}

impl Fault {
    /// The subject of a sentence about the upstreams that may serve a request.
    fn subject(&self) -> &'static str {
        match self {
            Self::Limited { is_owned: true, .. } | Self::Unavailable { is_owned: true, .. } => OWNER,
            _ => EVERY_UPSTREAM,
        }
    }
}

/// The message about a client key that is not valid.
fn invalid_key(problem: KeyProblem) -> &'static str {
    match problem {
        KeyProblem::Unknown => "Incorrect API key provided. Check it, or ask the operator of this gateway for a key.",
        KeyProblem::Expired => "This API key has expired. Ask the operator of this gateway for a new key.",
        KeyProblem::Disabled => "This API key is disabled. Ask the operator of this gateway for another key.",
    }
}

/// The unit of a limit of a client key.
fn unit(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Requests => "requests per minute",
        LimitKind::Tokens => "tokens per minute",
        LimitKind::Concurrent => "requests at a time",
    }
}

/// What a sentence says about upstreams that are unavailable for this reason.
fn predicate(cause: UnavailableCause) -> &'static str {
    match cause {
        UnavailableCause::Disabled => {
            "refuses the credential that this gateway has for it; the operator of this gateway has to renew that credential"
        }
        UnavailableCause::Ejected => "has failed several times, and gets no requests for some time",
        UnavailableCause::Draining => "is being drained by the operator of this gateway, and takes no new requests",
        UnavailableCause::Busy => "is busy with other requests",
        UnavailableCause::Mixed => "is busy or out of service",
    }
}

/// The message about requests that have failed at every upstream.
fn failed_everywhere(subject: FailedSubject, retry: Duration) -> String {
    let requests = match subject {
        FailedSubject::Session => {
            "The last requests of this session failed at every upstream that they were sent to. If they fail again, change the request."
        }
        FailedSubject::Pool => "The last requests of several sessions failed at every upstream that they were sent to.",
    };
    format!(
        "{requests} Only a few requests are sent to an upstream until one succeeds. Try again in {}.",
        in_words(retry)
    )
}

fn object_not_found(reference: ObjectReference) -> String {
    let (subject, advice) = reference.subject_and_advice();
    format!("No {subject} was made with a key of your group, or it was made too long ago. {advice}")
}

/// The upstream as the subject of a sentence.
fn named(upstream: Option<&str>) -> String {
    upstream.map_or_else(|| "The upstream".to_owned(), |name| format!("The upstream '{name}'"))
}

/// The names in one line, at most the first 20 of them.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// A delay in the units that matter to a person who waits: at most the two largest.
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
    fn delays_have_the_units_that_people_use() {
        for (seconds, words) in [
            (0.0, "1 s"),
            (1.2, "2 s"),
            (119.0, "119 s"),
            (150.0, "2 min"),
            (7500.0, "2 h 5 min"),
            (176_400.0, "2 d 1 h"),
        ] {
            assert_eq!(in_words(Duration::from_secs_f64(seconds)), words);
        }
    }

    #[test]
    fn a_long_list_shows_its_first_names() {
        let names: Vec<String> = (0..22).map(|number| format!("m{number}")).collect();
        assert!(list(&names).ends_with("m18, m19 and 2 more"));
        assert_eq!(list(&names[..2]), "m0, m1");
    }
}
