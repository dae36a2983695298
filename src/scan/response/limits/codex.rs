//! The windows of a ChatGPT plan, which Codex reads from the headers `x-codex-*`.
//!
//! Each limit has two windows, `primary` and `secondary`. `x-codex-primary-…` belongs to the limit that applied to the
//! request, and `x-codex-<limit>-primary-…` to a named limit, for example one of another model. The header
//! `x-codex-active-limit` names the limit that applied.

use std::time::Duration;

use super::source::LimitSource;

const PREFIX: &str = "x-codex-";
const USED: &str = "-used-percent";

/// Reads the latest reset of the used-up windows of the limit that applied. If no window of it is used up, or the headers
/// do not name it, the used-up windows of all limits count.
pub(super) fn windows(source: &LimitSource<'_>) -> Option<Duration> {
    let used_up: Vec<(&str, Duration)> = source
        .headers
        .keys()
        .filter_map(|name| used_up(source, name.as_str()))
        .collect();
    let latest_of = |limit: &str| {
        let windows = used_up.iter().filter(|(of, _)| *of == limit);
        windows.map(|(_, reset)| *reset).max()
    };
    let active = source.header("x-codex-active-limit").map(|name| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        name.strip_prefix("codex-").map(str::to_owned).unwrap_or(name)
    });
    latest_of("")
        .or_else(|| latest_of(&active?))
        .or_else(|| used_up.iter().map(|(_, reset)| *reset).max())
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
