//! The table of statuses and codes, under the configured credential and under the caller's.

use super::{
    CredentialOwner::{Caller, Upstream},
    *,
};
use crate::policy::LimitCause;

const RESET: Option<Duration> = Some(Duration::from_secs(7));

fn code(code: &str) -> ErrorFacts<'_> {
    ErrorFacts {
        code: Some(code),
        ..ErrorFacts::default()
    }
}

fn kind(kind: &str) -> ErrorFacts<'_> {
    ErrorFacts {
        kind: Some(kind),
        ..ErrorFacts::default()
    }
}

fn resets(facts: ErrorFacts<'_>) -> ErrorFacts<'_> {
    ErrorFacts { reset: RESET, ..facts }
}

fn limited(reset: Option<Duration>) -> Verdict {
    Verdict::Limited {
        reset,
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    }
}

#[test]
fn every_status_without_an_error_body() {
    for status in 100..1_000 {
        let is_failed = [500, 502, 503, 504].contains(&status) || (520..=530).contains(&status);
        let (for_upstream, for_caller) = match status {
            200..=299 => (Verdict::Served, Verdict::Served),
            401 => (Verdict::Refused, Verdict::Answered),
            402 | 429 => (limited(None), Verdict::Answered),
            _ if is_failed => (Verdict::Failed, Verdict::Failed),
            _ => (Verdict::Answered, Verdict::Answered),
        };
        let status = StatusCode::from_u16(status).unwrap();
        for (credential, expected) in [(Upstream, for_upstream), (Caller, for_caller)] {
            let verdict = of_status(status, &ErrorFacts::default(), None, credential);
            assert_eq!(verdict, expected, "{status}, credential of {credential:?}");
        }
    }
}

#[test]
fn the_code_of_an_error_changes_the_verdict() {
    let table = [
        (403, code("account_deactivated"), Verdict::Refused),
        (403, code("invalid_api_key"), Verdict::Refused),
        (403, code("unsupported_country_region_territory"), Verdict::Refused),
        (402, code("deactivated_workspace"), Verdict::Refused),
        (403, code("insufficient_permissions"), Verdict::Answered),
        (403, code("model_not_found"), Verdict::Answered),
        (403, code("insufficient_user_quota"), limited(None)),
        (403, kind("insufficient_quota"), limited(None)),
        (402, resets(kind("insufficient_quota")), limited(RESET)),
        (429, resets(code("rate_limit_exceeded")), limited(RESET)),
        (429, kind("usage_limit_reached"), limited(None)),
        (503, resets(code("server_is_overloaded")), limited(RESET)),
        (529, resets(kind("overloaded_error")), limited(RESET)),
        (503, code("server_is_overloaded"), Verdict::Failed),
        (500, resets(ErrorFacts::default()), Verdict::Failed),
        (502, resets(ErrorFacts::default()), Verdict::Failed),
        (400, code("invalid_api_key"), Verdict::Answered),
        (400, resets(code("billing_hard_limit_reached")), Verdict::Answered),
        (404, code("account_deactivated"), Verdict::Answered),
        (413, code("rate_limit_exceeded"), Verdict::Answered),
        (422, code("insufficient_quota"), Verdict::Answered),
    ];
    for (status, facts, for_upstream) in table {
        let for_caller = if status >= 500 { for_upstream } else { Verdict::Answered };
        let status = StatusCode::from_u16(status).unwrap();
        for (credential, expected) in [(Upstream, for_upstream), (Caller, for_caller)] {
            assert_eq!(
                of_status(status, &facts, None, credential),
                expected,
                "{status} {facts:?}"
            );
        }
    }
}

#[test]
fn verdicts_without_the_body_equal_those_with_it() {
    let words = ACCOUNT.iter().chain(&LIMIT).chain(&OVERLOAD);
    for facts in words.flat_map(|word| [code(word), kind(word), resets(code(word))]) {
        for status in (100..1_000).map(|status| StatusCode::from_u16(status).unwrap()) {
            for credential in [Upstream, Caller] {
                let read = of_status(status, &facts, None, credential);
                let unread = of_status(status, &ErrorFacts::default(), None, credential);
                assert!(read == unread || needs_body(status, credential), "{status} {facts:?}");
            }
        }
    }
}

#[test]
fn verdicts_on_the_first_event() {
    let table = [
        (code("rate_limit_exceeded"), limited(None), Verdict::Answered),
        (resets(code("rate_limit_exceeded")), limited(RESET), Verdict::Answered),
        (code("slow_down"), limited(None), Verdict::Answered),
        (kind("usage_limit_reached"), limited(None), Verdict::Answered),
        (code("usage_not_included"), limited(None), Verdict::Answered),
        (code("insufficient_quota"), limited(None), Verdict::Answered),
        (code("server_is_overloaded"), Verdict::Failed, Verdict::Failed),
        (resets(code("server_is_overloaded")), limited(RESET), limited(RESET)),
        (kind("overloaded_error"), Verdict::Failed, Verdict::Failed),
        (code("context_length_exceeded"), Verdict::Answered, Verdict::Answered),
        (code("invalid_prompt"), Verdict::Answered, Verdict::Answered),
        (resets(code("server_error")), Verdict::Answered, Verdict::Answered),
        (ErrorFacts::default(), Verdict::Answered, Verdict::Answered),
    ];
    for (facts, for_upstream, for_caller) in table {
        assert_eq!(of_first_event(&facts, None, Upstream), for_upstream, "{facts:?}");
        assert_eq!(of_first_event(&facts, None, Caller), for_caller, "{facts:?}");
    }
}

#[test]
fn a_limit_applies_to_one_model_only_if_the_answer_names_it() {
    let model = ModelKey::from_name("gpt-5.2");
    for (names_model, asked, scope) in [
        (true, Some(model), Scope::Model(model)),
        (true, None, Scope::Upstream),
        (false, Some(model), Scope::Upstream),
    ] {
        let facts = ErrorFacts {
            names_model,
            ..code("rate_limit_exceeded")
        };
        let expected = Verdict::Limited {
            reset: None,
            scope,
            cause: LimitCause::Rate,
        };
        assert_eq!(
            of_status(StatusCode::TOO_MANY_REQUESTS, &facts, asked, Upstream),
            expected
        );
        assert_eq!(of_first_event(&facts, asked, Upstream), expected);
    }
}

#[test]
fn only_an_unserved_request_fails_over() {
    for (verdict, fails_over) in [
        (Verdict::Served, false),
        (Verdict::Answered, false),
        (Verdict::Failed, true),
        (Verdict::Refused, true),
        (limited(RESET), true),
    ] {
        assert_eq!(verdict.fails_over(), fails_over, "{verdict:?}");
    }
}
