//! The parts of an error response from which the dialects read, and the meaning of a number or a text in them.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use time::UtcOffset;

use super::{
    super::{
        duration::{parse_decimal, parse_duration},
        error_object::ErrorObject,
    },
    moment::parse_moment,
};

/// A reset further away than this, in the past or in the future, is treated as a mistake. Limits last a month at most.
pub(in crate::scan::response) const MAX_RESET: Duration = Duration::from_secs(366 * 24 * 3600);

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
                plausible_seconds(seconds + nanoseconds / 1e9)
            }
            _ => None,
        }
    }

    /// The time until the reset that `text` names: a number, a duration with units, or a date.
    pub fn until_text(&self, text: &str) -> Option<Duration> {
        if let Some(number) = parse_decimal(text) {
            return self.until_number(number);
        }
        let duration = parse_duration(&text.to_ascii_lowercase()).filter(is_plausible);
        duration.or_else(|| self.until(parse_moment(text, self.default_zone())?))
    }

    /// The time until the reset that `number` names. A small number is a delay in seconds, and a large one is a moment since
    /// 1970 in one of the usual units.
    pub fn until_number(&self, number: f64) -> Option<Duration> {
        let delay = plausible_seconds(number);
        let moments = || UNITS_PER_SECOND.iter().map(|units| number / units);
        delay.or_else(|| moments().find_map(|seconds| self.until(Duration::try_from_secs_f64(seconds).ok()?)))
    }

    /// The time until the reset that `number` names in a field for milliseconds.
    pub fn until_milliseconds(&self, number: f64) -> Option<Duration> {
        plausible_seconds(number / 1e3).or_else(|| self.until_number(number))
    }

    /// The time until `moment`, which is a time since 1970. It is zero if `moment` has passed.
    pub fn until(&self, moment: Duration) -> Option<Duration> {
        is_plausible(&moment.abs_diff(self.unix_now)).then(|| moment.saturating_sub(self.unix_now))
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

pub(super) fn is_plausible(duration: &Duration) -> bool {
    *duration <= MAX_RESET
}

/// The duration of `seconds`, if that is a plausible time until a reset.
pub(super) fn plausible_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(is_plausible)
}
