//! The public side: handles each request, from its head to the end of its response.
//!
//! # The phases
//!
//! | phase | where | what it makes | it ends early when |
//! | --- | --- | --- | --- |
//! | check the head | `request/admit` | | servers could read the head in several ways, or the request has passed through this gateway before |
//! | check the page | `request/web_page` | the web page that may read the answer | a web page sent the request, and may not |
//! | identify | `request/` | the caller and the target | the path or the client key is not valid |
//! | admit | `request/` | the head that every upstream may receive | the client asks for a WebSocket, or the caller may not call this path |
//! | charge | `turn/limits` | a place within the limits of the client key | a limit is reached |
//! | models | `models` | the list of models | the request asks for models: the answer is the list |
//! | inspect | `request/` | the body in reserved memory, and the facts in it | the body is incomplete, too slow, too large or ambiguous, there is no memory for it, or a field has another type |
//! | open the turn | `turn/pick` | the candidates, best first | no upstream serves the model to this caller, or its group has not made an object that the request names |
//! | brake | `turn/pick/brake` | the admitted turn | the requests before have failed at every upstream |
//! | *attempt* | `turn/attempts` | *repeated until an upstream has an answer to pass on:* | no attempt, retry or upstream is left |
//! | · pick | `turn/pick` | an upstream and a lease there, waited for if necessary | |
//! | · send | `exchange/forward` | the upstream's response head; a body without the coding that would hide a credential | |
//! | · peek | `exchange/peek` | a verdict, from the head and the body up to the first output | |
//! | · search | `turn/attempts/search` | the answer of the upstream that has an object without a known owner | |
//! | · confirm | `turn/confirm` | the session's pin at the upstream that serves it | |
//! | respond | `exchange/response` | the caller's response head, without the upstream's credential | |
//! | relay | `exchange/body` | the body, in which the upstream's credential is masked; from it usage, the objects that it names, encrypted items, and late failures for health | the caller leaves, or the upstream breaks |
//! | end | `request_end` | the log line, and the final charge | |
//!
//! Each phase consumes what the one before it made, so a phase that is left out does not compile. A phase that fails
//! returns a [`Fault`]. All error bodies are made of faults, by `reply`. Beside the phases, a `RequestLog` records the
//! request. It is write-only: the data that a later phase needs is passed on with the request.
//!
//! # Three parts
//!
//! - `request` decides whether a request is admitted, and reads its head and body.
//! - `turn` decides which upstream serves the request, and what its answer means. It does not depend on a transport:
//!   its input is `TurnFacts`, and it sends through a `RequestSender`.
//! - `exchange` sends the request over HTTP, and relays the response.
//!
//! Relaying WebSocket messages belongs in `exchange`, in a new file `websocket`. That file makes `TurnFacts` from each
//! message, and implements `RequestSender` on the upstream's connection. `turn` does not change. Frames
//! belong in `wire`. Today `admit` refuses the upgrade with 426.
//!
//! Beside the phases, `identity` identifies the request, `refused` answers heads that could not be read, `headers` and
//! `text` have rules that several phases share, and `stages` are hooks for benches and fuzzing.
//!
//! # An example: the upstream answers 429
//!
//! 1. `exchange/peek` reads the error's body ahead, because the status alone does not decide. `scan::response` finds its type,
//!    its code and the time until its limit resets.
//! 2. `turn/verdict` asks [`policy::verdict`](crate::policy::verdict) what that means: `Limited`, if the credential is the
//!    upstream's. If it is the caller's own, the answer is passed on.
//! 3. `turn/attempts` reports the verdict to the upstream's health, which begins a cooldown
//!    ([`policy::health`](crate::policy::health)), and gives the slot back. The answer itself is dropped: it concerns one
//!    account of several.
//! 4. `turn/pick` asks [`policy::select`](crate::policy::select()) for the next upstream. A session whose prompt is cached waits
//!    for its own upstream if the cooldown ends soon enough; otherwise a sibling of the same organization or the next upstream
//!    takes the request. If all of them are limited, the request waits for the earliest reset, if that lies within
//!    `affinity.wait_max`. A failover after a limit costs no retry of the budget, and a limit that is waited out costs no
//!    attempt either.
//! 5. If an upstream serves the request, `turn/confirm` pins the session there. If every upstream is limited for longer,
//!    `turn/outlook` finds the earliest reset. The caller gets 429: [`Fault::UpstreamsRateLimited`] for a limit that
//!    resets within minutes, which clients wait out, or [`Fault::Limited`] for a quota, which clients show to their users.

mod exchange;
mod headers;
mod identity;
mod models;
mod refused;
mod reply;
mod request;
mod request_end;
mod request_log;
#[doc(hidden)]
pub mod stages;
#[cfg(test)]
mod testing;
mod text;
mod turn;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;

pub use exchange::body::ResponseBody;

