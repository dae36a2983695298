//! The `Date` of answers that come without one (RFC 9110 section 6.6.1), made once a second.

use std::{cell::RefCell, time::SystemTime};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The present date.
pub(in crate::wire) fn now() -> HeaderValue {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|last| match last {
        Some((made, value)) if *made == second => value.clone(),
        _ => {
            let value = HeaderValue::try_from(httpdate::fmt_http_date(now));
            // The format has visible ASCII only.
            let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
            *last = Some((second, value.clone()));
            value
        }
    })
}
