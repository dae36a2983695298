//! The whole table of faults, with an example of each.

use super::*;

/// Every fault, each with the fields of an example.
fn examples() -> Vec<Fault> {
    [
        faults_of_heads(),
        faults_of_bodies(),
        faults_of_access(),
        faults_of_upstreams(),
        faults_of_accounts(),
    ]
    .concat()
}

fn faults_of_heads() -> Vec<Fault> {
    let problem = "has a problem";
    let (path, suggestion) = ("/x".to_owned(), "/v1/responses");
    vec![
        Fault::UnknownPath { path, suggestion },
        Fault::AmbiguousTarget { problem },
        Fault::BadHost { problem },
        Fault::BadHead { problem },
        Fault::HeadTooLarge,
        Fault::BadFraming { problem },
        Fault::BadMethod { problem },
        Fault::WebSocketUnsupported,
        Fault::LoopDetected,
        Fault::ForeignHost,
        Fault::CrossSite {
            origin: Some("https://evil.example".to_owned()),
        },
        Fault::CrossSite { origin: None },
    ]
}

fn faults_of_bodies() -> Vec<Fault> {
    let problem = || "a problem".to_owned();
    let (ambiguous, offset, idle) = (problem(), 7, Duration::from_secs(30));
    vec![
        Fault::InvalidJson {
            problem: problem(),
            offset,
        },
        Fault::AmbiguousBody {
            problem: ambiguous,
            offset,
        },
        Fault::AmbiguousForm {
            problem: problem(),
            offset,
        },
        Fault::InvalidForm {
            problem: problem(),
            offset,
        },
        Fault::AmbiguousFormType {
            problem: "has a problem",
        },
        Fault::UndecodableBody { problem: problem() },
        Fault::IncompleteBody,
        Fault::BodyTooLarge { limit: 9 },
        Fault::BodyTimeout { idle },
        Fault::BodyTooSlow {
            rate: 10_240,
            window: idle,
        },
        Fault::BuffersFull,
        Fault::BufferShareFull,
        Fault::BufferReclaimed,
        Fault::InvalidType {
            field: "previous_response_id",
            expected: "a string",
        },
        Fault::RenameCompressed { model: problem() },
    ]
}

fn faults_of_access() -> Vec<Fault> {
    let text = || "text".to_owned();
    let (model, allowed, served) = (text(), vec![text()], Vec::new());
    let (path, why) = (text(), "a reason");
    let rate_limited = |kind| Fault::RateLimited {
        kind,
        limit: 5,
        retry: Duration::from_millis(1500),
    };
    let not_served = Fault::ModelNotServed { model: text(), served };
    vec![
        Fault::MissingCredential,
        Fault::MissingKey,
        Fault::InvalidKey {
            problem: KeyProblem::Unknown,
        },
        Fault::ModelForbidden { model, allowed },
        Fault::ModelUnreadable { problem: why },
        Fault::PathForbidden { path, why },
        not_served,
        Fault::ObjectNotFound {
            reference: ObjectReference::ResponseInPath,
        },
        Fault::ObjectNotFound {
            reference: ObjectReference::PreviousResponse,
        },
        Fault::ObjectNotFound {
            reference: ObjectReference::File,
        },
        rate_limited(LimitKind::Requests),
        rate_limited(LimitKind::Tokens),
        rate_limited(LimitKind::Concurrent),
    ]
}

fn faults_of_upstreams() -> Vec<Fault> {
    let upstream = || Some("a".to_owned());
    vec![
        Fault::ModelsUnavailable,
        Fault::FailedEverywhere {
            subject: FailedSubject::Session,
            retry: Duration::from_millis(3_500),
        },
        Fault::FailedEverywhere {
            subject: FailedSubject::Pool,
            retry: Duration::from_secs(1),
        },
        Fault::UpstreamUnreachable { upstream: upstream() },
        Fault::UpstreamBroken { upstream: None },
        Fault::UpstreamTimeout {
            upstream: upstream(),
            limit: Duration::from_secs(30),
        },
        Fault::Limited {
            resets_in: Duration::from_secs(7200),
            resets_at: 1_800_000_000,
            is_owned: false,
        },
        Fault::OwnerGone,
        Fault::Overloaded {
            shortage: "file descriptor",
        },
        Fault::Internal,
    ]
}

fn faults_of_accounts() -> Vec<Fault> {
    let unavailable = |cause| Fault::Unavailable {
        cause,
        retry: Duration::from_secs(2),
        is_owned: cause != UnavailableCause::Mixed,
    };
    vec![
        Fault::CredentialRefused {
            upstream: Some("a".to_owned()),
            retry: Duration::from_secs(300),
        },
        Fault::UpstreamsRateLimited {
            resets_in: Duration::from_millis(1500),
            is_owned: false,
        },
        unavailable(UnavailableCause::Disabled),
        unavailable(UnavailableCause::Ejected),
        unavailable(UnavailableCause::Draining),
        unavailable(UnavailableCause::Busy),
        unavailable(UnavailableCause::Mixed),
    ]
}

