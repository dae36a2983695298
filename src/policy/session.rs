//! The affinity of a request: its session key and the owner of its state, and from them the candidate upstreams, best
//! first.
//!
//! # Three kinds of affinity
//!
//! A **key** names the session. It is a preference: any upstream can serve the request, but only one has the prompt
//! in its cache. The **issuer** of the turn state that the request returns is a preference too, and a stronger one: a
//! turn can go on without its turn state, which is sent to no other upstream. An **owner** is the upstream that holds
//! state which the request refers to (an earlier response, a file, an encrypted item). It is a requirement: another account
//! refuses the request. So an owner takes precedence over an issuer, and an issuer over a key. A key that is known as
//! well is kept, so that the session is pinned to the upstream that has its state.
//!
//! # The order of candidates
//!
//! The request's *own* upstream comes first: the owner, otherwise the issuer, otherwise the pin, otherwise the home. If
//! an issuer cannot take the request, the pin is next, because the session's cache is there. Otherwise, and after that,
//! the own upstream's siblings follow in rendezvous order: the upstreams of the same organization, which share its
//! prompt cache and its state. Then all other upstreams follow in rendezvous order, but not for a request with an
//! owner. Such a request never leaves the owner's organization. It has no candidate at all if the pool does not contain
//! the owner, because then its organization is unknown. Every member of the organization has the state. So if the pin
//! is in it too, the pin comes before the owner: the session went to its pin when the owner could not take it. For the
//! same reason, a pin in the organization of the issuer comes before the issuer.
//!
//! The order is computed lazily, because the first candidate is usually the only one needed. With a pin, a request
//! needs no hashing over the pool at all.

use http::HeaderName;

use super::{
    SessionSource,
    balance::less_loaded_of_two,
    rendezvous::{Eligible, Member, MemberIndex, Ranked, Rendezvous},
};
use crate::{
    body_path::{BodyPath, BodyPaths, BodyTexts},
    endpoint::Endpoint,
    ids::{ContentDigest, Namespace, OrganizationId, SessionKey, UpstreamId},
};

#[cfg(test)]
mod tests;

/// The parts of a request from which its session is derived.
#[derive(Clone, Copy)]
pub struct Clues<'a, 'p, H> {
    /// The endpoint that the request calls.
    pub endpoint: Endpoint,
    /// The paths of the texts.
    pub paths: &'p BodyPaths,
    /// The texts in the body at these paths, unescaped.
    pub texts: &'a BodyTexts,
    /// Returns the value of a request header, if the header occurs once and is UTF-8.
    pub header: H,
    /// The beginning of the conversation.
    pub content: Option<ContentDigest>,
    /// The upstream that owns an object that the request names, or an encrypted item.
    pub owner: Option<UpstreamId>,
    /// The upstream that issued the turn state.
    pub issuer: Option<UpstreamId>,
}

/// The session and the state that a request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// The session key.
    pub key: Option<SessionKey>,
    /// The upstream that holds state which the request refers to, and without which the request fails.
    pub owner: Option<UpstreamId>,
    /// The upstream that issued the turn state which the request returns. The request can do without it.
    pub issuer: Option<UpstreamId>,
}

