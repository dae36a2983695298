//! Tests the answers that say that an object is not there.

use super::*;

fn names(objects: NamedObjects) -> Asked {
    Asked {
        objects,
        ..asked(CredentialOwner::Upstream)
    }
}

const NOT_FOUND: ErrorFacts<'_> = ErrorFacts {
    kind: Some("invalid_request_error"),
    code: None,
    reset: None,
    names_model: false,
    says_credential: false,
    says_permission: false,
    says_quota: false,
    says_model_not_found: false,
    says_not_found: true,
    says_unknown_route: false,
};

#[test]
fn an_answer_that_an_object_is_not_there_counts_only_if_the_request_names_one() {
    use NamedObjects::{InBody, InPath, None};
    let route = ErrorFacts {
        says_unknown_route: true,
        ..NOT_FOUND
    };
    let model = ErrorFacts {
        names_model: true,
        ..NOT_FOUND
    };
    for (number, facts, [in_none, in_path, in_body]) in [
        (404, ErrorFacts::default(), [false, true, false]),
        (404, NOT_FOUND, [false, true, true]),
        (400, NOT_FOUND, [false, true, true]),
        (400, ErrorFacts::default(), [false, false, false]),
        (404, route, [false, false, false]),
        (404, model, [false, false, false]),
        (404, code("model_not_found"), [false, false, false]),
        (404, code("DeploymentNotFound"), [false, false, false]),
        (400, code("previous_response_not_found"), [false, true, true]),
        (400, code("invalid_encrypted_content"), [false, true, true]),
        (404, code("conversation_not_found"), [false, true, true]),
        (404, code("vector_store_not_found"), [false, true, true]),
        (404, code("not_found"), [false, true, false]),
        (400, code("context_length_exceeded"), [false, false, false]),
        (409, NOT_FOUND, [false, false, false]),
        (403, NOT_FOUND, [false, false, false]),
        (422, code("previous_response_not_found"), [false, false, false]),
    ] {
        for (objects, expected) in [(None, in_none), (InPath, in_path), (InBody, in_body)] {
            let status = StatusCode::from_u16(number).expect("a status");
            let verdict = of_status(status, &facts, &names(objects));
            assert_eq!(
                verdict == Verdict::ObjectNotFound,
                expected,
                "{number} {objects:?} {facts:?}: {verdict:?}"
            );
        }
    }
    let served = of_status(StatusCode::OK, &NOT_FOUND, &names(InPath));
    assert_eq!(served, Verdict::Served);
}

#[test]
fn a_stream_can_fail_because_an_object_is_not_there() {
    for (facts, expected) in [
        (code("previous_response_not_found"), Verdict::ObjectNotFound),
        (code("invalid_encrypted_content"), Verdict::ObjectNotFound),
        (code("vector_store_not_found"), Verdict::ObjectNotFound),
        (NOT_FOUND, Verdict::ObjectNotFound),
        (code("model_not_found"), Verdict::Answered),
        (code("context_length_exceeded"), Verdict::Answered),
        (code("server_error"), Verdict::Failed),
    ] {
        assert_eq!(
            of_failed_stream(&facts, &names(NamedObjects::InBody)),
            expected,
            "{facts:?}"
        );
        let without = of_failed_stream(&facts, &names(NamedObjects::None));
        assert_ne!(without, Verdict::ObjectNotFound, "{facts:?}");
    }
}

#[test]
fn the_body_of_an_answer_is_read_if_it_may_say_that_an_object_is_not_there() {
    for (objects, expected) in [
        (NamedObjects::None, false),
        (NamedObjects::InPath, true),
        (NamedObjects::InBody, true),
    ] {
        for number in [400, 404] {
            let status = StatusCode::from_u16(number).expect("a status");
            assert_eq!(needs_body(status, CredentialOwner::Caller, objects), expected);
        }
    }
}
