//! Weighted rendezvous hashing: every session has a home, and everybody agrees where without talking.
//!
//! # The idea
//!
//! For a key, every member of the pool draws a pseudo-random number from hash(key, member); the highest draw wins
//! (Thaler & Ravishankar, *Using name-based mappings to increase hit rates*, 1998). A draw depends on nothing but the
//! key and that one member, and from this all else follows: take a member away and only the keys that it had won go
//! elsewhere; add one and it wins its share, while every other key stays where it is. There is no table to build and
//! nothing to keep in step between replicas.
//!
//! # Weights
//!
//! Turn each draw `u`, uniform in (0, 1), into a time `-ln(u) / weight`, and let the earliest win. Those times are
//! exponentially distributed with rate `weight`, and in a race of exponential clocks a member comes first with probability
//! `weight / sum of weights` (Schindelhauer & Schomaker, *Weighted distributed hash tables*, 2005). Raising a weight
//! makes one member's times earlier and changes no other, so that keys move only towards it.
//!
//! # Speed
//!
//! Within one weight the time falls as the hash rises, so the race among equals is won by the largest *integer*. Members
//! are therefore grouped by weight: one integer maximum per group, then one logarithm for that group's winner only. And
//! because `-ln(u) ≥ 1 - u`, a group whose winner would be too late even at that bound needs no logarithm either.
//! The result is exactly that of the plain form, which the tests keep as their oracle.

use std::{cmp::Reverse, iter::FusedIterator, ops::Range};

use super::hash::{ln, mix, unit};
use crate::ids::{SessionKey, UpstreamId, Weight};

#[cfg(test)]
mod tests;

/// One upstream of a pool, as far as rendezvous hashing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is. Within one pool every id is different.
    pub id: UpstreamId,
    /// Its share of the keys, relative to the other eligible members.
    pub weight: Weight,
    /// Its eligibility class: the members of one class serve the same models.
    pub class: u16,
}

/// A pool, compiled once per configuration and then immutable.
///
/// Every index that goes in or comes out refers to the slice of members that it was made from.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    members: Box<[Member]>,
    /// Sorted by weight (the heaviest first), class and id: what a pick reads stands side by side.
    ids: Box<[u64]>,
    /// For each of `ids`, whose it is.
    index: Box<[u32]>,
    /// Stretches of `ids` that share weight and class; those of one weight are neighbours.
    runs: Box<[Run]>,
    /// Stretches of `runs` that share a weight.
    groups: Box<[Group]>,
    /// The same ids in ascending order, each with whose it is.
    by_id: Box<[(UpstreamId, u32)]>,
}

#[derive(Clone, Debug)]
struct Run {
    class: u16,
    ids: Range<usize>,
}

#[derive(Clone, Debug)]
struct Group {
    weight: f64,
    runs: Range<usize>,
}

/// One member's draw for one key.
#[derive(Clone, Copy, Debug)]
struct Draw {
    /// `-ln(u) / weight`.
    time: f64,
    hash: u64,
    /// Where in `ids`.
    at: usize,
    group: usize,
}

impl Rendezvous {
    /// Compiles a pool. The order of `members` decides nothing but what the indexes mean.
    ///
    /// Every id should be there once: members that share one would draw the same and could not be told apart.
    pub fn new(members: &[Member]) -> Self {
        let mut order: Vec<(u32, &Member)> = (0..).zip(members).collect();
        order.sort_by_key(|(_, member)| (Reverse(member.weight), member.class, member.id));
        let (mut runs, mut groups) = (Vec::<Run>::new(), Vec::<Group>::new());
        let (mut start, mut first_run) = (0, 0);
        for equals in order.chunk_by(|(_, a), (_, b)| a.weight == b.weight) {
            for run in equals.chunk_by(|(_, a), (_, b)| a.class == b.class) {
                let class = run.first().map_or(0, |(_, member)| member.class);
                runs.push(Run {
                    class,
                    ids: start..start + run.len(),
                });
                start += run.len();
            }
            let weight = equals.first().map_or(1.0, |(_, member)| f64::from(member.weight.get()));
            groups.push(Group {
                weight,
                runs: first_run..runs.len(),
            });
            first_run = runs.len();
        }
        let mut by_id: Box<[(UpstreamId, u32)]> = order.iter().map(|(index, member)| (member.id, *index)).collect();
        by_id.sort_unstable();
        Self {
            members: members.into(),
            ids: order.iter().map(|(_, member)| member.id.as_u64()).collect(),
            index: order.iter().map(|(index, _)| *index).collect(),
            runs: runs.into(),
            groups: groups.into(),
            by_id,
        }
    }

