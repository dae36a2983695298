//! The table of the forms in which upstreams name a reset.

mod far;

use http::{HeaderMap, HeaderName};
use proptest::prelude::*;
use serde_json::json;

use super::{source::MAX_RESET, *};
use crate::scan::response::errors::error_notice;

/// 2026-11-23 12:00:00 UTC.
const NOW: Duration = Duration::from_secs(1_795_435_200);

/// Headers as `name: value` lines, a body, and the milliseconds until the reset.
type Form = (&'static [&'static str], &'static str, u64);

fn headers(lines: &[&str]) -> HeaderMap {
    let fields = lines.iter().map(|line| line.split_once(": ").expect("a header line"));
    let parsed = fields.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
    parsed.collect()
}

fn reset(lines: &[&str], body: &str) -> Option<Duration> {
    error_notice(&headers(lines), body.as_bytes(), None, NOW).reset
}

#[rustfmt::skip]
const HEADER_FORMS: [Form; 47] = [
    // RFC 9110: seconds, or a date in one of three forms.
    (&["retry-after: 44"], "", 44_000),
    (&["retry-after: Mon, 23 Nov 2026 12:00:44 GMT"], "", 44_000),
    (&["retry-after: Monday, 23-Nov-26 12:00:44 GMT"], "", 44_000),
    (&["retry-after: Mon Nov 23 12:00:44 2026"], "", 44_000),
    // Not in the RFC, but written.
    (&["retry-after: 90s"], "", 90_000),
    (&["retry-after: 1.5"], "", 1_500),
    (&["retry-after: 1m30s"], "", 90_000),
    (&["retry-after: 1m30.5s"], "", 90_500),
    (&["retry-after: 500ms"], "", 500),
    (&["retry-after: 44 seconds"], "", 44_000),
    (&["retry-after: 2026-11-23T12:00:44Z"], "", 44_000),
    (&["retry-after: 1795435244"], "", 44_000),
    (&["retry-after: 1795435244000"], "", 44_000),
    (&["retry-after-ms: 44000"], "", 44_000),
    (&["retry-after-ms: 1500.5", "retry-after: 2"], "", 1_500),
    (&["x-ms-retry-after-ms: 44000"], "", 44_000),
    (&["x-retry-after: 44"], "", 44_000),
    (&["x-ratelimit-retry-after: 44"], "", 44_000),
    (&["x-rate-limit-retry-after-seconds: 44"], "", 44_000),
    // OpenAI and Azure, whose values of -1 or 0 carry no information.
    (&["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 12ms"], "", 12),
    (&["x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 6m0s"], "", 360_000),
    (&["x-ratelimit-remaining-requests: -1", "x-ratelimit-reset-requests: 9s", "retry-after: 44"], "", 44_000),
    (&["x-ratelimit-remaining-requests: -1", "x-ratelimit-reset-requests: 900s",
       "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 44"], "", 44_000),
    (&["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 0",
       "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 44"], "", 44_000),
    (&["retry-after: 0", "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 44s"], "", 44_000),
    // Cerebras and SambaNova: a window of a minute and one of a day.
    (&["x-ratelimit-remaining-requests-day: 9500", "x-ratelimit-reset-requests-day: 33011.382867",
       "x-ratelimit-remaining-tokens-minute: 0", "x-ratelimit-reset-tokens-minute: 45.5"], "", 45_500),
    // OpenRouter: milliseconds since 1970. GitHub and others: seconds since 1970.
    (&["x-ratelimit-remaining: 0", "x-ratelimit-reset: 1795435244000"], "", 44_000),
    (&["x-ratelimit-remaining: 0", "x-ratelimit-reset: 1795435244"], "", 44_000),
    (&["x-ratelimit-reset: 1795435244.5"], "", 44_500),
    (&["x-ratelimit-reset: 44"], "", 44_000),
    (&["x-rate-limit-reset: 44"], "", 44_000),
    (&["x-ratelimit-reset: 2026-11-23T13:00:44+01:00"], "", 44_000),
    (&["x-ratelimit-reset-after: 44.0", "x-ratelimit-remaining: 0"], "", 44_000),
    (&["x-ratelimit-reset-ms: 1500", "x-ratelimit-remaining: 0"], "", 1_500),
    (&["x-ratelimit-reset-tokens: 1795435244", "x-ratelimit-remaining-tokens: 0"], "", 44_000),
    (&["x-ratelimit-reset-tokens: 1795435244000", "x-ratelimit-remaining-tokens: 0"], "", 44_000),
    (&["x-ratelimit-reset-requests: 2026-11-23T12:00:44.500Z", "x-ratelimit-remaining-requests: 0"], "", 44_500),
    // Anthropic: RFC 3339, and seconds since 1970 for the unified limits of a plan.
    (&["anthropic-ratelimit-requests-remaining: 49", "anthropic-ratelimit-requests-reset: 2026-11-23T12:00:01Z",
       "anthropic-ratelimit-input-tokens-remaining: 0", "anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:00:44Z"], "", 44_000),
    (&["anthropic-ratelimit-tokens-remaining: 0", "anthropic-ratelimit-tokens-reset: 2026-11-23T12:00:44Z",
       "anthropic-ratelimit-output-tokens-remaining: 8000", "anthropic-ratelimit-output-tokens-reset: 2026-11-23T13:00:00Z"], "", 44_000),
    (&["anthropic-ratelimit-unified-5h-status: rejected", "anthropic-ratelimit-unified-5h-reset: 1795435244",
       "anthropic-ratelimit-unified-7d-status: allowed_warning", "anthropic-ratelimit-unified-7d-reset: 1795900000",
       "anthropic-ratelimit-unified-overage-status: rejected", "anthropic-ratelimit-unified-overage-reset: 1795990000"], "", 44_000),
    // The drafts of RateLimit header fields.
    (&["ratelimit-limit: 100", "ratelimit-remaining: 0", "ratelimit-reset: 44"], "", 44_000),
    (&["ratelimit: \"default\";r=0;t=44"], "", 44_000),
    (&["ratelimit: \"minute\";r=0;t=44, \"day\";r=800;t=40000"], "", 44_000),
    (&["ratelimit: limit=100, remaining=0, reset=44"], "", 44_000),
    // Codex.
    (&["x-codex-primary-used-percent: 100", "x-codex-primary-reset-at: 1795435244",
       "x-codex-secondary-used-percent: 20", "x-codex-secondary-reset-at: 1795900000"], "", 44_000),
    (&["x-codex-bengalfox-primary-used-percent: 100", "x-codex-bengalfox-primary-reset-after-seconds: 44"], "", 44_000),
    (&["x-codex-active-limit: codex_bengalfox", "x-codex-primary-used-percent: 3", "x-codex-primary-reset-at: 1795900000",
       "x-codex-bengalfox-primary-used-percent: 100.0", "x-codex-bengalfox-primary-reset-at: 1795435244",
       "x-codex-other-secondary-used-percent: 100", "x-codex-other-secondary-reset-at: 1795900000"], "", 44_000),
];

