//! Judges what an answer means for its turn: applies the rules of [`policy::verdict`](crate::policy::verdict) to the
//! answer.

use http::StatusCode;

use crate::{
    ids::ModelKey,
    policy::{
        Verdict,
        verdict::{self, CredentialOwner, ErrorFacts},
    },
    scan::ErrorNotice,
    state::{Credential, Upstream},
};

/// The inputs of a verdict in addition to the answer itself.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct VerdictRules<'a> {
    /// The model that was requested.
    model: Option<&'a str>,
    /// The owner of the credential that the upstream was called with.
    credential_owner: CredentialOwner,
}

impl<'a> VerdictRules<'a> {
    /// The rules for a request for `model` to `upstream`.
    pub fn new(model: Option<&'a str>, upstream: &Upstream) -> Self {
        Self {
            model,
            credential_owner: match upstream.credential {
                Credential::Own(_) => CredentialOwner::Upstream,
                Credential::Callers => CredentialOwner::Caller,
            },
        }
    }

    /// The same rules for a request for another `model`.
    pub fn with_model(self, model: Option<&str>) -> VerdictRules<'_> {
        VerdictRules { model, ..self }
    }

    /// Whether the verdict on an answer of this status depends on its body.
    pub fn needs_body(&self, status: StatusCode) -> bool {
        verdict::needs_body(status, self.credential_owner)
    }

    /// The verdict on an answer whose status says enough.
    pub fn of_status(&self, status: StatusCode) -> Verdict {
        verdict::of_status(status, &ErrorFacts::default(), self.model_key(), self.credential_owner)
    }

    /// The verdict on an error answer.
    pub fn of_error(&self, status: StatusCode, notice: &ErrorNotice) -> Verdict {
        verdict::of_status(status, &error_facts(notice), self.model_key(), self.credential_owner)
    }

    /// The verdict on an event stream that reports a failure, before or after its first output.
    pub fn of_failed_stream(&self, notice: &ErrorNotice) -> Verdict {
        verdict::of_first_event(&error_facts(notice), self.model_key(), self.credential_owner)
    }

    fn model_key(&self) -> Option<ModelKey> {
        self.model.map(ModelKey::from_name)
    }
}

fn error_facts(notice: &ErrorNotice) -> ErrorFacts<'_> {
    ErrorFacts {
        kind: notice.kind.as_deref(),
        code: notice.code.as_deref(),
        reset: notice.reset,
        names_model: notice.names_model,
    }
}

/// Whether an answer says in the usual way that the account has reached a limit: with the status 429, or as the first
/// event of a stream. If all accounts are limited, the caller gets one summary instead of such an answer.
pub(super) fn is_usual_limit(verdict: Verdict, status: StatusCode) -> bool {
    let is_usual = status == StatusCode::TOO_MANY_REQUESTS || status.is_success();
    is_usual && matches!(verdict, Verdict::Limited { .. })
}

/// Whether an answer proves that the upstream has not begun the request. The request may then be sent to another
/// upstream, even if it must not be executed twice. A refusal comes before any work. Of the other failures, only the
/// status 503 proves it.
pub(super) fn did_no_work(verdict: Verdict, status: StatusCode) -> bool {
    verdict != Verdict::Failed || status == StatusCode::SERVICE_UNAVAILABLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{LimitCause, Scope},
        proxy::testing,
    };

    const LIMITED: Verdict = Verdict::Limited {
        reset: None,
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    };

    fn rules(upstream: &str) -> VerdictRules<'static> {
        let passthrough = "[[upstream]]\nname = \"p\"\nbase_url = \"http://p.test/v1\"\napi_key = \"passthrough\"\n";
        let gateway = testing::gateway(passthrough);
        let snapshot = gateway.snapshot();
        let upstream = snapshot.upstreams().iter().find(|known| &*known.name == upstream);
        VerdictRules::new(Some("gpt-5.2"), upstream.expect("a configured upstream"))
    }

    #[tokio::test]
    async fn the_same_status_has_another_meaning_under_the_callers_credential() {
        let (own, callers) = (rules("a"), rules("p"));
        let notice = ErrorNotice::default();
        for (status, under_own, under_callers) in [
            (200, Verdict::Served, Verdict::Served),
            (400, Verdict::Answered, Verdict::Answered),
            (401, Verdict::Refused, Verdict::Answered),
            (429, LIMITED, Verdict::Answered),
            (500, Verdict::Failed, Verdict::Failed),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(own.of_error(status, &notice), under_own, "{status}");
            assert_eq!(callers.of_error(status, &notice), under_callers, "{status}");
        }
        assert!(own.needs_body(StatusCode::TOO_MANY_REQUESTS));
        assert!(!callers.needs_body(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(own.of_status(StatusCode::OK), Verdict::Served);
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
    fn only_usual_limits_are_summarized_and_only_failures_may_have_begun() {
        for (verdict, status, is_usual, did_nothing) in [
            (LIMITED, 429, true, true),
            (LIMITED, 200, true, true),
            (LIMITED, 403, false, true),
            (LIMITED, 503, false, true),
            (Verdict::Failed, 503, false, true),
            (Verdict::Failed, 500, false, false),
            (Verdict::Failed, 200, false, false),
            (Verdict::Refused, 401, false, true),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_usual_limit(verdict, status), is_usual, "{verdict:?} {status}");
            assert_eq!(did_no_work(verdict, status), did_nothing, "{verdict:?} {status}");
        }
    }
}
