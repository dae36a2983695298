//! Judges what an answer means for its turn: applies the rules of [`policy::verdict`](crate::policy::verdict) to the
//! answer.

use http::StatusCode;

use crate::{
    endpoint::Endpoint,
    ids::ModelKey,
    policy::{
        Verdict,
        verdict::{self, Asked, CredentialOwner, ErrorFacts, NamedObjects},
    },
    scan::ErrorNotice,
    state::{Credential, Upstream},
};

/// The inputs of a verdict in addition to the answer itself.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct VerdictRules<'a> {
    /// The model that was requested.
    model: Option<&'a str>,
    /// The endpoint that was called.
    endpoint: Endpoint,
    /// The owner of the credential that the upstream was called with.
    credential_owner: CredentialOwner,
    /// Where the request names objects.
    objects: NamedObjects,
}

impl<'a> VerdictRules<'a> {
    /// The rules for a request for `model` to `endpoint` of `upstream`.
    pub fn new(endpoint: Endpoint, model: Option<&'a str>, upstream: &Upstream) -> Self {
        Self {
            model,
            endpoint,
            credential_owner: match upstream.credential {
                Credential::Own(_) => CredentialOwner::Upstream,
                Credential::Callers => CredentialOwner::Caller,
            },
            objects: NamedObjects::None,
        }
    }

    /// The same rules for a request that names `objects`.
    pub fn with_objects(self, objects: NamedObjects) -> Self {
        Self { objects, ..self }
    }

    /// The same rules for a request for another `model`.
    pub fn with_model(self, model: Option<&str>) -> VerdictRules<'_> {
        VerdictRules { model, ..self }
    }

    /// Whether the verdict on an answer of this status depends on its body.
    pub fn needs_body(&self, status: StatusCode) -> bool {
        verdict::needs_body(status, self.credential_owner, self.objects)
    }

    /// The verdict on an answer whose status says enough.
    pub fn of_status(&self, status: StatusCode) -> Verdict {
        verdict::of_status(status, &ErrorFacts::default(), &self.asked())
    }

    /// The verdict on an error answer.
    pub fn of_error(&self, status: StatusCode, notice: &ErrorNotice) -> Verdict {
        verdict::of_status(status, &error_facts(notice), &self.asked())
    }

    /// The verdict on an event stream that failed with the event `notice`, before or after its first output.
    pub fn of_failed_stream(&self, notice: &ErrorNotice) -> Verdict {
        verdict::of_failed_stream(&error_facts(notice), &self.asked())
    }

    fn asked(&self) -> Asked {
        Asked {
            model: self.model.map(ModelKey::from_name),
            endpoint: self.endpoint.class(),
            credential: self.credential_owner,
            objects: self.objects,
        }
    }
}

fn error_facts(notice: &ErrorNotice) -> ErrorFacts<'_> {
    ErrorFacts {
        kind: notice.kind.as_deref(),
        code: notice.code.as_deref(),
        reset: notice.reset,
        names_model: notice.names_model,
        says_credential: notice.says_credential,
        says_permission: notice.says_permission,
        says_quota: notice.says_quota,
        says_not_found: notice.says_not_found,
        says_unknown_route: notice.says_unknown_route,
        says_model_not_found: notice.says_model_not_found,
    }
}

