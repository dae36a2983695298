//! The tables of statuses and codes, under the configured credential and under the caller's, for each endpoint class.

mod objects;

use super::{
    CredentialOwner::{Caller, Upstream},
    words::TABLES,
    *,
};

mod missing_model;

const RESET: Option<Duration> = Some(Duration::from_secs(7));

fn asked(credential: CredentialOwner) -> Asked {
    Asked {
        model: None,
        endpoint: EndpointClass::Generation,
        credential,
        objects: NamedObjects::None,
    }
}

fn status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

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

fn says_credential() -> ErrorFacts<'static> {
    ErrorFacts {
        says_credential: true,
        ..ErrorFacts::default()
    }
}

fn says_permission() -> ErrorFacts<'static> {
    ErrorFacts {
        says_permission: true,
        ..ErrorFacts::default()
    }
}

fn says_quota() -> ErrorFacts<'static> {
    ErrorFacts {
        says_quota: true,
        ..ErrorFacts::default()
    }
}

fn limited(reset: Option<Duration>, cause: LimitCause) -> Verdict {
    Verdict::Limited {
        reset,
        scope: Scope::Upstream,
        cause,
    }
}

fn rate(reset: Option<Duration>) -> Verdict {
    limited(reset, LimitCause::Rate)
}

fn quota(reset: Option<Duration>) -> Verdict {
    limited(reset, LimitCause::Quota)
}

#[test]
fn every_status_without_an_error_body() {
    for number in 100..1_000 {
        let is_failed = [500, 502, 503, 504].contains(&number) || (520..=530).contains(&number);
        for endpoint in EndpointClass::ALL {
            let is_generation = endpoint == EndpointClass::Generation;
            let (for_upstream, for_caller) = match number {
                200..=299 => (Verdict::Served, Verdict::Served),
                401 if is_generation => (Verdict::Unauthorized, Verdict::Answered),
                402 => (quota(None), Verdict::Answered),
                429 => (rate(None), Verdict::Answered),
                _ if is_failed => (Verdict::Failed, Verdict::Failed),
                _ => (Verdict::Answered, Verdict::Answered),
            };
            for (credential, expected) in [(Upstream, for_upstream), (Caller, for_caller)] {
                let asked = Asked {
                    endpoint,
                    ..asked(credential)
                };
                let verdict = of_status(status(number), &ErrorFacts::default(), &asked);
                assert_eq!(verdict, expected, "{number}, {asked:?}");
            }
        }
    }
}

/// The status, the error, and the verdicts for a generation and for other endpoint classes.
#[rustfmt::skip]
fn refusals() -> Vec<(u16, ErrorFacts<'static>, (Verdict, Verdict))> {
    let refused = (Verdict::Refused, Verdict::Refused);
    let answered = (Verdict::Answered, Verdict::Answered);
    let unknown = (Verdict::Unauthorized, Verdict::Answered);
    let with_kind = |kind, facts| ErrorFacts { kind: Some(kind), ..facts };
    vec![
        (401, code("invalid_api_key"), refused),
        (401, with_kind("invalid_request_error", code("invalid_api_key")), refused),
        (401, code("account_deactivated"), refused),
        (401, code("token_expired"), refused),
        (401, code("token_revoked"), refused),
        (401, code("API_KEY_INVALID"), refused),
        (401, kind("invalid_authentication_error"), refused),
        (401, code("unsupported_country_region_territory"), refused),
        (401, says_credential(), refused),
        (401, with_kind("authentication_error", says_credential()), refused),
        (401, with_kind("permission_error", says_credential()), refused),
        (401, code("missing_scope"), answered),
        (401, with_kind("invalid_request_error", code("missing_scope")), answered),
        (401, code("insufficient_permissions"), answered),
        (401, code("mismatched_project"), answered),
        (401, code("endpoint_not_allowed"), answered),
        (401, code("model_not_found"), answered),
        (401, code("an_unknown_code"), answered),
        (401, with_kind("invalid_request_error", says_permission()), answered),
        (401, ErrorFacts { says_credential: true, ..says_permission() }, answered),
        (401, ErrorFacts { says_credential: true, ..code("missing_scope") }, answered),
        (401, kind("permission_error"), answered),
        (401, ErrorFacts::default(), unknown),
        (401, kind("authentication_error"), unknown),
        (401, kind("UNAUTHENTICATED"), unknown),
        (401, kind("invalid_request_error"), unknown),
        (401, code("401"), unknown),
        (401, with_kind("error", code("unauthorized")), unknown),
        (403, code("account_deactivated"), refused),
        (403, code("invalid_api_key"), refused),
        (403, code("unsupported_country_region_territory"), refused),
        (403, with_kind("permission_error", says_credential()), refused),
        (402, code("deactivated_workspace"), refused),
        (403, ErrorFacts::default(), answered),
        (403, code("insufficient_permissions"), answered),
        (403, code("missing_scope"), answered),
        (403, code("model_not_found"), answered),
        (403, kind("permission_error"), answered),
        (403, kind("PERMISSION_DENIED"), answered),
        (403, with_kind("permission_error", says_permission()), answered),
        (403, code("an_unknown_code"), answered),
        (400, code("invalid_api_key"), answered),
        (404, code("account_deactivated"), answered),
    ]
}

