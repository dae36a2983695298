//! The `Date` header for responses that have none (RFC 9110 section 6.6.1), formatted once per second and thread.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use http::HeaderValue;

thread_local! {
    /// The last value, and the second since the Unix epoch for which it was made.
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The last second of the year 9999, in Unix time. The year of an HTTP date has four digits.
const LAST_SECOND: u64 = 253_402_300_799;

/// The value of `Date` for the current second.
pub(in crate::wire) fn current_date() -> HeaderValue {
    let second = second_of(SystemTime::now());
    LAST.with_borrow_mut(|last| match last {
        Some((made, value)) if *made == second => value.clone(),
        _ => {
            let value = date_of(second);
            *last = Some((second, value.clone()));
            value
        }
    })
}

/// The second of `now` in Unix time. A clock outside the years that an HTTP date can name counts as the nearest of them.
fn second_of(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().min(LAST_SECOND))
}

fn date_of(second: u64) -> HeaderValue {
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    HeaderValue::try_from(date).expect("an HTTP date is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_the_present_second() {
        let text = current_date();
        let parsed = httpdate::parse_http_date(text.to_str().expect("ASCII")).expect("an HTTP date");
        assert!(parsed.elapsed().expect("not in the future") < Duration::from_secs(60));
    }

    #[test]
    fn a_clock_that_is_wrong_by_centuries_has_a_date() {
        let second = Duration::from_secs(1);
        let first = "Thu, 01 Jan 1970 00:00:00 GMT";
        let last = "Fri, 31 Dec 9999 23:59:59 GMT";
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
        for (now, date) in [
            (SystemTime::UNIX_EPOCH - second, first),
            (SystemTime::UNIX_EPOCH, first),
            (end, last),
            (end + second, last),
        ] {
            assert_eq!(date_of(second_of(now)), date);
        }
    }
}