    /// How many members the pool has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the pool has no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member at `index`, or `None` past the end.
    pub fn member(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }

    /// The index of the member called `id`, or `None` when the pool has none of that name. Takes log n steps.
    pub fn position(&self, id: UpstreamId) -> Option<usize> {
        let at = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.by_id.get(at).map(|(_, index)| *index as usize)
    }

    /// Where `key` lives among the members of the classes that `eligible` accepts; `None` when there are none.
    pub fn home(&self, key: SessionKey, eligible: impl Fn(u16) -> bool) -> Option<usize> {
        let draw = self.earliest(key.as_u64(), &eligible, &[])?;
        self.index_of(draw.at)
    }

    /// All eligible members in the order in which `key` would fall to them: first its home, then the home that it would have if
    /// the first were not there, and so on. Each comes once.
    ///
    /// Lazy: the first four cost one pass over the pool each and no memory; whoever wants a fifth pays for sorting.
    pub fn ranked<F: Fn(u16) -> bool>(&self, key: SessionKey, eligible: F) -> Ranked<'_, F> {
        self.ranked_by(key.as_u64(), eligible)
    }

    /// [`Rendezvous::ranked`] for a number that need not be a session's; a random one gives a weighted shuffle.
    pub(super) fn ranked_by<F: Fn(u16) -> bool>(&self, key: u64, eligible: F) -> Ranked<'_, F> {
        Ranked {
            pool: self,
            key,
            eligible,
            emitted: Emitted::Few {
                draws: [None; FEW],
                len: 0,
            },
        }
    }

    /// The eligible member whose time comes first, of those that come after all of `taken`.
    fn earliest(&self, key: u64, eligible: &impl Fn(u16) -> bool, taken: &[Option<Draw>]) -> Option<Draw> {
        let mut best: Option<Draw> = None;
        for (at, group) in self.groups.iter().enumerate() {
            let taken_here = taken.iter().flatten().filter(|draw| draw.group == at);
            let bound = taken_here.map(|draw| draw.hash).min();
            let Some((hash, position)) = self.largest(group, key, eligible, bound) else {
                continue;
            };
            // With one weight the largest hash is the answer, and nobody compares times.
            if self.groups.len() == 1 {
                return Some(Draw {
                    time: 0.0,
                    hash,
                    at: position,
                    group: at,
                });
            }
            if best.is_some_and(|best| earliest_possible(hash, group.weight) > best.time) {
                continue;
            }
            let draw = Draw {
                time: time(hash, group.weight),
                hash,
                at: position,
                group: at,
            };
            if best.is_none_or(|best| self.order(&draw, &best).is_lt()) {
                best = Some(draw);
            }
        }
        best
    }

    /// The largest hash of a group's eligible members, and whose it is; only hashes below `bound` count, if there is one.
    fn largest(
        &self,
        group: &Group,
        key: u64,
        eligible: &impl Fn(u16) -> bool,
        bound: Option<u64>,
    ) -> Option<(u64, usize)> {
        let mut best: Option<(u64, usize)> = None;
        for run in self
            .runs
            .get(group.runs.clone())?
            .iter()
            .filter(|run| eligible(run.class))
        {
            let ids = self.ids.get(run.ids.clone())?;
            let found = match bound {
                None => largest(ids, key),
                Some(bound) => largest_below(ids, key, bound),
            };
            if let Some((hash, at)) = found
                && best.is_none_or(|(most, _)| hash > most)
            {
                best = Some((hash, run.ids.start + at));
            }
        }
        best
    }

    /// The order of the race. Times of different weights can be equal; hashes and ids then decide, never positions.
    fn order(&self, a: &Draw, b: &Draw) -> std::cmp::Ordering {
        let id = |draw: &Draw| self.ids.get(draw.at);
        a.time
            .total_cmp(&b.time)
            .then(b.hash.cmp(&a.hash))
            .then_with(|| id(a).cmp(&id(b)))
    }

    fn index_of(&self, at: usize) -> Option<usize> {
        self.index.get(at).map(|index| *index as usize)
    }

    /// The draws of all eligible members that come after all of `taken`, the last first.
    fn remaining(&self, key: u64, eligible: &impl Fn(u16) -> bool, taken: &[Option<Draw>]) -> Vec<Draw> {
        let mut draws = Vec::with_capacity(self.len());
        for (at, group) in self.groups.iter().enumerate() {
            let runs = self.runs.get(group.runs.clone()).unwrap_or_default();
            for run in runs.iter().filter(|run| eligible(run.class)) {
                let ids = self.ids.get(run.ids.clone()).unwrap_or_default();
                draws.extend(run.ids.clone().zip(ids).map(|(position, id)| {
                    let hash = mix(key ^ id);
                    Draw {
                        time: time(hash, group.weight),
                        hash,
                        at: position,
                        group: at,
                    }
                }));
            }
        }
        draws.retain(|draw| taken.iter().flatten().all(|taken| taken.at != draw.at));
        draws.sort_unstable_by(|a, b| self.order(b, a));
        draws
    }
}

