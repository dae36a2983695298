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
//! A request's *own* upstream comes first: the owner, else the pin, else the home. If that cannot take it, its siblings
//! follow in rendezvous order: the upstreams of the same organization, which share its prompt cache and its state. Then
//! come all others in rendezvous order, but not for a request with an owner. That one goes nowhere outside the owner's
//! organization, and nowhere at all when the pool does not have the owner and so nobody knows whose the state is. Within
//! the organization every member holds the state, so that there the pin goes before the owner: that is where the session
//! went when the owner could not take it.
//!
//! Nothing is computed before it is asked for, because the first candidate is nearly always the last: with a pin, a
//! request costs no hashing over the pool at all.

use http::HeaderName;

use super::{
    SessionSource,
    balance::less_loaded_of_two,
    rendezvous::{Member, Ranked, Rendezvous},
};
use crate::ids::{Namespace, OrganizationId, SessionKey, UpstreamId};

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
    pub content: ConversationStart<'a>,
    /// The upstream that owns the `previous_response_id`, the turn state or the response id in the path.
    pub owner: Option<UpstreamId>,
}

/// The first bytes of what all requests of a conversation repeat; empty where the body has none.
#[derive(Clone, Copy, Default)]
pub struct ConversationStart<'a> {
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
    /// same key, byte for byte. The owner counts if [`SessionSource::Owner`] is in the order at all. Behind a known owner
    /// content makes no key: such a request sends only what is new, so that its beginning is not the conversation's.
    pub fn find<'a, H>(order: &[SessionSource], namespace: Namespace, clues: &Clues<'a, H>) -> Self
    where
        H: Fn(&HeaderName) -> Option<&'a str>,
    {
        let mut found = Self::default();
        for source in order {
            let text = match source {
                SessionSource::PromptCacheKey => clues.prompt_cache_key,
                SessionSource::ClientSessionId => clues.session_id,
                SessionSource::Header(name) if found.key.is_none() => (clues.header)(name),
                SessionSource::Header(_) => None,
                SessionSource::Owner => {
                    found.owner = clues.owner;
                    None
                }
                SessionSource::Content => {
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

impl ConversationStart<'_> {
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
#[derive(Clone, Debug)]
pub struct Candidates<'a, F> {
    pool: &'a Rendezvous,
    /// The first, if it is known without the rendezvous order, else once it was found in it.
    own: Option<usize>,
    reach: Reach,
    has_begun: bool,
    /// Who else is of its organization and still to come, the last first; `None` until somebody asks.
    siblings: Option<Vec<usize>>,
    /// The next one's route.
    route: Route,
    ranked: Ranked<'a, F>,
}

/// How far from its own upstream a request may go.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// It refers to state that this organization has and nobody else; `None` when the organization is not known.
    Organization(Option<OrganizationId>),
    /// To anybody, but first to those who share its own upstream's prompt cache.
    SiblingsFirst,
    /// To anybody: it has nothing cached.
    Anybody,
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
    let member = |index| pool.member(index).filter(|member| eligible(member.class));
    let usable = |id| pool.position(id).filter(|index| member(*index).is_some());
    let pin = pin.and_then(usable);
    let (own, reach, route) = if let Some(owner) = affinity.owner {
        let organization = |index| pool.member(index).map(|member| member.organization);
        let owned_by = pool.position(owner).and_then(organization);
        // A session that went to a sibling has its cache there by now, and the sibling holds what the owner holds.
        let (own, route) = match pin.filter(|pin| owned_by.is_some() && organization(*pin) == owned_by) {
            Some(pin) => (Some(pin), Route::Pin),
            None => (usable(owner), Route::Owner),
        };
        (own, Reach::Organization(owned_by), route)
    } else if pin.is_some() {
        (pin, Reach::SiblingsFirst, Route::Pin)
    } else if affinity.key.is_some() {
        (None, Reach::SiblingsFirst, Route::Home)
    } else {
        let weight = |index| member(index).map(|member| member.weight);
        let own = less_loaded_of_two(random, pool.len(), weight, in_flight);
        (own, Reach::Anybody, Route::Keyless)
    };
    let key = affinity.key.map_or(random, SessionKey::as_u64);
    Candidates {
        pool,
        own,
        reach,
        has_begun: false,
        siblings: None,
        route,
        ranked: pool.ranked_by(key, eligible),
    }
}

impl<F: Fn(u16) -> bool> Candidates<'_, F> {
    fn first(&mut self) -> Option<usize> {
        self.has_begun = true;
        if self.own.is_none() && !matches!(self.reach, Reach::Organization(_)) {
            self.own = self.ranked.next();
        }
        self.own
    }

    fn later(&mut self) -> Option<usize> {
        let (pool, own) = (self.pool, self.own);
        let organization = match self.reach {
            Reach::Organization(organization) => organization,
            Reach::SiblingsFirst => own.and_then(|own| pool.member(own)).map(|own| own.organization),
            Reach::Anybody => None,
        };
        let is_sibling = |member: &Member| Some(member.organization) == organization;
        let siblings = self.siblings.get_or_insert_with(|| match organization {
            Some(_) => self.ranked.among(is_sibling),
            None => Vec::new(),
        });
        let sibling = std::iter::from_fn(|| siblings.pop()).find(|index| Some(*index) != own);
        match self.reach {
            Reach::Organization(_) => sibling,
            Reach::SiblingsFirst | Reach::Anybody => sibling.or_else(|| {
                let is_other = |index: &usize| Some(*index) != own && !pool.member(*index).is_some_and(is_sibling);
                self.ranked.find(is_other)
            }),
        }
    }
}

impl<F: Fn(u16) -> bool> Iterator for Candidates<'_, F> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let first = if self.has_begun { None } else { self.first() };
        let index = match first {
            Some(index) => index,
            None => self.later()?,
        };
        let later = match self.route {
            // What belongs nowhere cannot move.
            Route::Keyless => Route::Keyless,
            Route::Home | Route::Pin | Route::Moved | Route::Owner => Route::Moved,
        };
        Some(Candidate {
            index,
            route: std::mem::replace(&mut self.route, later),
        })
    }
}
