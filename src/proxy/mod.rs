//! One request's story: `admit → inspect → pick → forward → settle`.
//!
//! Each stage consumes what the one before it made, so a stage that is left out does not compile. A stage that fails
//! returns a [`Fault`], and `reply` makes of it the only kind of error body there is.

mod admit;
mod forward;
mod headers;
mod inspect;
mod journal;
mod models;
mod outgoing;
mod pick;
mod refused;
mod reply;
mod settle;
mod target;
mod turn_state;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::EXPECT, request::Parts};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

pub use outgoing::Outgoing;

use self::{forward::Exchange, journal::Journal, models::Catalogue};
use crate::{
    fault::Fault,
    state::{House, Snapshot},
    wire::{Intake, Peer},
};

/// How long a refused body is still read.
const LINGER: Duration = Duration::from_secs(2);
/// A client that pauses for this long in a refused body waits for its answer.
const LINGER_PAUSE: Duration = Duration::from_millis(100);

/// The public side of a house.
pub struct Proxy {
    house: Arc<House>,
    catalogue: Arc<Catalogue>,
}

/// What a request gets when nothing went wrong on our own account.
enum Answer<'a> {
    Upstream(Box<Exchange<'a>>),
    Models(Bytes),
}

impl Proxy {
    /// Opens the public side of `house`.
    pub fn new(house: Arc<House>) -> Arc<Self> {
        Arc::new(Self {
            house,
            catalogue: Arc::default(),
        })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Response<Outgoing> {
        let snapshot = self.house.snapshot();
        let (mut parts, incoming) = request.into_parts();
        let request_id = admit::request_id(&mut parts.headers);
        let intake = Intake::new(incoming, snapshot.limits.max_body, snapshot.limits.idle);
        let mut journal = Journal::open(&self.house, &parts.method, &parts.uri, request_id, intake.counter());
        let mut intake = Some(intake);
        let expects_continue = parts.headers.contains_key(EXPECT);
        match self.answer(&snapshot, peer, parts, &mut intake, &mut journal).await {
            Ok(Answer::Upstream(exchange)) => settle::settle(&snapshot, *exchange, journal),
            Ok(Answer::Models(list)) => reply::json(StatusCode::OK, list, journal),
            Err(fault) => {
                if let Some(intake) = intake {
                    linger(intake, expects_continue).await;
                }
                reply::render(fault, journal)
            }
        }
    }

    async fn answer<'a>(
        &self,
        snapshot: &'a Arc<Snapshot>,
        peer: Peer,
        parts: Parts,
        intake: &mut Option<Intake>,
        journal: &mut Journal,
    ) -> Result<Answer<'a>, Fault> {
        let admitted = admit::admit(snapshot, parts, peer)?;
        journal.endpoint = Some(admitted.target.endpoint);
        if let Some(question) = models::question(&admitted) {
            return self
                .catalogue
                .answer(question, snapshot, &admitted, &self.house)
                .await
                .map(Answer::Models);
        }
        let inspected = inspect::inspect(&admitted, intake, snapshot.limits, journal).await?;
        let inspected_at = Instant::now();
        let pick = pick::pick(&self.house, snapshot, &admitted, &inspected.facts)?;
        forward::forward(snapshot, admitted, inspected, pick, journal, inspected_at)
            .await
            .map(|exchange| Answer::Upstream(Box::new(exchange)))
    }
}

/// Reads and throws away the rest of a refused body for a while. Closing on a client that still writes would reset the
/// connection, and the client would see that instead of the answer.
async fn linger(mut intake: Intake, expects_continue: bool) {
    // Who waits for `100 Continue` has sent nothing yet, and reading would ask for it.
    if expects_continue && intake.received() == 0 {
        return;
    }
    let rest = async { while let Ok(true) = timeout(LINGER_PAUSE, intake.discard()).await {} };
    let _ = timeout(LINGER, rest).await;
}
