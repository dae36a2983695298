//! The fourth stage: call an upstream, and the next one if that fails, until there is an answer to pass on.
//!
//! Nothing of an answer has reached the caller while this goes on, so the request can be sent once more: as long as its
//! body is here, its attempts last, the retry budget has something left, and there is somebody who has not failed it.

use std::ops::Range;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use crate::proxy::{
    exchange::peek::{Answer, Question},
    request::admit::Admitted,
    request::headers::{self, Addressed, CallersCredential, TURN_STATE},
    request::inspect::{self, Inspected},
    request::target::{Target, bounded},
    request_log::RequestLog,
    turn::pick::{Pick, Picked, Pinning},
    turn::turn_state::TurnState,
};
use crate::{
    endpoint::Endpoint,
    fault::Fault,
    ids::Namespace,
    policy::{Affinity, Event, Route, Verdict},
    scan::EncodingKind,
    state::{Credential, FailoverReason, Lease, Snapshot, Upstream},
    wire::{Relay, Replay, SendError, Terms},
};

/// An upstream's answer, its body still to come.
pub(in crate::proxy) struct Exchange<'a> {
    pub answer: Answer,
    pub upstream: &'a Upstream,
    pub route: Route,
    pub affinity: Affinity,
    pub pinning: Pinning,
    /// Whose session this is.
    pub namespace: Namespace,
    /// Its place at the upstream; none where somebody else might have had the last word.
    pub lease: Option<Lease>,
}

/// A request on its way from one upstream to the next.
struct Journey<'a, 'j> {
    snapshot: &'a Snapshot,
    log: &'j mut RequestLog,
    request: Request<Replay>,
    /// What the present upstream has changed in the request's head.
    addressed: Addressed,
    target: Target,
    callers: CallersCredential,
    turn_state: Option<TurnState>,
    namespace: Namespace,
    model: Option<String>,
    /// Where in the body the model stands, if that can be changed.
    model_at: Option<Range<u64>>,
    /// Requests that are paid for are repeated before they are answered; what else an upstream may have begun is not.
    is_repeatable: bool,
}

/// Why an attempt came to nothing.
struct Failed<'a> {
    upstream: &'a Upstream,
    index: usize,
    reason: FailoverReason,
    /// Whether the request may go to somebody else.
    may_go_on: bool,
    /// The upstream has had enough for now.
    is_limited: bool,
    last_word: LastWord<'a>,
}

impl Failed<'_> {
    /// Counts that the request goes on to somebody else.
    fn count(&self) {
        self.upstream.state.metrics.count_failover(self.reason);
    }
}

/// What the caller gets if nobody does better.
enum LastWord<'a> {
    Answer(Box<Exchange<'a>>),
    Fault(Fault),
}

/// Calls upstreams, in the order of `pick`, until one gives an answer to pass on.
pub(in crate::proxy) async fn forward<'a>(
    snapshot: &'a Snapshot,
    admitted: Admitted<'_>,
    inspected: Inspected,
    mut pick: Pick<'a>,
    log: &mut RequestLog,
    inspected_at: Instant,
) -> Result<Exchange<'a>, Fault> {
    let mut journey = Journey::new(snapshot, admitted, inspected, log);
    let mut last: Option<Failed<'a>> = None;
    for attempt in 1..=snapshot.attempts {
        let Some(picked) = pick.next().await else { break };
        if (last.is_some() || picked.is_last_resort) && !journey.may_retry() {
            break;
        }
        match &last {
            None => journey.observe_overhead(inspected_at, &pick),
            Some(failed) if failed.index != picked.index => failed.count(),
            Some(_) => {}
        }
        let attempted = journey.attempt(picked, &pick).await;
        journey.log.tried(attempt, pick.waited);
        let failed = match attempted {
            Ok(exchange) => return Ok(exchange),
            Err(failed) => failed,
        };
        if !(failed.is_limited && pick.is_worth_waiting(failed.index)) {
            pick.has_failed(failed.index);
        }
        let may_go_on = failed.may_go_on && journey.request.body().is_here();
        last = Some(failed);
        if !may_go_on {
            break;
        }
    }
    last_word(last, pick.nobody())
}