/// One line for each fault: `status code type param reason retry-after close`.
const TABLE: &str = "
404 unknown_path invalid_request_error - path - -
400 ambiguous_target invalid_request_error - head - -
400 bad_host invalid_request_error - head - -
400 bad_head invalid_request_error - head - close
431 head_too_large invalid_request_error - head - close
400 bad_framing invalid_request_error - head - close
405 method_not_allowed invalid_request_error - head - -
426 websocket_unsupported invalid_request_error - websocket - -
508 loop_detected server_error - loop - -
403 host_not_allowed permission_error - forbidden - -
403 origin_not_allowed permission_error - forbidden - -
403 origin_not_allowed permission_error - forbidden - -
400 invalid_json invalid_request_error - body - -
400 ambiguous_body invalid_request_error - body - -
400 ambiguous_body invalid_request_error - body - -
400 invalid_multipart invalid_request_error - body - -
400 ambiguous_body invalid_request_error - body - -
400 undecodable_body invalid_request_error - body - -
400 incomplete_body invalid_request_error - body - close
413 request_too_large invalid_request_error - too_large - -
408 request_timeout invalid_request_error - body_timeout - close
408 request_timeout invalid_request_error - body_timeout - close
503 server_overloaded server_error - buffers_full 1 -
503 server_overloaded server_error - buffers_full 1 -
503 server_overloaded server_error - buffers_full 1 close
400 invalid_type invalid_request_error previous_response_id body - -
415 compressed_body invalid_request_error model body - -
401 missing_api_key authentication_error - credential - -
401 missing_api_key authentication_error - key - -
401 invalid_api_key authentication_error - key - -
403 model_not_allowed permission_error model forbidden - -
403 model_unreadable permission_error - forbidden - -
403 path_not_allowed permission_error - forbidden - -
404 model_not_found invalid_request_error model model - -
404 response_not_found invalid_request_error - owner_unknown - -
400 previous_response_not_found invalid_request_error previous_response_id owner_unknown - -
404 file_not_found invalid_request_error - owner_unknown - -
429 rate_limit_exceeded requests - rate_limited 2 -
429 rate_limit_exceeded tokens - rate_limited 2 -
429 rate_limit_exceeded concurrent_requests - rate_limited 2 -
502 models_unavailable server_error - upstream 2 -
503 upstreams_unavailable server_error - unavailable 4 -
503 upstreams_unavailable server_error - unavailable 1 -
502 upstream_unreachable server_error - upstream 2 -
502 upstream_broken server_error - upstream 2 -
504 upstream_timeout server_error - upstream 2 -
429 usage_limit_reached usage_limit_reached - limited 7200 -
400 state_owner_gone invalid_request_error - owner_gone - -
503 overloaded server_error - overloaded 1 -
500 internal_error server_error - internal 2 -
502 upstream_credential_refused server_error - upstream 300 -
429 rate_limit_exceeded rate_limit_exceeded - limited 2 -
503 upstreams_unavailable server_error - unavailable 2 -
503 upstreams_unavailable server_error - unavailable 2 -
503 upstreams_unavailable server_error - unavailable 2 -
503 upstreams_unavailable server_error - unavailable 2 -
503 upstreams_unavailable server_error - unavailable 2 -
";

#[test]
fn the_whole_table() {
    let mut table = String::from("\n");
    for fault in examples() {
        let retry_after = match fault.retry() {
            RetryAdvice::Never => "-".to_owned(),
            RetryAdvice::After(delay) => seconds(delay).to_string(),
        };
        table.push_str(&format!(
            "{} {} {} {} {} {retry_after} {}\n",
            fault.status().as_u16(),
            fault.code(),
            fault.kind(),
            fault.param().unwrap_or("-"),
            fault.reject_reason().label(),
            if fault.closes_connection() { "close" } else { "-" },
        ));
    }
    assert_eq!(table, TABLE);
}

#[test]
fn every_reason_is_the_reason_of_a_fault() {
    let reasons: Vec<RejectReason> = examples().iter().map(Fault::reject_reason).collect();
    for reason in RejectReason::ALL {
        assert!(reasons.contains(&reason), "{reason:?}");
    }
}

#[test]
fn every_message_is_made_of_whole_sentences() {
    for fault in examples() {
        let message = fault.message();
        assert!(message.starts_with(char::is_uppercase), "{message}");
        assert!(message.ends_with(['.', '?']) && !message.contains(".."), "{message}");
    }
}

#[test]
fn only_a_usage_limit_says_when_it_resets() {
    for fault in examples() {
        let expected = matches!(fault, Fault::Limited { .. }).then_some((1_800_000_000, 7200));
        assert_eq!(fault.limit_reset(), expected, "{fault:?}");
    }
}

#[test]
fn delays_are_rounded_up_to_whole_seconds() {
    for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
        assert_eq!(seconds(Duration::from_millis(millis)), expected, "{millis} ms");
    }
}

#[test]
fn a_message_says_why_no_upstream_is_available() {
    for (fault, parts) in faults_of_accounts().iter().zip([
        ["'a' refuses the credential", "has to renew"],
        ["Rate limit reached", "Please try again in 2s."],
        ["belongs to one upstream organization", "has to renew"],
        ["belongs to one upstream organization", "has failed several times"],
        ["belongs to one upstream organization", "is being drained"],
        ["belongs to one upstream organization", "is busy with other requests"],
        ["Every upstream", "is busy or out of service"],
    ]) {
        let message = fault.message();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
