//! The third stage: which upstream, and why; and again, when that one could not take it.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::proxy::{request::admit::Admitted, request::target::bounded};
use crate::{
    endpoint::KeylessRouting,
    fault::Fault,
    ids::{ModelKey, OwnedKey, UpstreamId},
    policy::{
        self, Affinity, Availability, Candidate, Clues, ConversationStart, Decision, Preference, Route, WaitLimits,
    },
    scan::RequestFacts,
    state::{Eligibility, Gateway, Lease, Snapshot, Upstream},
    tick::Tick,
};

/// Where a request may go: who comes first, who next, and how long it waits for whom.
pub(in crate::proxy) struct Pick<'a> {
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    eligibility: Eligibility,
    model: Option<ModelKey>,
    /// What the request belongs to.
    pub affinity: Affinity,
    /// Where its session is pinned.
    pin: Option<UpstreamId>,
    /// What the answer may do to the session's pin.
    pub pinning: Pinning,
    /// Decides what nothing else does; the same each time, so that the order stays.
    random: u64,
    /// Until when it waits for whom.
    terms: WaitLimits,
    /// Who has failed it, by index.
    tried: Vec<usize>,
    /// How long it has waited.
    pub waited: Duration,
}

/// What the answer may do to the session's pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Pinning {
    /// Set it, if it still is what it was at the pick.
    From(Option<UpstreamId>),
    /// Leave it: the session's own upstream does not serve this model, and its cache for the others stays where it is.
    Stays,
}

/// The upstream that a request goes to, and its place there.
pub(in crate::proxy) struct Picked<'a> {
    pub upstream: &'a Upstream,
    pub index: usize,
    pub route: Route,
    pub lease: Lease,
    /// Nobody is well; this one is tried because somebody has to be.
    pub is_last_resort: bool,
}

/// What comes next for a request.
pub(in crate::proxy) enum Next<'a> {
    Picked(Picked<'a>),
    /// Nothing before `candidate` takes it, and that for no longer than until then.
    Wait {
        candidate: Candidate,
        until: Tick,
    },
    /// Somebody else was faster.
    Raced,
    Nobody,
}

/// Reads where a request may go. Its body has `body_bytes`, as far as they are known.
pub(in crate::proxy) fn pick<'a>(
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    admitted: &Admitted<'_>,
    facts: &RequestFacts,
    body_bytes: u64,
) -> Result<Pick<'a>, Fault> {
    let model = facts.model.as_deref();
    let group = admitted.caller.group;
    let eligibility = snapshot
        .eligibility(group, model)
        .ok_or_else(|| Fault::ModelNotServed {
            model: bounded(model.unwrap_or_default()),
            served: snapshot.models_of(group),
        })?;
    check_responses(gateway, admitted, facts)?;
    let affinity = affinity(gateway, snapshot, admitted, facts);
    let now = gateway.clock.now();
    let pin = affinity.key.and_then(|key| gateway.runtime.pins.get(key, now));
    let pinned = pin
        .and_then(|id| snapshot.rendezvous.position(id))
        .and_then(|at| snapshot.rendezvous.member(at));
    let pinning = match pinned {
        Some(member) if !eligibility.allows(member.class) => Pinning::Stays,
        _ => Pinning::From(pin),
    };
    let is_settled = affinity.owner.is_some() || (pinned.is_some() && pinning != Pinning::Stays);
    Ok(Pick {
        gateway,
        snapshot,
        eligibility,
        model: model.map(ModelKey::from_name),
        affinity,
        pin,
        pinning,
        random: fastrand::u64(..),
        terms: WaitLimits {
            now,
            // A session whose cache, or state, is nowhere yet loses nothing by leaving.
            stays_until: match is_settled {
                true => now.after(snapshot.patience.of_session(body_bytes)),
                false => Tick::ZERO,
            },
            waits_until: now.after(snapshot.patience.wait),
        },
        tried: Vec::new(),
        waited: Duration::ZERO,
    })
}

/// How often a place may be lost to somebody faster before the request gives up.
const RACES: usize = 64;

