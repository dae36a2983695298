//! Charges a request to the client key that sent it.
//!
//! A request is admitted if any tokens are left. When its body has been read, an estimate of its tokens is charged, which
//! follows from the length of the body and from the images, recordings and files in it. When the request
//! has ended, the reported usage of the upstream replaces the estimate. If no upstream has worked on the request, it
//! costs nothing.

use std::sync::Arc;

use http::StatusCode;

use crate::{
    fault::Fault,
    ids::OwnedKey,
    policy::{limiter::Denial, tokens::estimated},
    scan::{ResponseReader, Usage},
    state::{DeferredCharges, Permit, RateLimits},
};

/// The approximate number of bytes of an event stream per token. Each token comes in an event of its own.
const STREAM_BYTES_PER_TOKEN: u64 = 256;

/// The charge of one request to its client key. It ends once: by [`Charge::end`], or when it is dropped.
#[derive(Default)]
pub(in crate::proxy) struct Charge {
    /// The request's place within the limits; `None` if the caller's key has no limits.
    permit: Option<Permit>,
    /// The cost of the request if the upstream reports no usage.
    unreported: UnreportedCost,
}

/// The cost of a request whose usage is not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnreportedCost {
    /// The request costs nothing, because no upstream has begun it, or none has served it.
    #[default]
    Nothing,
    /// The request costs its estimate, because an upstream may have worked on it.
    Estimate,
}

/// The usage of a request that is known at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum FinalUsage {
    /// The upstream has reported the usage.
    Reported(Usage),
    /// The upstream has not reported the usage. `stream_bytes` is the number of bytes of an event stream that have been
    /// passed on; 0 if the response is no stream.
    Unreported { stream_bytes: u64 },
    /// The response is still being made, in the background. A later request will learn its usage.
    Deferred { response: OwnedKey, stream_bytes: u64 },
    /// The usage of a response that an earlier request has made in the background. That request pays for it.
    Settled { response: OwnedKey, usage: Usage },
    /// The usage of the response that this request has made, which another request has counted already. This request pays
    /// for it.
    CountedElsewhere(Usage),
    /// The answer has no usage that must be counted: an earlier request has counted it, or another one will.
    CountedBefore,
}

impl FinalUsage {
    /// Nothing is known, and nothing has been streamed.
    pub const NONE: Self = Self::Unreported { stream_bytes: 0 };

    /// The usage that `reader` has read, in an answer of which `bytes` have been passed on.
    pub fn of_reader(reader: &ResponseReader, bytes: u64) -> Self {
        match reader.usage() {
            Some(usage) => Self::Reported(usage),
            None if reader.is_stream() => Self::Unreported { stream_bytes: bytes },
            None => Self::NONE,
        }
    }

    /// The usage that counts for the upstream and the group now.
    pub fn counted(self) -> Option<Usage> {
        match self {
            Self::Reported(usage) | Self::Settled { usage, .. } => Some(usage),
            Self::Unreported { .. } | Self::Deferred { .. } | Self::CountedElsewhere(_) | Self::CountedBefore => None,
        }
    }
}

impl Charge {
    /// Admits a request if the limits of its key allow it. `prompt_bytes` is the number of bytes that its prompt has at least.
    /// Without limits every request is admitted.
    ///
    /// # Errors
    /// [`Fault::RateLimited`] if a limit is reached.
    pub fn admit(&mut self, rate_limits: Option<&Arc<RateLimits>>, prompt_bytes: u64) -> Result<(), Fault> {
        if let Some(rate_limits) = rate_limits {
            let permit = rate_limits.admit(estimated(prompt_bytes)).map_err(rate_limited)?;
            self.permit = Some(permit);
        }
        Ok(())
    }

    /// Replaces the estimate after the body has been read. `prompt_bytes` is the length of a text that costs as many tokens as
    /// the body.
    ///
    /// # Errors
    /// [`Fault::RateLimited`] if the body is larger than estimated, so that a limit is reached.
    pub fn correct_estimate(&mut self, prompt_bytes: u64) -> Result<(), Fault> {
        match &mut self.permit {
            Some(permit) => permit.correct_estimate(estimated(prompt_bytes)).map_err(rate_limited),
            None => Ok(()),
        }
    }