impl Affinity {
    /// Derives the affinity from `clues`, in the configured `order` of sources.
    ///
    /// The key comes from the first source whose text is not blank. The same text from any source gives the same key,
    /// byte for byte. The owner and the issuer count if [`SessionSource::Owner`] is in the order at all. After a known
    /// owner, the content gives no key: such a request contains only the new part of the conversation, not its
    /// beginning. A request with turn state contains the whole conversation.
    pub fn find<'a, H>(order: &[SessionSource], namespace: Namespace, clues: &Clues<'a, '_, H>) -> Self
    where
        H: Fn(&HeaderName) -> Option<&'a str>,
    {
        let mut found = Self::default();
        for source in order {
            let text = match source {
                _ if found.key.is_some() && *source != SessionSource::Owner => None,
                SessionSource::Body(path) => clues.text(path),
                SessionSource::MessagesBody(path) if clues.endpoint == Endpoint::Messages => clues.text(path),
                SessionSource::MessagesBody(_) => None,
                SessionSource::Header(name) => (clues.header)(name),
                SessionSource::Owner => {
                    (found.owner, found.issuer) = (clues.owner, clues.issuer);
                    None
                }
                SessionSource::Content => {
                    if found.owner.is_none() {
                        let content = clues.content;
                        found.key = content.map(|content| SessionKey::from_content(namespace, content));
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

impl<'a, H> Clues<'a, '_, H> {
    fn text(&self, path: &BodyPath) -> Option<&'a str> {
        self.texts.get(self.paths.index_of(path)?)
    }
}

/// The upstreams that a request prefers: by its affinity, and by the pin of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// The session and the state that the request belongs to.
    pub affinity: Affinity,
    /// The result of [`Pins::get`](super::Pins) for the session key.
    pub pin: Option<UpstreamId>,
    /// The choice for a request without key, owner and issuer.
    pub keyless: KeylessChoice,
}

/// How the first upstream of a request without key, owner and issuer is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeylessChoice {
    /// The less loaded of two random upstreams.
    #[default]
    LessLoaded,
    /// The rendezvous order of a number, so that equal requests go to the same upstream.
    ByHash,
}

/// The reason for a request's upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// The request goes to the home of its key; there is no pin and no owner.
    Home,
    /// The request goes to the upstream to which its session is pinned.
    Pin,
    /// The request goes to another upstream, because its own could not take it.
    Moved,
    /// The request goes to the owner of the state that it refers to, or to the issuer of its turn state.
    Owner,
    /// The request has no session. It goes to the less loaded of two upstreams, or, if it is a list, to the same upstream as
    /// other lists.
    Keyless,
}

impl Route {
    /// All routes, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Home, Self::Pin, Self::Moved, Self::Owner, Self::Keyless];

    /// The name of the route in metrics, logs and headers.
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

/// An upstream that a request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The index of the upstream in the pool.
    pub index: MemberIndex,
    /// The route of the request if it goes to this upstream.
    pub route: Route,
}

/// The candidates for a request, best first, each once, computed lazily. The caller skips a candidate that cannot take
/// the request by asking for the next one, which is marked as [`Route::Moved`].
#[derive(Clone, Debug)]
pub struct Candidates<'a, E> {
    pool: &'a Rendezvous,
    /// The index of the request's own upstream. `None` if it is the first in rendezvous order and was not computed
    /// yet, or if the request has none.
    own: Option<MemberIndex>,
    /// The index of the upstream that comes second: the pin, if the issuer of the turn state comes before it.
    second: Option<MemberIndex>,
    reach: Reach,
    progress: ReturnedCandidates,
    /// The indexes of the own upstream's siblings that are still to come, the last first; `None` until they are
    /// needed.
    siblings: Option<Vec<MemberIndex>>,
    /// The route of the next candidate.
    route: Route,
    ranked: Ranked<'a, E>,
}

/// Which candidates have been returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReturnedCandidates {
    None,
    /// The own upstream, or the request has none.
    Own,
    /// The own upstream and the second one, as far as the request has them.
    Second,
}

/// How far from its own upstream a request may go.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// The request may go only within this organization, which has the state that the request refers to; `None` if
    /// the organization is not known.
    Organization(Option<OrganizationId>),
    /// The request may go to every upstream, but first to those that share the prompt cache of its own upstream.
    SiblingsFirst,
    /// The request may go to every upstream in any order, because it has nothing in a cache.
    Anywhere,
}

