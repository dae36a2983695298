//! The dialects of messages: a time to wait, or a date, behind one of the usual phrases.

use std::time::Duration;

use super::{
    super::duration::find_wait,
    moment::leading_moment,
    source::{LimitSource, MAX_RESET},
};

/// The phrases before a date, in the messages of upstreams seen so far. `将在` is Zhipu's.
const MOMENT_PHRASES: [&str; 15] = [
    "again at",
    "again on",
    "again after",
    "retry at",
    "retry after",
    "reset at",
    "resets at",
    "reset on",
    "resets on",
    "resets",
    "until",
    "access on",
    "available at",
    "limit reached|",
    "将在",
];

/// Characters between a phrase and its date.
const BETWEEN: [char; 6] = [' ', ':', '"', '\'', '`', '('];

/// Reads the message of the error, and the message of the error that a gateway quotes.
pub(super) fn reset(source: &LimitSource<'_>) -> Option<Duration> {
    let messages = [source.error.message, source.error.quoted];
    let resets = messages.into_iter().flatten().filter_map(|message| {
        let wait = find_wait(message).map(|wait| wait.min(MAX_RESET));
        wait.or_else(|| find_moment(source, message))
    });
    resets.max()
}

/// Finds the first date that follows a phrase.
fn find_moment(source: &LimitSource<'_>, message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let places = MOMENT_PHRASES.iter().flat_map(|phrase| {
        let places = lower.match_indices(phrase);
        places.map(|(at, _)| at + phrase.len())
    });
    let mut resets = places.filter_map(|at| {
        // Lower-case ASCII letters have the same positions as the letters in the message.
        let rest = message[at..].trim_start_matches(BETWEEN);
        source.until(leading_moment(rest, source.default_zone())?)
    });
    resets.next()
}
