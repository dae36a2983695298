//! Reads when a rate limit or quota is reset, from the headers and the body of an error response.
//!
//! Upstreams write this in several dialects, and often in more than one in the same response. The dialects of [`REFUSALS`]
//! say when the limit that was hit is over. If they disagree, the latest moment counts: a request before it would be
//! refused again, while an early probe finds out that a limit was lifted before it. The dialects of [`WINDOWS`] describe
//! windows of capacity. A window is often full again long after the next request is allowed, so they count only if no
//! other dialect names a moment in the future, and the first one that does counts.
//!
//! | group | dialect | read from | examples |
//! | --- | --- | --- | --- |
//! | [`REFUSALS`] | [`body::members`] | members of the error object and of the objects in it (`metadata`, `details[]`, …) | `"resets_at":1795435290`, `"retryDelay":"12s"` |
//! | | [`headers::retry_after`] | `retry-after` (RFC 9110 §10.2.3) and `retry-after-ms`, with any prefix | `30`, `90s`, `Mon, 23 Nov 2026 12:01:00 GMT`; `1500` |
//! | | [`message::reset`] | the message of the body | `Please try again in 6m0s.`, `resets at 2026-12-01 13:44:00 UTC` |
//! | | [`codex::applied_windows`] | `x-codex-{primary,secondary}-reset-at` of the used-up windows of the limit that applied | `1795435290` |
//! | [`WINDOWS`] | [`headers::windows`] | `…ratelimit-…reset…` of the exhausted windows, and `ratelimit` (draft-ietf-httpapi-ratelimit-headers) | `12ms`, `1741305600000`, `"default";r=0;t=30` |
//! | | [`codex::windows`] | the used-up windows of any limit of Codex | `1795435290` |
//!
//! | value | meaning |
//! | --- | --- |
//! | a number | a delay in seconds (in a field for milliseconds: in milliseconds), or, if that is more than a year, a moment since 1970 in seconds, milliseconds, microseconds or nanoseconds |
//! | more than a year away, also a number with hundreds of digits | a year, if no other dialect of [`REFUSALS`] names an earlier moment. Policy bounds a cooldown to seven days |
//! | zero, or a moment that has passed | the limit is over; counts only if no dialect names a later moment. The account then cools down as after a limit that names no reset, for longer each time. Zero in a field for a moment, or in that of a window (Azure), means nothing |
//! | negative (Azure: `-1`), not a number, more than a year ago (in a field for a delay, such a number is a long delay) | nothing, as if it were absent |
//! | two fields of the same name | the later one |
//! | `retry-after-ms: 1500` with `retry-after: 2` | 1.5 seconds: the same time, rounded up |
//!
//! Numbers and texts mean the same in every dialect; [`moment`] reads them. Headers that the body repeats
//! (`error.metadata.headers` of OpenRouter, `headers` of a WebSocket error) are read like the headers of the response.
//!
//! To add a dialect, write a function that reads it from a [`LimitSource`], and insert it into its group and into this
//! table. To add a name, add it to the table of its dialect. Add an example to the table in `tests.rs`.

use std::time::Duration;

use source::{Dialect, MAX_RESET};

mod body;
mod codex;
mod headers;
mod message;
pub(super) mod moment;
pub(super) mod source;

#[cfg(test)]
mod tests;

pub(super) use source::LimitSource;

/// The dialects that say when the limit that was hit is over.
const REFUSALS: [Dialect; 4] = [
    body::members,
    headers::retry_after,
    message::reset,
    codex::applied_windows,
];

/// The dialects that describe windows of capacity, the most exact first.
const WINDOWS: [Dialect; 2] = [headers::windows, codex::windows];

/// The time until the limit is reset. It is zero if a dialect names a moment that has passed, and none names a later one.
pub(super) fn reset_after(source: &LimitSource<'_>) -> Option<Duration> {
    let refusals = REFUSALS.map(|dialect| dialect(source));
    let named = || refusals.into_iter().flatten();
    let near = named().filter(|reset| *reset < MAX_RESET && !reset.is_zero()).max();
    let refusal = near.or_else(|| named().max());
    let of_window = || {
        let mut resets = WINDOWS.iter().filter_map(|dialect| dialect(source));
        resets.find(|reset| !reset.is_zero())
    };
    refusal.filter(|reset| !reset.is_zero()).or_else(of_window).or(refusal)
}
