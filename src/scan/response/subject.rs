//! What the message of an error is about, for errors whose code does not say it.
//!
//! Only phrases that name the subject themselves are in the tables. A message that is in none of them decides nothing.

use serde_json::Value;

use super::error_object::ErrorObject;

/// The maximum number of texts of an error's details that are read.
const MAX_TEXTS: usize = 64;

/// A subject of messages, with the phrases that name it, in lower-case letters.
#[derive(Clone, Copy)]
pub(super) struct Subject(&'static [&'static str]);

/// The credential, or the account as a whole, is not valid.
pub(super) const CREDENTIAL: Subject = Subject(&[
    "account has been deactivated",
    "account has been disabled",
    "account has been suspended",
    "account is not active",
    "api key expired",
    "api key has been disabled",
    "api key has expired",
    "api key is invalid",
    "api key not valid",
    "api key was reported as leaked",
    "authentication token has been invalidated",
    "authentication token has expired",
    "authentication token is expired",
    "could not parse your authentication token",
    "incorrect api key",
    "invalid api key",
    "invalid authentication credentials",
    "invalid bearer token",
    "invalid x-api-key",
    "oauth token has been revoked",
    "oauth token has expired",
    "organization has been disabled",
    "token has been revoked",
    "token is expired",
    "user not found",
]);

/// The credential lacks the right to a resource: an endpoint, a project, a model.
pub(super) const PERMISSION: Subject = Subject(&[
    "do not have access",
    "does not have access",
    "don't have access",
    "insufficient permission",
    "insufficient scope",
    "lacks the required",
    "lacks required scope",
    "missing scope",
    "not allowed to",
    "not authorized to",
    "not have permission",
    "not permitted to",
    "required scope",
    "requires scope",
]);

/// Something that the request names does not exist.
pub(super) const NOT_FOUND: Subject = Subject(&[
    "could not be found",
    "could not find",
    "couldn't find",
    "cannot find",
    "does not exist",
    "doesn't exist",
    "found with id",
    "no longer exists",
    "no such",
    "not found",
    "unable to find",
]);

/// The endpoint does not exist.
pub(super) const UNKNOWN_ROUTE: Subject = Subject(&[
    "cannot delete /",
    "cannot get /",
    "cannot head /",
    "cannot post /",
    "endpoint not found",
    "invalid path",
    "invalid url",
    "no handler",
    "no route",
    "no such endpoint",
    "no such path",
    "path not found",
    "requested url",
    "route not found",
    "unknown endpoint",
    "unknown path",
    "unknown request url",
    "unknown url",
    "unsupported endpoint",
]);

/// A quota of a day or longer, or the prepaid credit, is used up.
const QUOTA: Subject = Subject(&[
    "billing hard limit",
    "credit balance is too low",
    "daily limit",
    "daily quota",
    "insufficient balance",
    "insufficient credit",
    "monthly limit",
    "monthly quota",
    "monthly spending limit",
    "more credits",
    "out of credits",
    "per-day",
    "perday",
    "spend limit",
    "spending limit",
    "usage limit reached",
    "used all available credits",
    "weekly limit",
    "your specified api usage limits",
]);

impl Subject {
    /// Whether `message` names the subject.
    pub fn is_in(self, message: &str) -> bool {
        let message = message.to_ascii_lowercase();
        self.0.iter().any(|phrase| message.contains(phrase))
    }
}

/// Whether the error says in its message or its details that a quota of a day or longer, or the credit, is used up.
/// Google names the quota in the details: `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
pub(super) fn says_quota(error: &ErrorObject<'_>) -> bool {
    let in_message = |message: &str| QUOTA.is_in(message) || says_per_day(message);
    let details = error.members.and_then(|members| members.get("details"));
    error.message.is_some_and(in_message) || details.is_some_and(|details| contains_quota(details, &mut { MAX_TEXTS }))
}

/// Whether `message` names a limit per day. OpenAI's `requests per day (RPD)` is none: it refills all the time, so it is
/// lifted after seconds.
fn says_per_day(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let mut places = message.match_indices("per day");
    places.any(|(at, phrase)| !message[at + phrase.len()..].starts_with(" ("))
}

/// Whether a text in `value` names a quota. At most `left` texts are read.
fn contains_quota(value: &Value, left: &mut usize) -> bool {
    match value {
        Value::String(text) if *left > 0 => {
            *left -= 1;
            QUOTA.is_in(text) || says_per_day(text)
        }
        Value::Array(elements) => elements.iter().any(|element| contains_quota(element, left)),
        Value::Object(members) => members.values().any(|member| contains_quota(member, left)),
        _ => false,
    }
}