/// Returns the candidates for a request. `eligible` tells which upstreams may serve the request. A request
/// without key, owner and issuer goes to the less loaded of two upstreams by `in_flight`; `random` is 64 uniformly random bits
/// for that choice. By [`KeylessChoice::ByHash`], `random` is the number whose rendezvous order decides.
pub fn candidates<'a, E: Eligible + 'a>(
    pool: &'a Rendezvous,
    preference: Preference,
    eligible: E,
    random: u64,
    in_flight: impl Fn(MemberIndex) -> u32,
) -> Candidates<'a, E> {
    let is_eligible =
        |index: &MemberIndex| eligible.allows_class(pool.member(*index).class) && eligible.allows_member(*index);
    let usable = |id| pool.position(id).filter(is_eligible);
    let Preference { affinity, pin, keyless } = preference;
    let pin = pin.and_then(usable);
    let mut second = None;
    let (own, reach, route) = if let Some(owner) = affinity.owner {
        let organization = |index| pool.member(index).organization;
        let owned_by = pool.position(owner).map(organization);
        // A session that moved to a sibling has its cache there by now, and the sibling has the owner's state.
        let (own, route) = match pin.filter(|pin| owned_by == Some(organization(*pin))) {
            Some(pin) => (Some(pin), Route::Pin),
            None => (usable(owner), Route::Owner),
        };
        (own, Reach::Organization(owned_by), route)
    } else if let Some(issuer) = affinity.issuer.and_then(usable) {
        let organization = |index| pool.member(index).organization;
        match pin {
            Some(pin) if organization(pin) == organization(issuer) => (Some(pin), Reach::SiblingsFirst, Route::Pin),
            pin => {
                second = pin;
                (Some(issuer), Reach::SiblingsFirst, Route::Owner)
            }
        }
    } else if pin.is_some() {
        (pin, Reach::SiblingsFirst, Route::Pin)
    } else if affinity.key.is_some() {
        (None, Reach::SiblingsFirst, Route::Home)
    } else if keyless == KeylessChoice::ByHash {
        (None, Reach::Anywhere, Route::Keyless)
    } else {
        let weight = |index| is_eligible(&index).then(|| pool.member(index).weight);
        let own = less_loaded_of_two(random, pool.indexes(), weight, in_flight);
        (own, Reach::Anywhere, Route::Keyless)
    };
    let key = affinity.key.map_or(random, SessionKey::as_u64);
    Candidates {
        pool,
        own,
        second,
        reach,
        progress: ReturnedCandidates::None,
        siblings: None,
        route,
        ranked: pool.ranked_by(key, eligible),
    }
}

impl<E: Eligible> Candidates<'_, E> {
    fn first(&mut self) -> Option<MemberIndex> {
        if self.own.is_none() && !matches!(self.reach, Reach::Organization(_)) {
            self.own = self.ranked.next();
        }
        self.own
    }

    fn later(&mut self) -> Option<MemberIndex> {
        let (pool, own, second) = (self.pool, self.own, self.second);
        let is_returned = |index: &MemberIndex| [own, second].contains(&Some(*index));
        let organization = match self.reach {
            Reach::Organization(organization) => organization,
            Reach::SiblingsFirst => own.map(|own| pool.member(own).organization),
            Reach::Anywhere => None,
        };
        let is_sibling = |member: &Member| Some(member.organization) == organization;
        let siblings = self.siblings.get_or_insert_with(|| match organization {
            Some(_) => self.ranked.among(is_sibling),
            None => Vec::new(),
        });
        let sibling = std::iter::from_fn(|| siblings.pop()).find(|index| !is_returned(index));
        match self.reach {
            Reach::Organization(_) => sibling,
            Reach::SiblingsFirst | Reach::Anywhere => sibling.or_else(|| {
                let is_other = |index: &MemberIndex| !is_returned(index) && !is_sibling(pool.member(*index));
                self.ranked.find(is_other)
            }),
        }
    }
}

impl<E: Eligible> Iterator for Candidates<'_, E> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let early = match self.progress {
            ReturnedCandidates::None => self.first(),
            ReturnedCandidates::Own => self.second,
            ReturnedCandidates::Second => None,
        };
        self.progress = match self.progress {
            ReturnedCandidates::None if early.is_some() => ReturnedCandidates::Own,
            ReturnedCandidates::None | ReturnedCandidates::Own | ReturnedCandidates::Second => {
                ReturnedCandidates::Second
            }
        };
        let index = match early {
            Some(index) => index,
            None => self.later()?,
        };
        let later = match self.route {
            // A request without a session cannot move.
            Route::Keyless => Route::Keyless,
            Route::Home | Route::Pin | Route::Moved | Route::Owner => Route::Moved,
        };
        Some(Candidate {
            index,
            route: std::mem::replace(&mut self.route, later),
        })
    }
}
