//! The answers of accounts that do not have the model.

use super::*;

const MISSING: Verdict = Verdict::ModelNotFound;

/// An error whose message says that the model is missing.
fn with_message(facts: ErrorFacts<'_>) -> ErrorFacts<'_> {
    ErrorFacts {
        says_model_not_found: true,
        ..facts
    }
}

/// A request that names a model.
fn named(credential: CredentialOwner) -> Asked {
    Asked {
        model: Some(ModelKey::from_name("gpt-5.2")),
        ..asked(credential)
    }
}

/// The status, the error, and the verdict for a request that names a model.
#[rustfmt::skip]
fn answers() -> Vec<(u16, ErrorFacts<'static>, Verdict)> {
    vec![
        (404, code("model_not_found"), MISSING),
        (404, code("DeploymentNotFound"), MISSING),
        (404, code("model_not_available"), MISSING),
        (400, code("model_not_found"), MISSING),
        (400, code("unsupported_model"), MISSING),
        (400, code("model_not_supported"), MISSING),
        (400, kind("invalid_model"), MISSING),
        (401, code("model_not_found"), MISSING),
        (403, code("model_not_found"), MISSING),
        (403, code("model_not_allowed"), MISSING),
        (403, ErrorFacts { says_permission: true, ..code("model_not_found") }, MISSING),
        (422, code("unknown_model"), MISSING),
        (503, code("model_not_found"), MISSING),
        (404, with_message(kind("not_found_error")), MISSING),
        (404, with_message(ErrorFacts { kind: Some("NotFoundError"), ..code("404") }), MISSING),
        (404, with_message(ErrorFacts::default()), MISSING),
        (400, with_message(kind("invalid_request_error")), MISSING),
        (404, kind("not_found_error"), Verdict::Answered),
        (404, code("previous_response_not_found"), Verdict::Answered),
        (400, code("unsupported_parameter"), Verdict::Answered),
        (409, code("model_not_found"), Verdict::Answered),
        (500, code("model_not_found"), Verdict::Failed),
        (503, with_message(ErrorFacts::default()), Verdict::Failed),
        (429, with_message(code("rate_limit_exceeded")), rate(None)),
        (401, with_message(code("invalid_api_key")), Verdict::Refused),
    ]
}

#[test]
fn an_account_without_the_model_is_recognized_by_code_type_or_message() {
    for (number, facts, expected) in answers() {
        let verdict = of_status(status(number), &facts, &named(Upstream));
        assert_eq!(verdict, expected, "{number} {facts:?}");
        assert!(
            verdict != MISSING || needs_body(status(number), Upstream, NamedObjects::None),
            "{number}"
        );
        for other in [named(Caller), asked(Upstream)] {
            let verdict = of_status(status(number), &facts, &other);
            assert_ne!(verdict, MISSING, "{number} {facts:?} {other:?}");
        }
    }
}

#[test]
fn a_stream_that_fails_for_a_missing_model_has_the_same_verdict() {
    for (facts, expected) in [
        (code("model_not_found"), MISSING),
        (with_message(kind("not_found_error")), MISSING),
        (with_message(ErrorFacts::default()), MISSING),
        (code("not_found"), Verdict::Answered),
    ] {
        assert_eq!(of_failed_stream(&facts, &named(Upstream)), expected, "{facts:?}");
        for other in [named(Caller), asked(Upstream)] {
            assert_ne!(of_failed_stream(&facts, &other), MISSING, "{facts:?} {other:?}");
        }
    }
}