#[rustfmt::skip]
const BODY_FORMS: [Form; 49] = [
    (&[], r#"{"error":{"type":"usage_limit_reached","resets_at":1795435244}}"#, 44_000),
    (&[], r#"{"error":{"type":"usage_limit_reached","resets_at":1795435244500}}"#, 44_500),
    (&[], r#"{"error":{"type":"usage_limit_reached","resets_at":"1795435244"}}"#, 44_000),
    (&[], r#"{"error":{"type":"usage_limit_reached","resets_at":"2026-11-23T12:00:44Z"}}"#, 44_000),
    (&[], r#"{"error":{"type":"usage_limit_reached","resets_at":"2026-11-23T12:00:44.123456+00:00"}}"#, 44_123),
    (&[], r#"{"error":{"reset_at":"2026-11-23 12:00:44"}}"#, 44_000),
    (&[], r#"{"error":{"resets_in_seconds":44}}"#, 44_000),
    (&[], r#"{"error":{"resets_in_seconds":"44"}}"#, 44_000),
    (&[], r#"{"error":{"reset_in":"44s"}}"#, 44_000),
    (&[], r#"{"error":{"resets_at":0,"resets_in_seconds":44}}"#, 44_000),
    (&[], r#"{"error":{"resets_at":"never","resets_in_seconds":-1,"message":"Try again in 44s."}}"#, 44_000),
    (&[], r#"{"error":{"retry_after":44}}"#, 44_000),
    (&[], r#"{"error":{"retry_after":"44"}}"#, 44_000),
    (&[], r#"{"error":{"retry_after_seconds":44.5}}"#, 44_500),
    (&[], r#"{"error":{"retry_after_ms":44000}}"#, 44_000),
    (&[], r#"{"error":{"retryAfterMs":"44000"}}"#, 44_000),
    (&[], r#"{"message":"Requests rate limit exceeded","retry_after":44}"#, 44_000),
    (&[], r#"{"error":{"message":"slow down"},"retry_after":44}"#, 44_000),
    (&[], r#"{"error":"Too Many Requests","retry_after":44}"#, 44_000),
    (&[], r#"{"detail":{"message":"slow down","retry_after":44}}"#, 44_000),
    // Telegram.
    (&[], r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 44","parameters":{"retry_after":44}}"#, 44_000),
    // Google: a protobuf duration, in the details of an error that may be in an array.
    (&[], r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"12s"}]}}"#, 12_000),
    (&[], r#"[{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.Help"},{"retryDelay":"45.837906927s"}]}}]"#, 45_837),
    (&[], r#"{"error":{"code":429,"details":[{"reason":"RATE_LIMIT_EXCEEDED","metadata":{"quotaResetDelay":"373.801628ms"}}]}}"#, 373),
    (&[], r#"{"error":{"code":429,"details":[{"metadata":{"quotaResetDelay":"1h0m44.5s","quotaResetTimeStamp":"2026-11-23T13:00:44Z"}}]}}"#, 3_644_000),
    (&[], r#"{"error":{"code":429,"message":"{\n  \"error\": {\n \"details\": [ { \"retryDelay\": \"26s\" } ] } }"}}"#, 26_000),
    // OpenRouter repeats the headers, and quotes the error of the provider.
    (&[], r#"{"error":{"message":"Rate limit exceeded: free-models-per-day","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1795435244000"}}}}"#, 44_000),
    (&[], r#"{"error":{"code":429,"metadata":{"retry_after_seconds":44}}}"#, 44_000),
    (&[], r#"{"error":{"code":429,"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"Please retry in 44s.\"}}"}}}"#, 44_000),
    // A WebSocket error of Codex.
    (&[], r#"{"type":"error","status":429,"error":{"type":"usage_limit_reached"},"headers":{"x-codex-primary-used-percent":"100","x-codex-primary-reset-at":1795435244}}"#, 44_000),
    // A window that is not exhausted does not count.
    (&[], r#"{"error":{"rate_limits":{"primary":{"used_percent":100,"resets_at":1795435244},"secondary":{"used_percent":5,"resets_at":1795900000}}}}"#, 44_000),
    // Messages.
    (&[], r#"{"error":{"message":"Rate limit reached for gpt-5 on tokens per min (TPM): Limit 30000, Used 22999, Requested 12528. Please try again in 11.054s."}}"#, 11_054),
    (&[], r#"{"error":{"message":"Requests have exceeded the token rate limit. Please retry after 44 seconds."}}"#, 44_000),
    (&[], r#"{"error":{"message":"You exceeded your current quota. Please retry in 26.660853464s."}}"#, 26_660),
    (&[], r#"{"error":{"message":"You have exhausted your capacity on this model. Your quota will reset after 12h34m16s."}}"#, 45_256_000),
    (&[], r#"{"error":{"message":"Your limit resets in 3 days 4 hours 5 minutes."}}"#, 273_900_000),
    (&[], r#"{"error":{"message":"Please wait 44 seconds before you try again."}}"#, 44_000),
    (&[], r#"{"error":{"message":"Too many requests (retry_after: 44)"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Claude AI usage limit reached|1795435244"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Your limit will reset at 2026-11-23T12:00:44Z."}}"#, 44_000),
    (&[], r#"{"error":{"message":"Usage limit reached. It resets at 2026-11-23 12:00:44 UTC."}}"#, 44_000),
    (&[], r#"{"error":{"message":"Quota reset at Mon, 23 Nov 2026 12:00:44 GMT"}}"#, 44_000),
    (&[], r#"{"error":{"message":"You will regain access on 2026-12-01 at 00:00 UTC."}}"#, 648_000_000),
    (&[], r#"{"error":{"message":"Try again at Nov 23rd, 2026 1:44 PM."}}"#, 6_240_000),
    (&[], r#"{"error":{"message":"The model is cooling down until 23 November 2026, 12:44 UTC"}}"#, 2_640_000),
    (&[], r#"{"error":{"message":"Limit reached. Try again at 1795435244000."}}"#, 44_000),
    // Zhipu (Z.ai) writes Beijing time without saying so.
    (&[], r#"{"error":{"code":"1308","message":"Usage limit reached for 5 hour. Your limit will reset at 2026-11-23 20:00:44"}}"#, 44_000),
    (&[], r#"{"error":{"code":1310,"message":"您的限额将在 2026-11-23 20:00:44 重置"}}"#, 44_000),
    // The body is more exact than the header.
    (&["retry-after: 1"], r#"{"error":{"resets_at":1795435244}}"#, 44_000),
];

/// Whole answers of upstreams and gateways: headers and a body.
#[rustfmt::skip]
const ANSWERS: &[Form] = &[
    // Two sources disagree: the limit is over when the latest of them says.
    (&["retry-after: 1"], r#"{"error":{"message":"Rate limit reached. Please try again in 44s."}}"#, 44_000),
    (&["retry-after: 44"], r#"{"error":{"message":"Please try again in 1s."}}"#, 44_000),
    (&["retry-after-ms: 1000"], r#"{"error":{"message":"Please try again in 44s."}}"#, 44_000),
    (&["retry-after-ms: 500", "retry-after: 44"], "", 44_000),
    (&["retry-after-ms: 44000", "retry-after: 1"], "", 44_000),
    (&["retry-after: 1", "x-retry-after: 44"], "", 44_000),
    (&["retry-after: 1", "retry-after: 44"], "", 44_000),
    (&["retry-after: 44"], r#"{"error":{"retry_after":1}}"#, 44_000),
    (&["retry-after: 1"], r#"{"error":{"message":"x","type":"usage_limit_reached","plan_type":"plus","resets_at":1795435244,"resets_in_seconds":43}}"#, 44_000),
    (&["retry-after: 1", "x-codex-primary-used-percent: 100", "x-codex-primary-reset-at: 1795435244"], r#"{"error":{"type":"usage_limit_reached","message":"The usage limit has been reached"}}"#, 44_000),
    (&["retry-after: Mon, 23 Nov 2026 11:59:00 GMT"], r#"{"error":{"message":"Try again in 44 seconds"}}"#, 44_000),
    (&["retry-after: 0"], r#"{"error":{"message":"Try again in 44 seconds"}}"#, 44_000),
    (&["retry-after: -1"], r#"{"error":{"message":"Try again in 44 seconds"}}"#, 44_000),
    (&["retry-after: 0", "x-ratelimit-reset-tokens: 0s", "x-ratelimit-remaining-tokens: 100", "x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 44s"], "", 44_000),
    (&[], r#"{"error":{"retry_after":1,"message":"Please try again in 44s."}}"#, 44_000),
    (&[], r#"{"error":{"resets_at":1795435200,"message":"Please try again in 44s."}}"#, 44_000),
    (&[], r#"{"error":{"message":"Please try again in 44s.","resets_in_seconds":0}}"#, 44_000),
    // A window is full again long after the next request is allowed: `retry-after` counts.
    (&["retry-after: 2", "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 44s"], "", 2_000),
    // Azure, whose -1 and 0 carry no information.
    (&["x-ratelimit-remaining-requests: -1", "x-ratelimit-reset-requests: -1", "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 0"],
       r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 44 seconds. Please go here: https://aka.ms/oai/quotaincrease"}}"#, 44_000),
    (&["retry-after: 86400", "x-ratelimit-reset-requests: 86400"], r#"{"error":{"code":"RateLimitReached","message":"Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 86400 seconds before retrying."}}"#, 86_400_000),
    // GitHub Copilot, Spring, Mistral, LiteLLM, Kong.
    (&["x-ratelimit-user-retry-after: 44"], "", 44_000),
    (&["x-rate-limit-retry-after-milliseconds: 44000"], "", 44_000),
    (&["ratelimitbysize-remaining: 0", "ratelimitbysize-reset: 44"], r#"{"message":"Requests rate limit exceeded"}"#, 44_000),
    (&["x-ratelimitbysize-remaining-minute: 0", "x-ratelimitbysize-reset-minute: 44"], "", 44_000),
    (&["reset_at: 1795435244", "rate_limit_type: requests"], "", 44_000),
    (&["ratelimit-reset: 44", "x-ratelimit-remaining-minute: 0"], "", 44_000),
    (&[], r#"{"error":{"message":"Rate limit exceeded for api_key. Limit type: requests. Current limit: 1, Remaining: 0. Limit resets at: 2026-11-23 12:00:44 UTC","code":"429"}}"#, 44_000),
    (&[], r#"{"error":{"message":"No deployments available for selected model, Try again in 44 seconds. Passed model=gpt-5."}}"#, 44_000),
    // Units and ways of counting.
    (&["x-ratelimit-remaining: 0", "x-ratelimit-reset: 1795435244000000"], "", 44_000),
    (&["x-ratelimit-remaining: 0", "x-ratelimit-reset: 1795435244000000000"], "", 44_000),
    (&["retry-after-ms: 1795435244000"], "", 44_000),
    (&["retry-after: PT44S"], "", 44_000),
    (&[], r#"{"error":{"resets_at":1795435244000000}}"#, 44_000),
    (&[], r#"{"error":{"retry_after_ms":1795435244000}}"#, 44_000),
    (&[], r#"{"error":{"resets_at_ms":1795435244000}}"#, 44_000),
    (&[], r#"{"error":{"resets_at":44}}"#, 44_000),
    (&[], r#"{"error":{"retry_after":"PT1M30.5S"}}"#, 90_500),
    (&[], r#"{"error":{"retry_after":"P1DT2H"}}"#, 93_600_000),
    (&[], r#"{"error":{"details":[{"retryDelay":{"seconds":44,"nanos":500000000}}]}}"#, 44_500),
    (&[], r#"{"error":{"details":[{"retryDelay":{"seconds":"44"}}]}}"#, 44_000),
    // Names of members.
    (&[], r#"{"error":{"retry_after_secs":44}}"#, 44_000),
    (&[], r#"{"error":{"wait_time":44}}"#, 44_000),
    (&[], r#"{"error":{"seconds_until_reset":44}}"#, 44_000),
    (&[], r#"{"error":{"cooldown_until":1795435244}}"#, 44_000),
    (&[], r#"{"error":{"available_at":"2026-11-23T12:00:44Z"}}"#, 44_000),
    (&[], r#"{"error":{"rate_limit_reset_at":1795435244}}"#, 44_000),
    (&[], r#"{"detail":{"code":"usage_limit_reached","resets_in_seconds":44}}"#, 44_000),
    (&[], r#"{"type":"usage_limit_reached","resets_in_seconds":44}"#, 44_000),
    (&[], r#"{"errors":[{"message":"slow down","retry_after":44}]}"#, 44_000),
    (&[], r#"{"error":{"type":"usage_limit_reached","rate_limit":{"primary_window":{"used_percent":100,"reset_after_seconds":44},"secondary_window":{"used_percent":3,"reset_after_seconds":400000}}}}"#, 44_000),
    // Messages.
    (&[], r#"{"error":{"message":"You've hit your usage limit. Upgrade to Pro (https://openai.com/chatgpt/pricing) or try again in 3 days 4 hours 5 minutes."}}"#, 273_900_000),
    (&[], r#"{"error":{"message":"Rate limit reached for model `llama` on tokens per day (TPD): Limit 100000, Used 99336, Requested 6201. Please try again in 1h24m36.9s. Need more tokens?"}}"#, 5_076_900),
    (&[], r#"{"error":{"message":"request reached organization max RPM: 3, please try again after 44 seconds"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Retry after: 44s"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Too many requests. Retry-After: 44"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Please try again in about 2 minutes."}}"#, 120_000),
    (&[], r#"{"error":{"message":"Please try again in approximately 44 seconds."}}"#, 44_000),
    (&[], r#"{"error":{"message":"Please try again in a minute."}}"#, 60_000),
    (&[], r#"{"error":{"message":"Please try again in an hour."}}"#, 3_600_000),
    (&[], r#"{"error":{"message":"Please wait another 44 seconds."}}"#, 44_000),
    (&[], r#"{"error":{"message":"Your quota refreshes in 44s."}}"#, 44_000),
    (&[], r#"{"error":{"message":"All accounts are cooling down for 44s"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Retrying in 44 secs"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Time until reset: 44s"}}"#, 44_000),
    (&[], r#"{"error":{"message":"Please try again in 1,200 seconds."}}"#, 1_200_000),
    (&[], r#"{"error":{"message":"Please try again in 44.5 sec."}}"#, 44_500),
    (&[], r#"{"error":{"message":"Limit resets on December 1, 2026 at 12:00 AM UTC"}}"#, 648_000_000),
    // Anthropic's unified limits.
    (&["anthropic-ratelimit-unified-status: rejected", "anthropic-ratelimit-unified-reset: 1795435244", "anthropic-ratelimit-unified-representative-claim: five_hour"], r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your account's rate limit. Please try again later."}}"#, 44_000),
    (&["anthropic-ratelimit-unified-5h-utilization: 1.01", "anthropic-ratelimit-unified-5h-reset: 1795435244", "anthropic-ratelimit-unified-7d-utilization: 0.4", "anthropic-ratelimit-unified-7d-reset: 1795900000"], "", 44_000),
];

#[test]
fn every_form_names_its_reset() {
    let mut wrong = Vec::new();
    for (lines, body, millis) in HEADER_FORMS.iter().chain(&BODY_FORMS).chain(ANSWERS) {
        let reset = reset(lines, body).map(|reset| reset.as_millis());
        if reset != Some(u128::from(*millis)) {
            wrong.push(format!("{reset:?} instead of {millis} ms: {lines:?} {body}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_value_that_makes_no_sense_is_skipped() {
    let values = [
        "-1",
        "-44",
        "NaN",
        "inf",
        "1e3",
        "soon",
        "never",
        "",
        "44 fortnights",
        "2026-13-01T00:00:00Z",
        "2026-11-31 12:00:00",
        "1970-01-01T00:00:00Z",
        "25:00:00",
        "2026-11-23T24:61:00Z",
        "0001-01-01T00:00:00Z",
        "２０２６-11-23",
        "T",
        "1 2 3 4",
        "Mon",
        "Nov",
    ];
    for value in values {
        for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset", "ratelimit-reset"] {
            let mut lines = HeaderMap::new();
            lines.insert(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            assert_eq!(error_notice(&lines, b"", None, NOW).reset, None, "{name}: {value}");
        }
        for name in [
            "resets_at",
            "resets_in_seconds",
            "retry_after",
            "retry_after_ms",
            "retryDelay",
        ] {
            let body = json!({"error": {name: value, "message": format!("resets at {value}")}}).to_string();
            assert_eq!(reset(&[], &body), None, "{body}");
        }
    }
    for body in [
        r#"{"error":{"message":"resets 10pm (America/New_York)"}}"#,
        r#"{"error":{"message":"You've hit your usage limit. Try again at 1:44 PM."}}"#,
        r#"{"error":{"resets_at":null,"retry_after":[44],"details":[[{"retryDelay":"44s"}]],"metadata":"44"}}"#,
        r#"[[{"error":{"resets_in_seconds":44}}]]"#,
        "[]",
    ] {
        assert_eq!(reset(&[], body), None, "{body}");
    }
}

/// Texts that look like the values of the dialects.
fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,24}",
        "[0-9.]{0,40}[a-z]{0,2}",
        "[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}[T ,][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{0,12})?)?( ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2}|AM|PM))?",
        "(Mon, |)(Nov|November|Dec) [0-9]{1,2}(st|th|)?,? [0-9]{4} [0-9:]{0,8}",
    ]
}

proptest! {
    #[test]
    fn no_input_panics_or_gives_an_implausible_reset(
        lines in prop::collection::vec((
            prop::sample::select(vec![
                "retry-after", "retry-after-ms", "ratelimit", "x-ratelimit-reset", "x-ratelimit-remaining", "x-codex-active-limit",
                "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-unified-status", "anthropic-ratelimit-unified-reset",
                "x-codex-a-primary-used-percent", "x-codex-a-primary-reset-at", "x-codex-used-percent",
            ]),
            values(),
        ), 0..6),
        name in prop::sample::select(vec!["resets_at", "retry_after", "retryAfterMs", "message", "code", "headers", "metadata"]),
        phrase in prop::sample::select(vec!["", "try again in ", "resets at ", "将在 ", "retryDelay\": \"", "limit reached|", "é until "]),
        value in prop_oneof![values(), "\\PC{0,20}"],
        now in prop_oneof![0u64..1 << 40, Just(NOW.as_secs())],
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in &lines {
            map.insert(*name, http::HeaderValue::from_str(value).unwrap());
        }
        let body = json!({"error": {name: format!("{phrase}{value}"), "metadata": {"headers": {"retry-after": value}}}}).to_string();
        let reset = error_notice(&map, body.as_bytes(), Some("m"), Duration::from_secs(now)).reset;
        prop_assert!(reset.is_none_or(|reset| reset <= MAX_RESET));
    }

    /// No other header makes the reset earlier than the body says.
    #[test]
    fn the_reset_is_never_before_the_one_that_the_body_names(
        seconds in 1u64..86_400,
        lines in prop::collection::vec((prop::sample::select(vec!["retry-after", "retry-after-ms", "x-ratelimit-reset"]), values()), 0..4),
        form in 0..6,
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in &lines {
            map.insert(*name, http::HeaderValue::from_str(value).unwrap());
        }
        let at = NOW.as_secs() + seconds;
        let body = match form {
            0 => json!({"error": {"resets_at": at}}),
            1 => json!({"error": {"resets_at": (at * 1000).to_string()}}),
            2 => json!([{"error": {"details": [{"retryDelay": format!("{seconds}s")}]}}]),
            3 => json!({"error": {"metadata": {"retry_after_ms": seconds * 1000}}}),
            4 => json!({"error": {"message": "no"}, "retry_after": seconds.to_string()}),
            _ => json!({"error": {"resets_in_seconds": seconds, "retry_after": 1}}),
        };
        let reset = error_notice(&map, body.to_string().as_bytes(), None, NOW).reset;
        prop_assert!(reset >= Some(Duration::from_secs(seconds)), "{reset:?}");
    }
}
