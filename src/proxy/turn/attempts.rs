//! The attempt loop: sends a request to one upstream after the other, until one gives an answer to pass on.
//!
//! While the loop runs, no part of an answer has reached the caller, so the request can be sent again. This needs four
//! things: its body is still kept, attempts are left, the retry budget grants a retry, and there is an upstream that
//! has not failed yet.
//!
//! The sender is a parameter, see [`RequestSender`]. The loop decides what a failure means for the turn and for the
//! health of its upstream; the sender only reports what has happened.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::{
    limits::Charge,
    pick::{PickedUpstream, Turn},
    verdict,
};
use crate::{
    fault::Fault,
    ids::Namespace,
    policy::{MemberIndex, Route, Verdict, outlier::ResponseKind},
    proxy::request_log::RequestLog,
    state::{FailoverReason, Lease, NoLabels, Snapshot, Upstream},
};

#[cfg(test)]
mod tests;

/// Sends one request to upstreams: over HTTP, or as a script in tests.
pub(in crate::proxy) trait RequestSender: Send {
    /// An answer of an upstream, its body still to come.
    type Response: Send;

    /// Whether the request may be sent again although an upstream may have begun it.
    fn repeatability(&self) -> Repeatability;

    /// Whether the body of the request can still be sent: it is kept, or nothing of it has been sent.
    fn has_body(&self) -> bool;

    /// Sends the request to `upstream`, and reads the meaning of its answer.
    fn send(&mut self, upstream: &Upstream) -> impl Future<Output = SendResult<Self::Response>> + Send;

    /// The kind of `response`, for the comparison of times.
    fn response_kind(response: &Self::Response) -> ResponseKind;

    /// Reads the rest of an error answer if it is short and arrives soon, and masks the upstream's secrets in it.
    fn buffer_error(response: &mut Self::Response, upstream: &Upstream) -> impl Future<Output = BufferedRest> + Send;
}

/// Whether a request may be sent again although an upstream may have begun it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Repeatability {
    /// The request may be sent again: it is idempotent, or it is a generation, for which the caller pays twice at
    /// worst.
    Repeatable,
    /// The request may not be sent again.
    Once,
}

/// An answer of an upstream, and what it means.
pub(in crate::proxy) struct UpstreamAnswer<R> {
    pub response: R,
    pub status: StatusCode,
    pub verdict: Verdict,
}

/// The result of an attempt.
pub(in crate::proxy) type SendResult<R> = Result<UpstreamAnswer<R>, SendFailure>;

/// Why an attempt has no answer.
#[derive(Debug)]
pub(in crate::proxy) enum SendFailure {
    /// The request cannot be sent to this upstream: the caller has to change it.
    NotSendable(Fault),
    /// The caller's body ended early while it was passed on. The upstream is not the cause.
    RequestBody(Fault),
    /// No connection to the upstream could be made.
    Unreachable,
    /// The upstream sent no response head within this time.
    Timeout(Duration),
    /// The connection broke, or the upstream answered something that is not HTTP.
    Broken,
}

/// The part of an error answer that is buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum BufferedRest {
    /// The whole answer, which no longer needs its connection.
    Whole,
    /// The beginning of the answer. The rest still comes from its connection.
    Partial,
    /// The part of the answer that arrived before the connection broke.
    Broken,
}

/// The answer that a turn ends with.
pub(in crate::proxy) struct TurnAnswer<'a, R> {
    pub answer: UpstreamAnswer<R>,
    pub upstream: &'a Upstream,
    /// Why the turn went to this upstream.
    pub route: Route,
    /// The namespace of the caller's group.
    pub namespace: Namespace,
    /// The slot at the upstream, held until the response ends. `None` for an error that was kept while other upstreams were
    /// tried: a request that waits for another slot must not hold one.
    pub lease: Option<Lease>,
}

/// A failed attempt.
struct FailedAttempt<'a, R> {
    upstream: &'a Upstream,
    index: MemberIndex,
    /// Why the request may go to another upstream; `None` if it may not.
    failover: Option<FailoverReason>,
    /// Whether the upstream has reported a limit.
    is_limited: bool,
    last_word: LastWord<'a, R>,
}

