//! Searches for the upstream that has an object, after one has answered that it does not have it.
//!
//! After a restart, at another replica, and for an object that was made without Steadfast, no owner is known. The upstream
//! that says so has done no work, so asking another one costs neither an attempt nor a retry. Each organization is asked at
//! most once. If none has the object, the caller gets the first answer.

use http::StatusCode;

use super::{
    Attempts, LoopError,
    last_word::{FailedAttempt, FailureKind, LastWord, TurnAnswer},
    sender::RequestSender,
};
use crate::{
    fault::Fault,
    policy::{Route, Verdict},
    proxy::turn::pick::PickedUpstream,
    state::FailoverReason,
};

impl<'a, S: RequestSender> Attempts<'a, '_, S> {
    /// Asks the upstreams of the other organizations for the object that the upstream of `first` does not have. `number`
    /// requests have been sent so far.
    pub(super) async fn search(
        &mut self,
        first: Box<FailedAttempt<'a, S::Response>>,
        mut number: u32,
    ) -> Result<TurnAnswer<'a, S::Response>, LoopError<'a, S::Response>> {
        let order = self.turn.search_order();
        let organization_of = |index| order.iter().find(|(other, _)| *other == index).map(|(_, it)| *it);
        let mut asked = Vec::from_iter(organization_of(first.index));
        for &(index, organization) in &order {
            if asked.contains(&organization) || !self.sender.has_body() {
                continue;
            }
            let Some((upstream, lease)) = self.turn.acquire_for_search(index).await else {
                continue;
            };
            let failovers = &first.upstream.state.metrics.failovers;
            failovers.increment(FailoverReason::ObjectNotFound);
            let route = Route::Owner;
            let picked = PickedUpstream {
                upstream,
                index,
                route,
                lease,
            };
            let result = self.attempt(picked).await;
            number += 1;
            self.log.record_attempt(number, self.turn.waited());
            match result {
                Ok(answer) if self.is_of_owner(answer.answer.verdict, answer.answer.status) => return Ok(answer),
                Ok(_) => asked.push(organization),
                Err(failed) if failed.kind == FailureKind::NotFound => asked.push(organization),
                // The request may be running there.
                Err(failed) if failed.failover.is_none() && failed.kind != FailureKind::NotSent => {
                    return Err(Some(failed));
                }
                // No other upstream can be asked now, so it is not known that none of them has the object.
                Err(failed) if matches!(failed.last_word, LastWord::Fault(Fault::Overloaded { .. })) => {
                    return Err(Some(failed));
                }
                Err(_) => {}
            }
        }
        if order.iter().all(|(_, organization)| asked.contains(organization)) {
            self.turn.record_absence(first.upstream);
        }
        match first.last_word {
            LastWord::Answer(answer) => Ok(*answer),
            _ => Err(Some(first)),
        }
    }

    /// Whether an answer comes from the upstream that has the object. Such an upstream may still refuse the operation, for
    /// example because a response that is to be cancelled is complete. If the object is in the body, an upstream may
    /// refuse the request before it looks for the object.
    fn is_of_owner(&self, verdict: Verdict, status: StatusCode) -> bool {
        let says_nothing = matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        );
        let is_refused = status.is_client_error() && !says_nothing && self.turn.searches_for_path();
        verdict == Verdict::Served || is_refused || status.is_redirection()
    }
}
