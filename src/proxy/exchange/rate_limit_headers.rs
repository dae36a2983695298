//! The `x-ratelimit-…` headers of a response: the remaining part of the limits of the caller's key.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    policy::limiter::{LimitUsage, in_units},
    state::ClientKey,
};

const PREFIX: &str = "x-ratelimit-";
/// The headers for the requests per minute: limit, remaining and reset.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
/// The headers for the tokens per minute: limit, remaining and reset.
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Removes the upstream's rate limit headers, which describe its account, and adds those of the caller's `key`. If
/// there is no client key, the headers do not change.
pub(in crate::proxy) fn replace_with_callers(headers: &mut HeaderMap, key: Option<&ClientKey>) {
    let Some(key) = key else { return };
    strip(headers);
    add(headers, key);
}

/// Adds the headers for the limits of `key`, if it has limits.
pub(in crate::proxy) fn add(headers: &mut HeaderMap, key: &ClientKey) {
    let Some(rate_limits) = &key.rate_limits else { return };
    let used = rate_limits.usage();
    for (names, used) in [(&REQUESTS, used.requests), (&TOKENS, used.tokens)] {
        if let Some(used) = used {
            insert(headers, names, &used);
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX))
        .cloned()
        .collect();
    for name in found {
        headers.remove(name);
    }
}

fn insert(headers: &mut HeaderMap, [limit, remaining, reset]: &[HeaderName; 3], used: &LimitUsage) {
    let until_reset = HeaderValue::try_from(in_units(used.reset));
    headers.insert(limit, HeaderValue::from(used.limit));
    headers.insert(remaining, HeaderValue::from(used.remaining));
    headers.insert(reset, until_reset.expect("a duration in units is ASCII"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing;

    fn upstreams_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [
            "x-ratelimit-limit-requests",
            "x-ratelimit-limit-project-tokens",
            "content-type",
        ] {
            headers.insert(name, HeaderValue::from_static("upstream's"));
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        lines.sort();
        lines
    }

    #[tokio::test]
    async fn the_limits_of_the_key_replace_those_of_the_account() {
        let mut headers = upstreams_headers();
        replace_with_callers(&mut headers, Some(&testing::limited_key("requests_per_minute = 60\n")));
        assert_eq!(
            lines(&headers),
            [
                "content-type: upstream's",
                "x-ratelimit-limit-requests: 60",
                "x-ratelimit-remaining-requests: 60",
                "x-ratelimit-reset-requests: 0s",
            ]
        );
    }

    #[tokio::test]
    async fn the_headers_of_the_account_are_removed_for_callers_with_a_key_only() {
        let mut headers = upstreams_headers();
        replace_with_callers(&mut headers, None);
        assert_eq!(headers, upstreams_headers());
        replace_with_callers(&mut headers, Some(&testing::limited_key("")));
        assert_eq!(lines(&headers), ["content-type: upstream's"]);
    }
}
