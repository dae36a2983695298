//! What is read from error responses and failed events, with the resets in every dialect.

use std::time::UNIX_EPOCH;

use http::HeaderName;
use proptest::prelude::*;
use serde_json::json;

use super::{super::limits::source::MAX_RESET, *};

mod shapes;

/// 2026-11-23 12:00:00 UTC.
const NOW: Duration = Duration::from_secs(1_795_435_200);

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let parsed = lines
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
    parsed.collect()
}

fn notice(lines: &[(&str, &str)], body: &Value) -> ErrorNotice {
    error_notice(&headers(lines), body.to_string().as_bytes(), Some("gpt-5.2"), NOW)
}

fn reset(lines: &[(&str, &str)], body: &Value) -> Option<u128> {
    notice(lines, body).reset.map(|reset| reset.as_millis())
}

fn error(members: Value) -> Value {
    json!({ "error": members })
}

#[test]
fn the_reset_is_read_from_the_body() {
    let now = NOW.as_secs();
    let cases = [
        (json!({"resets_at": now + 90}), Some(90_000)),
        (json!({"resets_at": now as f64 + 0.5}), Some(500)),
        (json!({"resets_at": now - 90}), Some(0)),
        (json!({"resets_in_seconds": 7}), Some(7_000)),
        (json!({"resets_in_seconds": 7.25}), Some(7_250)),
        (json!({"resets_in_seconds": 0}), Some(0)),
        (json!({"resets_at": now + 90, "resets_in_seconds": 7}), Some(90_000)),
        (json!({"resets_at": null, "resets_in_seconds": 7}), Some(7_000)),
        (json!({"resets_at": -5, "resets_in_seconds": 7}), Some(7_000)),
        (
            json!({"resets_at": now * 1000 + 1500, "resets_in_seconds": 7}),
            Some(1_500),
        ),
        // The moment was never set.
        (json!({"resets_at": 0, "resets_in_seconds": 7}), Some(7_000)),
        (
            json!({"resets_in_seconds": -1, "message": "try again in 1.5s"}),
            Some(1_500),
        ),
        (
            json!({"resets_in_seconds": 1e300, "message": "try again in 20ms"}),
            Some(20),
        ),
        (json!({"message": "try again in 400 days"}), Some(YEAR)),
        (json!({"resets_at": "soon", "resets_in_seconds": [1]}), None),
    ];
    for (members, expected) in cases {
        assert_eq!(reset(&[], &error(members.clone())), expected, "{members}");
    }
}

/// The milliseconds of [`MAX_RESET`].
const YEAR: u128 = MAX_RESET.as_millis();

#[test]
fn every_form_of_retry_after_is_read() {
    let cases = [
        ("retry-after-ms", "1500", Some(1_500)),
        ("retry-after-ms", "0.5", Some(0)),
        ("retry-after-ms", "-1", None),
        ("retry-after", "0", Some(0)),
        ("retry-after", " 30 ", Some(30_000)),
        ("retry-after", "1.5", Some(1_500)),
        ("retry-after", "Mon, 23 Nov 2026 12:01:00 GMT", Some(60_000)),
        ("retry-after", "Monday, 23-Nov-26 12:01:00 GMT", Some(60_000)),
        ("retry-after", "Mon Nov 23 12:01:00 2026", Some(60_000)),
        ("retry-after", "Mon, 23 Nov 2026 11:00:00 GMT", Some(0)),
        ("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT", Some(YEAR)),
        ("retry-after", "-5", None),
        ("retry-after", "NaN", None),
        ("retry-after", "inf", None),
        ("retry-after", "1e3", None),
        ("retry-after", "99999999999", Some(YEAR)),
        ("retry-after", "5s", Some(5_000)),
        ("retry-after", "5 fortnights", None),
        ("retry-after", "", None),
    ];
    for (name, value, expected) in cases {
        assert_eq!(reset(&[(name, value)], &json!({})), expected, "{name}: {value}");
    }
}