    /// Notes that the request is about to be sent to an upstream, which may work on it from now on.
    pub fn mark_sent(&mut self) {
        self.unreported = UnreportedCost::Estimate;
    }

    /// Notes the status of the upstream's answer: only a request that was served costs something.
    pub fn mark_answered(&mut self, status: StatusCode) {
        self.unreported = match status.is_success() {
            true => UnreportedCost::Estimate,
            false => UnreportedCost::Nothing,
        };
    }

    /// Notes that Steadfast answers the request itself, which costs nothing.
    pub fn mark_own_answer(&mut self) {
        self.unreported = UnreportedCost::Nothing;
    }

    /// Ends the charge: the place is given back, and the usage is charged. If the usage is not reported, the request
    /// costs the estimate and the tokens that were streamed, because the client has received them. The cost of a response
    /// that is made in the background waits in `deferred` for its usage.
    pub fn end(mut self, usage: FinalUsage, deferred: &DeferredCharges) {
        if let FinalUsage::Settled { response, usage } = usage
            && let Some(charge) = deferred.take(response)
        {
            charge.settle(usage.total());
        }
        if let FinalUsage::Deferred { response, stream_bytes } = usage
            && let Some(permit) = self.permit.take()
        {
            return deferred.insert(response, permit.defer(stream_bytes / STREAM_BYTES_PER_TOKEN));
        }
        self.charge(usage);
    }

    fn charge(&mut self, usage: FinalUsage) {
        let Some(permit) = self.permit.take() else { return };
        match (usage, self.unreported) {
            (FinalUsage::Reported(usage) | FinalUsage::CountedElsewhere(usage), _) => permit.charge(usage.total()),
            (
                FinalUsage::Unreported { stream_bytes } | FinalUsage::Deferred { stream_bytes, .. },
                UnreportedCost::Estimate,
            ) => permit.charge_estimate(stream_bytes / STREAM_BYTES_PER_TOKEN),
            (FinalUsage::Unreported { .. } | FinalUsage::Deferred { .. }, UnreportedCost::Nothing)
            | (FinalUsage::Settled { .. } | FinalUsage::CountedBefore, _) => permit.charge(0),
        }
    }
}

impl Drop for Charge {
    /// Ends the charge of a request that was dropped before it had an answer.
    fn drop(&mut self) {
        self.charge(FinalUsage::NONE);
    }
}

