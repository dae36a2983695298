//! The dialects of the headers: `retry-after` and its relatives, and the resets of rate limit windows.

use std::time::Duration;

use super::{super::duration::parse_decimal, source::LimitSource};

/// The ends of the names of headers that contain a delay in milliseconds.
const RETRY_AFTER_MS: [&str; 2] = ["retry-after-ms", "retry-after-milliseconds"];

/// The ends of the names of headers that contain a delay or a date: `retry-after`, `x-ratelimit-user-retry-after`.
const RETRY_AFTER: [&str; 2] = ["retry-after", "retry-after-seconds"];

/// Names of headers that contain the reset of the limit that was hit.
const RESET_AT: [&str; 2] = ["reset-at", "reset_at"];

/// The parts of the name of a header that contains the reset of a rate limit window.
const FAMILIES: [&str; 3] = ["ratelimit", "rate-limit", "quota"];

/// What the headers of a window say about its capacity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WindowCapacity {
    /// Nothing is left.
    Exhausted,
    /// Something is left, or the headers make no sense. The window was not the reason for the error.
    Left,
    /// The headers do not say.
    Unknown,
}

/// Reads the latest delay that a header names.
pub(super) fn retry_after(source: &LimitSource<'_>) -> Option<Duration> {
    let latest = |ends: &[&str], read: &dyn Fn(&str) -> Option<Duration>| {
        let names = source.headers.keys().map(|name| name.as_str());
        let named = names.filter(|name| ends.iter().any(|end| name.ends_with(end)));
        named.filter_map(read).max()
    };
    let exact = latest(&RETRY_AFTER_MS, &|name| source.until_milliseconds(source.number(name)?));
    let rounded = latest(&RETRY_AFTER, &|name| {
        let seconds = || source.until_seconds(source.number(name)?);
        source.until_header(name).or_else(seconds)
    });
    // Seconds that are rounded up name the same time as the milliseconds.
    let is_same = |exact: &Duration| rounded.is_none_or(|rounded| rounded < *exact + Duration::from_secs(1));
    exact.filter(is_same).or(rounded)
}

/// Reads the reset of the windows of which nothing remains, the latest of them. Without such a window, the limit that was
/// hit is one of those of which the headers do not say what remains, and the earliest reset of them counts. A reset of
/// zero is skipped: Azure writes it together with a remaining amount of zero, and it carries no information.
pub(super) fn windows(source: &LimitSource<'_>) -> Option<Duration> {
    let named = source.headers.keys().filter_map(|name| {
        let name = name.as_str();
        let reset = window_reset(source, name)?;
        Some((capacity(source, name), reset))
    });
    let listed = source.headers.get_all("ratelimit").iter();
    let listed = listed.filter_map(|value| value.to_str().ok());
    let listed = listed.flat_map(|value| listed_windows(source, value));
    let windows: Vec<_> = named.chain(listed).filter(|(_, reset)| !reset.is_zero()).collect();
    let of = |wanted: WindowCapacity| {
        let windows = windows.iter().filter(move |(capacity, _)| *capacity == wanted);
        windows.map(|(_, reset)| *reset)
    };
    of(WindowCapacity::Exhausted)
        .max()
        .or_else(|| of(WindowCapacity::Unknown).min())
}

/// The reset in the header `name`, if the header contains the reset of a rate limit window. The overage of a plan is no
/// window: it is reset at the end of the month, long after the limit that was hit.
fn window_reset(source: &LimitSource<'_>, name: &str) -> Option<Duration> {
    let is_reset = FAMILIES.iter().any(|family| name.contains(family)) && name.contains("reset");
    if !is_reset && !RESET_AT.contains(&name) || name.contains("overage") {
        return None;
    }
    match name.ends_with("-ms") {
        true => source.until_milliseconds(source.number(name)?),
        false => source.until_header(name),
    }
}

/// The capacity of the window whose reset is in the header `name`. The header beside it has the same name with
/// `remaining` (most upstreams), or with `status` or `utilization` (Anthropic's unified limits).
fn capacity(source: &LimitSource<'_>, name: &str) -> WindowCapacity {
    let base = ["-after", "-ms", "-at"]
        .iter()
        .find_map(|end| name.strip_suffix(end).filter(|rest| rest.ends_with("reset")));
    let beside = |word: &str| source.header(&base.unwrap_or(name).replacen("reset", word, 1));
    let is_exhausted = if let Some(remaining) = beside("remaining") {
        parse_decimal(remaining) == Some(0.0)
    } else if let Some(status) = beside("status") {
        !status.starts_with("allowed")
    } else if let Some(utilization) = beside("utilization") {
        parse_decimal(utilization).is_some_and(|utilization| utilization >= 1.0)
    } else {
        return WindowCapacity::Unknown;
    };
    match is_exhausted {
        true => WindowCapacity::Exhausted,
        false => WindowCapacity::Left,
    }
}

/// Reads the header `ratelimit`, which lists windows in two forms: `"default";r=0;t=30` since the draft
/// draft-ietf-httpapi-ratelimit-headers-08, and `limit=100, remaining=0, reset=30` in the drafts before it.
fn listed_windows(source: &LimitSource<'_>, value: &str) -> Vec<(WindowCapacity, Duration)> {
    let is_dictionary = value.contains("reset=");
    let items: Vec<&str> = match is_dictionary {
        true => vec![value],
        false => value.split(',').collect(),
    };
    let windows = items.into_iter().filter_map(|item| {
        let parameter = |names: [&str; 2]| {
            let mut parameters = item.split([',', ';']).filter_map(|pair| pair.split_once('='));
            parameters.find_map(|(name, value)| names.contains(&name.trim()).then_some(value.trim()))
        };
        let reset = source.until_text(parameter(["t", "reset"])?)?;
        let capacity = match parameter(["r", "remaining"]) {
            Some(rest) if parse_decimal(rest) == Some(0.0) => WindowCapacity::Exhausted,
            Some(_) => WindowCapacity::Left,
            None => WindowCapacity::Unknown,
        };
        Some((capacity, reset))
    });
    windows.collect()
}
