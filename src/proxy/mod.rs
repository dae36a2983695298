//! One request's story: `admit → inspect → pick → forward → settle`.
//!
//! Each stage consumes what the one before it made, so a stage that is left out does not compile. A stage that fails
//! returns a [`Fault`], and `reply` makes of it the only kind of error body there is.

mod exchange;
mod headers;
mod models;
mod refused;
mod reply;
mod request;
mod request_log;
#[doc(hidden)]
pub mod stages;
mod text;
mod turn;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::time::Instant;

pub use exchange::outgoing::Outgoing;

use self::{
    exchange::{
        forward::{self, Exchange},
        settle,
    },
    models::Catalogue,
    request::{admit, inspect, model_access, received::ReceivedHead},
    request_log::RequestLog,
    turn::{limits, pick},
};
use crate::{
    fault::Fault,
    state::{Gateway, Snapshot},
    wire::{Intake, Peer, RequestBody},
};

/// The public side of a gateway.
pub struct Proxy {
    gateway: Arc<Gateway>,
    catalogue: Arc<Catalogue>,
}

/// What a request gets when nothing went wrong on our own account.
enum Answer<'a> {
    Upstream(Box<Exchange<'a>>),
    Models(Bytes),
}

impl Proxy {
    /// Opens the public side of `gateway`.
    pub fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            catalogue: Arc::default(),
        })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, peer: Peer, request: Request<RequestBody>) -> Response<Outgoing> {
        let snapshot = self.gateway.snapshot();
        let (parts, body) = request.into_parts();
        let head = ReceivedHead::new(parts, body.framing(), peer);
        let intake = Intake::new(body, snapshot.limits.max_body, snapshot.limits.idle);
        let mut log = RequestLog::open(&self.gateway, &head, intake.counter());
        match self.answer(&snapshot, head, intake, &mut log).await {
            Ok(Answer::Upstream(exchange)) => settle::settle(&snapshot, *exchange, log),
            Ok(Answer::Models(list)) => reply::json(StatusCode::OK, list, log),
            Err(fault) => reply::render(fault, log),
        }
    }

    async fn answer<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
        head: ReceivedHead,
        intake: Intake,
        log: &mut RequestLog,
    ) -> Result<Answer<'a>, Fault> {
        let now = self.gateway.clock.unix_time().as_secs();
        let identified = admit::identify(snapshot, head, now)?;
        log.identified(&identified);
        let admitted = admit::admit(snapshot, identified)?;
        limits::enter(&admitted, log)?;
        if let Some(question) = models::query(&admitted) {
            // In a box, as all that is rare: a request's future is as large as its largest branch.
            let answer = self.catalogue.answer(question, snapshot, &admitted, &self.gateway);
            return Box::pin(answer).await.map(Answer::Models);
        }
        let inspected = inspect::inspect(&admitted, intake, snapshot.limits, &self.gateway.buffers).await?;
        let inspected_at = Instant::now();
        model_access::check(snapshot, &admitted, &inspected)?;
        limits::correct(&admitted, inspected.decompressed, log)?;
        let pick = pick::pick(&self.gateway, snapshot, &admitted, &inspected.facts, inspected.bytes)?;
        forward::forward(snapshot, admitted, inspected, pick, log, inspected_at)
            .await
            .map(|exchange| Answer::Upstream(Box::new(exchange)))
    }
}
