//! What a request belongs to: from the clues in it to a session key, and on to the upstreams that it may go to, best
//! first.
//!
//! # Two kinds of belonging
//!
//! A **key** names the session. It is a preference: any upstream can serve the request, but only one has the prompt in
//! its cache. An **owner** is the upstream that holds state which the request refers to (an earlier response, a turn
//! state). It is a necessity: another account refuses the request. So an owner goes before everything that a key says,
//! and a key that is known as well is carried along, so that the session is pinned where its state is.
//!
//! # The order of candidates
//!
//! Owner, then pin, then home, then the rest of the rendezvous order. Nothing is computed before it is asked for,
//! because the first candidate is nearly always the last: with a pin, a request costs no hashing over the pool at all.

use http::HeaderName;

use super::{
    Source,
    balance::less_loaded_of_two,
    rendezvous::{Ranked, Rendezvous},
};
use crate::ids::{Namespace, SessionKey, UpstreamId};

#[cfg(test)]
mod tests;

/// Everything in a request that may tell its session.
#[derive(Clone, Copy)]
pub struct Clues<'a, H> {
    /// The body's top-level `prompt_cache_key`, unescaped.
    pub prompt_cache_key: Option<&'a str>,
    /// The body's `client_metadata.session_id`, unescaped.
    pub session_id: Option<&'a str>,
    /// The value of a request header, if it is there once and is UTF-8.
    pub header: H,
    /// How the conversation begins.
    pub content: Content<'a>,
    /// The upstream that owns the `previous_response_id`, the turn state or the response id in the path.
    pub owner: Option<UpstreamId>,
}

/// The first bytes of what all requests of a conversation repeat; empty where the body has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content<'a> {
    /// Of the body's `instructions`.
    pub instructions: &'a [u8],
    /// Of the body's `input`.
    pub input: &'a [u8],
}

/// What a request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Its session.
    pub key: Option<SessionKey>,
    /// The upstream that holds its state.
    pub owner: Option<UpstreamId>,
}

impl Affinity {
    /// Reads the clues in the configured `order`.
    ///
    /// The key comes from the first source that has a text which is not blank; the same text from any source is the
    /// same key, byte for byte. The owner counts if [`Source::Owner`] is in the order at all. Behind a known owner
    /// content makes no key: such a request sends only what is new, so that its beginning is not the conversation's.
    pub fn find<'a, H>(order: &[Source], namespace: Namespace, clues: &Clues<'a, H>) -> Self
    where
        H: Fn(&HeaderName) -> Option<&'a str>,
    {
        let mut found = Self::default();
        for source in order {
            let text = match source {
                Source::PromptCacheKey => clues.prompt_cache_key,
                Source::ClientSessionId => clues.session_id,
                Source::Header(name) if found.key.is_none() => (clues.header)(name),
                Source::Header(_) => None,
                Source::Owner => {
                    found.owner = clues.owner;
                    None
                }
                Source::Content => {
                    if found == Self::default() {
                        found.key = clues.content.key(namespace);
                    }
                    None
                }
            };
            if found.key.is_none() {
                let text = text.filter(|text| !text.trim().is_empty());
                found.key = text.map(|text| SessionKey::from_text(namespace, text));
            }
        }
        found
    }
}

impl Content<'_> {
    fn key(&self, namespace: Namespace) -> Option<SessionKey> {
        let is_blank = self.instructions.trim_ascii().is_empty() && self.input.trim_ascii().is_empty();
        (!is_blank).then(|| SessionKey::from_content(namespace, self.instructions, self.input))
    }
}

/// Why a request goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// To the home of its key; nothing else is known.
    Home,
    /// To where its session is pinned.
    Pin,
    /// Elsewhere, because its own upstream could not take it.
    Moved,
    /// To the owner of state that it refers to.
    Owner,
    /// To the less loaded of two, because it belongs nowhere.
    Keyless,
}

impl Route {
    /// All routes, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Home, Self::Pin, Self::Moved, Self::Owner, Self::Keyless];

    /// The route as operators see it in metrics, logs and headers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Pin => "pin",
            Self::Moved => "moved",
            Self::Owner => "owner",
            Self::Keyless => "keyless",
        }
    }
}

/// One upstream that a request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its index in the pool.
    pub index: usize,
    /// What the request's route is if it goes there.
    pub route: Route,
}

/// The upstreams for a request, best first, each once; lazy. Whoever cannot take the request is simply passed over:
/// what comes next is already marked as [`Route::Moved`].
///
/// A request with an owner gets other candidates after it like any other. They will refuse what is owned, so it is up
/// to the caller whether one is worth a try.
#[derive(Clone, Debug)]
pub struct Candidates<'a, F> {
    /// Those that are known without the rendezvous order, in which they are skipped.
    known: [Option<usize>; 2],
    /// How many of `known` have had their turn.
    turn: usize,
    /// The next one's route, and that of all after it.
    route: Route,
    later: Route,
    rest: Ranked<'a, F>,
}

/// Where the request may go. `pin` is what [`Pins::get`](super::Pins) says of its key, `eligible` which classes may
/// serve it. A request without key and owner takes the less loaded of two by `in_flight`; `random` is 64 uniformly
/// random bits for that.
pub fn candidates<'a, F: Fn(u16) -> bool + 'a>(
    pool: &'a Rendezvous,
    affinity: Affinity,
    pin: Option<UpstreamId>,
    eligible: F,
    random: u64,
    in_flight: impl Fn(usize) -> u32,
) -> Candidates<'a, F> {
    let usable = |id: UpstreamId| {
        let index = pool.position(id)?;
        pool.member(index)
            .filter(|member| eligible(member.class))
            .map(|_| index)
    };
    let owner = affinity.owner.and_then(usable);
    let pin = pin.and_then(usable);
    let (known, route) = match (owner, pin) {
        (Some(owner), Some(pin)) if owner == pin => ([Some(owner), None], Route::Pin),
        (Some(owner), pin) => ([Some(owner), pin], Route::Owner),
        (None, Some(pin)) => ([Some(pin), None], Route::Pin),
        (None, None) if affinity.key.is_some() => ([None, None], Route::Home),
        (None, None) => {
            let weight = |index| {
                pool.member(index)
                    .filter(|member| eligible(member.class))
                    .map(|member| member.weight)
            };
            (
                [less_loaded_of_two(random, pool.len(), weight, in_flight), None],
                Route::Keyless,
            )
        }
    };
    // A request that belongs nowhere cannot move.
    let later = if route == Route::Keyless {
        Route::Keyless
    } else {
        Route::Moved
    };
    let key = affinity.key.map_or(random, SessionKey::as_u64);
    Candidates {
        known,
        turn: 0,
        route,
        later,
        rest: pool.ranked_by(key, eligible),
    }
}

impl<F: Fn(u16) -> bool> Iterator for Candidates<'_, F> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let known = self.known.get(self.turn).copied().flatten();
        self.turn = self.known.len().min(self.turn + 1);
        let index = match known {
            Some(index) => index,
            None => self.rest.by_ref().find(|index| !self.known.contains(&Some(*index)))?,
        };
        Some(Candidate {
            index,
            route: std::mem::replace(&mut self.route, self.later),
        })
    }
}