/// When a member of this weight with this hash comes in.
fn time(hash: u64, weight: f64) -> f64 {
    -ln(unit(hash)) / weight
}

/// Never later than [`time`], and cheap: `-ln(u) ≥ 1 - u`, less a little for what rounding may add.
fn earliest_possible(hash: u64, weight: f64) -> f64 {
    (1.0 - unit(hash)) * (1.0 - 1e-9) / weight
}

/// The largest hash and where it stands. This loop is where a pick's time goes.
#[inline]
fn largest(ids: &[u64], key: u64) -> Option<(u64, usize)> {
    let (first, rest) = ids.split_first()?;
    let (mut most, mut at) = (mix(key ^ first), 0);
    for (position, id) in (1..).zip(rest) {
        let hash = mix(key ^ id);
        if hash > most {
            (most, at) = (hash, position);
        }
    }
    Some((most, at))
}

/// The largest hash below `bound` and where it stands.
fn largest_below(ids: &[u64], key: u64, bound: u64) -> Option<(u64, usize)> {
    let mut best: Option<(u64, usize)> = None;
    for (position, id) in ids.iter().enumerate() {
        let hash = mix(key ^ id);
        if hash < bound && best.is_none_or(|(most, _)| hash > most) {
            best = Some((hash, position));
        }
    }
    best
}

/// How many members [`Ranked`] yields before it sorts the rest. Requests are tried on fewer.
const FEW: usize = 4;

/// Members in the order of their draws; see [`Rendezvous::ranked`].
#[derive(Clone, Debug)]
pub struct Ranked<'a, F> {
    pool: &'a Rendezvous,
    key: u64,
    eligible: F,
    emitted: Emitted,
}

#[derive(Clone, Debug)]
enum Emitted {
    /// The draws that were yielded so far.
    Few { draws: [Option<Draw>; FEW], len: usize },
    /// Those that are still to come, the last first.
    Many { left: Vec<Draw> },
}

impl<F: Fn(u16) -> bool> Iterator for Ranked<'_, F> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let draw = match &mut self.emitted {
            Emitted::Few { draws, len } => match draws.get_mut(*len) {
                Some(_) => {
                    let draw = self.pool.earliest(self.key, &self.eligible, draws)?;
                    if let Some(slot) = draws.get_mut(*len) {
                        *slot = Some(draw);
                    }
                    *len += 1;
                    draw
                }
                None => {
                    let mut left = self.pool.remaining(self.key, &self.eligible, draws);
                    let draw = left.pop();
                    self.emitted = Emitted::Many { left };
                    draw?
                }
            },
            Emitted::Many { left } => left.pop()?,
        };
        self.pool.index_of(draw.at)
    }
}

impl<F: Fn(u16) -> bool> FusedIterator for Ranked<'_, F> {}