#[test]
fn only_the_reset_of_an_exhausted_limit_counts() {
    let reset_of = |requests: (&str, &str), tokens: (&str, &str)| {
        let lines = [
            ("x-ratelimit-remaining-requests", requests.0),
            ("x-ratelimit-reset-requests", requests.1),
            ("x-ratelimit-remaining-tokens", tokens.0),
            ("x-ratelimit-reset-tokens", tokens.1),
        ];
        reset(&lines, &json!({}))
    };
    assert_eq!(reset_of(("0", "12ms"), ("5", "6m0s")), Some(12));
    assert_eq!(reset_of(("9999", "1s"), ("0", "6m0s")), Some(360_000));
    assert_eq!(reset_of(("0", "12ms"), ("0", "6m0s")), Some(360_000));
    assert_eq!(reset_of(("0", "1"), ("0", "nonsense")), Some(1_000));
    assert_eq!(reset_of(("-1", "1s"), ("", "1s")), None);
    assert_eq!(reset_of(("0", "0s"), ("0", "0")), None);
    assert_eq!(reset_of(("0", "-1s"), ("0", "500 days")), Some(YEAR));
    // The headers do not say which of the limits is exhausted.
    let silent = [("x-ratelimit-reset-requests", "9s"), ("x-ratelimit-reset-tokens", "5s")];
    assert_eq!(reset(&silent, &json!({})), Some(5_000));
}

#[test]
fn only_the_reset_of_an_exhausted_codex_window_counts() {
    let at = (NOW.as_secs() + 600).to_string();
    let late = (NOW.as_secs() + 6000).to_string();
    let primary = [
        ("x-codex-primary-used-percent", "100"),
        ("x-codex-primary-reset-at", &at),
    ];
    assert_eq!(reset(&primary, &json!({})), Some(600_000));
    let spare = [
        ("x-codex-primary-used-percent", "99.9"),
        ("x-codex-primary-reset-at", &at),
    ];
    assert_eq!(reset(&spare, &json!({})), None);
    let both = [
        &primary[..],
        &[
            ("x-codex-secondary-used-percent", "100.0"),
            ("x-codex-secondary-reset-at", &late),
        ],
    ]
    .concat();
    assert_eq!(reset(&both, &json!({})), Some(6_000_000));
    let after = [
        ("x-codex-secondary-used-percent", "120"),
        ("x-codex-secondary-reset-at", "never"),
        ("x-codex-secondary-reset-after-seconds", "33"),
    ];
    assert_eq!(reset(&after, &json!({})), Some(33_000));
}

#[test]
fn the_latest_reset_of_a_refusal_counts_and_then_the_first_window() {
    let at = (NOW.as_secs() + 60).to_string();
    let mut lines = vec![
        ("retry-after-ms", "2000"),
        ("retry-after", "3"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "5s"),
        ("x-codex-primary-used-percent", "100"),
        ("x-codex-primary-reset-at", &at),
    ];
    let message = json!({"message": "try again in 4s"});
    let body = error(json!({"resets_in_seconds": 1, "message": "try again in 4s"}));
    assert_eq!(reset(&lines, &body), Some(60_000));
    lines[5].1 = "x";
    assert_eq!(reset(&lines, &body), Some(4_000));
    assert_eq!(reset(&lines, &json!({})), Some(3_000));
    lines[1].1 = "x";
    assert_eq!(reset(&lines, &json!({})), Some(2_000));
    lines[0].1 = "x";
    assert_eq!(reset(&lines, &error(message)), Some(4_000));
    assert_eq!(reset(&lines, &error(json!({"resets_in_seconds": 1}))), Some(1_000));
    assert_eq!(reset(&lines, &json!({})), Some(5_000));
    lines[3].1 = "x";
    assert_eq!(reset(&lines, &json!({})), None);
}

