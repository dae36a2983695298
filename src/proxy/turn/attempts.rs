//! The attempt loop: sends a request to one upstream after the other, until one gives an answer to pass on.
//!
//! While the loop runs, no part of an answer has reached the caller, so the request can be sent again. This needs four
//! things: its body is still kept, attempts are left, the retry budget grants a retry, and there is an upstream that
//! has not failed yet. After a limit or a refused credential, no retry is needed: the upstream has done no work. After the
//! answer that the upstream does not have the model, no attempt is needed either.
//!
//! An answer with a limit that the turn waits out is not counted: when the upstream is asked again after the reset, that
//! costs neither an attempt nor a retry. So a turn that may go to no other upstream still waits for those that have
//! limited it. Waiting is bounded by time.
//!
//! An answer that says that an object is not there begins a search for the object, see `search`.
//!
//! The failure of an upstream may be the fault of the request. So failures are withheld from the health of upstreams
//! until another upstream serves the same request. A failed dial is no fault of the request and counts at once. A timeout
//! counts as nothing: the upstream may still be working. If this process itself lacks something for a connection, such as
//! a file descriptor, that says nothing about any upstream. The turn ends then, and its session stays where its cache is.
//!
//! The sender is a parameter, see [`RequestSender`]. The loop decides what a failure means for the turn and for the
//! health of its upstream; the sender only reports what has happened.

mod last_word;
mod search;
mod sender;

use std::{mem, time::Duration};

use tokio::time::{Instant, timeout};

use self::last_word::{FailedAttempt, FailureKind, LastWord, last_word};
pub(in crate::proxy) use self::{
    last_word::TurnAnswer,
    sender::{BufferedRest, RefusalCheck, Repeatability, RequestSender, SendFailure, SendResult, UpstreamAnswer},
};
use super::{
    limits::Charge,
    pick::{PickedUpstream, Turn},
    verdict,
};
use crate::{
    fault::Fault,
    policy::{Availability, MemberIndex, Verdict},
    proxy::request_log::RequestLog,
    state::{FailoverReason, Lease, NoLabels, Snapshot, Upstream, WithheldFailure},
};

#[cfg(test)]
mod tests;

/// The maximum number of times that a request is sent, however many limits it waits out.
const MAX_SENT: u32 = 1_000;
/// The maximum time that a request waits for the check of a credential by another request.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

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
        withheld: Vec::new(),
    };
    let result = attempts.run(complete_since).await;
    attempts.conclude(result.as_ref().ok(), complete_since);
    result.or_else(|last| last_word(last.map(|failed| failed.last_word), &attempts.turn).map(|kept| *kept))
}

/// The error of the loop: the last failed attempt.
type LoopError<'a, R> = Option<Box<FailedAttempt<'a, R>>>;

/// The loop over upstreams.
struct Attempts<'a, 'r, S> {
    turn: Turn<'a>,
    sender: S,
    log: &'r mut RequestLog,
    charge: &'r mut Charge,
    /// The failures that count if another upstream serves the request.
    withheld: Vec<WithheldFailure>,
}

