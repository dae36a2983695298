//! The parts of an error response from which the dialects read, and the meaning of a number or a text in them.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use time::UtcOffset;

use super::{
    super::{
        duration::{parse_decimal, parse_duration, saturating_seconds},
        error_object::ErrorObject,
    },
    moment::parse_moment,
};

/// The maximum time until a reset. A longer time counts as this one, because the upstream certainly names a long time. Limits
/// last a month at most. A moment that is further in the past is treated as a mistake.
pub(in crate::scan::response) const MAX_RESET: Duration = Duration::from_secs(366 * 24 * 3600);

/// The first moment, in seconds since 1970, that a number of ten digits names. Smaller numbers are no moments.
const FIRST_MOMENT: f64 = 1e9;

/// The number of units in a second, in which upstreams count moments since 1970: seconds, milliseconds, microseconds and
/// nanoseconds. A moment of this century is plausible in one of them only.
const UNITS_PER_SECOND: [f64; 4] = [1.0, 1e3, 1e6, 1e9];

/// The parts of an error response from which the dialects read.
pub(in crate::scan::response) struct LimitSource<'a> {
    /// The error object of the body. All its members are absent if there is none.
    pub error: ErrorObject<'a>,
    /// The headers of the response, with those that the body repeats.
    pub headers: &'a HeaderMap,
    /// The current time since 1970.
    pub unix_now: Duration,
}

/// Reads the time until the reset in one dialect. Returns `None` if the source does not use the dialect.
pub(super) type Dialect = fn(&LimitSource<'_>) -> Option<Duration>;

impl LimitSource<'_> {
    /// The time until the reset that a header names, as [`until_text`](Self::until_text) reads it. If the header is there
    /// more than once, the latest reset counts.
    pub fn until_header(&self, name: &str) -> Option<Duration> {
        let values = self.headers.get_all(name).iter();
        values
            .filter_map(|value| self.until_text(value.to_str().ok()?.trim()))
            .max()
    }

    /// The value of a header without surrounding whitespace.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// The value of a header that is a decimal number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.header(name).and_then(parse_decimal)
    }

    /// The time until the reset that a member of the body names: a number, a text, or a protobuf duration as an object.
    pub fn until_value(&self, value: &Value) -> Option<Duration> {
        match value {
            Value::Number(number) => self.until_number(number.as_f64()?),
            Value::String(text) => self.until_text(text.trim()),
            Value::Object(duration) => {
                let seconds = duration.get("seconds").and_then(number_of)?;
                let nanoseconds = duration.get("nanos").and_then(number_of).unwrap_or(0.0);
                saturating_seconds(seconds + nanoseconds / 1e9).map(|delay| delay.min(MAX_RESET))
            }
            _ => None,
        }
    }

    /// The time until the reset that `text` names: a number, a duration with units, or a date.
    pub fn until_text(&self, text: &str) -> Option<Duration> {
        if let Some(number) = parse_decimal(text) {
            return self.until_number(number);
        }
        let duration = parse_duration(&text.to_ascii_lowercase());
        let duration = duration.map(|duration| duration.min(MAX_RESET));
        duration.or_else(|| self.until(parse_moment(text, self.default_zone())?))
    }

    /// The time until the reset that `number` names. A small number is a delay in seconds, and a large one is a moment since
    /// 1970 in one of the usual units. A number that is neither is a long delay, unless it is a moment long ago.
    pub fn until_number(&self, number: f64) -> Option<Duration> {
        let moments = || UNITS_PER_SECOND.iter().map(|units| number / units);
        let moment = || {
            let mut near = moments().filter_map(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let moment = near.find(|moment| moment.abs_diff(self.unix_now) <= MAX_RESET)?;
            Some(moment.saturating_sub(self.unix_now))
        };
        let past = FIRST_MOMENT..self.unix_now.as_secs_f64();
        let is_past = || moments().any(|seconds| past.contains(&seconds));
        short_delay(number)
            .or_else(moment)
            .or_else(|| long_delay(number).filter(|_| !is_past()))
    }

    /// The time until the reset that `number` names in a field for a delay in seconds. A number that is more than a year, and
    /// no moment near the present, is a long delay.
    pub fn until_seconds(&self, number: f64) -> Option<Duration> {
        self.until_number(number).or_else(|| long_delay(number))
    }

    /// The time until the reset that `number` names in a field for a delay in milliseconds.
    pub fn until_milliseconds(&self, number: f64) -> Option<Duration> {
        short_delay(number / 1e3).or_else(|| self.until_seconds(number))
    }

    /// The time until `moment`, which is a time since 1970. It is zero if `moment` has passed.
    pub fn until(&self, moment: Duration) -> Option<Duration> {
        let is_long_ago = self.unix_now.saturating_sub(moment) > MAX_RESET;
        (!is_long_ago).then(|| moment.saturating_sub(self.unix_now).min(MAX_RESET))
    }

    /// The time zone of a date without one. Zhipu (Z.ai) writes Beijing time, in errors with these codes:
    /// <https://docs.z.ai/api-reference/api-code>. Of other upstreams, UTC is assumed.
    pub fn default_zone(&self) -> UtcOffset {
        let code = match self.error.code {
            Some(Value::String(code)) => code.parse().ok(),
            Some(Value::Number(code)) => code.as_u64(),
            _ => None,
        };
        match code {
            Some(1300..=1399) => UtcOffset::from_hms(8, 0, 0).expect("a valid offset"),
            _ => UtcOffset::UTC,
        }
    }
}

/// The number that a member of the body contains, as a number or as a text.
pub(super) fn number_of(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| parse_decimal(value.as_str()?.trim()))
}

/// The duration of `seconds`, if it is at most [`MAX_RESET`].
fn short_delay(seconds: f64) -> Option<Duration> {
    let delay = Duration::try_from_secs_f64(seconds).ok();
    delay.filter(|delay| *delay <= MAX_RESET)
}

/// [`MAX_RESET`], if `seconds` are more than that.
fn long_delay(seconds: f64) -> Option<Duration> {
    (seconds > MAX_RESET.as_secs_f64()).then_some(MAX_RESET)
}