/// The answer for the caller if no other upstream gives a better one.
enum LastWord<'a, R> {
    /// The upstream's own error.
    Answer(Box<TurnAnswer<'a, R>>),
    /// An error from Steadfast.
    Fault(Fault),
}

/// Sends the request of `turn` with `sender` until an upstream gives an answer to pass on. `complete_since` is the time
/// at which the request was complete. The time from there to the first attempt, without waiting, is Steadfast's
/// overhead.
///
/// # Errors
/// The [`Fault`] that the caller gets if no upstream has an answer to pass on.
pub(in crate::proxy) async fn run<'a, S: RequestSender>(
    turn: Turn<'a>,
    sender: S,
    log: &mut RequestLog,
    charge: &mut Charge,
    complete_since: Instant,
) -> Result<TurnAnswer<'a, S::Response>, Fault> {
    let mut attempts = Attempts {
        turn,
        sender,
        log,
        charge,
    };
    attempts.run(complete_since).await
}

/// The loop over upstreams.
struct Attempts<'a, 'r, S> {
    turn: Turn<'a>,
    sender: S,
    log: &'r mut RequestLog,
    charge: &'r mut Charge,
}

impl<'a, S: RequestSender> Attempts<'a, '_, S> {
    async fn run(&mut self, complete_since: Instant) -> Result<TurnAnswer<'a, S::Response>, Fault> {
        let mut last: Option<FailedAttempt<'a, S::Response>> = None;
        for number in 1..=self.turn.snapshot().attempts {
            let Some(picked) = self.turn.next_upstream().await else {
                break;
            };
            if last.is_some() && !self.turn.try_spend_retry() {
                break;
            }
            match &last {
                None => self.observe_overhead(complete_since),
                Some(failed) if failed.index != picked.index => {
                    let reason = failed
                        .failover
                        .expect("the loop ends after a failure without a failover");
                    failed.upstream.state.metrics.failovers.increment(reason);
                }
                Some(_) => {}
            }
            let result = self.attempt(picked).await;
            self.log.record_attempt(number, self.turn.waited());
            let failed = match result {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if !(failed.is_limited && self.turn.is_worth_waiting_for(failed.index)) {
                self.turn.mark_failed(failed.index);
            }
            let may_go_on = failed.failover.is_some() && self.sender.has_body();
            last = Some(failed);
            if !may_go_on {
                break;
            }
        }
        last_word(last, self.turn.fault_when_none_is_left())
    }

    fn is_repeatable(&self) -> bool {
        self.sender.repeatability() == Repeatability::Repeatable
    }

    fn observe_overhead(&self, complete_since: Instant) {
        let overhead = complete_since.elapsed().saturating_sub(self.turn.waited());
        let gateway = self.turn.gateway();
        gateway.runtime.retries.count_request();
        gateway.metrics.proxy_overhead.observe(NoLabels, overhead);
    }

    /// Sends the request to the upstream that was picked, and reports the result to its health.
    async fn attempt(
        &mut self,
        picked: PickedUpstream<'a>,
    ) -> Result<TurnAnswer<'a, S::Response>, FailedAttempt<'a, S::Response>> {
        let PickedUpstream {
            upstream,
            index,
            route,
            mut lease,
            ..
        } = picked;
        self.charge.mark_sent();
        let answer = match self.sender.send(upstream).await {
            Ok(answer) => answer,
            Err(failure) => return Err(self.record_unanswered(failure, upstream, index, lease)),
        };
        let verdict = answer.verdict;
        lease.report(verdict);
        let mut answer = TurnAnswer {
            answer,
            upstream,
            route,
            namespace: self.turn.namespace(),
            lease: Some(lease),
        };
        if verdict.fails_over() {
            // The future is boxed, because failures are rare and a request's future is as large as its largest branch.
            return Err(Box::pin(self.keep_failed_answer(answer, index)).await);
        }
        if verdict == Verdict::Served {
            self.turn.confirm(upstream);
            if let Some(lease) = &answer.lease {
                lease.record_first_output(S::response_kind(&answer.answer.response));
            }
        }
        let status = answer.answer.status;
        if status.is_client_error() || status.is_server_error() {
            Box::pin(S::buffer_error(&mut answer.answer.response, upstream)).await;
        }
        Ok(answer)
    }

    /// Handles an answer that is passed on only if no other upstream gives a better one. The answer is kept, but its
    /// slot at the upstream is given back: a request that may wait for a slot must not hold one.
    async fn keep_failed_answer(
        &self,
        mut kept: TurnAnswer<'a, S::Response>,
        index: MemberIndex,
    ) -> FailedAttempt<'a, S::Response> {
        let (upstream, answer) = (kept.upstream, &mut kept.answer);
        let (verdict, status) = (answer.verdict, answer.status);
        let is_limited = matches!(verdict, Verdict::Limited { .. });
        let rest = S::buffer_error(&mut answer.response, upstream).await;
        kept.lease = None;
        let may_go_on = self.is_repeatable() || verdict::did_no_work(verdict, status);
        // A request that may wait must not hold a connection either, and an incomplete answer is of no use.
        let can_be_kept = match rest {
            BufferedRest::Whole => true,
            BufferedRest::Partial => !is_limited,
            BufferedRest::Broken => false,
        };
        FailedAttempt {
            upstream,
            index,
            failover: FailoverReason::from_verdict(verdict).filter(|_| may_go_on),
            is_limited,
            last_word: match can_be_kept {
                true => LastWord::Answer(Box::new(kept)),
                false => LastWord::Fault(Fault::UpstreamBroken {
                    upstream: shown_name(self.turn.snapshot(), upstream),
                }),
            },
        }
    }

    /// Handles an attempt without an answer.
    fn record_unanswered(
        &self,
        failure: SendFailure,
        upstream: &'a Upstream,
        index: MemberIndex,
        mut lease: Lease,
    ) -> FailedAttempt<'a, S::Response> {
        let failover = match &failure {
            SendFailure::NotSendable(_) | SendFailure::RequestBody(_) => None,
            SendFailure::Unreachable => Some(FailoverReason::Connect),
            SendFailure::Timeout(_) => Some(FailoverReason::Timeout).filter(|_| self.is_repeatable()),
            SendFailure::Broken => Some(FailoverReason::Broken).filter(|_| self.is_repeatable()),
        };
        let name = shown_name(self.turn.snapshot(), upstream);
        let (fault, is_upstreams_failure) = match failure {
            SendFailure::NotSendable(fault) | SendFailure::RequestBody(fault) => (fault, false),
            SendFailure::Unreachable => (Fault::UpstreamUnreachable { upstream: name }, true),
            SendFailure::Timeout(limit) => (Fault::UpstreamTimeout { upstream: name, limit }, true),
            SendFailure::Broken => (Fault::UpstreamBroken { upstream: name }, true),
        };
        if is_upstreams_failure {
            lease.report(Verdict::Failed);
        }
        FailedAttempt {
            upstream,
            index,
            failover,
            is_limited: false,
            last_word: LastWord::Fault(fault),
        }
    }
}

/// Chooses the most useful answer for the caller: the time at which limits reset, if all upstreams are limited; else
/// the last upstream's own error; else the reason why there is no upstream.
fn last_word<R>(last: Option<FailedAttempt<'_, R>>, none_is_left: Fault) -> Result<TurnAnswer<'_, R>, Fault> {
    let is_limited = matches!(none_is_left, Fault::Limited { .. });
    match last.map(|failed| failed.last_word) {
        None => Err(none_is_left),
        Some(LastWord::Answer(kept)) => {
            match is_limited && verdict::is_usual_limit(kept.answer.verdict, kept.answer.status) {
                true => Err(none_is_left),
                false => Ok(*kept),
            }
        }
        Some(LastWord::Fault(_)) if is_limited => Err(none_is_left),
        Some(LastWord::Fault(fault)) => Err(fault),
    }
}

/// The name of the upstream for an error message; `None` if callers are not told which upstream serves them.
fn shown_name(snapshot: &Snapshot, upstream: &Upstream) -> Option<String> {
    snapshot.route_headers.then(|| upstream.name.to_string())
}