#[test]
fn only_a_refusal_of_the_credential_itself_disables() {
    for (number, facts, (for_generation, for_others)) in refusals() {
        for endpoint in EndpointClass::ALL {
            let expected = match endpoint {
                EndpointClass::Generation => for_generation,
                _ => for_others,
            };
            let of = |credential| {
                let asked = Asked {
                    endpoint,
                    ..asked(credential)
                };
                of_status(status(number), &facts, &asked)
            };
            assert_eq!(of(Upstream), expected, "{number} {facts:?} {endpoint:?}");
            assert_eq!(of(Caller), Verdict::Answered, "{number} {facts:?} {endpoint:?}");
        }
    }
}

#[test]
fn the_code_of_an_error_names_a_limit_and_its_cause() {
    let table = [
        (403, code("insufficient_user_quota"), quota(None)),
        (403, kind("insufficient_quota"), quota(None)),
        (403, code("rate_limit_exceeded"), rate(None)),
        (403, says_quota(), quota(None)),
        (401, code("insufficient_quota"), quota(None)),
        (402, resets(kind("insufficient_quota")), quota(RESET)),
        (402, code("rate_limit_exceeded"), quota(None)),
        (402, ErrorFacts::default(), quota(None)),
        (429, resets(code("rate_limit_exceeded")), rate(RESET)),
        (429, kind("rate_limit_error"), rate(None)),
        (429, kind("RESOURCE_EXHAUSTED"), rate(None)),
        (
            429,
            ErrorFacts {
                says_quota: true,
                ..kind("RESOURCE_EXHAUSTED")
            },
            quota(None),
        ),
        (429, kind("usage_limit_reached"), quota(None)),
        (429, code("usage_limit_reached"), quota(None)),
        (429, resets(kind("usage_not_included")), quota(RESET)),
        (429, code("insufficient_quota"), quota(None)),
        (
            429,
            ErrorFacts {
                kind: Some("insufficient_quota"),
                ..code("429")
            },
            quota(None),
        ),
        (429, code("billing_hard_limit_reached"), quota(None)),
        (429, code("credit_balance_exhausted"), quota(None)),
        (429, code("project_spend_limit_exceeded"), quota(None)),
        (429, code("team_usage_limit_exceeded"), quota(None)),
        (429, code("quota_exceeded"), quota(None)),
        (429, code("1308"), quota(None)),
        (429, code("1302"), rate(None)),
        (429, says_quota(), quota(None)),
        (429, code("anything_else"), rate(None)),
        (503, resets(code("server_is_overloaded")), rate(RESET)),
        (529, resets(kind("overloaded_error")), rate(RESET)),
        (503, code("server_is_overloaded"), Verdict::Failed),
        (500, resets(ErrorFacts::default()), Verdict::Failed),
        (502, resets(ErrorFacts::default()), Verdict::Failed),
        (400, resets(code("billing_hard_limit_reached")), Verdict::Answered),
        (413, code("rate_limit_exceeded"), Verdict::Answered),
        (422, code("insufficient_quota"), Verdict::Answered),
    ];
    for (number, facts, for_upstream) in table {
        let for_caller = if number >= 500 { for_upstream } else { Verdict::Answered };
        for (credential, expected) in [(Upstream, for_upstream), (Caller, for_caller)] {
            let verdict = of_status(status(number), &facts, &asked(credential));
            assert_eq!(verdict, expected, "{number} {facts:?}");
        }
    }
}

#[test]
fn every_word_has_one_meaning_and_is_written_in_lower_case() {
    let words: Vec<&str> = TABLES.iter().flat_map(|(_, words)| words.iter().copied()).collect();
    for (place, word) in words.iter().enumerate() {
        assert_eq!(*word, word.to_ascii_lowercase());
        assert!(!words[..place].contains(word), "{word}");
    }
    for (meaning, words) in TABLES {
        assert!(
            words
                .iter()
                .all(|word| words::meaning_of(&word.to_ascii_uppercase()) == Some(meaning))
        );
    }
}

#[test]
fn verdicts_without_the_body_equal_those_with_it() {
    let words = TABLES.iter().flat_map(|(_, words)| words.iter());
    let said = words.flat_map(|word| [code(word), kind(word), resets(code(word))]);
    for facts in said.chain([says_credential(), says_permission(), says_quota()]) {
        for number in (100..1_000).map(status) {
            for credential in [Upstream, Caller] {
                let read = of_status(number, &facts, &asked(credential));
                let unread = of_status(number, &ErrorFacts::default(), &asked(credential));
                assert!(
                    read == unread || needs_body(number, credential, NamedObjects::None),
                    "{number} {facts:?}"
                );
            }
        }
    }
}