impl<'a> Pick<'a> {
    /// The next upstream that can take the request, waited for if need be; `None` when there is nobody left.
    pub async fn next(&mut self) -> Option<Picked<'a>> {
        for _ in 0..RACES {
            match self.at_once() {
                Next::Picked(picked) => return Some(picked),
                // In a box, as that is rare: a request's future is as large as its largest branch.
                Next::Wait { candidate, until } => {
                    if let Some(lease) = Box::pin(self.wait(candidate, until)).await {
                        return Some(self.picked(candidate, lease, false));
                    }
                }
                Next::Raced => {}
                Next::Nobody => return None,
            }
        }
        None
    }

    /// The next upstream, as far as that can be told and done without waiting.
    pub fn at_once(&self) -> Next<'a> {
        let (candidate, is_last_resort) = match self.decide() {
            Decision::Send(candidate) => (candidate, false),
            Decision::LeastBad(candidate) => (candidate, true),
            Decision::Wait { candidate, until } => return Next::Wait { candidate, until },
            Decision::NoUpstream => return Next::Nobody,
        };
        let upstream = self.snapshot.upstream(candidate.index);
        let lease = if is_last_resort {
            upstream.state.try_acquire_unhealthy(self.model)
        } else {
            upstream.state.try_acquire(self.model)
        };
        let picked = lease.map(|lease| self.picked(candidate, lease, is_last_resort));
        picked.map_or(Next::Raced, Next::Picked)
    }

    /// The upstream at `index` has failed the request, and gets it no more.
    pub fn has_failed(&mut self, index: usize) {
        self.tried.push(index);
    }

    /// Whether the upstream at `index`, which has just refused the request for now, will take it while its session is
    /// patient: then it is not given up.
    pub fn is_worth_waiting(&self, index: usize) -> bool {
        let is_own = self.candidates().next().is_some_and(|own| own.index == index);
        is_own && matches!(self.standing(index), Availability::Cooling { until } if until <= self.terms.stays_until)
    }

    /// Why nobody is left.
    pub fn nobody(&self) -> Fault {
        let now = self.gateway.clock.now();
        let is_owned = self.affinity.owner.is_some();
        let (mut soonest, mut all_limited, mut any) = (None::<Tick>, true, false);
        for candidate in self.candidates() {
            any = true;
            match self.standing(candidate.index) {
                Availability::Cooling { until } => soonest = Some(soonest.map_or(until, |soonest| soonest.min(until))),
                _ => all_limited = false,
            }
        }
        match soonest {
            _ if !any => Fault::OwnerGone,
            Some(until) if all_limited => {
                let resets_in = until.since(now);
                Fault::Limited {
                    resets_in,
                    resets_at: crate::fault::seconds(self.gateway.clock.unix_time() + resets_in),
                    is_owned,
                }
            }
            _ => Fault::Unavailable { retry: RETRY, is_owned },
        }
    }

    fn picked(&self, candidate: Candidate, lease: Lease, is_last_resort: bool) -> Picked<'a> {
        Picked {
            upstream: self.snapshot.upstream(candidate.index),
            index: candidate.index,
            route: candidate.route,
            lease,
            is_last_resort,
        }
    }

    fn decide(&self) -> Decision {
        let terms = WaitLimits {
            now: self.gateway.clock.now(),
            ..self.terms
        };
        policy::select(
            self.candidates(),
            |index| self.tried.contains(&index),
            |index| self.standing(index),
            |index| self.snapshot.upstream(index).state.badness(self.model),
            &terms,
        )
    }

    async fn wait(&mut self, candidate: Candidate, until: Tick) -> Option<Lease> {
        let Some(_permit) = self.gateway.runtime.wait_permit() else {
            // Too many wait already: this one goes elsewhere, or gives up.
            self.terms.stays_until = Tick::ZERO;
            self.terms.waits_until = Tick::ZERO;
            return None;
        };
        let begun = self.gateway.clock.now();
        let state = &self.snapshot.upstream(candidate.index).state;
        let lease = state.acquire(self.model, until).await;
        self.waited += self.gateway.clock.now().since(begun);
        lease
    }

    fn standing(&self, index: usize) -> Availability {
        self.snapshot.upstream(index).state.availability(self.model)
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let in_flight = |index| self.snapshot.upstream(index).state.in_flight();
        policy::candidates(
            &self.snapshot.rendezvous,
            Preference {
                affinity: self.affinity,
                pin: self.pin,
            },
            |class| self.eligibility.allows(class),
            self.random,
            in_flight,
        )
    }
}

/// When somebody may be well again, where that is not known.
const RETRY: Duration = Duration::from_secs(2);

fn affinity(gateway: &Gateway, snapshot: &Snapshot, admitted: &Admitted<'_>, facts: &RequestFacts) -> Affinity {
    let content = match admitted.target.endpoint.keyless_routing() {
        KeylessRouting::ByContent => ConversationStart {
            instructions: facts.content.instructions(),
            input: facts.content.input(),
        },
        KeylessRouting::Balanced => ConversationStart::default(),
    };
    let clues = Clues {
        prompt_cache_key: facts.prompt_cache_key.as_deref(),
        session_id: facts.session_id.as_deref(),
        header: |name: &HeaderName| single(&admitted.headers, name),
        content,
        owner: owner(gateway, snapshot, admitted, facts),
    };
    Affinity::find(&snapshot.sources, admitted.namespace(), &clues)
}

/// Whether the caller's group made every response that the request names, where the accounts hold those of others too.
fn check_responses(gateway: &Gateway, admitted: &Admitted<'_>, facts: &RequestFacts) -> Result<(), Fault> {
    if !admitted.caller.group.shares_accounts {
        return Ok(());
    }
    let now = gateway.clock.now();
    let is_known = |id| {
        let key = OwnedKey::from_response_id(admitted.namespace(), id);
        gateway.runtime.owners.get(key, now).is_some()
    };
    let (in_body, in_path) = (facts.previous_response_id.as_deref(), admitted.target.response_id());
    match (in_body, in_path) {
        (_, Some(id)) if !is_known(id) => Err(Fault::ResponseNotFound { in_path: true }),
        (Some(id), _) if !is_known(id) => Err(Fault::ResponseNotFound { in_path: false }),
        _ => Ok(()),
    }
}

/// The value of a header that stands once: which of two an upstream would read is anybody's guess.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

/// Who holds the state that a request refers to: an earlier response, a turn, or the newest encrypted item that is known.
///
/// The turn state of somebody who is not configured (any more) is dropped: a turn can go on without.
fn owner(gateway: &Gateway, snapshot: &Snapshot, admitted: &Admitted<'_>, facts: &RequestFacts) -> Option<UpstreamId> {
    let owners = &gateway.runtime.owners;
    let owner_of = |key| owners.get(key, gateway.clock.now());
    let response = facts.previous_response_id.as_deref().or(admitted.target.response_id());
    response
        .and_then(|id| owner_of(OwnedKey::from_response_id(admitted.namespace(), id)))
        .or_else(|| {
            let issuer = admitted.turn_state.as_ref().map(|state| state.issuer)?;
            snapshot.rendezvous.position(issuer).map(|_| issuer)
        })
        .or_else(|| {
            let newest_first = facts.encrypted.iter().rev();
            newest_first
                .map(|item| OwnedKey::from_encrypted_content(admitted.namespace(), *item))
                .find_map(owner_of)
        })
}
