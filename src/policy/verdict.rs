//! What an upstream's answer means: for the request, and for the upstream's health.
//!
//! The same status can be the caller's affair or the account's. A 429 under our credential says that this account has
//! had enough, and another may serve the request; under the caller's own it says that the caller has. A 403 may refuse
//! a model to everybody or everything to one account. So a verdict needs the status, what the error says, and whose
//! credential it was.

use std::time::Duration;

use http::StatusCode;

use crate::ids::ModelKey;

#[cfg(test)]
mod tests;

/// What an error answer, or a stream's failed first event, says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorFacts<'a> {
    /// `error.type`.
    pub kind: Option<&'a str>,
    /// `error.code`.
    pub code: Option<&'a str>,
    /// When the limit resets, from now.
    pub reset: Option<Duration>,
    /// Whether the limit is about the requested model rather than the account.
    pub names_model: bool,
}

/// The part of an upstream that a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole upstream.
    Upstream,
    /// One model of the upstream.
    Model(ModelKey),
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
    },
    /// The upstream does not work: no connection, no response head, or a 5xx status. Another upstream may serve the
    /// request.
    Failed,
    /// The upstream refuses the account or its credential. Another upstream may serve the request.
    Refused,
}

impl Verdict {
    /// Whether the request may be tried elsewhere.
    pub fn fails_over(self) -> bool {
        match self {
            Self::Served | Self::Answered => false,
            Self::Limited { .. } | Self::Failed | Self::Refused => true,
        }
    }

    /// The metric label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Answered => "answered",
            Self::Limited { .. } => "limited",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Codes that mean that the account as a whole may not be used from here, whatever is asked of it: OpenAI's
/// (<https://developers.openai.com/api/docs/guides/error-codes>) and those that other gateways were taught by their users
/// (`monitor/manage.go` of one-api, the 401 and 402 rules of sub2api). A code that may be about one model or one
/// endpoint (`insufficient_permissions`, `model_not_found`) is not among them.
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

/// Codes and types that mean that the account has had enough: for a moment, for a month, or until somebody pays.
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

/// Codes and types that mean that the upstream has more to do than it can, for whomever.
const OVERLOAD: [&str; 4] = [
    "engine_overloaded",
    "overloaded_error",
    "server_is_overloaded",
    "service_unavailable_error",
];

/// Whether judging an answer of this status needs its body; of others it is enough to know the status.
pub fn needs_body(status: StatusCode, is_ours: bool) -> bool {
    match status.as_u16() {
        402 | 403 | 429 => is_ours,
        503 | 529 => true,
        _ => false,
    }
}

/// What an answer of `status` means. `model` is what was asked for, and `is_ours` whether the credential was the
/// upstream's configured one rather than the caller's own.
pub fn of_status(status: StatusCode, facts: &ErrorFacts<'_>, model: Option<ModelKey>, is_ours: bool) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Served,
        401 if is_ours => Verdict::Refused,
        402 | 403 if is_ours && facts.says(&ACCOUNT) => Verdict::Refused,
        // Gateways and other providers answer so when prepaid credit is used up.
        402 if is_ours => facts.limited(model),
        403 if is_ours && facts.says(&LIMIT) => facts.limited(model),
        429 if is_ours => facts.limited(model),
        503 | 529 if facts.reset.is_some() => facts.limited(model),
        // 520 to 530 are Cloudflare's for an origin that it cannot reach or understand, but for 529: overloaded.
        500 | 502..=504 | 520..=530 => Verdict::Failed,
        _ => Verdict::Answered,
    }
}

/// What it means that the first event of a stream says `response.failed` or `error`.
pub fn of_first_event(facts: &ErrorFacts<'_>, model: Option<ModelKey>, is_ours: bool) -> Verdict {
    if facts.says(&OVERLOAD) {
        match facts.reset {
            Some(_) => facts.limited(model),
            None => Verdict::Failed,
        }
    } else if is_ours && facts.says(&LIMIT) {
        facts.limited(model)
    } else {
        Verdict::Answered
    }
}

impl ErrorFacts<'_> {
    fn says(&self, words: &[&str]) -> bool {
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
        }
    }
}