/// Whether an answer proves that the upstream has not begun the request. The request may then be sent to another
/// upstream, even if it must not be executed twice. A refusal comes before any work. Of the other failures, only the
/// status 503 proves it.
pub(super) fn did_no_work(verdict: Verdict, status: StatusCode) -> bool {
    verdict != Verdict::Failed || status == StatusCode::SERVICE_UNAVAILABLE
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;
    use crate::{
        policy::{LimitCause, Scope},
        proxy::testing,
        scan::error_notice,
    };

    const LIMITED: Verdict = Verdict::Limited {
        reset: None,
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    };

    const QUOTA: Verdict = Verdict::Limited {
        reset: None,
        scope: Scope::Upstream,
        cause: LimitCause::Quota,
    };

    fn rules(upstream: &str) -> VerdictRules<'static> {
        rules_at(Endpoint::Responses, upstream)
    }

    fn rules_at(endpoint: Endpoint, upstream: &str) -> VerdictRules<'static> {
        let passthrough = "[[upstream]]\nname = \"p\"\nbase_url = \"http://p.test/v1\"\napi_key = \"passthrough\"\n";
        let gateway = testing::gateway(passthrough);
        let snapshot = gateway.snapshot();
        let upstream = snapshot.upstreams().iter().find(|known| &*known.name == upstream);
        VerdictRules::new(endpoint, Some("gpt-5.2"), upstream.expect("a configured upstream"))
    }

    #[tokio::test]
    async fn the_same_status_has_another_meaning_under_the_callers_credential() {
        let (own, callers) = (rules("a"), rules("p"));
        let notice = ErrorNotice::default();
        for (status, under_own, under_callers) in [
            (200, Verdict::Served, Verdict::Served),
            (400, Verdict::Answered, Verdict::Answered),
            (401, Verdict::Unauthorized, Verdict::Answered),
            (429, LIMITED, Verdict::Answered),
            (500, Verdict::Failed, Verdict::Failed),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(own.of_error(status, &notice), under_own, "{status}");
            assert_eq!(callers.of_error(status, &notice), under_callers, "{status}");
        }
        let elsewhere = rules_at(Endpoint::Other, "a");
        assert_eq!(elsewhere.of_error(StatusCode::UNAUTHORIZED, &notice), Verdict::Answered);
        assert!(own.needs_body(StatusCode::UNAUTHORIZED));
        assert!(!callers.needs_body(StatusCode::UNAUTHORIZED));
        assert!(own.needs_body(StatusCode::TOO_MANY_REQUESTS));
        assert!(!callers.needs_body(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(own.of_status(StatusCode::OK), Verdict::Served);
    }

    #[tokio::test]
    async fn what_the_message_says_reaches_the_verdict() {
        let says = |message: &str| {
            let body = format!("{{\"error\":{{\"message\":\"{message}\",\"code\":null}}}}");
            error_notice(&HeaderMap::new(), body.as_bytes(), None, Duration::ZERO)
        };
        let own = rules("a");
        for (status, message, expected) in [
            (401, "Incorrect API key provided: sk-1.", Verdict::Refused),
            (401, "Missing scopes: api.responses.write.", Verdict::Answered),
            (401, "Unauthorized", Verdict::Unauthorized),
            (403, "Your team has used all available credits.", QUOTA),
            (429, "Rate limit exceeded: free-models-per-day.", QUOTA),
            (429, "Too many requests", LIMITED),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(own.of_error(status, &says(message)), expected, "{message}");
        }
    }

    #[tokio::test]
    async fn a_limit_that_names_the_model_limits_only_the_model() {
        let notice = ErrorNotice {
            code: Some("rate_limit_exceeded".to_owned()),
            names_model: true,
            ..ErrorNotice::default()
        };
        let expected = Verdict::Limited {
            reset: None,
            scope: Scope::Model(ModelKey::from_name("gpt-5.2")),
            cause: LimitCause::Rate,
        };
        assert_eq!(rules("a").of_failed_stream(&notice), expected);
        assert_eq!(rules("a").of_error(StatusCode::TOO_MANY_REQUESTS, &notice), expected);
    }

    #[test]
    fn only_failures_may_have_begun() {
        for (verdict, status, did_nothing) in [
            (LIMITED, 429, true),
            (LIMITED, 200, true),
            (LIMITED, 403, true),
            (LIMITED, 503, true),
            (Verdict::Failed, 503, true),
            (Verdict::Failed, 500, false),
            (Verdict::Failed, 200, false),
            (Verdict::Refused, 401, true),
            (Verdict::Unauthorized, 401, true),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(did_no_work(verdict, status), did_nothing, "{verdict:?} {status}");
        }
    }
}
