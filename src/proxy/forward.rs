//! The fourth stage: call the upstream, and wait for its response head.

use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::{
    admit::Admitted,
    headers::{self, TURN_STATE},
    inspect::{self, Inspected},
    journal::Journal,
    outgoing::InFlight,
    pick::{Pick, Pinning},
};
use crate::{
    fault::Fault,
    policy::{Affinity, Route},
    state::{Credential, Snapshot, Upstream},
    wire::{Relay, Replay, SendError},
};

/// An upstream's answer, head only so far.
pub(super) struct Exchange<'a> {
    pub response: Response<Relay>,
    pub upstream: &'a Upstream,
    pub route: Route,
    pub affinity: Affinity,
    pub pinning: Pinning,
    pub in_flight: InFlight,
}

/// Calls the picked upstream.
pub(super) async fn forward<'a>(
    snapshot: &Snapshot,
    admitted: Admitted,
    inspected: Inspected,
    pick: Pick<'a>,
    journal: &Journal,
    inspected_at: Instant,
) -> Result<Exchange<'a>, Fault> {
    let Pick {
        upstream,
        route,
        affinity,
        pinning,
    } = pick;
    let request = request(admitted, inspected, upstream)?;
    let in_flight = InFlight::begin(&upstream.live);
    journal.house().meter.observe_overhead(inspected_at.elapsed());
    let sent = upstream
        .pool
        .send(request, snapshot.limits.head, snapshot.limits.idle)
        .await;
    let response = sent.map_err(|error| fault_of(error, upstream, journal))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let error = SendError::Broken("it switched protocols unasked".to_owned());
        return Err(fault_of(error, upstream, journal));
    }
    Ok(Exchange {
        response,
        upstream,
        route,
        affinity,
        pinning,
        in_flight,
    })
}

fn request(admitted: Admitted, inspected: Inspected, upstream: &Upstream) -> Result<Request<Replay>, Fault> {
    if matches!(upstream.credential, Credential::Callers) && !admitted.callers.is_present() {
        return Err(Fault::MissingCredential);
    }
    let uri = admitted.target.at(&upstream.prefix).ok_or(Fault::Internal)?;
    let mut request = Request::new(inspected.body);
    *request.method_mut() = admitted.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = admitted.headers;
    let head = request.headers_mut();
    headers::address(head, upstream, &admitted.callers);
    // Turn state reaches nobody but its issuer.
    if let Some(turn_state) = admitted.turn_state
        && turn_state.issuer == upstream.id
    {
        head.insert(TURN_STATE, turn_state.value);
    }
    Ok(request)
}

fn fault_of(error: SendError, upstream: &Upstream, journal: &Journal) -> Fault {
    // What the caller broke off is nothing to warn the operator of.
    if !matches!(error, SendError::Body(_)) {
        let request_id = journal.request_id.to_str().unwrap_or_default();
        tracing::warn!(upstream = &*upstream.name, %error, request_id, "no answer from upstream");
    }
    let name = upstream.name.to_string();
    match error {
        SendError::Body(error) => inspect::fault_of_body(error),
        SendError::Dial(_) => Fault::UpstreamUnreachable { upstream: name },
        SendError::Timeout(limit) => Fault::UpstreamTimeout { upstream: name, limit },
        SendError::Broken(_) => Fault::UpstreamBroken { upstream: name },
    }
}
