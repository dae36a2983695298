//! Parses durations as people and Go programs write them: `20ms`, `1.5s`, `6m0s`, `1h2m3s`, `2 minutes`, `3 days 4 hours`.

use std::time::Duration;

/// The phrases before a time to wait, in the messages of upstreams seen so far.
const WAIT_PHRASES: [&str; 23] = [
    "again in",
    "again after",
    "retry in",
    "retry after",
    "retrying in",
    "retry your request in",
    "retry your request after",
    "reset in",
    "resets in",
    "reset after",
    "resets after",
    "until reset",
    "renews in",
    "refreshes in",
    "refills in",
    "available in",
    "wait",
    "cooldown of",
    "cooldown for",
    "cooling down for",
    "blocked for",
    "back off for",
    "backoff for",
];

/// Words between a phrase and its time, which do not change the time.
const FILLERS: [&str; 8] = [
    "for ",
    "about ",
    "approximately ",
    "around ",
    "at least ",
    "up to ",
    "another ",
    "the next ",
];

/// Names of members and headers that messages quote, each before a time to wait. A number without a unit is in seconds.
const QUOTED_NAMES: [&str; 5] = [
    "retrydelay",
    "retry_after",
    "retry-after",
    "retryafter",
    "quotaresetdelay",
];

/// Characters between a phrase and its time.
const BETWEEN: [char; 9] = [' ', ':', '"', '\'', '\\', '=', '(', '~', '*'];

/// Parses a number that is written with digits and a point only. A number over the range of `f64` is infinite.
pub(super) fn parse_decimal(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| text.parse().ok()).flatten()
}

/// The duration of `seconds`. A number over the range of [`Duration`] is [`Duration::MAX`]; `None` if it is negative or not a
/// number.
pub(super) fn saturating_seconds(seconds: f64) -> Option<Duration> {
    let is_over = seconds > 0.0;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .or_else(|| is_over.then_some(Duration::MAX))
}

/// Parses `text` as a duration. A number without a unit is in seconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(seconds) = parse_decimal(text) {
        return saturating_seconds(seconds);
    }
    if let Some(period) = text.strip_prefix(['p', 'P']) {
        return parse_iso_period(period);
    }
    let (duration, rest) = parse_leading(text)?;
    rest.is_empty().then_some(duration)
}

/// Parses the part of an ISO 8601 duration after the `P`: `T44S`, `1DT2H`. Years and months have no fixed length.
fn parse_iso_period(period: &str) -> Option<Duration> {
    let (days, time) = period.split_once(['t', 'T']).unwrap_or((period, ""));
    let has_month = days.contains(['m', 'M']);
    let text = format!("{days}{time}").to_ascii_lowercase();
    let (duration, rest) = parse_leading(&text)?;
    (rest.is_empty() && !has_month).then_some(duration)
}

/// Finds the time to wait in a message like "Please try again in 1.5s."
pub(super) fn find_wait(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let message = lower.as_str();
    let rests_after = |phrase: &'static str| {
        let places = message.match_indices(phrase);
        places.map(move |(at, _)| after_fillers(&message[at + phrase.len()..]))
    };
    let phrases = WAIT_PHRASES.iter().flat_map(|phrase| rests_after(phrase));
    let names = QUOTED_NAMES.iter().flat_map(|name| rests_after(name));
    let mut waits = phrases.filter_map(|rest| match parse_leading(rest) {
        Some((wait, _)) => Some(wait),
        None => one_unit(rest),
    });
    let mut quoted = names.filter_map(|rest| match parse_leading(rest) {
        Some((wait, _)) => Some(wait),
        None => leading_seconds(rest),
    });
    waits.next().or_else(|| quoted.next())
}

/// `text` without the characters and words between a phrase and its time.
fn after_fillers(text: &str) -> &str {
    let mut rest = text.trim_start_matches(BETWEEN);
    while let Some(after) = FILLERS.iter().find_map(|filler| rest.strip_prefix(filler)) {
        rest = after.trim_start_matches(BETWEEN);
    }
    rest
}

/// Parses `a minute` or `an hour` at the beginning of `text`.
fn one_unit(text: &str) -> Option<Duration> {
    let unit = ["a ", "an ", "one "].iter().find_map(|one| text.strip_prefix(one))?;
    let letters = unit.bytes().take_while(u8::is_ascii_alphabetic).count();
    saturating_seconds(seconds_in(&unit[..letters])?)
}

