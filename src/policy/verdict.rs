//! The meaning of an upstream's answer, for the request and for the upstream's health.
//!
//! The same status can concern the caller or the account. A 429 for the configured credential says that this account
//! has reached a limit, and another account may serve the request. A 429 for the caller's own credential says that the
//! caller has reached a limit. A 401 or 403 may refuse a resource to every account, or everything to one account. So a
//! verdict needs the status, the content of the error, the owner of the credential, and what was asked for.
//!
//! The submodule `words` has the codes and types that upstreams write, by what they mean.

use std::time::Duration;

use http::StatusCode;

use crate::{endpoint::EndpointClass, ids::ModelKey};

#[cfg(test)]
mod tests;
mod words;

use words::{Meaning, Missing};

/// The facts in an error body, or in a failed event of a stream.
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
    /// Whether the message says that the credential or its account is not valid.
    pub says_credential: bool,
    /// Whether the message says that the credential lacks a permission or a scope.
    pub says_permission: bool,
    /// Whether the message says that a quota of a day or longer, or the credit, is used up.
    pub says_quota: bool,
    /// Whether the message says that something does not exist.
    pub says_not_found: bool,
    /// Whether the message says that the upstream does not have the endpoint at all.
    pub says_unknown_route: bool,
    /// Whether the message says that the account does not have the model.
    pub says_model_not_found: bool,
}

/// The request that an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The model that was requested.
    pub model: Option<ModelKey>,
    /// The part of the upstream's service that was called.
    pub endpoint: EndpointClass,
    /// The owner of the credential that the request carried.
    pub credential: CredentialOwner,
    /// Where the request names objects.
    pub objects: NamedObjects,
}

/// Where a request names objects that an upstream has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamedObjects {
    /// Nowhere.
    #[default]
    None,
    /// In its path, and perhaps in its body.
    InPath,
    /// In its body only.
    InBody,
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
    /// The upstream refused a generation without saying whether the credential or the resource is at fault. A request to
    /// another endpoint class has to confirm that it is the credential. Until then the answer says nothing about the
    /// upstream's health. Another upstream may serve the request.
    Unauthorized,
    /// The account does not have the model that the request names. Another account may have it.
    ModelNotFound,
    /// The account does not have an object that the request names. The account that made the object has it.
    ObjectNotFound,
    /// The upstream leads back to a gateway that the request has passed through. That concerns the way of this request, so
    /// it says nothing about the upstream's health. Another upstream may serve the request.
    Looped,
}

impl Verdict {
    /// Whether the request may be tried on another upstream.
    pub fn fails_over(self) -> bool {
        match self {
            Self::Served | Self::Answered => false,
            Self::Limited { .. }
            | Self::Failed
            | Self::Refused
            | Self::Unauthorized
            | Self::ModelNotFound
            | Self::ObjectNotFound
            | Self::Looped => true,
        }
    }
}

/// The `error.code` of a gateway that finds its own marker in a request.
const LOOP: &str = "loop_detected";

/// Returns whether [`of_status`] needs the body of an answer with this status. For other statuses, the status alone
/// decides.
pub fn needs_body(status: StatusCode, credential: CredentialOwner, objects: NamedObjects) -> bool {
    match status.as_u16() {
        400 | 404 if objects != NamedObjects::None => true,
        400..=404 | 422 | 429 => credential == CredentialOwner::Upstream,
        503 | 508 | 529 => true,
        _ => false,
    }
}

/// Returns the verdict on an answer with this status to the request `asked`.
pub fn of_status(status: StatusCode, facts: &ErrorFacts<'_>, asked: &Asked) -> Verdict {
    let is_configured = asked.credential == CredentialOwner::Upstream;
    match status.as_u16() {
        200..=299 => Verdict::Served,
        404 if asked.objects == NamedObjects::InPath && facts.may_lack_object() => Verdict::ObjectNotFound,
        400 | 404 if facts.lacks_object(asked) => Verdict::ObjectNotFound,
        400 | 401 | 403 | 404 | 422 if facts.lack_model(asked) => Verdict::ModelNotFound,
        // One-api and its kin answer 503 if none of their accounts has the model. The message is not enough here.
        503 if facts.code_lacks_model() && facts.lack_model(asked) => Verdict::ModelNotFound,
        401 if is_configured => facts.of_unauthorized(asked),
        402 if is_configured => match facts.meaning() {
            Some(Meaning::Account) => Verdict::Refused,
            // Gateways and other providers answer 402 when prepaid credit is used up.
            _ => facts.limited(asked, LimitCause::Quota),
        },
        403 if is_configured => facts.of_forbidden(asked),
        429 if is_configured => facts.limited(asked, facts.cause()),
        503 | 529 if facts.reset.is_some() => facts.limited(asked, LimitCause::Rate),
        // Hosting panels answer 508 for other reasons, so the code decides.
        508 if facts.code == Some(LOOP) => Verdict::Looped,
        // Cloudflare uses the statuses 520 to 530 for an origin that it cannot reach or understand. The exception is
        // 529, which means that the upstream is overloaded.
        500 | 502..=504 | 520..=530 => Verdict::Failed,
        _ => Verdict::Answered,
    }
}

