//! The `Date` header for responses that have none (RFC 9110 section 6.6.1), formatted once per second and thread.

use std::{cell::RefCell, time::SystemTime};

use http::HeaderValue;

thread_local! {
    /// The last value, and the second since the Unix epoch for which it was made.
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The value of `Date` for the current second.
pub(in crate::wire) fn current_date() -> HeaderValue {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|last| match last {
        Some((made, value)) if *made == second => value.clone(),
        _ => {
            let value = HeaderValue::try_from(httpdate::fmt_http_date(now)).expect("an HTTP date is visible ASCII");
            *last = Some((second, value.clone()));
            value
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_date_is_the_present_second() {
        let text = current_date();
        let parsed = httpdate::parse_http_date(text.to_str().expect("ASCII")).expect("an HTTP date");
        assert!(parsed.elapsed().expect("not in the future") < Duration::from_secs(60));
    }
}