#[test]
fn long_types_and_codes_are_ignored() {
    let names_in = |body: Value| {
        let notice = notice(&[], &body);
        (notice.kind, notice.code)
    };
    let named = |kind: &str, code: &str| (Some(kind.to_owned()), Some(code.to_owned()));
    assert_eq!(
        names_in(error(json!({"type": "tokens", "code": "rate_limit_exceeded"}))),
        named("tokens", "rate_limit_exceeded")
    );
    assert_eq!(names_in(error(json!({"type": "x", "code": 429}))), named("x", "429"));
    assert_eq!(
        names_in(error(json!({"type": null, "code": "y".repeat(65)}))),
        (None, None)
    );
    assert_eq!(names_in(error(json!({"type": "", "code": {"a": 1}}))), (None, None));
    assert_eq!(
        names_in(json!({"type": "overloaded", "code": "z"})),
        named("overloaded", "z")
    );
    assert_eq!(
        reset(&[], &json!({"error": "Overloaded, try again in 1s"})),
        Some(1_000)
    );
    assert_eq!(reset(&[], &json!({"detail": "try again in 1s"})), Some(1_000));
}

#[test]
fn a_model_must_be_named_as_a_whole_name() {
    let about = |model: &str, members: Value| {
        error_notice(
            &HeaderMap::new(),
            error(members).to_string().as_bytes(),
            Some(model),
            NOW,
        )
        .names_model
    };
    let says = |model: &str, message: &str| about(model, json!({ "message": message }));
    for message in [
        "Rate limit reached for gpt-5.2 in organization org-A",
        "no quota for `gpt-5.2`",
        "no quota for 'gpt-5.2', sorry",
        "no quota for \"gpt-5.2\"",
        "not gpt-5.2-mini but gpt-5.2",
        "for gpt-5.2.",
        "gpt-5.2: try again",
        "(openai/gpt-5.2)",
    ] {
        assert!(says("gpt-5.2", message), "{message}");
    }
    for message in [
        "gpt-5.2-mini",
        "gpt-5.21",
        "my-gpt-5.2",
        "gpt-5",
        "a.gpt-5.2",
        "GPT",
        "",
        "gpt-5.2.1",
        "gpt-5.2:free",
    ] {
        assert!(!says("gpt-5.2", message), "{message}");
    }
    assert!(!says("gpt-5", "Rate limit reached for gpt-5.2 in organization org-A"));
    assert!(!says("", "anything"));
    assert!(about("m", json!({"model": "m"})));
    assert!(!about("m", json!({"model": "n"})));
    let body = error(json!({"message": "for gpt-5.2"})).to_string();
    assert!(!error_notice(&HeaderMap::new(), body.as_bytes(), None, NOW).names_model);
}

#[test]
fn a_body_that_is_not_json_is_ignored() {
    let body = error(json!({"type": "a", "code": "b", "resets_in_seconds": 5})).to_string();
    for length in 0..body.len() {
        let cut = &body.as_bytes()[..length];
        assert_eq!(error_notice(&HeaderMap::new(), cut, None, NOW), ErrorNotice::default());
        let kept = error_notice(&headers(&[("retry-after", "3")]), cut, None, NOW);
        assert_eq!(kept.reset, Some(Duration::from_secs(3)));
    }
    let deep = "[".repeat(10_000);
    for other in ["<html>try again in 1s</html>", "\x1f\u{8b}", "[1]", "null", &deep] {
        assert_eq!(
            error_notice(&HeaderMap::new(), other.as_bytes(), None, NOW),
            ErrorNotice::default()
        );
    }
}