/// Returns the verdict on a stream that failed with `response.failed` or `error`, before or after its first output.
///
/// Only an error that is known to be the request's own is passed on. A failure of an unknown kind, or without a code, is the
/// upstream's.
pub fn of_failed_stream(facts: &ErrorFacts<'_>, asked: &Asked) -> Verdict {
    let is_configured = asked.credential == CredentialOwner::Upstream;
    match facts.meaning() {
        _ if facts.lack_model(asked) => Verdict::ModelNotFound,
        None | Some(Meaning::Request) if facts.lacks_object(asked) => Verdict::ObjectNotFound,
        Some(Meaning::Overload) if facts.reset.is_some() => facts.limited(asked, LimitCause::Rate),
        Some(Meaning::Overload | Meaning::Failure) => Verdict::Failed,
        Some(Meaning::Request | Meaning::Resource | Meaning::Model) => Verdict::Answered,
        Some(Meaning::Account | Meaning::Rate | Meaning::Quota) if !is_configured => Verdict::Answered,
        Some(Meaning::Account) => Verdict::Refused,
        Some(Meaning::Rate | Meaning::Quota) => facts.limited(asked, facts.cause()),
        // Only limits have a reset.
        None if is_configured && (facts.reset.is_some() || facts.says_quota) => facts.limited(asked, facts.cause()),
        None => Verdict::Failed,
    }
}

impl ErrorFacts<'_> {
    /// The meaning of the code, or else of the type, which is less exact.
    fn meaning(&self) -> Option<Meaning> {
        let of_kind = || self.kind.and_then(words::meaning_of);
        self.code.and_then(words::meaning_of).or_else(of_kind)
    }

    /// Whether the error may be about an object that is not there: it is about neither the endpoint nor the model.
    fn may_lack_object(&self) -> bool {
        let is_of_other = self
            .code
            .is_some_and(|code| words::names_missing(code) == Some(Missing::Other));
        !self.says_unknown_route && !self.names_model && !is_of_other
    }

    /// Whether the error says that an object that the request names is not there.
    fn lacks_object(&self, asked: &Asked) -> bool {
        let is_of_object = self
            .code
            .is_some_and(|code| words::names_missing(code) == Some(Missing::Object));
        asked.objects != NamedObjects::None && self.may_lack_object() && (is_of_object || self.says_not_found)
    }

    /// Whether the error says that the account which the request was sent to with its configured credential does not have
    /// the model that the request names.
    fn lack_model(&self, asked: &Asked) -> bool {
        let says_so = match self.meaning() {
            Some(Meaning::Model) => true,
            Some(Meaning::Account | Meaning::Quota | Meaning::Rate | Meaning::Overload) => false,
            Some(Meaning::Resource | Meaning::Request | Meaning::Failure) | None => self.says_model_not_found,
        };
        says_so && asked.model.is_some() && asked.credential == CredentialOwner::Upstream
    }

    fn code_lacks_model(&self) -> bool {
        self.code.and_then(words::meaning_of) == Some(Meaning::Model)
    }

    /// The verdict on a 401 under the configured credential (RFC 9110 section 15.5.2).
    fn of_unauthorized(&self, asked: &Asked) -> Verdict {
        match self.of_refusal(asked) {
            Some(verdict) => verdict,
            None if self.has_own_code() || asked.endpoint != EndpointClass::Generation => Verdict::Answered,
            None => Verdict::Unauthorized,
        }
    }

    /// The verdict on a 403 under the configured credential.
    fn of_forbidden(&self, asked: &Asked) -> Verdict {
        let verdict = self.of_refusal(asked);
        verdict.unwrap_or_else(|| match self.says_quota {
            true => self.limited(asked, LimitCause::Quota),
            false => Verdict::Answered,
        })
    }

    /// The verdict on a 401 or 403, if the error says what is refused: the credential, a resource, or more usage. The code
    /// is the most exact, then the message, then the type, which may be no more than `permission_error`.
    fn of_refusal(&self, asked: &Asked) -> Option<Verdict> {
        match self.meaning() {
            Some(Meaning::Account) => Some(Verdict::Refused),
            Some(Meaning::Rate | Meaning::Quota) => Some(self.limited(asked, self.cause())),
            _ if self.code.and_then(words::meaning_of) == Some(Meaning::Resource) => Some(Verdict::Answered),
            // The request names no model.
            Some(Meaning::Model) => Some(Verdict::Answered),
            _ if self.says_permission => Some(Verdict::Answered),
            _ if self.says_credential => Some(Verdict::Refused),
            Some(Meaning::Resource) => Some(Verdict::Answered),
            _ => None,
        }
    }

    /// Whether the error has a code that is more than a repetition of the status or of a generic type.
    fn has_own_code(&self) -> bool {
        self.code.is_some_and(|code| !words::is_generic(code))
    }

    fn cause(&self) -> LimitCause {
        let words = [self.code, self.kind].into_iter().flatten();
        let mut meanings = words.filter_map(words::meaning_of);
        match self.says_quota || meanings.any(|meaning| meaning == Meaning::Quota) {
            true => LimitCause::Quota,
            false => LimitCause::Rate,
        }
    }

    fn limited(&self, asked: &Asked, cause: LimitCause) -> Verdict {
        let model = asked.model.filter(|_| self.names_model);
        Verdict::Limited {
            // An upstream that says "now" while it refuses must not be asked twice a second.
            reset: self.reset.filter(|reset| !reset.is_zero()),
            scope: model.map_or(Scope::Upstream, Scope::Model),
            cause,
        }
    }
}
