//! The stages of a request that need no connection, one at a time. `benches/counts` counts the cost of each stage, and
//! fuzzing looks for heads that are admitted although they must be refused.
//!
//! No other code may use them. They may change with every release.

use http::{HeaderMap, Method, Uri, request::Parts};

use super::{
    exchange::{facts, response_headers::cleanse_response},
    request::{
        admit::{self, Admitted},
        headers::{CallersCredential, CredentialHandling, cleanse_request, set_upstream_headers},
        received::ReceivedHead,
    },
    turn::pick::{PickStep, PickedUpstream, Turn},
};
use crate::{
    endpoint::Endpoint,
    fault::Fault,
    ids::UpstreamId,
    policy::Route,
    scan::RequestFacts,
    state::{Gateway, Snapshot, Upstream},
    wire::{self, Framing, Peer},
};

/// A request whose head has been admitted.
pub struct AdmittedHead<'a>(Admitted<'a>);

/// Gives a request its id, and admits it by its head.
///
/// # Errors
/// The fault that refuses the request.
pub fn admit(snapshot: &Snapshot, parts: Parts, framing: Framing, peer: Peer) -> Result<AdmittedHead<'_>, Fault> {
    let head = ReceivedHead::new(parts, framing, peer);
    admit::check_head(snapshot, &head)?;
    let identified = admit::identify(snapshot, head, 0)?;
    admit::admit(snapshot, identified).map(AdmittedHead)
}

/// The head of a request as it is sent to an upstream.
pub struct ForwardedHead {
    /// The method.
    pub method: Method,
    /// The path and the query at the upstream.
    pub uri: Uri,
    /// The header fields, without those that frame the body.
    pub headers: HeaderMap,
}

/// The head that the first upstream gets for a request with the bytes `raw`, at the beginning of Unix time. `None` if
/// the head is refused or incomplete.
pub fn forward_head(snapshot: &Snapshot, raw: &[u8]) -> Option<ForwardedHead> {
    let (request, framing) = wire::read_head(raw)?;
    let peer = Peer {
        address: None,
        is_secure: false,
    };
    let AdmittedHead(admitted) = admit(snapshot, request.into_parts().0, framing, peer).ok()?;
    let upstream = snapshot.upstreams().first()?;
    let uri = admitted.target.uri_at(upstream)?;
    let mut headers = admitted.headers;
    let _ = set_upstream_headers(&mut headers, upstream, &admitted.callers);
    Some(ForwardedHead {
        method: admitted.method,
        uri,
        headers,
    })
}

/// Picks an upstream.
///
/// # Errors
/// A fault, if no upstream can take the request at once.
pub fn pick(
    gateway: &Gateway,
    snapshot: &Snapshot,
    head: &AdmittedHead<'_>,
    facts: &RequestFacts,
) -> Result<UpstreamId, Fault> {
    let mut turn = Turn::open(gateway, snapshot, &facts::from_parts(&head.0, facts, 0))?;
    Ok(pick_now(&mut turn)?.upstream.id)
}

/// Picks an upstream, and pins the session to it as a served request does. Returns whether the session goes to the
/// upstream to which it was pinned before.
///
/// # Errors
/// A fault, if no upstream can take the request at once.
pub fn pick_and_pin(
    gateway: &Gateway,
    snapshot: &Snapshot,
    head: &AdmittedHead<'_>,
    facts: &RequestFacts,
) -> Result<bool, Fault> {
    let mut turn = Turn::open(gateway, snapshot, &facts::from_parts(&head.0, facts, 0))?;
    let picked = pick_now(&mut turn)?;
    turn.confirm(picked.upstream);
    Ok(picked.route == Route::Pin)
}

fn pick_now<'a>(turn: &mut Turn<'a>) -> Result<PickedUpstream<'a>, Fault> {
    match turn.pick_now() {
        PickStep::Go(picked) => Ok(picked),
        PickStep::Wait(_) | PickStep::LostSlot | PickStep::NoneLeft => Err(Fault::Internal),
    }
}

/// Rewrites the headers of a request to `POST /v1/responses` into those that `upstream` gets.
pub fn rewrite_request(headers: &mut HeaderMap, upstream: &Upstream) {
    cleanse_request(headers, Endpoint::Responses, CredentialHandling::Discard);
    let _ = set_upstream_headers(headers, upstream, &CallersCredential::default());
}

/// Rewrites the headers of an upstream's response into those that the caller gets.
pub fn rewrite_response(headers: &mut HeaderMap, upstream: &Upstream) {
    cleanse_response(headers, upstream);
}
