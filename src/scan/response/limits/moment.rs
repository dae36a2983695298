//! Parses dates as upstreams write them: RFC 3339, HTTP dates, numbers since 1970, and the usual forms in English text.

use std::time::{Duration, UNIX_EPOCH};

use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

/// The length of an HTTP date in its usual form, `Sun, 06 Nov 1994 08:49:37 GMT`.
const HTTP_DATE: usize = 29;
/// The number of digits of a moment since 1970, in seconds, milliseconds, microseconds or nanoseconds.
const EPOCH_DIGITS: [(usize, f64); 4] = [(10, 1.0), (13, 1e3), (16, 1e6), (19, 1e9)];
/// The names of the months, as far as they are compared.
const MONTHS: [(&str, Month); 12] = [
    ("jan", Month::January),
    ("feb", Month::February),
    ("mar", Month::March),
    ("apr", Month::April),
    ("may", Month::May),
    ("jun", Month::June),
    ("jul", Month::July),
    ("aug", Month::August),
    ("sep", Month::September),
    ("oct", Month::October),
    ("nov", Month::November),
    ("dec", Month::December),
];

/// Parses a value that is a date. `zone` is the time zone of a date without one. Returns the time since 1970.
pub(in crate::scan::response) fn parse_moment(text: &str, zone: UtcOffset) -> Option<Duration> {
    match httpdate::parse_http_date(text) {
        Ok(date) => date.duration_since(UNIX_EPOCH).ok(),
        Err(_) => leading_moment(text, zone),
    }
}

/// Parses the date at the beginning of `text`. Text that follows the date is ignored.
pub(super) fn leading_moment(text: &str, zone: UtcOffset) -> Option<Duration> {
    if let Some(date) = text
        .get(..HTTP_DATE)
        .and_then(|text| httpdate::parse_http_date(text).ok())
    {
        return date.duration_since(UNIX_EPOCH).ok();
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if let Some((_, units)) = EPOCH_DIGITS.iter().find(|(length, _)| *length == digits) {
        let number: f64 = text[..digits].parse().expect("digits are a number");
        return Duration::try_from_secs_f64(number / units).ok();
    }
    let mut reader = DateReader { rest: text };
    let date = reader.numeric_date().or_else(|| reader.named_date())?;
    let time = match reader.time() {
        Some(time) => time,
        // A time that is not valid makes the whole date invalid.
        None if reader.time_start().starts_with(|next: char| next.is_ascii_digit()) => return None,
        None => Time::MIDNIGHT,
    };
    let offset = reader.zone().unwrap_or(zone);
    let moment = PrimitiveDateTime::new(date, time).assume_offset(offset);
    let seconds = u64::try_from(moment.unix_timestamp()).ok()?;
    Some(Duration::new(seconds, moment.nanosecond()))
}

/// Reads the parts of a date from the beginning of a text. A part that is not there leaves the text as it is.
struct DateReader<'a> {
    rest: &'a str,
}

impl<'a> DateReader<'a> {
    /// `2026-12-01` or `2026/12/01`.
    fn numeric_date(&mut self) -> Option<Date> {
        self.attempt(|reader| {
            let year = reader.number(4..=4)?;
            let separator = reader.rest.chars().next().filter(|next| matches!(next, '-' | '/'))?;
            reader.rest = &reader.rest[1..];
            let month = Month::try_from(u8::try_from(reader.number(1..=2)?).ok()?).ok()?;
            reader.rest = reader.rest.strip_prefix(separator)?;
            date(year, month, reader.number(1..=2)?)
        })
    }

    /// `Dec 1, 2026`, `December 1st, 2026`, `1 December 2026`, with or without a day of the week before it.
    fn named_date(&mut self) -> Option<Date> {
        self.attempt(|reader| {
            let (mut month, mut day) = (None, None);
            while month.is_none() || day.is_none() {
                match reader.word() {
                    Some(word) if is_day_of_week(word) => {}
                    Some(word) => month = Some(month_of(word)?),
                    None => {
                        day = Some(reader.number(1..=2)?);
                        reader.skip_ordinal();
                    }
                }
                reader.rest = reader.rest.trim_start_matches([',', ' ']);
            }
            date(reader.number(4..=4)?, month?, day?)
        })
    }

    /// Skips the `st` of `1st`.
    fn skip_ordinal(&mut self) {
        let ending = ["st", "nd", "rd", "th"]
            .iter()
            .find_map(|end| self.rest.strip_prefix(end));
        self.rest = ending.unwrap_or(self.rest);
    }

