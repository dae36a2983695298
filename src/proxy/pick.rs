//! The third stage: which upstream, and why.

use super::admit::Admitted;
use crate::{
    fault::Fault,
    ids::{OwnedKey, UpstreamId},
    policy::{Affinity, Clues, Route},
    scan::RequestFacts,
    state::{Endpoint, House, Snapshot, Upstream},
};

/// The upstream that a request goes to.
pub(super) struct Pick<'a> {
    pub upstream: &'a Upstream,
    pub route: Route,
    pub affinity: Affinity,
    /// The session's pin at this moment.
    pub pin: Option<UpstreamId>,
}

/// Picks the upstream for a request.
pub(super) fn pick<'a>(
    house: &House,
    snapshot: &'a Snapshot,
    admitted: &Admitted,
    facts: &RequestFacts,
) -> Result<Pick<'a>, Fault> {
    let eligibility = snapshot
        .eligibility(facts.model.as_deref())
        .ok_or_else(|| Fault::ModelNotServed {
            model: super::target::bounded(facts.model.as_deref().unwrap_or_default()),
        })?;
    let affinity = affinity(house, snapshot, admitted, facts);
    let now = house.clock.now();
    let pin = affinity.key.and_then(|key| house.roster.pins.get(key, now));
    let at = |id: Option<UpstreamId>| {
        id.and_then(|id| snapshot.rendezvous.position(id))
            .and_then(|i| snapshot.upstream(i))
    };
    let (upstream, route) = if let Some(owner) = at(affinity.owner) {
        (
            Some(owner),
            if pin == Some(owner.id) {
                Route::Pin
            } else {
                Route::Owner
            },
        )
    } else if let Some(p) = at(pin) {
        (Some(p), Route::Pin)
    } else if let Some(key) = affinity.key {
        (
            snapshot
                .rendezvous
                .home(key, |c| eligibility.allows(c))
                .and_then(|i| snapshot.upstream(i)),
            Route::Home,
        )
    } else {
        (
            snapshot.upstream(fastrand::usize(..snapshot.upstreams().len())),
            Route::Keyless,
        )
    };
    let upstream = upstream.ok_or(Fault::Internal)?;
    Ok(Pick {
        upstream,
        route,
        affinity,
        pin,
    })
}

fn affinity(house: &House, snapshot: &Snapshot, admitted: &Admitted, facts: &RequestFacts) -> Affinity {
    let has_content = match admitted.target.endpoint {
        Endpoint::Responses | Endpoint::Compact => !facts.content.is_empty(),
        Endpoint::Response | Endpoint::Models | Endpoint::ChatCompletions | Endpoint::Embeddings | Endpoint::Other => {
            false
        }
    };
    let clues = Clues {
        namespace: admitted.namespace,
        prompt_cache_key: facts.prompt_cache_key.as_deref(),
        session_id: facts.session_id.as_deref(),
        headers: &admitted.headers,
        owner: owner(house, admitted, facts),
        content: has_content.then(|| (facts.content.instructions(), facts.content.input())),
    };
    Affinity::find(&snapshot.sources, &clues)
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
