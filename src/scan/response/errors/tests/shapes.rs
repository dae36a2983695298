//! Failed events of every shape, and what messages are about.

use super::*;

#[test]
fn failed_events_of_other_shapes_are_read() {
    let names_in = |event: Value| {
        let notice = event_notice(event.to_string().as_bytes(), None, NOW)?;
        Some((notice.kind.unwrap_or_default(), notice.code.unwrap_or_default()))
    };
    let named = |kind: &str, code: &str| Some((kind.to_owned(), code.to_owned()));
    // OpenRouter, in the middle of a stream of chat completions.
    let chat =
        json!({"id": "gen-1", "choices": [{"finish_reason": "error"}], "error": {"code": 502, "message": "gone"}});
    assert_eq!(names_in(chat), named("", "502"));
    assert_eq!(names_in(json!({"error": "gone"})), named("", ""));
    let messages = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert_eq!(names_in(messages), named("overloaded_error", ""));
    let vllm = json!({"object": "error", "type": "BadRequestError", "message": "no", "code": 400});
    assert_eq!(names_in(vllm), named("BadRequestError", "400"));
    let beside = json!({"type": "response.failed", "error": {"code": "server_error"}, "response": {"error": null}});
    assert_eq!(names_in(beside), named("", "server_error"));
    let silent = json!({"type": "error", "code": null, "message": "no", "param": null});
    assert_eq!(names_in(silent), named("", ""));
    let google =
        json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"reason": "QUOTA_EXHAUSTED"}]}});
    assert_eq!(names_in(google), named("RESOURCE_EXHAUSTED", "QUOTA_EXHAUSTED"));
}

#[test]
fn a_failed_event_that_echoes_the_request_is_read() {
    let error = json!({"code": "rate_limit_exceeded", "message": "Please try again in 44s."});
    let response =
        json!({"instructions": "x".repeat(200 << 10), "tools": vec![json!({"a": [1]}); 4_000], "error": error});
    let event = json!({"type": "response.failed", "response": response}).to_string();
    assert!(event.len() > 230 << 10, "{}", event.len());
    let notice = event_notice(event.as_bytes(), None, NOW).unwrap();
    assert_eq!(notice.code.as_deref(), Some("rate_limit_exceeded"));
    assert_eq!(notice.reset, Some(Duration::from_secs(44)));
}

#[test]
fn the_message_says_what_the_error_is_about() {
    let says = |message: &str| {
        let notice = notice(&[], &error(json!({ "message": message })));
        (notice.says_credential, notice.says_permission, notice.says_quota)
    };
    let (credential, permission, quota) = ((true, false, false), (false, true, false), (false, false, true));
    for (message, expected) in [
        (
            "Incorrect API key provided: sk-1. You can find your API key at …",
            credential,
        ),
        ("API key not valid. Please pass a valid API key.", credential),
        (
            "Your authentication token has been invalidated. Please try signing in again.",
            credential,
        ),
        ("OAuth token has expired. Please obtain a new token.", credential),
        (
            "You have insufficient permissions for this operation. Missing scopes: api.responses.write. Check that you have \
             the correct role in your organization, and if you're using a restricted API key, that it has the necessary scopes.",
            permission,
        ),
        (
            "OAuth token lacks required scopes. Token must have user:inference",
            permission,
        ),
        ("Your project does not have access to model gpt-5.", permission),
        ("Rate limit exceeded: free-models-per-day", quota),
        (
            "Quota exceeded for limit 'Gemini 2.5 Pro Requests per day per user per tier'",
            quota,
        ),
        ("Your credit balance is too low to access the API.", quota),
        ("Claude AI usage limit reached|1795435244", quota),
        (
            "Rate limit reached on requests per day (RPD): Limit 200. Please try again in 8.64s.",
            (false, false, false),
        ),
        (
            "You exceeded your current quota. Please retry in 26s.",
            (false, false, false),
        ),
        ("Unauthorized", (false, false, false)),
    ] {
        assert_eq!(says(message), expected, "{message}");
    }
    let daily = json!({"code": 429, "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}]});
    assert!(notice(&[], &error(daily)).says_quota);
    let minute =
        json!({"code": 429, "details": [{"violations": [{"quotaId": "GenerateRequestsPerMinutePerProject"}]}]});
    assert!(!notice(&[], &error(minute)).says_quota);
}
