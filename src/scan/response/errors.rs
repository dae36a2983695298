//! Reads the facts of an error response, or of a failed event of a stream: its type and code, when its limit is reset,
//! and whether it concerns one model only.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{
    error_object::ErrorObject,
    limits::{LimitSource, reset_after},
    missing_model,
    subject::{CREDENTIAL, NOT_FOUND, PERMISSION, Subject, UNKNOWN_ROUTE, says_quota},
};

/// The maximum length in bytes of a type or code. A longer one is treated as absent.
const MAX_NAME: usize = 64;

/// The facts that an error response or a failed event contains about the error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorNotice {
    /// `error.type`, or `error.status` of Google's errors, at most 64 bytes long.
    pub kind: Option<String>,
    /// `error.code`, or the reason in the details of Google's errors, at most 64 bytes long. A number is written as its
    /// digits.
    pub code: Option<String>,
    /// The time from now until the limit is reset, at most 366 days. It is zero if the limit has been reset already.
    ///
    /// Upstreams write it in several dialects. They are listed in `src/scan/response/limits.rs`, and a new dialect is added
    /// there.
    pub reset: Option<Duration>,
    /// Whether the error names the requested model, so that requests for other models may succeed.
    pub names_model: bool,
    /// Whether the message says that the credential or its account is not valid.
    pub says_credential: bool,
    /// Whether the message says that the credential lacks a permission or a scope.
    pub says_permission: bool,
    /// Whether the message or the details say that a quota of a day or longer, or the credit, is used up.
    pub says_quota: bool,
    /// Whether the message says that something does not exist.
    pub says_not_found: bool,
    /// Whether the message says that the upstream does not have the endpoint at all.
    pub says_unknown_route: bool,
    /// Whether the message says that the account does not have the model.
    pub says_model_not_found: bool,
}

/// Reads an error response with the given headers and body.
///
/// `model` is the requested model, and `unix_now` is the current time since 1970. If the body is not JSON, is truncated or
/// compressed, only the headers are read.
pub fn error_notice(headers: &HeaderMap, body: &[u8], model: Option<&str>, unix_now: Duration) -> ErrorNotice {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let error = body.as_ref().and_then(ErrorObject::from_body).unwrap_or_default();
    notice(error, headers, model, unix_now)
}

/// Reads the `data` of an event. Returns `None` if the event is not a failure.
///
/// Failures are `response.failed`, `error` with or without a member `error`, and `{"error":{…}}` in a stream of chat
/// completions. `model` and `unix_now` are those of [`error_notice`]. If the event names neither a code nor a type of the
/// error, both are `None`.
pub fn event_notice(data: &[u8], model: Option<&str>, unix_now: Duration) -> Option<ErrorNotice> {
    let event: Map<String, Value> = serde_json::from_slice(data).ok()?;
    let text = |name| event.get(name).and_then(Value::as_str);
    // If the event itself is the error object, its `type` is the type of the event and not of the error.
    let bare = || ErrorObject {
        kind: None,
        ..ErrorObject::from_object(&event)
    };
    let error = match text("type") {
        Some("response.failed") => {
            let response = event.get("response").and_then(Value::as_object);
            let error = response.and_then(ErrorObject::from_member);
            error.or_else(|| ErrorObject::from_member(&event)).unwrap_or_default()
        }
        Some("error") => ErrorObject::from_member(&event).unwrap_or_else(bare),
        // vLLM writes the error without the member `error`.
        _ if text("object") == Some("error") => ErrorObject::from_object(&event),
        Some(_) => return None,
        None => ErrorObject::from_member(&event)?,
    };
    Some(notice(error, &HeaderMap::new(), model, unix_now))
}

fn notice(error: ErrorObject<'_>, headers: &HeaderMap, model: Option<&str>, unix_now: Duration) -> ErrorNotice {
    let headers = with_repeated(headers, &error);
    let says = |subject: Subject| error.message.is_some_and(|message| subject.is_in(message));
    ErrorNotice {
        kind: error.kind.and_then(short_name),
        code: error.code.and_then(short_name),
        reset: reset_after(&LimitSource {
            error,
            headers: &headers,
            unix_now,
        }),
        names_model: model.is_some_and(|model| names_model(&error, model)),
        says_credential: says(CREDENTIAL),
        says_permission: says(PERMISSION),
        says_quota: says_quota(&error),
        says_not_found: says(NOT_FOUND),
        says_unknown_route: says(UNKNOWN_ROUTE),
        says_model_not_found: error
            .message
            .is_some_and(|message| missing_model::is_in(message, model)),
    }
}

/// The headers of the response, and those that the body repeats.
fn with_repeated<'h>(headers: &'h HeaderMap, error: &ErrorObject<'_>) -> Cow<'h, HeaderMap> {
    let mut all = Cow::Borrowed(headers);
    for (name, value) in error.headers() {
        let value = match value {
            Value::String(text) => HeaderValue::from_str(text),
            other => HeaderValue::from_str(&other.to_string()),
        };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            // A map that is full keeps what it has.
            let _ = all.to_mut().try_insert(name, value);
        }
    }
    all
}

fn names_model(error: &ErrorObject<'_>, model: &str) -> bool {
    error.model == Some(model) || error.message.is_some_and(|message| contains_name(message, model))
}

/// A type or code as text, if it is short enough.
fn short_name(value: &Value) -> Option<String> {
    let name = match value {
        Value::String(name) => name.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

/// Whether `text` contains `name` as a whole name, and not as a part of a longer name: `gpt-5-mini` and `gpt-5.2` do not
/// contain `gpt-5`.
fn contains_name(text: &str, name: &str) -> bool {
    let continues_name = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_');
    let is_whole_name = |at: usize| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let before = before.chars().next_back();
        let mut after = after.chars();
        let ends = match after.next() {
            // The character is either the end of a sentence or in the middle of a longer name.
            Some('.' | ':') => !after.next().is_some_and(continues_name),
            next => !next.is_some_and(continues_name),
        };
        ends && !before.is_some_and(|before| continues_name(before) || before == '.')
    };
    !name.is_empty() && text.match_indices(name).any(|(at, _)| is_whole_name(at))
}

#[cfg(test)]
mod tests;