impl<'a, S: RequestSender> Attempts<'a, '_, S> {
    async fn run(
        &mut self,
        complete_since: Instant,
    ) -> Result<TurnAnswer<'a, S::Response>, LoopError<'a, S::Response>> {
        let mut last: Option<Box<FailedAttempt<'a, S::Response>>> = None;
        // The requests sent so far, without those that repeat one whose limit was waited out.
        let mut used = 0;
        for number in 1..=MAX_SENT {
            if used == self.turn.snapshot().attempts && !self.turn.confine_to_limited() {
                break;
            }
            let Some(picked) = self.turn.next_upstream().await else {
                break;
            };
            let is_free = self.turn.has_waited_out(picked.index);
            let costs_retry = !is_free && last.as_ref().is_some_and(|failed| failed.kind.costs_retry());
            if costs_retry && !self.turn.try_spend_retry() {
                // The slot is given back before the request waits.
                drop(picked);
                if self.turn.confine_to_limited() {
                    continue;
                }
                break;
            }
            self.observe_next(last.as_deref(), &picked, complete_since);
            let result = self.attempt(picked).await;
            self.log.record_attempt(number, self.turn.waited());
            let failed = match result {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            used += u32::from(!is_free && failed.kind.counts());
            match failed.kind {
                // The future is boxed, because searches are rare and a request's future is as large as its largest branch.
                FailureKind::NotFound => return Box::pin(self.search(failed, number)).await,
                FailureKind::ModelNotFound => self.turn.mark_without_model(failed.index),
                FailureKind::LimitedForNow => self.turn.mark_limited(failed.index),
                FailureKind::Failed | FailureKind::Refused | FailureKind::Unclear | FailureKind::NotSent => {
                    self.turn.mark_failed(failed.index)
                }
            }
            self.turn.record_failed_attempt(failed.upstream, failed.kind.evidence());
            let may_go_on = failed.failover.is_some() && self.sender.has_body() && !self.turn.is_probe();
            last = Some(failed.after(last.take()));
            if !may_go_on {
                break;
            }
        }
        Err(last)
    }

    /// Draws the consequences of the turn's result: `answer` is passed on, or no upstream had one. This is the only place
    /// where the result is known.
    fn conclude(&mut self, answer: Option<&TurnAnswer<'a, S::Response>>, complete_since: Instant) {
        let withheld = mem::take(&mut self.withheld);
        let Some(answer) = answer else {
            return self.turn.end_failed(complete_since.elapsed());
        };
        if answer.answer.verdict == Verdict::Served {
            // Another upstream has served the request, so the request was not the cause of the failures.
            withheld.into_iter().for_each(WithheldFailure::count);
        }
        self.turn.end_answered(answer.upstream);
    }

    fn is_repeatable(&self) -> bool {
        self.sender.repeatability() != Repeatability::Once
    }

    /// Counts a request that is sent for the first time, or a failover.
    fn observe_next(
        &self,
        last: Option<&FailedAttempt<'a, S::Response>>,
        picked: &PickedUpstream<'a>,
        complete_since: Instant,
    ) {
        let Some(failed) = last else {
            let overhead = complete_since.elapsed().saturating_sub(self.turn.waited());
            let gateway = self.turn.gateway();
            gateway.runtime.retries.count_request();
            gateway.metrics.proxy_overhead.observe(NoLabels, overhead);
            return;
        };
        if failed.index != picked.index {
            let reason = failed
                .failover
                .expect("the loop ends after a failure without a failover");
            failed.upstream.state.metrics.failovers.increment(reason);
        }
    }

    /// Sends the request to the upstream that was picked, and reports the result to its health.
    async fn attempt(
        &mut self,
        picked: PickedUpstream<'a>,
    ) -> Result<TurnAnswer<'a, S::Response>, Box<FailedAttempt<'a, S::Response>>> {
        let PickedUpstream {
            upstream,
            index,
            route,
            mut lease,
            ..
        } = picked;
        self.charge.mark_sent();
        let mut answer = match self.sender.send(upstream).await {
            Ok(answer) => answer,
            Err(failure) => return Err(self.record_unanswered(failure, upstream, index, lease)),
        };
        if answer.verdict == Verdict::ObjectNotFound && !(self.sender.has_body() && self.turn.may_search(index)) {
            answer.verdict = Verdict::Answered;
        }
        match answer.verdict {
            // The failure is withheld when the lease is given back.
            Verdict::Failed => {}
            // The future is boxed, because such answers are rare and a request's future is as large as its largest branch.
            Verdict::Unauthorized => {
                answer.verdict = Box::pin(self.confirm_refusal(upstream, index, &mut lease)).await;
            }
            verdict => lease.report(verdict),
        }
        let verdict = answer.verdict;
        let mut answer = TurnAnswer {
            answer,
            upstream,
            route,
            namespace: self.turn.namespace(),
            session: self.turn.class_session(),
            lease: Some(lease),
        };
        if verdict.fails_over() {
            // The future is boxed for the same reason.
            return Err(Box::pin(self.keep_failed_answer(answer, index)).await);
        }
        if verdict == Verdict::Served {
            self.turn.confirm(upstream);
            if let Some(lease) = &answer.lease {
                let models = &self.turn.gateway().runtime.model_times;
                lease.record_first_output(S::response_kind(&answer.answer.response), models);
            }
        }
        let status = answer.answer.status;
        if status.is_client_error() || status.is_server_error() {
            Box::pin(S::buffer_error(&mut answer.answer.response)).await;
        }
        Ok(answer)
    }

    /// Decides whether an answer concerns the credential or only the request, and reports that to the upstream's health.
    ///
    /// One request at a time asks the upstream. The others wait for its result.
    async fn confirm_refusal(&mut self, upstream: &'a Upstream, index: MemberIndex, lease: &mut Lease) -> Verdict {
        let lock = upstream.state.refusal_check();
        let first = lock.try_lock();
        let check = match &first {
            Ok(_) => self.sender.confirm_refusal(upstream).await,
            Err(_) => {
                // A check that takes longer has no result either.
                let _ = timeout(CHECK_TIMEOUT, lock.lock()).await;
                match self.turn.availability(index) {
                    Availability::Disabled { .. } => RefusalCheck::Refused,
                    _ => RefusalCheck::NotRefused,
                }
            }
        };
        let verdict = match check {
            RefusalCheck::Refused => Verdict::Refused,
            RefusalCheck::NotRefused => Verdict::Answered,
            // Nothing is known of the upstream, so nothing is reported.
            RefusalCheck::NotAsked => return Verdict::Answered,
        };
        // The lock is still held, so that the other requests see the result.
        lease.report(verdict);
        verdict
    }

    /// Handles an answer that is passed on only if no other upstream gives a better one. The answer is kept, but its
    /// slot at the upstream is given back: a request that may wait for a slot must not hold one.
    async fn keep_failed_answer(
        &mut self,
        mut kept: TurnAnswer<'a, S::Response>,
        index: MemberIndex,
    ) -> Box<FailedAttempt<'a, S::Response>> {
        let (upstream, answer) = (kept.upstream, &mut kept.answer);
        let (verdict, status) = (answer.verdict, answer.status);
        let reason = FailoverReason::from_verdict(verdict);
        if let Some(reason) = reason {
            upstream.state.metrics.failed_attempts.increment(reason);
        }
        // The rest is also read if it is not needed: then the connection can be used again.
        let rest = S::buffer_error(&mut answer.response).await;
        let lease = kept.lease.take().expect("the lease is held until here");
        let kind = match verdict {
            Verdict::Failed => {
                self.withheld.extend(lease.withhold_failure());
                FailureKind::Failed
            }
            Verdict::Limited { .. } if self.turn.can_wait_out(index) => FailureKind::LimitedForNow,
            Verdict::ObjectNotFound => FailureKind::NotFound,
            Verdict::ModelNotFound => FailureKind::ModelNotFound,
            _ => FailureKind::Refused,
        };
        let may_go_on = self.is_repeatable() || verdict::did_no_work(verdict, status);
        let name = shown_name(self.turn.snapshot(), upstream);
        // A request that may wait must not hold a connection either, and an incomplete answer is of no use.
        let can_be_kept = match rest {
            BufferedRest::Whole => true,
            BufferedRest::Partial => matches!(verdict, Verdict::Failed | Verdict::ObjectNotFound),
            BufferedRest::Broken => false,
        };
        Box::new(FailedAttempt {
            upstream,
            index,
            failover: reason.filter(|_| may_go_on),
            kind,
            last_word: match verdict {
                Verdict::Refused => LastWord::Refused(name),
                // An overload that names its end is passed on: a client knows what the status means.
                Verdict::Limited { .. } if !status.is_server_error() => LastWord::Limited,
                Verdict::ModelNotFound if can_be_kept => LastWord::ModelNotFound(Box::new(kept)),
                _ if can_be_kept => LastWord::Answer(Box::new(kept)),
                _ => LastWord::Fault(Fault::UpstreamBroken { upstream: name }),
            },
        })
    }

    /// Handles an attempt without an answer.
    fn record_unanswered(
        &mut self,
        failure: SendFailure,
        upstream: &'a Upstream,
        index: MemberIndex,
        mut lease: Lease,
    ) -> Box<FailedAttempt<'a, S::Response>> {
        let name = shown_name(self.turn.snapshot(), upstream);
        let failed_attempts = &upstream.state.metrics.failed_attempts;
        let (failover, kind, fault) = match failure {
            SendFailure::NotSendable(fault) => (None, FailureKind::NotSent, fault),
            SendFailure::RequestBody(fault) => (None, FailureKind::Unclear, fault),
            SendFailure::Unreachable => {
                failed_attempts.increment(FailoverReason::Connect);
                lease.report(Verdict::Failed);
                let fault = Fault::UpstreamUnreachable { upstream: name };
                (Some(FailoverReason::Connect), FailureKind::Failed, fault)
            }
            // The slot is given back without a verdict, so that the next request is the probe if this one was.
            SendFailure::Shortage(shortage) => {
                let shortage = shortage.noun();
                (None, FailureKind::NotSent, Fault::Overloaded { shortage })
            }
            SendFailure::Timeout(limit) => {
                failed_attempts.increment(FailoverReason::Timeout);
                // The upstream may be working on the request, so it has not failed. Only a probe fails by this: it has not
                // shown that the upstream works.
                drop(lease.withhold_failure());
                let failover = Some(FailoverReason::Timeout).filter(|_| self.may_repeat_after_timeout());
                let fault = Fault::UpstreamTimeout { upstream: name, limit };
                (failover, FailureKind::Unclear, fault)
            }
            SendFailure::Broken => {
                failed_attempts.increment(FailoverReason::Broken);
                self.withheld.extend(lease.withhold_failure());
                let failover = Some(FailoverReason::Broken).filter(|_| self.is_repeatable());
                (failover, FailureKind::Failed, Fault::UpstreamBroken { upstream: name })
            }
        };
        Box::new(FailedAttempt {
            upstream,
            index,
            failover,
            kind,
            last_word: LastWord::Fault(fault),
        })
    }

    /// Whether the request may be sent to another upstream after one has not answered in time. A generation may still be
    /// running there, so it is begun a second time only if the operator has allowed it.
    fn may_repeat_after_timeout(&self) -> bool {
        match self.sender.repeatability() {
            Repeatability::Safe => true,
            Repeatability::Repeatable => self.turn.snapshot().retries_timeouts,
            Repeatability::Once => false,
        }
    }
}

/// The name of the upstream for an error message; `None` if callers are not told which upstream serves them.
fn shown_name(snapshot: &Snapshot, upstream: &Upstream) -> Option<String> {
    snapshot.route_headers.then(|| upstream.name.to_string())
}
