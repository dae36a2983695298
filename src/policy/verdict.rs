//! The meaning of an upstream's answer, for the request and for the upstream's health.
//!
//! The same status can concern the caller or the account. A 429 for the configured credential says that this account
//! has reached a limit, and another account may serve the request. A 429 for the caller's own credential says that the
//! caller has reached a limit. A 403 may refuse a model to every account, or refuse everything to one account. So a
//! verdict needs the status, the content of the error, and the owner of the credential.

use std::time::Duration;

use http::StatusCode;

use crate::ids::ModelKey;

#[cfg(test)]
mod tests;

/// The facts in an error body, or in the first event of a stream if it reports a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorFacts<'a> {
    /// The field `error.type`.
    pub kind: Option<&'a str>,
    /// The field `error.code`.
    pub code: Option<&'a str>,
    /// The time from now until the limit resets.
    pub reset: Option<Duration>,
    /// Whether the limit applies to the requested model only, rather than to the account.
    pub names_model: bool,
}

/// The owner of the credential that a request carried to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialOwner {
    /// The credential is the one that the configuration has for the upstream.
    Upstream,
    /// The credential is the caller's own, and was passed through.
    Caller,
}

/// The part of an upstream that a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole upstream.
    Upstream,
    /// One model of the upstream.
    Model(ModelKey),
}

/// The kind of a limit. It decides what a caller is told if every upstream is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitCause {
    /// A limit of requests or tokens per minute, which resets soon.
    Rate,
    /// The usage of the plan, or the prepaid credit, is used up.
    Quota,
}

/// The meaning of an upstream's answer, for the request and for the upstream's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream served the request: it works and has capacity. The answer is passed on.
    Served,
    /// The upstream answered but did not serve the request, because the request is at fault or because every other
    /// upstream would answer the same. The upstream works, but the answer does not show whether it has capacity. The
    /// answer is passed on.
    Answered,
    /// The account, or one model of it, has reached a limit. Another upstream may serve the request.
    Limited {
        /// The time from now until the limit resets; `None` if the answer does not name it.
        reset: Option<Duration>,
        /// The part of the upstream that is limited.
        scope: Scope,
        /// The kind of the limit.
        cause: LimitCause,
    },
    /// The upstream does not work: no connection, no response head, or a 5xx status. Another upstream may serve the
    /// request.
    Failed,
    /// The upstream refuses the account or its credential. Another upstream may serve the request.
    Refused,
    /// A bare 401 on a generation endpoint: it may refuse the credential or only this request. A request to another
    /// endpoint of the upstream decides between [`Verdict::Refused`] and [`Verdict::Answered`].
    Unauthorized,
}

impl Verdict {
    /// Whether the request may be tried on another upstream.
    pub fn fails_over(self) -> bool {
        match self {
            Self::Served | Self::Answered | Self::Unauthorized => false,
            Self::Limited { .. } | Self::Failed | Self::Refused => true,
        }
    }
}

/// Codes that mean that the account as a whole may not be used, for any request: OpenAI's codes
/// (<https://developers.openai.com/api/docs/guides/error-codes>) and codes known from other gateways
/// (`monitor/manage.go` of one-api, the 401 and 402 rules of sub2api). Codes that may concern only one model or one
/// endpoint (`insufficient_permissions`, `model_not_found`) are not in this list.
const ACCOUNT: [&str; 9] = [
    "access_terminated",
    "account_deactivated",
    "billing_not_active",
    "deactivated_workspace",
    "invalid_api_key",
    "organization_deactivated",
    "token_invalidated",
    "token_revoked",
    "unsupported_country_region_territory",
];

/// Codes and types that mean that the account has reached a limit: a limit of the current minute or month, or the end
/// of its prepaid credit.
const LIMIT: [&str; 14] = [
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
    "insufficient_quota",
    "insufficient_user_quota",
    "organization_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "project_spend_limit_exceeded",
    "quota_exceeded",
    "rate_limit_error",
    "rate_limit_exceeded",
    "slow_down",
    "too_many_requests",
    "usage_limit_reached",
    "usage_not_included",
];

/// Codes and types that mean that the upstream is overloaded, for all accounts.
const OVERLOAD: [&str; 4] = [
    "engine_overloaded",
    "overloaded_error",
    "server_is_overloaded",
    "service_unavailable_error",
];

/// Returns whether [`of_status`] needs the body of an answer with this status. For other statuses, the status alone
/// decides.
pub fn needs_body(status: StatusCode, credential: CredentialOwner) -> bool {
    match status.as_u16() {
        402 | 403 | 429 => credential == CredentialOwner::Upstream,
        503 | 529 => true,
        _ => false,
    }
}

/// Returns the verdict on an answer with this status. `model` is the requested model, and `credential` tells whose
/// credential the request carried.
pub fn of_status(
    status: StatusCode,
    facts: &ErrorFacts<'_>,
    model: Option<ModelKey>,
    credential: CredentialOwner,
) -> Verdict {
    let is_configured = credential == CredentialOwner::Upstream;
    match status.as_u16() {
        200..=299 => Verdict::Served,
        401 if is_configured => Verdict::Refused,
        402 | 403 if is_configured && facts.says_any_of(&ACCOUNT) => Verdict::Refused,
        // Gateways and other providers answer 402 when prepaid credit is used up.
        402 if is_configured => facts.limited(model),
        403 if is_configured && facts.says_any_of(&LIMIT) => facts.limited(model),
        429 if is_configured => facts.limited(model),
        503 | 529 if facts.reset.is_some() => facts.limited(model),
        // Cloudflare uses the statuses 520 to 530 for an origin that it cannot reach or understand. The exception is
        // 529, which means that the upstream is overloaded.
        500 | 502..=504 | 520..=530 => Verdict::Failed,
        _ => Verdict::Answered,
    }
}

/// Returns the verdict on a stream with the first event `response.failed` or `error`.
pub fn of_first_event(facts: &ErrorFacts<'_>, model: Option<ModelKey>, credential: CredentialOwner) -> Verdict {
    if facts.says_any_of(&OVERLOAD) {
        match facts.reset {
            Some(_) => facts.limited(model),
            None => Verdict::Failed,
        }
    } else if credential == CredentialOwner::Upstream && facts.says_any_of(&LIMIT) {
        facts.limited(model)
    } else {
        Verdict::Answered
    }
}

impl ErrorFacts<'_> {
    fn says_any_of(&self, words: &[&str]) -> bool {
        [self.kind, self.code]
            .into_iter()
            .flatten()
            .any(|said| words.contains(&said))
    }

    fn limited(&self, model: Option<ModelKey>) -> Verdict {
        let model = model.filter(|_| self.names_model);
        Verdict::Limited {
            reset: self.reset,
            scope: model.map_or(Scope::Upstream, Scope::Model),
            cause: LimitCause::Rate,
        }
    }
}
