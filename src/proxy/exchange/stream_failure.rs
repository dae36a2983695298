//! Judges the failures that a stream reports in its events, before its first output and after it.

use std::time::Duration;

use crate::{
    endpoint::{Endpoint, EndpointClass},
    policy::Verdict,
    proxy::turn::verdict::VerdictRules,
    scan::{StreamFailure, event_notice},
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

/// How much an event says about its failure. Of two events, the one that says more counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// Nothing.
    Nothing,
    /// Its type, which may be no more than `server_error`.
    Type,
    /// Its code, or that a limit has been reached.
    Code,
    /// When the limit resets, or that the credential is refused.
    Everything,
}

/// Whether the failures in the streams of `endpoint` are failures of the upstream. A stored response that is read once
/// more may have failed long ago.
pub(super) fn is_judged(endpoint: Endpoint) -> bool {
    endpoint.class() == EndpointClass::Generation
}

impl FailureContext<'_> {
    /// Judges `failure` by the events that have come so far. `unix_now` is the time since 1970.
    ///
    /// Of an `error` event and the event that ends the stream, the one that says more counts: the code of the first one is
    /// often `null`.
    pub fn judge(&self, failure: StreamFailure<'_>, unix_now: Duration) -> FailureVerdict {
        let read = |data| self.read(data, unix_now);
        let (certainty, verdict) = match (failure.error.map(read), failure.last.map(read)) {
            (Some(error), Some(last)) if error.0 < last.0 => last,
            (error, last) => error.or(last).expect("a failure has at least one event"),
        };
        // In a Messages stream, no event follows the error.
        let is_last = failure.last.is_some() || self.endpoint == Endpoint::Messages;
        let says_enough = match verdict {
            // The next event may name the reset.
            Verdict::Limited { .. } => certainty >= Certainty::Everything,
            _ => certainty >= Certainty::Code,
        };
        match is_last || says_enough {
            true => FailureVerdict::Final(verdict),
            false => FailureVerdict::Preliminary(verdict),
        }
    }

    /// Reads the data of an event. An event that cannot be read is a failure without facts.
    fn read(&self, data: &[u8], unix_now: Duration) -> (Certainty, Verdict) {
        let notice = event_notice(data, self.model, unix_now).unwrap_or_default();
        let verdict = self.rules.of_failed_stream(&notice);
        let certainty = match verdict {
            Verdict::Refused | Verdict::Limited { reset: Some(_), .. } => Certainty::Everything,
            Verdict::Limited { .. } => Certainty::Code,
            _ if notice.code.is_some() => Certainty::Code,
            _ if notice.kind.is_some() => Certainty::Type,
            _ => Certainty::Nothing,
        };
        (certainty, verdict)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing;

    const LIMITED: &str = r#"{"type":"error","code":"rate_limit_exceeded"}"#;
    const FAILED: &str = r#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded"}}}"#;
    const NAMED: &str = r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Try again in 9s."}}}"#;
    const NO_FACTS: &str = r#"{"type":"error","code":null}"#;
    const NO_FACTS_AT_END: &str = r#"{"type":"response.failed","response":{"error":null}}"#;
    const TYPE_ONLY: &str = r#"{"type":"error","error":{"type":"overloaded_error"}}"#;

    /// A verdict in short: whether it is final, and the seconds of the reset or the name.
    async fn judge(endpoint: Endpoint, error: Option<&str>, last: Option<&str>) -> (bool, String) {
        let gateway = testing::gateway("");
        let snapshot = gateway.snapshot();
        let context = FailureContext {
            endpoint,
            model: None,
            rules: VerdictRules::new(Endpoint::Responses, None, &snapshot.upstreams()[0]),
        };
        let failure = StreamFailure {
            error: error.map(str::as_bytes),
            last: last.map(str::as_bytes),
        };
        let verdict = context.judge(failure, Duration::ZERO);
        let shown = match verdict.verdict() {
            Verdict::Limited { reset, .. } => format!("limited {:?}", reset.map(|reset| reset.as_secs())),
            other => format!("{other:?}"),
        };
        (matches!(verdict, FailureVerdict::Final(_)), shown)
    }

    #[tokio::test]
    async fn of_two_events_the_one_that_says_more_counts() {
        use Endpoint::{Messages, Responses};
        for (endpoint, error, last, expected) in [
            (Responses, Some(LIMITED), None, (false, "limited None")),
            (Messages, Some(LIMITED), None, (true, "limited None")),
            (Responses, Some(LIMITED), Some(FAILED), (true, "limited None")),
            (Responses, Some(LIMITED), Some(NAMED), (true, "limited Some(9)")),
            (Responses, Some(NO_FACTS), Some(NAMED), (true, "limited Some(9)")),
            (Responses, Some(NO_FACTS), Some(FAILED), (true, "Failed")),
            (Responses, Some(TYPE_ONLY), None, (false, "Failed")),
            (Responses, Some(TYPE_ONLY), Some(NO_FACTS_AT_END), (true, "Failed")),
            (Responses, Some(TYPE_ONLY), Some(NAMED), (true, "limited Some(9)")),
            (Responses, None, Some(FAILED), (true, "Failed")),
            (Messages, Some(TYPE_ONLY), None, (true, "Failed")),
        ] {
            let found = judge(endpoint, error, last).await;
            assert_eq!((found.0, &*found.1), expected, "{endpoint:?} {error:?} {last:?}");
        }
        let (is_final, _) = judge(Responses, Some(NO_FACTS), None).await;
        assert!(!is_final, "the next event may have a code");
    }

    #[test]
    fn stored_responses_are_not_judged() {
        assert!(
            is_judged(Endpoint::Responses) && is_judged(Endpoint::ChatCompletions) && is_judged(Endpoint::Messages)
        );
        assert!(!is_judged(Endpoint::Response));
    }
}
