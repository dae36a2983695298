//! Reads when a rate limit or quota is reset, from the headers and the body of an error response.
//!
//! Upstreams write this in several dialects, and often in more than one in the same response. The dialects are tried in the
//! order of [`DIALECTS`], the most exact first. A value that makes no sense (negative, not a number, or more than a year
//! away) is skipped as if it were absent. A reset of zero seconds counts only if no dialect names a later one.
//!
//! | order | dialect | read from | examples |
//! | --- | --- | --- | --- |
//! | 1 | [`body::members`] | members of the error object and of the objects in it (`metadata`, `details[]`, …) | `"resets_at":1795435290`, `"retryDelay":"12s"` |
//! | 2 | [`headers::retry_after_ms`] | `retry-after-ms`, `x-ms-retry-after-ms` | `1500` |
//! | 3 | [`headers::retry_after`] | `retry-after` (RFC 9110 §10.2.3), `x-retry-after`, `x-ratelimit-retry-after` | `30`, `90s`, `Mon, 23 Nov 2026 12:01:00 GMT` |
//! | 4 | [`message::reset`] | the message of the body | `Please try again in 6m0s.`, `resets at 2026-12-01 13:44:00 UTC` |
//! | 5 | [`headers::windows`] | `…ratelimit-…reset…` of the exhausted windows, and `ratelimit` (draft-ietf-httpapi-ratelimit-headers) | `12ms`, `1741305600000`, `"default";r=0;t=30` |
//! | 6 | [`codex::windows`] | `x-codex-{primary,secondary}-reset-at` of the exhausted windows, and the same of other limits | `1795435290` |
//!
//! Numbers and texts mean the same in every dialect; [`moment`] reads them. Headers that the body repeats
//! (`error.metadata.headers` of OpenRouter, `headers` of a WebSocket error) are read like the headers of the response.
//!
//! To add a dialect, write a function that reads it from a [`LimitSource`], and insert it into [`DIALECTS`] and into this
//! table. To add a name, add it to the table of its dialect. Add an example to the table in `tests.rs`.

use std::time::Duration;

use source::Dialect;

mod body;
mod codex;
mod headers;
mod message;
pub(super) mod moment;
pub(super) mod source;

#[cfg(test)]
mod tests;

pub(super) use source::LimitSource;

/// The dialects, the most exact first.
const DIALECTS: [Dialect; 6] = [
    body::members,
    headers::retry_after_ms,
    headers::retry_after,
    message::reset,
    headers::windows,
    codex::windows,
];

/// The time until the limit is reset, in the first dialect that names a moment in the future. It is zero if a dialect
/// names a moment that has passed, and none names a later one.
pub(super) fn reset_after(source: &LimitSource<'_>) -> Option<Duration> {
    let mut has_passed = None;
    for reset in DIALECTS.iter().filter_map(|dialect| dialect(source)) {
        if !reset.is_zero() {
            return Some(reset);
        }
        has_passed = Some(reset);
    }
    has_passed
}