/// Parses the number at the beginning of `text` as seconds.
fn leading_seconds(text: &str) -> Option<Duration> {
    let belongs = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let number = &text[..text.bytes().take_while(belongs).count()];
    saturating_seconds(parse_decimal(number.trim_end_matches('.'))?)
}

/// Parses the duration at the beginning of `text`: one or more numbers, each with a unit. Returns it and the rest of `text`.
fn parse_leading(text: &str) -> Option<(Duration, &str)> {
    let (mut duration, mut rest) = parse_component(text.trim_ascii_start())?;
    loop {
        let next = rest.trim_start_matches([' ', ',']);
        let next = next.strip_prefix("and ").unwrap_or(next);
        match parse_component(next) {
            Some((more, after)) => {
                duration = duration.saturating_add(more);
                rest = after;
            }
            None => return Some((duration, rest)),
        }
    }
}

/// Parses the number and its unit at the beginning of `text`. Returns their duration and the rest of `text`.
fn parse_component(text: &str) -> Option<(Duration, &str)> {
    let (number, rest) = split_number(text);
    let rest = rest.trim_ascii_start();
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    let duration = saturating_seconds(parse_decimal(&number)? * seconds_in(unit)?)?;
    Some((duration, rest))
}

/// Splits the number at the beginning of `text` from the rest. A comma may separate its thousands: `1,200`.
fn split_number(text: &str) -> (String, &str) {
    let bytes = text.as_bytes();
    let separates = |at: usize| {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit());
        at > 0 && digits.count() == 3
    };
    let belongs = |at: &usize| match bytes[*at] {
        b'0'..=b'9' | b'.' => true,
        b',' => separates(*at),
        _ => false,
    };
    let length = (0..bytes.len()).take_while(belongs).count();
    let (number, rest) = text.split_at(length);
    (number.replace(',', ""), rest)
}

/// The length of a unit of time in seconds.
fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_parsed_completely_or_not_at_all() {
        let cases = [
            ("12ms", Some(12)),
            ("1s", Some(1000)),
            ("1.5s", Some(1500)),
            ("6m0s", Some(360_000)),
            ("1h2m3s", Some(3_723_000)),
            ("2m59.56s", Some(179_560)),
            ("59", Some(59_000)),
            ("0.25", Some(250)),
            ("0s", Some(0)),
            ("2 minutes", Some(120_000)),
            ("3 days, 4 hours and 5 minutes", Some(273_900_000)),
            ("1w", Some(604_800_000)),
            ("1,200 seconds", Some(1_200_000)),
            ("12,34 seconds", None),
            ("pt1m30.5s", Some(90_500)),
            ("p1dt2h", Some(93_600_000)),
            ("p1m", None),
            ("pt", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1e3", None),
            ("inf", None),
            ("NaN", None),
            ("1.2.3s", None),
            (".", None),
            ("1 fortnight", None),
            ("1s later", None),
            ("5 s5", None),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        }
        let digits = "9".repeat(400);
        for unit in ["", "s", "w", "w 1s", "ms"] {
            assert_eq!(
                parse_duration(&format!("{digits}{unit}")),
                Some(Duration::MAX),
                "{unit}"
            );
        }
    }

    #[test]
    fn the_time_to_wait_is_found_in_messages() {
        let cases = [
            (
                "Rate limit reached for gpt-5.2 in organization org-A on tokens per min (TPM): Limit 30000, Used 22999, \
                 Requested 12528. Please try again in 11.054s. Visit https://platform.openai.com/account/rate-limits",
                Some(11_054),
            ),
            ("Please try again in 20ms.", Some(20)),
            ("try again in 6m0s", Some(360_000)),
            ("Try Again In 1h2m3s!", Some(3_723_000)),
            ("Please retry after 26 seconds.", Some(26_000)),
            ("Please retry in 34.07s.", Some(34_070)),
            ("try again in 2 minutes, or ask for more", Some(120_000)),
            (
                "Upgrade to Pro or try again in 3 days 4 hours 5 minutes.",
                Some(273_900_000),
            ),
            ("Try again in a moment. Your limit resets in 3 days.", Some(259_200_000)),
            ("Please wait for at least another 5 seconds", Some(5_000)),
            ("retry after: ~5s", Some(5_000)),
            ("Try again in an hour.", Some(3_600_000)),
            ("Try again in a while.", None),
            ("Try again in 20.", None),
            ("in 3 days", None),
            ("It took 1.5s", None),
            ("try again in ", None),
            ("try again in é 5s", None),
            ("", None),
        ];
        for (message, millis) in cases {
            assert_eq!(find_wait(message), millis.map(Duration::from_millis), "{message}");
        }
    }
}