fn rate_limited(denial: Denial) -> Fault {
    Fault::RateLimited {
        kind: denial.limit,
        limit: denial.allowed,
        retry: denial.retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::LimitKind,
        ids::{Namespace, ObjectId},
        proxy::testing,
    };

    /// A key that may use 1,000 tokens a minute and send two requests at a time.
    fn limited_key() -> Arc<RateLimits> {
        testing::limited_key("tokens_per_minute = 1000\nmax_concurrent = 2\n")
            .rate_limits
            .clone()
            .expect("a limited key")
    }

    fn remaining(rate_limits: &RateLimits) -> u64 {
        rate_limits.usage().tokens.expect("a limit on tokens").remaining
    }

    /// The events of a request before its end.
    #[derive(Clone, Copy, Debug)]
    enum ChargeProgress {
        Admitted,
        Sent,
        Answered(StatusCode),
        AnsweredHere,
    }

    #[tokio::test]
    async fn a_request_costs_its_reported_usage_or_its_estimate_if_an_upstream_may_have_worked() {
        let usage = Usage {
            input_tokens: 300,
            cached_input_tokens: 200,
            cache_write_tokens: 0,
            output_tokens: 50,
            reasoning_tokens: 0,
        };
        let reported = FinalUsage::Reported(usage);
        let unreported = FinalUsage::NONE;
        let stream = FinalUsage::Unreported { stream_bytes: 2_560 };
        let (served, refused) = (
            ChargeProgress::Answered(StatusCode::OK),
            ChargeProgress::Answered(StatusCode::BAD_REQUEST),
        );
        let deferred = DeferredCharges::default();
        for (progress, end, cost) in [
            (ChargeProgress::Admitted, None, 0),
            (ChargeProgress::Admitted, Some(unreported), 0),
            (ChargeProgress::Sent, None, 100),
            (ChargeProgress::Sent, Some(unreported), 100),
            (served, Some(reported), 350),
            (served, Some(unreported), 100),
            (served, Some(stream), 110),
            (served, None, 100),
            (served, Some(FinalUsage::CountedElsewhere(usage)), 350),
            (served, Some(FinalUsage::CountedBefore), 0),
            (refused, Some(stream), 0),
            (ChargeProgress::AnsweredHere, Some(unreported), 0),
        ] {
            let rate_limits = limited_key();
            let mut charge = Charge::default();
            charge.admit(Some(&rate_limits), 400).expect("within the limits");
            assert_eq!(remaining(&rate_limits), 900);
            match progress {
                ChargeProgress::Admitted => {}
                ChargeProgress::Sent => charge.mark_sent(),
                ChargeProgress::Answered(status) => charge.mark_answered(status),
                ChargeProgress::AnsweredHere => {
                    charge.mark_sent();
                    charge.mark_own_answer();
                }
            }
            match end {
                Some(usage) => charge.end(usage, &deferred),
                None => drop(charge),
            }
            assert_eq!(remaining(&rate_limits), 1_000 - cost, "{progress:?}, {end:?}");
        }
    }

    #[tokio::test]
    async fn the_cost_of_a_background_response_is_settled_by_the_request_that_learns_its_usage() {
        let (maker, reader) = (limited_key(), limited_key());
        let deferred = DeferredCharges::default();
        let charge = |rate_limits, bytes| {
            let mut charge = Charge::default();
            charge.admit(Some(rate_limits), bytes).expect("within the limits");
            charge.mark_answered(StatusCode::OK);
            charge
        };
        let response = OwnedKey::from_object(Namespace::of_group(""), ObjectId::from_text(b"resp_1"));
        for (streamed, input_tokens, left) in [(0, 30, 970), (2_560, 500, 470)] {
            charge(&maker, 400).end(
                FinalUsage::Deferred {
                    response,
                    stream_bytes: streamed,
                },
                &deferred,
            );
            charge(&reader, 0).end(FinalUsage::CountedBefore, &deferred);
            let usage = Usage {
                input_tokens,
                ..Usage::default()
            };
            charge(&reader, 0).end(FinalUsage::Settled { response, usage }, &deferred);
            assert_eq!((remaining(&maker), remaining(&reader)), (left, 1_000));
            charge(&reader, 0).end(FinalUsage::Settled { response, usage }, &deferred);
            assert_eq!(remaining(&maker), left, "there is nothing more to settle");
        }
    }

    #[tokio::test]
    async fn a_request_over_a_limit_is_refused_and_a_place_is_given_back_at_the_end() {
        let rate_limits = limited_key();
        let admit = |bytes| {
            let mut charge = Charge::default();
            charge.admit(Some(&rate_limits), bytes).map(|()| charge)
        };
        let kind = |result: Result<(), Fault>| match result {
            Err(Fault::RateLimited { kind, .. }) => Some(kind),
            _ => None,
        };
        let (mut first, second) = (admit(0).expect("room"), admit(2_000).expect("room"));
        assert_eq!(kind(admit(0).map(drop)), Some(LimitKind::Concurrent));
        assert_eq!(kind(first.correct_estimate(2_004)), Some(LimitKind::Tokens));
        assert_eq!(first.correct_estimate(2_000), Ok(()));
        second.end(FinalUsage::NONE, &DeferredCharges::default());
        assert!(admit(0).is_ok());
    }

    #[test]
    fn a_key_without_limits_is_charged_nothing() {
        let mut charge = Charge::default();
        assert_eq!(charge.admit(None, u64::MAX), Ok(()));
        assert_eq!(charge.correct_estimate(u64::MAX), Ok(()));
        charge.end(FinalUsage::NONE, &DeferredCharges::default());
    }
}