#[test]
fn failed_events_are_read_in_every_form() {
    let notice_of = |event: Value| event_notice(event.to_string().as_bytes(), Some("m"), NOW);
    let inner = json!({"type": "t", "code": "slow_down", "message": "m: try again in 1.5s"});
    let expected = ErrorNotice {
        kind: Some("t".to_owned()),
        code: Some("slow_down".to_owned()),
        reset: Some(Duration::from_millis(1500)),
        names_model: true,
        ..ErrorNotice::default()
    };
    assert_eq!(
        notice_of(json!({"type": "response.failed", "response": {"error": inner}})).as_ref(),
        Some(&expected)
    );
    assert_eq!(
        notice_of(json!({"type": "error", "status": 429, "error": inner})).as_ref(),
        Some(&expected)
    );
    assert_eq!(notice_of(json!({"error": inner})).as_ref(), Some(&expected));
    let bare = json!({"type": "error", "code": "slow_down", "message": "m: try again in 1.5s", "param": null});
    let untyped = ErrorNotice { kind: None, ..expected };
    assert_eq!(notice_of(bare), Some(untyped));
    for silent in [
        json!({"type": "response.failed"}),
        json!({"type": "response.failed", "response": {"error": null}}),
    ] {
        assert_eq!(notice_of(silent), Some(ErrorNotice::default()));
    }
    for other in [
        json!({"type": "response.created", "response": {"error": inner}}),
        json!({"type": "response.output_text.delta", "error": inner}),
        json!({"id": "chatcmpl-1", "choices": []}),
        json!({"error": null}),
        json!([inner]),
    ] {
        assert_eq!(notice_of(other), None);
    }
    assert_eq!(event_notice(b"[DONE]", None, NOW), None);
}

/// The headers that the dialects read.
const HEADERS: [&str; 12] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-codex-primary-used-percent",
    "x-codex-primary-reset-at",
    "x-codex-primary-reset-after-seconds",
    "x-codex-secondary-used-percent",
    "x-codex-secondary-reset-at",
    "x-codex-secondary-reset-after-seconds",
];

proptest! {
    #[test]
    fn every_input_gives_a_plausible_reset(
        lines in prop::collection::vec((prop::sample::select(HEADERS.to_vec()), prop_oneof!["[ -~]{0,20}", "[0-9.]{0,40}[a-z]{0,2}"]), 0..6),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "\\{\"error\":\\{\"(resets_at|resets_in_seconds|message)\":[-\"0-9.e a-z]{0,30}\\}\\}".prop_map(String::into_bytes),
        ],
        now in 0u64..1 << 40,
    ) {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let notice = error_notice(&headers(&lines), &body, Some("m"), Duration::from_secs(now));
        prop_assert!(notice.reset.is_none_or(|reset| reset <= MAX_RESET));
        let _ = event_notice(&body, Some("m"), Duration::from_secs(now));
    }

    /// The same duration is read from every dialect. The latest one counts; a window counts only without another dialect.
    #[test]
    fn dialects_agree(spans in prop::collection::vec(prop::option::of(1u32..86_400), 7), now in 1u64 << 30..1 << 33) {
        let text = |index: usize, scale: u32| spans[index].map(|span| (u64::from(span) * u64::from(scale)).to_string());
        let mut lines = HeaderMap::new();
        let mut put = |name: &'static str, value: Option<String>| {
            if let Some(value) = value {
                lines.insert(name, value.parse().unwrap());
            }
        };
        put("retry-after-ms", text(2, 1000));
        let date = spans[3].map(|span| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now + u64::from(span))));
        put("retry-after", date);
        put("x-ratelimit-remaining-tokens", Some("0".to_owned()));
        put("x-ratelimit-reset-tokens", spans[5].map(|span| format!("{}m{}s", span / 60, span % 60)));
        put("x-codex-primary-used-percent", Some("100".to_owned()));
        put("x-codex-primary-reset-at", spans[6].map(|span| (now + u64::from(span)).to_string()));
        let message = spans[4].map(|span| format!("Please try again in {}h{}m{}s.", span / 3600, span / 60 % 60, span % 60));
        let body = json!({"error": {
            "resets_at": spans[0].map(|span| now + u64::from(span)), "resets_in_seconds": spans[1], "message": message,
        }});
        let notice = error_notice(&lines, body.to_string().as_bytes(), None, Duration::from_secs(now));
        let latest = [spans[0].or(spans[1]), spans[2], spans[3], spans[4], spans[6]].into_iter().flatten().max();
        let expected = latest.or(spans[5]).map(|span| Duration::from_secs(u64::from(span)));
        prop_assert_eq!(notice.reset, expected);
    }
}
