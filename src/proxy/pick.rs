//! The third stage: which upstream, and why.

use http::{HeaderMap, HeaderName};

use super::{admit::Admitted, target::bounded};
use crate::{
    fault::Fault,
    ids::{OwnedKey, UpstreamId},
    policy::{self, Affinity, Candidate, Clues, Content, Route},
    scan::RequestFacts,
    state::{Endpoint, House, Snapshot, Upstream},
};

/// The upstream that a request goes to.
pub(super) struct Pick<'a> {
    pub upstream: &'a Upstream,
    pub route: Route,
    pub affinity: Affinity,
    pub pinning: Pinning,
}

/// What the answer may do to the session's pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pinning {
    /// Set it, if it still is what it was at the pick.
    From(Option<UpstreamId>),
    /// Leave it: the session's own upstream does not serve this model, and its cache for the others stays where it is.
    Stays,
}

/// Picks the upstream for a request.
pub(super) fn pick<'a>(
    house: &House,
    snapshot: &'a Snapshot,
    admitted: &Admitted,
    facts: &RequestFacts,
) -> Result<Pick<'a>, Fault> {
    let model = facts.model.as_deref();
    let eligibility = snapshot.eligibility(model).ok_or_else(|| Fault::ModelNotServed {
        model: bounded(model.unwrap_or_default()),
    })?;
    let affinity = affinity(house, snapshot, admitted, facts);
    let pin = affinity
        .key
        .and_then(|key| house.roster.pins.get(key, house.clock.now()));
    let in_flight = |index| snapshot.upstream(index).map_or(0, |upstream| upstream.live.in_flight());
    let allows = |class| eligibility.allows(class);
    let mut candidates = policy::candidates(
        &snapshot.rendezvous,
        affinity,
        pin,
        allows,
        fastrand::u64(..),
        in_flight,
    );
    let Candidate { index, route } = candidates.next().ok_or(Fault::Internal)?;
    let upstream = snapshot.upstream(index).ok_or(Fault::Internal)?;
    let pinned = pin
        .and_then(|id| snapshot.rendezvous.position(id))
        .and_then(|at| snapshot.rendezvous.member(at));
    let pinning = match pinned {
        Some(member) if !eligibility.allows(member.class) => Pinning::Stays,
        _ => Pinning::From(pin),
    };
    Ok(Pick {
        upstream,
        route,
        affinity,
        pinning,
    })
}

fn affinity(house: &House, snapshot: &Snapshot, admitted: &Admitted, facts: &RequestFacts) -> Affinity {
    let content = match admitted.target.endpoint {
        Endpoint::Responses | Endpoint::Compact => Content {
            instructions: facts.content.instructions(),
            input: facts.content.input(),
        },
        Endpoint::Response | Endpoint::Models | Endpoint::ChatCompletions | Endpoint::Embeddings | Endpoint::Other => {
            Content::default()
        }
    };
    let clues = Clues {
        prompt_cache_key: facts.prompt_cache_key.as_deref(),
        session_id: facts.session_id.as_deref(),
        header: |name: &HeaderName| single(&admitted.headers, name),
        content,
        owner: owner(house, admitted, facts),
    };
    Affinity::find(&snapshot.sources, admitted.namespace, &clues)
}

/// The value of a header that stands once: which of two an upstream would read is anybody's guess.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

/// Who holds the state that a request refers to.
fn owner(house: &House, admitted: &Admitted, facts: &RequestFacts) -> Option<UpstreamId> {
    let named = facts.previous_response_id.as_deref().or(admitted.target.response_id());
    let owner_of = |id| {
        house
            .roster
            .owners
            .get(OwnedKey::from_response_id(admitted.namespace, id), house.clock.now())
    };
    named
        .and_then(owner_of)
        .or_else(|| admitted.turn_state.as_ref().map(|state| state.issuer))
}
