//! Resets that are more than a year away.

use serde_json::json;

use super::*;

#[test]
fn a_long_time_is_bounded() {
    let digits = "9".repeat(400);
    let far = [
        "31622401",
        "99999999",
        "999999999",
        "99999999999",
        "4102444800",
        "4102444800000",
        "18446744073709551616",
        &digits,
        "9999-12-31T23:59:59Z",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Sun, 01 Jan 2040 00:00:00 GMT",
        "9000d",
        "99999999999999999999999w",
    ];
    for value in far {
        for name in [
            "retry-after",
            "x-ratelimit-reset",
            "x-ratelimit-reset-tokens",
            "x-codex-primary-reset-at",
        ] {
            let lines = [
                format!("{name}: {value}"),
                "x-codex-primary-used-percent: 100".to_owned(),
            ];
            let reset = reset(&[&lines[0], &lines[1]], "");
            assert_eq!(reset, Some(MAX_RESET), "{name}: {value}");
        }
        for name in ["resets_at", "resets_in_seconds", "retry_after", "retryDelay"] {
            let body = json!({"error": {name: value}}).to_string();
            assert_eq!(reset(&[], &body), Some(MAX_RESET), "{body}");
        }
    }
}

#[test]
fn a_long_number_is_bounded_and_a_moment_long_ago_is_skipped() {
    for number in ["99999999", "99999999999", "18446744073709551616", "1e300"] {
        for name in ["resets_at", "resets_in_seconds", "retry_after_ms"] {
            let is_short = name.ends_with("ms") && number == "99999999";
            let expected = if is_short {
                Duration::from_millis(99_999_999)
            } else {
                MAX_RESET
            };
            let body = format!(r#"{{"error":{{"{name}":{number}}}}}"#);
            assert_eq!(reset(&[], &body), Some(expected), "{body}");
        }
    }
    let message = r#"{"error":{"message":"Please try again in 99999999999 days."}}"#;
    assert_eq!(reset(&[], message), Some(MAX_RESET));
    // 2020, in seconds and in milliseconds.
    for value in ["1577836800", "1577836800000", "2020-01-01T00:00:00Z"] {
        assert_eq!(reset(&[&format!("x-ratelimit-reset: {value}")], ""), None, "{value}");
        assert_eq!(
            reset(&[], &json!({"error": {"resets_at": value}}).to_string()),
            None,
            "{value}"
        );
    }
    assert_eq!(reset(&["retry-after: 1577836800"], ""), Some(MAX_RESET));
    let body = r#"{"error":{"resets_in_seconds":1577836800}}"#;
    assert_eq!(reset(&[], body), Some(MAX_RESET));
}