use self::{
    exchange::{facts, forward::HttpSender, peek::PeekedResponse, response},
    identity::RequestIdentity,
    models::Catalogue,
    request::{
        admit::{self, Identified},
        field_types, inspect, model_access,
        received::ReceivedHead,
        web_page,
    },
    request_end::RequestEnd,
    request_log::RequestLog,
    turn::{
        attempts::{self, TurnAnswer},
        limits::Charge,
        pick::Turn,
    },
};
use crate::{
    fault::Fault,
    state::{Gateway, Snapshot},
    wire::{HeadRefusal, Intake, Peer, RequestBody},
};

/// The public side of a gateway.
pub struct Proxy {
    gateway: Arc<Gateway>,
    catalogue: Arc<Catalogue>,
}

/// The answer to a request that has not failed.
enum Answered<'a> {
    ByUpstream(Box<TurnAnswer<'a, PeekedResponse>>),
    /// The list of models, or one model, as JSON.
    ByCatalogue(Bytes),
}

impl Proxy {
    /// Opens the public side of `gateway`.
    pub fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            catalogue: Arc::default(),
        })
    }

    /// Answers a request whose head could not be read; `None` if there is nothing to answer.
    pub fn refuse(&self, peer: Peer, refusal: HeadRefusal) -> Option<Response<ResponseBody>> {
        refused::refuse(&self.gateway, peer, refusal)
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, peer: Peer, request: Request<RequestBody>) -> Response<ResponseBody> {
        let snapshot = self.gateway.snapshot();
        let (parts, body) = request.into_parts();
        let head = ReceivedHead::new(parts, body.framing(), peer);
        let body = Intake::new(
            body,
            snapshot.limits.max_body,
            snapshot.limits.idle,
            snapshot.min_body_rate,
        );
        let mut log = RequestLog::open(
            &self.gateway,
            head.request_id.clone(),
            &head.parts.method,
            &head.parts.uri,
            body.counter(),
        );
        let mut charge = Charge::default();

        let identity = RequestIdentity::of_unknown_caller(head.request_id.clone());
        let page = match admit::check_head(&snapshot, &head).and_then(|()| web_page::check(&snapshot, &head)) {
            Ok(page) => page,
            Err(fault) => return reply::error(&fault, identity, RequestEnd::new(log, charge)),
        };
        if let Some(mut headers) = page.preflight(&head.parts) {
            page.expose(&mut headers);
            return reply::preflight(headers, identity, RequestEnd::new(log, charge));
        }
        let now = self.gateway.clock.unix_time().as_secs();
        let identified = match admit::identify(&snapshot, head, now) {
            Ok(identified) => identified,
            Err(fault) => {
                let mut response = reply::error(&fault, identity, RequestEnd::new(log, charge));
                page.expose(response.headers_mut());
                return response;
            }
        };
        let identity = identity.with_caller(&identified);
        log.record_caller(identified.target.endpoint, identity.key);

        let answered = self.answer(&snapshot, identified, body, &mut log, &mut charge).await;
        let end = RequestEnd::new(log, charge);
        let mut response = match answered {
            Ok(Answered::ByUpstream(served)) => response::build(&self.gateway, &snapshot, *served, identity, end),
            Ok(Answered::ByCatalogue(list)) => reply::json(list, identity, end),
            Err(fault) => reply::error(&fault, identity, end),
        };
        page.expose(response.headers_mut());
        response
    }

    /// Runs the phases of a request, after its caller is known.
    async fn answer<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
        identified: Identified<'a>,
        body: Intake,
        log: &mut RequestLog,
        charge: &mut Charge,
    ) -> Result<Answered<'a>, Fault> {
        let admitted = admit::admit(snapshot, identified)?;
        charge.admit(admitted.caller.rate_limits(), facts::least_prompt_bytes(&admitted))?;
        if let Some(query) = models::query(&admitted) {
            // The future is boxed, because such requests are rare and a request's future is as large as its largest
            // branch.
            let answer = self.catalogue.answer(query, snapshot, &admitted, &self.gateway);
            return Box::pin(answer).await.map(Answered::ByCatalogue);
        }
        let inspected = inspect::inspect(&admitted, body, snapshot, &self.gateway).await?;
        field_types::check(&admitted, &inspected)?;
        let complete_since = Instant::now();
        model_access::check(snapshot, &admitted, &inspected)?;
        let prompt_bytes = inspected.prompt_bytes(&snapshot.media_cost);
        if admitted.is_inspected() {
            charge.correct_estimate(prompt_bytes)?;
        }
        let turn = Turn::open(
            &self.gateway,
            snapshot,
            &facts::from_parts(&admitted, &inspected.facts, prompt_bytes),
        )?;
        let sender = HttpSender::new(admitted, inspected, snapshot.limits, self.gateway.clock);
        let served = attempts::run(turn, sender, log, charge, complete_since).await;
        self.catalogue.refresh_if_wished(snapshot, &self.gateway);
        served.map(|served| Answered::ByUpstream(Box::new(served)))
    }
}
