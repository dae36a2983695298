//! The stages of a request that need no connection, one at a time, so that `benches/counts` can count what each costs, and
//! fuzzing can look for heads that pass them and should not.
//! Nothing else is to use them, and no release promises to keep them.

use http::{HeaderMap, Method, Uri, request::Parts};

use super::{
    request::admit::{self, Admitted},
    request::headers::{self, CallersCredential},
    turn::pick::{self, Next, Pick, Pinning},
};
use crate::{
    endpoint::Endpoint,
    fault::Fault,
    ids::UpstreamId,
    scan::RequestFacts,
    state::{Gateway, Snapshot, Upstream},
    wire::{self, Framing, Peer},
};

/// A request whose head is in order.
pub struct Head<'a>(Admitted<'a>);

/// Names the request, and judges it by its head.
///
/// # Errors
/// Whatever keeps the request out.
pub fn admit(snapshot: &Snapshot, mut parts: Parts, framing: Framing, peer: Peer) -> Result<Head<'_>, Fault> {
    admit::request_id(&mut parts.headers);
    let identified = admit::identify(snapshot, &parts, 0)?;
    admit::admit(snapshot, identified, parts, framing, peer).map(Head)
}

/// A head as an upstream is sent it.
pub struct Passed {
    /// The method.
    pub method: Method,
    /// Path and query at the upstream.
    pub uri: Uri,
    /// The fields, less those that frame the body.
    pub headers: HeaderMap,
}

/// What of the bytes of a head reaches the first upstream, at the beginning of Unix time; `None` where it is refused, or
/// is no whole head.
pub fn pass(snapshot: &Snapshot, raw: &[u8]) -> Option<Passed> {
    let (request, framing) = wire::read_head(raw)?;
    let peer = Peer {
        address: None,
        is_secure: false,
    };
    let Head(admitted) = admit(snapshot, request.into_parts().0, framing, peer).ok()?;
    let upstream = snapshot.upstreams().first()?;
    let uri = admitted.target.at(&upstream.prefix)?;
    let mut headers = admitted.headers;
    let _ = headers::address(&mut headers, upstream, &admitted.callers);
    Some(Passed {
        method: admitted.method,
        uri,
        headers,
    })
}

/// Picks an upstream.
///
/// # Errors
/// Where nobody can take it at once.
pub fn pick(
    gateway: &Gateway,
    snapshot: &Snapshot,
    head: &Head<'_>,
    facts: &RequestFacts,
) -> Result<UpstreamId, Fault> {
    let pick = pick::pick(gateway, snapshot, &head.0, facts, 0)?;
    picked(&pick)
}

/// Picks an upstream, and pins the session to it as its answer would; whether the session goes where its pin is.
///
/// # Errors
/// Where nobody can take it at once.
pub fn pick_and_pin(
    gateway: &Gateway,
    snapshot: &Snapshot,
    head: &Head<'_>,
    facts: &RequestFacts,
) -> Result<bool, Fault> {
    let pick = pick::pick(gateway, snapshot, &head.0, facts, 0)?;
    let upstream = picked(&pick)?;
    let (Some(key), Pinning::From(seen)) = (pick.affinity.key, pick.pinning) else {
        return Ok(false);
    };
    gateway.runtime.pins.confirm(key, seen, upstream, gateway.clock.now());
    Ok(seen == Some(upstream))
}

fn picked(pick: &Pick<'_>) -> Result<UpstreamId, Fault> {
    match pick.at_once() {
        Next::Picked(picked) => Ok(picked.upstream.id),
        _ => Err(Fault::Internal),
    }
}

/// Makes of the head of `POST /v1/responses` what `upstream` is to see.
pub fn rewrite_request(headers: &mut HeaderMap, upstream: &Upstream) {
    headers::cleanse_request(headers, Endpoint::Responses, false);
    let _ = headers::address(headers, upstream, &CallersCredential::default());
}

/// Leaves of the head of an answer what the caller is to see.
pub fn rewrite_response(headers: &mut HeaderMap, upstream: &Upstream) {
    headers::cleanse_response(headers, upstream);
}
