//! What callers read of a fault: what was wrong, where, and what to do.

use std::time::Duration;

use super::{Fault, KeyProblem, LimitKind, seconds};

const OWNER: &str = "What this request refers to (an earlier response, a turn or encrypted content) is known to one upstream organization only, which";

impl Fault {
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
            Self::MissingKey => "You didn't provide an API key. Send the one that you were given as Authorization: Bearer KEY.".to_owned(),
            Self::InvalidKey { problem: KeyProblem::Unknown } => "Incorrect API key provided. Check it, or ask who runs this gateway for one.".to_owned(),
            Self::InvalidKey { problem: KeyProblem::Expired } => "This API key has expired. Ask who runs this gateway for a new one.".to_owned(),
            Self::InvalidKey { problem: KeyProblem::Disabled } => "This API key is disabled. Ask who runs this gateway for another.".to_owned(),
            Self::ModelForbidden { model, allowed } => format!("Your API key may not use the model '{model}'. It may use: {}.", list(allowed)),
            Self::ModelUnreadable { problem } => format!("Your API key may use some models only, and {problem}. Send a JSON body with \"model\"."),
            Self::PathForbidden { path, why } => format!("Your API key may not call {path}: {why}."),
            Self::ModelNotServed { model, served } if served.is_empty() => format!("The model '{model}' does not exist here. GET /v1/models lists those that do."),
            Self::ModelNotServed { model, served } => format!("The model '{model}' does not exist here. You may use: {}. GET /v1/models lists them.", list(served)),
            Self::ResponseNotFound { in_path: true } => "No response of this id was made with a key of your group here, or it was too long ago. Make a new one.".to_owned(),
            Self::ResponseNotFound { in_path: false } => "No response of this previous_response_id was made with a key of your group here, or it was too long ago. Send the whole conversation instead.".to_owned(),
            Self::RenameCompressed { model } => format!("The model '{model}' has another name upstream, and that cannot be written into a compressed body. Send it uncompressed."),
            Self::RateLimited { kind, limit, retry } => {
                let what = match kind {
                    LimitKind::Requests => format!("{limit} requests per minute"),
                    LimitKind::Tokens => format!("{limit} tokens per minute"),
                    LimitKind::Concurrent => format!("{limit} requests at a time"),
                };
                // Codex waits for as long as the message says.
                format!("Rate limit reached: your API key may use {what}. Please try again in {}s.", seconds(*retry))
            }
            Self::ModelsUnavailable => "No upstream answered with its list of models. Try again shortly.".to_owned(),
            Self::UpstreamUnreachable { upstream } => format!("{} could not be reached. Try again shortly.", named(upstream.as_deref())),
            Self::UpstreamBroken { upstream } => format!("{} broke off before it answered. Try again shortly.", named(upstream.as_deref())),
            Self::UpstreamTimeout { upstream, limit } => format!("{} did not answer within {limit:?}. Try again shortly.", named(upstream.as_deref())),
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

/// The subject of what is said of an upstream.
fn named(upstream: Option<&str>) -> String {
    upstream.map_or_else(|| "The upstream".to_owned(), |name| format!("The upstream '{name}'"))
}

/// Names for people; of many only the first.
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
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..22).map(|number| format!("m{number}")).collect();
        assert!(list(&names).ends_with("m18, m19 and 2 more"));
        assert_eq!(list(&names[..2]), "m0, m1");
    }
}