/// The most useful answer: that all are limited, and until when; else the last upstream's own; else why there is none.
fn last_word<'a>(last: Option<Failed<'a>>, nobody: Fault) -> Result<Exchange<'a>, Fault> {
    let is_limited = matches!(nobody, Fault::Limited { .. });
    match last.map(|failed| failed.last_word) {
        None => Err(nobody),
        Some(LastWord::Answer(exchange)) if is_limited && exchange.answer.is_limit() => Err(nobody),
        Some(LastWord::Answer(exchange)) => Ok(*exchange),
        Some(LastWord::Fault(_)) if is_limited => Err(nobody),
        Some(LastWord::Fault(fault)) => Err(fault),
    }
}

impl<'a, 'j> Journey<'a, 'j> {
    fn new(snapshot: &'a Snapshot, admitted: Admitted, inspected: Inspected, log: &'j mut RequestLog) -> Self {
        let is_repeatable = admitted.method.is_idempotent() || admitted.target.endpoint != Endpoint::Other;
        let (namespace, is_plain) = (admitted.namespace(), admitted.coding == EncodingKind::Identity);
        let mut request = Request::new(inspected.body);
        *request.method_mut() = admitted.method;
        *request.headers_mut() = admitted.headers;
        Self {
            snapshot,
            log,
            request,
            addressed: Addressed::default(),
            target: admitted.target,
            callers: admitted.callers,
            turn_state: admitted.turn_state,
            namespace,
            model: inspected.facts.model,
            model_at: inspected.facts.model_at.filter(|_| is_plain),
            is_repeatable,
        }
    }

    /// Whether the retry budget has one more.
    fn may_retry(&self) -> bool {
        let gateway = self.log.gateway();
        let mut retries = gateway.runtime.retries.lock();
        retries.try_spend(gateway.clock.now(), gateway.metrics.forwarded())
    }

    fn observe_overhead(&self, inspected_at: Instant, pick: &Pick<'_>) {
        let overhead = inspected_at.elapsed().saturating_sub(pick.waited);
        self.log.gateway().metrics.observe_overhead(overhead);
    }