    /// `T13:44:00.5`, ` 13:44`, ` at 1:44 PM`.
    fn time(&mut self) -> Option<Time> {
        self.attempt(|reader| {
            reader.rest = reader.time_start();
            let hour = reader.number(1..=2)?;
            reader.rest = reader.rest.strip_prefix(':')?;
            let minute = reader.number(2..=2)?;
            let second = reader.attempt(|reader| {
                reader.rest = reader.rest.strip_prefix(':')?;
                reader.number(2..=2)
            });
            let nanosecond = second.and_then(|_| reader.fraction()).unwrap_or(0);
            let hour = reader.half_of_day(hour)?;
            let part = |number: u32| u8::try_from(number).ok();
            // A leap second is the last one of its minute.
            let second = part(second.unwrap_or(0))?.min(59);
            Time::from_hms_nano(part(hour)?, part(minute)?, second, nanosecond).ok()
        })
    }

    /// The text without the separator between a date and its time.
    fn time_start(&self) -> &'a str {
        let rest = self.rest.trim_start_matches([',', ' ']);
        let time = rest.strip_prefix("at ").or_else(|| rest.strip_prefix(['T', 't']));
        time.unwrap_or(rest).trim_start()
    }

    /// The nanoseconds of `.123456`. Further digits are dropped.
    fn fraction(&mut self) -> Option<u32> {
        let digits = self.rest.strip_prefix('.')?;
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        self.rest = &digits[length..];
        let digits = &digits[..length.min(9)];
        format!("{digits:0<9}").parse().ok()
    }

    /// The hour of 24 for an `hour` before `AM` or `PM`; without either, `hour` itself.
    fn half_of_day(&mut self, hour: u32) -> Option<u32> {
        let rest = self.rest.trim_start_matches(' ');
        let half = rest.get(..2).map(str::to_ascii_lowercase);
        let from_noon = match half.as_deref() {
            Some("am") => 0,
            Some("pm") => 12,
            _ => return Some(hour),
        };
        self.rest = &rest[2..];
        (1..=12).contains(&hour).then_some(hour % 12 + from_noon)
    }

    /// `Z`, ` UTC`, ` GMT`, `+08:00`, `-0500`.
    fn zone(&mut self) -> Option<UtcOffset> {
        let rest = self.rest.trim_start_matches([' ', '(']);
        let is_utc = |name: &str| {
            rest.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        if ["Z", "UTC", "GMT"].iter().any(|name| is_utc(name)) {
            return Some(UtcOffset::UTC);
        }
        let sign = match rest.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        self.attempt(|reader| {
            reader.rest = &rest[1..];
            let hours = reader.number(2..=2)?;
            reader.rest = reader.rest.strip_prefix(':').unwrap_or(reader.rest);
            let minutes = reader.number(2..=2).unwrap_or(0);
            let part = |number: u32| i8::try_from(number).ok().map(|number| number * sign);
            UtcOffset::from_hms(part(hours)?, part(minutes)?, 0).ok()
        })
    }

    /// Reads a number with as many digits as `lengths` allows.
    fn number(&mut self, lengths: std::ops::RangeInclusive<usize>) -> Option<u32> {
        let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        if !lengths.contains(&length) {
            return None;
        }
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        digits.parse().ok()
    }

    /// Reads a word of ASCII letters, and a point after it.
    fn word(&mut self) -> Option<&'a str> {
        let length = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest.strip_prefix('.').unwrap_or(rest);
        (length > 0).then_some(word)
    }

    /// Returns the result of `read`. If there is none, the text stays as it was.
    fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.rest;
        let result = read(self);
        if result.is_none() {
            self.rest = before;
        }
        result
    }
}

fn date(year: u32, month: Month, day: u32) -> Option<Date> {
    Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()
}

/// Whether `word` is a day of the week, in full or in short.
fn is_day_of_week(word: &str) -> bool {
    let start = word.get(..3).map(str::to_ascii_lowercase);
    start.is_some_and(|start| ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].contains(&start.as_str()))
}

/// The month that `word` names, in full or in short.
fn month_of(word: &str) -> Option<Month> {
    let start = word.get(..3)?.to_ascii_lowercase();
    MONTHS
        .iter()
        .find_map(|(name, month)| (*name == start).then_some(*month))
}
