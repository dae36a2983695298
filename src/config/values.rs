//! Reads single values: strings, numbers, durations, sizes.
//!
//! An error is a predicate that follows the field's name: `must be between 1 and 9`.

use std::{ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

/// The type of a value, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The prefix of most providers' credentials, and of the client keys of Steadfast.
pub(super) const CREDENTIAL: &str = "sk-";

/// The user's text in quotes, escaped for a terminal and at most 200 characters long. A text that looks like a
/// credential is not repeated, since users paste credentials into the wrong field.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 200;
    if text.starts_with(CREDENTIAL) {
        return format!("\"{CREDENTIAL}…\"");
    }
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", text.split_at(cut).0),
        None => format!("{text:?}"),
    }
}

/// A string.
pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("must be a string, not {}", kind(value)))
}

/// A boolean.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("must be true or false, not {}", kind(value)))
}

/// An integer within `range`. An integer that does not fit 128 bits is out of every range.
pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let DeValue::Integer(written) = value else {
        return Err(format!("must be an integer, not {}", kind(value)));
    };
    i128::from_str_radix(written.as_str(), written.radix())
        .ok()
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be between {} and {}", range.start(), range.end()))
}

/// A number within `range`, with or without a fractional part.
pub(super) fn fraction(value: &DeValue<'_>, range: RangeInclusive<f64>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(written) => written.as_str().parse().ok(),
        DeValue::Integer(written) => i32::from_str_radix(written.as_str(), written.radix())
            .ok()
            .map(f64::from),
        other => return Err(format!("must be a number, not {}", kind(other))),
    };
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be between {:?} and {:?}", range.start(), range.end()))
}

/// The units of time in milliseconds, largest first. This is the order in which a duration must use them.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration within `range`, such as `"1h30m"`.
pub(super) fn duration(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    const WRITE: &str = "such as \"5s\", \"500ms\" or \"1h30m\"";
    let DeValue::String(written) = value else {
        return Err(format!("must be a duration {WRITE}, not {}", kind(value)));
    };
    let parsed =
        parse_duration(written).ok_or_else(|| format!("must be a duration {WRITE}, not {}", quoted(written)))?;
    if range.contains(&parsed) {
        Ok(parsed)
    } else {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        Err(format!("must be between {least} and {most}"))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = TIME_UNITS.iter();
    let mut millis = 0u64;
    loop {
        let (number, after) = leading_number(rest)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        // The iterator continues after the previous unit, so each unit is accepted once and in order.
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(*scale)?)?;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::from_millis(millis));
        }
    }
}

/// A duration as a user would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut shown = String::new();
    for (unit, scale) in TIME_UNITS {
        if millis >= scale {
            shown += &format!("{}{unit}", millis / scale);
            millis %= scale;
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// The units of size in bytes. The binary units come first, because [`show_size`] prefers them.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number of bytes within `range`: an integer, or a string such as `"64MiB"`.
pub(super) fn size(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    const WRITE: &str = "such as \"64MiB\", \"1GiB\" or a number of bytes";
    let bytes = match value {
        DeValue::Integer(written) => u64::from_str_radix(written.as_str(), written.radix()).ok(),
        DeValue::String(written) => {
            let wrong = || format!("must be a size {WRITE}, not {}", quoted(written));
            let (number, unit) = leading_number(written).ok_or_else(wrong)?;
            let unit = unit.trim_start_matches(' ');
            let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            number.checked_mul(*scale)
        }
        other => return Err(format!("must be a size {WRITE}, not {}", kind(other))),
    };
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        format!(
            "must be between {} and {}",
            show_size(*range.start()),
            show_size(*range.end())
        )
    })
}

/// A size as a user would write it.
pub(super) fn show_size(bytes: u64) -> String {
    let whole = SIZE_UNITS
        .iter()
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    match whole {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

/// The number that `text` starts with, and the rest. A number has digits only; a number over `u64::MAX` counts as `u64::MAX`.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    (!digits.is_empty()).then(|| (digits.parse().unwrap_or(u64::MAX), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY_TIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn durations_are_parsed() {
        for (written, millis) in [
            ("5s", Some(5_000)),
            ("500ms", Some(500)),
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("0s", Some(0)),
            ("0h5s", Some(5_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("-5s", None),
            ("+5s", None),
            ("1.5s", None),
            ("5S", None),
            ("5s5s", None),
            ("5s1h", None),
            ("5sx", None),
            ("99999999999999999999h", None),
            ("٣s", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(duration(&string(written), ANY_TIME).ok(), expected, "{written}");
        }
    }

    #[test]
    fn sizes_are_parsed() {
        for (written, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("64KB", Some(64_000)),
            ("7B", Some(7)),
            ("0B", Some(0)),
            ("64", None),
            ("64mib", None),
            ("1.5GiB", None),
            ("MiB", None),
            ("", None),
            ("99999999999999999999B", Some(u64::MAX)),
            ("99999999999999999999KiB", None),
        ] {
            assert_eq!(size(&string(written), 0..=u64::MAX).ok(), bytes, "{written}");
        }
    }

    proptest! {
        #[test]
        fn printed_values_are_parsed_to_the_same_values(millis in prop_oneof![0..100_000u64, any::<u64>()], bytes: u64) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&string(&show_duration(time)), ANY_TIME), Ok(time));
            prop_assert_eq!(size(&string(&show_size(bytes)), 0..=u64::MAX), Ok(bytes));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = duration(&string(&text), ANY_TIME);
            let _ = size(&string(&text), 0..=u64::MAX);
            prop_assert!(quoted(&text).chars().all(|c| !c.is_control()));
        }
    }
}
