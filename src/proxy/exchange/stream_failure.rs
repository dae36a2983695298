//! Judges the failures that a stream reports in its events, before its first output and after it.

use std::time::Duration;

use crate::{
    endpoint::{Endpoint, EndpointClass},
    policy::Verdict,
    proxy::turn::verdict::VerdictRules,
    scan::{ErrorNotice, StreamFailure, event_notice},
};

/// The parts of the request on which the meaning of a failure depends.
#[derive(Clone, Copy)]
pub(super) struct FailureContext<'a> {
    pub endpoint: Endpoint,
    /// The model that was requested.
    pub model: Option<&'a str>,
    pub rules: VerdictRules<'a>,
}

/// The verdict on a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureVerdict {
    /// Nothing that follows in the stream changes the verdict.
    Final(Verdict),
    /// The verdict counts if nothing follows. The event that ends the stream may say more.
    Preliminary(Verdict),
}

/// Whether the failures in the streams of `endpoint` are failures of the upstream. A stored response that is read once
/// more may have failed long ago.
pub(super) fn is_judged(endpoint: Endpoint) -> bool {
    endpoint.class() == EndpointClass::Generation
}

impl FailureContext<'_> {
    /// Judges `failure` by the events that have come so far. `unix_now` is the time since 1970.
    ///
    /// Of an `error` event and the event that ends the stream, the one that says more counts. An upstream may leave out the
    /// code of one of them.
    pub fn judge(&self, failure: StreamFailure<'_>, unix_now: Duration) -> FailureVerdict {
        // An event that cannot be read is a failure without facts.
        let notice = |data| event_notice(data, self.model, unix_now).unwrap_or_default();
        match (failure.error.map(notice), failure.last.map(notice)) {
            (Some(error), None) => {
                let verdict = self.rules.of_failed_stream(&error);
                match self.is_final(&error, verdict) {
                    true => FailureVerdict::Final(verdict),
                    false => FailureVerdict::Preliminary(verdict),
                }
            }
            (error, last) => {
                let (error, last) = (error.unwrap_or_default(), last.unwrap_or_default());
                let of_error = self.rules.of_failed_stream(&error);
                if self.is_final(&error, of_error) {
                    return FailureVerdict::Final(of_error);
                }
                FailureVerdict::Final(self.rules.of_failed_stream(&ErrorNotice {
                    kind: last.kind.or(error.kind),
                    code: last.code.or(error.code),
                    reset: last.reset.or(error.reset),
                    names_model: last.names_model || error.names_model,
                }))
            }
        }
    }

    /// Whether an `error` event says enough.
    fn is_final(&self, error: &ErrorNotice, verdict: Verdict) -> bool {
        // In a Messages stream, no other event follows.
        let is_last = self.endpoint == Endpoint::Messages;
        is_last || error.code.is_some() || matches!(verdict, Verdict::Limited { .. } | Verdict::Refused)
    }
}

impl FailureVerdict {
    /// The verdict, if nothing follows.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Final(verdict) | Self::Preliminary(verdict) => verdict,
        }
    }
}