    /// Sends the request to the upstream that was picked. What that came to is told to its health.
    async fn attempt(&mut self, picked: Picked<'a>, pick: &Pick<'a>) -> Result<Exchange<'a>, Failed<'a>> {
        let Picked {
            upstream,
            index,
            route,
            mut lease,
            ..
        } = picked;
        if let Err(fault) = self.address(upstream) {
            return Err(Failed {
                upstream,
                index,
                reason: FailoverReason::Refused,
                may_go_on: false,
                is_limited: false,
                last_word: LastWord::Fault(fault),
            });
        }
        let terms = Terms {
            head: self.snapshot.limits.head,
            idle: self.snapshot.limits.idle,
            is_repeatable: self.is_repeatable,
        };
        self.log.sent();
        let response = match upstream.pool.send(&mut self.request, terms).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(SendError::Broken("it switched protocols unasked".to_owned()))
            }
            sent => sent,
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(error, upstream, index, lease)),
        };
        let answer = self.judge(upstream, response).await;
        let verdict = answer.verdict;
        lease.report(verdict.event());
        let mut exchange = Exchange {
            answer,
            upstream,
            route,
            affinity: pick.affinity,
            pinning: pick.pinning,
            namespace: self.namespace,
            lease: Some(lease),
        };
        if verdict.fails_over() {
            Err(Box::pin(self.failed(exchange, index)).await)
        } else {
            if exchange.answer.is_error() {
                Box::pin(exchange.answer.conceal(&upstream.confidential)).await;
            }
            Ok(exchange)
        }
    }

    async fn judge(&self, upstream: &Upstream, response: Response<Relay>) -> Answer {
        let question = Question {
            endpoint: self.log.endpoint,
            model: self.model.as_deref(),
            upstream,
            clock: self.log.gateway().clock,
        };
        question.judge(response).await
    }

    /// An answer that somebody else may better. It is kept, but not its place at the upstream: who may wait for that must
    /// not hold it.
    async fn failed(&self, mut exchange: Exchange<'a>, index: usize) -> Failed<'a> {
        let (upstream, verdict) = (exchange.upstream, exchange.answer.verdict);
        let is_limited = matches!(verdict, Verdict::Limited { .. });
        let is_whole = exchange.answer.conceal(&upstream.confidential).await;
        exchange.lease = None;
        // A refusal says that nothing was begun; of other failures only this status does.
        let did_nothing =
            verdict != Verdict::Failed || exchange.answer.response.status() == StatusCode::SERVICE_UNAVAILABLE;
        Failed {
            upstream,
            index,
            reason: FailoverReason::of(verdict),
            may_go_on: did_nothing || self.is_repeatable,
            is_limited,
            // Who may wait must not hold a connection either, and a success that broke off is none.
            last_word: if is_whole || !(is_limited || exchange.answer.response.body().is_broken()) {
                LastWord::Answer(Box::new(exchange))
            } else {
                LastWord::Fault(Fault::UpstreamBroken {
                    upstream: self.shown(upstream),
                })
            },
        }
    }

    /// The upstream's name, where callers are told who serves them.
    fn shown(&self, upstream: &Upstream) -> Option<String> {
        self.snapshot.route_headers.then(|| upstream.name.to_string())
    }

    /// There was no answer at all.
    fn unanswered(&self, error: SendError, upstream: &'a Upstream, index: usize, mut lease: Lease) -> Failed<'a> {
        let request_id = self.log.request_id.to_str().unwrap_or_default();
        let (reason, may_go_on) = match &error {
            SendError::Dial(_) => (FailoverReason::Connect, true),
            SendError::Broken(_) => (FailoverReason::Broken, self.is_repeatable),
            SendError::Timeout(_) => (FailoverReason::Timeout, self.is_repeatable),
            SendError::Body(_) => (FailoverReason::Broken, false),
        };
        // What the caller broke off is nothing to warn the operator of, or to hold against the upstream.
        if !matches!(error, SendError::Body(_)) {
            tracing::warn!(upstream = &*upstream.name, %error, request_id, "no answer from upstream");
            lease.report(Event::Failure);
        }
        let name = self.shown(upstream);
        let fault = match error {
            SendError::Body(error) => inspect::fault_of_body(error),
            SendError::Dial(_) => Fault::UpstreamUnreachable { upstream: name },
            SendError::Timeout(limit) => Fault::UpstreamTimeout { upstream: name, limit },
            SendError::Broken(_) => Fault::UpstreamBroken { upstream: name },
        };
        Failed {
            upstream,
            index,
            reason,
            may_go_on,
            is_limited: false,
            last_word: LastWord::Fault(fault),
        }
    }

    /// Makes the request one for `upstream`, whoever it was for before.
    fn address(&mut self, upstream: &Upstream) -> Result<(), Fault> {
        if matches!(upstream.credential, Credential::Callers) && !self.callers.is_present() {
            return Err(Fault::MissingCredential);
        }
        *self.request.uri_mut() = self.target.at(&upstream.prefix).ok_or(Fault::Internal)?;
        let head = self.request.headers_mut();
        self.addressed.undo(head);
        self.addressed = headers::address(head, upstream, &self.callers);
        // Turn state reaches nobody but its issuer.
        head.remove(TURN_STATE);
        if let Some(turn_state) = &self.turn_state
            && turn_state.issuer == upstream.id
        {
            head.insert(TURN_STATE, turn_state.value.clone());
        }
        self.rename(upstream)
    }

    /// Lets the body name the model as `upstream` does.
    fn rename(&mut self, upstream: &Upstream) -> Result<(), Fault> {
        let body = self.request.body_mut();
        let model = self.model.as_deref();
        let Some((model, name)) = model.and_then(|model| Some((model, upstream.renames.get(model)?))) else {
            body.restore();
            return Ok(());
        };
        let Some(at) = self.model_at.clone() else {
            return Err(Fault::RenameCompressed { model: bounded(model) });
        };
        // Whatever names a model has been kept.
        body.splice(at, name.clone()).map_err(|_| Fault::Internal)
    }
}