#[rustfmt::skip]
#[test]
fn verdicts_on_failed_streams() {
    let answered = Verdict::Answered;
    let failed = Verdict::Failed;
    let table = [
        (code("rate_limit_exceeded"), rate(None), answered),
        (resets(code("rate_limit_exceeded")), rate(RESET), answered),
        (code("slow_down"), rate(None), answered),
        (code("429"), rate(None), answered),
        (kind("usage_limit_reached"), quota(None), answered),
        (code("usage_not_included"), quota(None), answered),
        (code("insufficient_quota"), quota(None), answered),
        (kind("billing_error"), quota(None), answered),
        (code("invalid_api_key"), Verdict::Refused, answered),
        (code("server_is_overloaded"), failed, failed),
        (resets(code("server_is_overloaded")), rate(RESET), rate(RESET)),
        (kind("overloaded_error"), failed, failed),
        (code("server_error"), failed, failed),
        (resets(code("server_error")), failed, failed),
        (kind("server_error"), failed, failed),
        (kind("api_error"), failed, failed),
        (code("internal_error"), failed, failed),
        (kind("internal_server_error"), failed, failed),
        (code("timeout"), failed, failed),
        (code("upstream_error"), failed, failed),
        (code("502"), failed, failed),
        (code("an_unknown_code"), failed, failed),
        (kind("authentication_error"), failed, failed),
        (ErrorFacts::default(), failed, failed),
        (resets(ErrorFacts::default()), rate(RESET), failed),
        (says_quota(), quota(None), failed),
        (code("context_length_exceeded"), answered, answered),
        (ErrorFacts { kind: Some("server_error"), ..code("context_length_exceeded") }, answered, answered),
        (code("invalid_prompt"), answered, answered),
        (kind("invalid_request_error"), answered, answered),
        (code("content_filter"), answered, answered),
        (code("content_policy_violation"), answered, answered),
        (code("string_above_max_length"), answered, answered),
        (code("unsupported_value"), answered, answered),
        (code("model_not_found"), answered, answered),
        (code("previous_response_not_found"), answered, answered),
        (code("invalid_encrypted_content"), answered, answered),
        (code("max_output_tokens"), answered, answered),
        (code("invalid_image_url"), answered, answered),
        (code("image_parse_error"), answered, answered),
        (code("image_content_policy_violation"), answered, answered),
        (code("file_not_found"), answered, answered),
        (code("400"), answered, answered),
        (kind("permission_error"), answered, answered),
        (kind("not_found_error"), answered, answered),
        (kind("request_too_large"), answered, answered),
    ];
    for (facts, for_upstream, for_caller) in table {
        assert_eq!(of_failed_stream(&facts, &asked(Upstream)), for_upstream, "{facts:?}");
        assert_eq!(of_failed_stream(&facts, &asked(Caller)), for_caller, "{facts:?}");
    }
}

#[test]
fn a_limit_that_is_over_while_it_is_reported_names_no_reset() {
    let facts = ErrorFacts {
        reset: Some(Duration::ZERO),
        ..code("rate_limit_exceeded")
    };
    let asked = asked(Upstream);
    assert_eq!(of_status(status(429), &facts, &asked), rate(None));
    assert_eq!(of_failed_stream(&facts, &asked), rate(None));
}

#[test]
fn a_limit_applies_to_one_model_only_if_the_answer_names_it() {
    let model = ModelKey::from_name("gpt-5.2");
    for (names_model, wanted, scope) in [
        (true, Some(model), Scope::Model(model)),
        (true, None, Scope::Upstream),
        (false, Some(model), Scope::Upstream),
    ] {
        let facts = ErrorFacts {
            names_model,
            ..code("rate_limit_exceeded")
        };
        let asked = Asked {
            model: wanted,
            ..asked(Upstream)
        };
        let expected = Verdict::Limited {
            reset: None,
            scope,
            cause: LimitCause::Rate,
        };
        assert_eq!(of_status(StatusCode::TOO_MANY_REQUESTS, &facts, &asked), expected);
        assert_eq!(of_failed_stream(&facts, &asked), expected);
    }
}

#[test]
fn only_an_unserved_request_fails_over() {
    for (verdict, fails_over) in [
        (Verdict::Served, false),
        (Verdict::Answered, false),
        (Verdict::Failed, true),
        (Verdict::Refused, true),
        (Verdict::Unauthorized, true),
        (rate(RESET), true),
    ] {
        assert_eq!(verdict.fails_over(), fails_over, "{verdict:?}");
    }
}
