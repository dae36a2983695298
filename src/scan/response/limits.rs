//! Reads when a rate limit or quota is reset, from the headers and the body of an error response.
//!
//! Upstreams write this in several dialects, and often in more than one in the same response. The dialects are tried in the
//! order of [`DIALECTS`], the most exact first. A value that makes no sense (negative, not a number, or more than a year
//! away) is skipped as if it were absent.
//!
//! | order | dialect | read from | examples |
//! | --- | --- | --- | --- |
//! | 1 | [`body_resets_at`] | `error.resets_at` of the body, in seconds since 1970 | `1795435290` |
//! | 2 | [`body_resets_in`] | `error.resets_in_seconds` of the body | `7.25` |
//! | 3 | [`retry_after_ms`] | the header `retry-after-ms` | `1500` |
//! | 4 | [`retry_after`] | the header `retry-after` (RFC 9110 §10.2.3) | `30`, `Mon, 23 Nov 2026 12:01:00 GMT` |
//! | 5 | [`message`] | the message of the body | `Please try again in 6m0s.` |
//! | 6 | [`rate_limit_headers`] | `x-ratelimit-reset-{requests,tokens}`, the later of the exhausted ones | `12ms`, `6m0s` |
//! | 7 | [`codex_windows`] | `x-codex-{primary,secondary}-reset-at`, the later of the exhausted ones | `1795435290` |
//!
//! To add a dialect, write a function that reads it from a [`LimitSource`], and insert it into [`DIALECTS`] and into this
//! table. A dialect that reads a new member of the body also needs a field in [`ErrorObject`].

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header::RETRY_AFTER};

use super::{
    duration::{find_wait, parse_decimal, parse_duration},
    error_object::ErrorObject,
};

/// A reset further away than this, in the past or in the future, is treated as a mistake. Limits last a month at most.
pub(super) const MAX_RESET: Duration = Duration::from_secs(366 * 24 * 3600);

/// The parts of an error response from which the dialects read.
pub(super) struct LimitSource<'a> {
    /// The error object of the body. All its members are absent if there is none.
    pub error: ErrorObject<'a>,
    /// The headers of the response.
    pub headers: &'a HeaderMap,
    /// The current time since 1970.
    pub unix_now: Duration,
}

/// Reads the time until the reset in one dialect. Returns `None` if the source does not use the dialect.
type Dialect = fn(&LimitSource<'_>) -> Option<Duration>;

/// The dialects, the most exact first.
const DIALECTS: [Dialect; 7] = [
    body_resets_at,
    body_resets_in,
    retry_after_ms,
    retry_after,
    message,
    rate_limit_headers,
    codex_windows,
];

/// The time until the limit is reset, in the first dialect that names one. It is zero if that moment has passed.
pub(super) fn reset_after(source: &LimitSource<'_>) -> Option<Duration> {
    DIALECTS.iter().find_map(|dialect| dialect(source))
}

fn body_resets_at(source: &LimitSource<'_>) -> Option<Duration> {
    source.until_seconds(source.error.resets_at?)
}

fn body_resets_in(source: &LimitSource<'_>) -> Option<Duration> {
    plausible_seconds(source.error.resets_in?)
}

fn retry_after_ms(source: &LimitSource<'_>) -> Option<Duration> {
    plausible_seconds(source.number("retry-after-ms")? / 1e3)
}

fn retry_after(source: &LimitSource<'_>) -> Option<Duration> {
    let text = source.text(RETRY_AFTER.as_str())?;
    if let Some(delay) = parse_decimal(text) {
        return plausible_seconds(delay);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    source.until(date.duration_since(UNIX_EPOCH).ok()?)
}

fn message(source: &LimitSource<'_>) -> Option<Duration> {
    source.error.message.and_then(find_wait).filter(is_plausible)
}

/// Reads the reset of the limits of which nothing remains. A reset of zero is skipped: Azure writes it together with a
/// remaining amount of zero, and it carries no information.
fn rate_limit_headers(source: &LimitSource<'_>) -> Option<Duration> {
    let limits = [
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ];
    let resets = limits.iter().filter_map(|(remaining, reset)| {
        let is_exhausted = source.number(remaining)? == 0.0;
        let reset = parse_duration(source.text(reset)?)?;
        (is_exhausted && !reset.is_zero() && is_plausible(&reset)).then_some(reset)
    });
    resets.max()
}

/// Reads the reset of the windows of the ChatGPT plan that are used up. `…-reset-after-seconds` is read if `…-reset-at`
/// makes no sense.
fn codex_windows(source: &LimitSource<'_>) -> Option<Duration> {
    let windows = [
        (
            "x-codex-primary-used-percent",
            "x-codex-primary-reset-at",
            "x-codex-primary-reset-after-seconds",
        ),
        (
            "x-codex-secondary-used-percent",
            "x-codex-secondary-reset-at",
            "x-codex-secondary-reset-after-seconds",
        ),
    ];
    let resets = windows.iter().filter_map(|(used, at, after)| {
        let at = || source.until_seconds(source.number(at)?);
        let after = || plausible_seconds(source.number(after)?);
        (source.number(used)? >= 100.0).then(|| at().or_else(after)).flatten()
    });
    resets.max()
}

impl LimitSource<'_> {
    /// The value of a header without surrounding whitespace.
    fn text(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().ok()?.trim())
    }

    /// The value of a header that is a decimal number.
    fn number(&self, name: &str) -> Option<f64> {
        self.text(name).and_then(parse_decimal)
    }

    /// The time until `moment`, which is a time since 1970. It is zero if `moment` has passed.
    fn until(&self, moment: Duration) -> Option<Duration> {
        is_plausible(&moment.abs_diff(self.unix_now)).then(|| moment.saturating_sub(self.unix_now))
    }

    /// The time until a moment that is given in seconds since 1970.
    fn until_seconds(&self, seconds: f64) -> Option<Duration> {
        self.until(Duration::try_from_secs_f64(seconds).ok()?)
    }
}

fn is_plausible(duration: &Duration) -> bool {
    *duration <= MAX_RESET
}

fn plausible_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(is_plausible)
}
