//! The windows of a ChatGPT plan, which Codex reads from the headers `x-codex-*`.
//!
//! Each limit has two windows, `primary` and `secondary`. `x-codex-primary-…` belongs to the limit that applied to the
//! request, and `x-codex-<limit>-primary-…` to a named limit, for example one of another model. The header
//! `x-codex-active-limit` names the limit that applied.

use std::time::Duration;

use super::source::LimitSource;

const PREFIX: &str = "x-codex-";
const USED: &str = "-used-percent";

/// Reads the latest reset of the used-up windows of the limit that applied. With credits, an account goes on after it has
/// used them up.
pub(super) fn applied_windows(source: &LimitSource<'_>) -> Option<Duration> {
    let says_yes = |name| {
        let value = source.header(name);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    };
    if says_yes("x-codex-credits-has-credits") || says_yes("x-codex-credits-unlimited") {
        return None;
    }
    let latest_of = |limit: &str| {
        let windows = used_up_windows(source).filter(|(of, _)| *of == limit);
        windows.map(|(_, reset)| reset).max()
    };
    let active = source.header("x-codex-active-limit").map(|name| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        name.strip_prefix("codex-").map(str::to_owned).unwrap_or(name)
    });
    latest_of("").or_else(|| latest_of(&active?))
}

/// Reads the latest reset of the used-up windows of all limits, for headers that do not say which limit applied.
pub(super) fn windows(source: &LimitSource<'_>) -> Option<Duration> {
    used_up_windows(source).map(|(_, reset)| reset).max()
}

/// The limits and the resets of the windows that are used up.
fn used_up_windows<'h>(source: &LimitSource<'h>) -> impl Iterator<Item = (&'h str, Duration)> {
    let names = source.headers.keys();
    names.filter_map(|name| used_up(source, name.as_str()))
}

/// The limit and the reset of the window whose used share is in the header `name`, if it is used up. The limit that applied
/// has the empty name. `…-reset-after-seconds` is read if `…-reset-at` makes no sense.
fn used_up<'h>(source: &LimitSource<'_>, name: &'h str) -> Option<(&'h str, Duration)> {
    let window = name.strip_suffix(USED)?;
    let limit = window.strip_prefix(PREFIX)?;
    let limit = limit
        .strip_suffix("primary")
        .or_else(|| limit.strip_suffix("secondary"))?;
    if source.number(name)? < 100.0 {
        return None;
    }
    let at = source.until_header(&format!("{window}-reset-at"));
    let after = || source.until_header(&format!("{window}-reset-after-seconds"));
    let reset = at.filter(|reset| !reset.is_zero()).or_else(after).or(at)?;
    Some((limit.trim_end_matches('-'), reset))
}
