//! One request's story: `admit → inspect → pick → forward → settle`.
//!
//! Each stage consumes what the one before it made, so a stage that is left out does not compile. A stage that fails
//! returns a [`Fault`], and `reply` makes of it the only kind of error body there is.

mod exchange;
mod models;
mod refused;
mod reply;
mod request;
mod request_log;
#[doc(hidden)]
pub mod stages;
mod turn;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use tokio::time::Instant;

pub use exchange::body::Outgoing;

use self::{
    exchange::{
        forward::{self, Exchange},
        response,
    },
    models::Catalogue,
    request::{admit, caller, inspect},
    request_log::RequestLog,
    turn::{limits, pick},
};
use crate::{
    fault::Fault,
    state::{Gateway, Snapshot},
    wire::{Framing, Intake, Peer, RequestBody},
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
        let (mut parts, body) = request.into_parts();
        let framing = body.framing();
        let request_id = admit::request_id(&mut parts.headers);
        let intake = Intake::new(body, snapshot.limits.max_body, snapshot.limits.idle);
        let mut log = RequestLog::open(&self.gateway, &parts.method, &parts.uri, request_id, intake.counter());
        match self.answer(&snapshot, peer, parts, framing, intake, &mut log).await {
            Ok(Answer::Upstream(exchange)) => response::settle(&snapshot, *exchange, log),
            Ok(Answer::Models(list)) => reply::json(StatusCode::OK, list, log),
            Err(fault) => reply::render(fault, log),
        }
    }

    async fn answer<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
        peer: Peer,
        parts: Parts,
        framing: Framing,
        intake: Intake,
        log: &mut RequestLog,
    ) -> Result<Answer<'a>, Fault> {
        let now = self.gateway.clock.unix_time().as_secs();
        let identified = admit::identify(snapshot, &parts, now)?;
        log.identified(&identified);
        let admitted = admit::admit(snapshot, identified, parts, framing, peer)?;
        limits::enter(&admitted, log)?;
        if let Some(question) = models::question(&admitted) {
            // In a box, as all that is rare: a request's future is as large as its largest branch.
            let answer = self.catalogue.answer(question, snapshot, &admitted, &self.gateway);
            return Box::pin(answer).await.map(Answer::Models);
        }
        let inspected = inspect::inspect(&admitted, intake, snapshot.limits, log).await?;
        let inspected_at = Instant::now();
        caller::may_use(snapshot, &admitted, &inspected)?;
        limits::correct(&admitted, inspected.decompressed, log)?;
        let pick = pick::pick(&self.gateway, snapshot, &admitted, &inspected.facts, inspected.bytes)?;
        forward::forward(snapshot, admitted, inspected, pick, log, inspected_at)
            .await
            .map(|exchange| Answer::Upstream(Box::new(exchange)))
    }
}
