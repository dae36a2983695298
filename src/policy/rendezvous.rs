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
//! exponentially distributed with rate `weight`, and in a race of exponential clocks a member comes first with
//! probability `weight / sum of weights` (Schindelhauer & Schomaker, *Weighted distributed hash tables*, 2005). Raising
//! a weight makes one member's times earlier and changes no other, so that keys move only towards it.
//!
//! # Speed
//!
//! Within one weight the time falls as the hash rises, so the race among equals is won by the largest *integer*.
//! Members are therefore grouped by weight: one integer maximum a group, and times are for the groups' winners only.
//! Even those rarely need a logarithm. With `v = 1 - u`, its series gives bounds on both sides:
//!
//! ```text
//! v + v²/2  ≤  -ln(u) = v + v²/2 + v³/3 + …  ≤  v + v²/2 · 1/(1 - v)
//! ```
//!
//! Who is first by the lower bound has won unless the next one's lower bound is before the winner's upper one; only
//! such a close race is run again in full. The result is exactly that of the plain form, which the tests keep as their
//! oracle.
//!
//! A pick costs about 1 ns for each member and 5 to 7 ns for each different weight (and eligibility class), so that a pool
//! is best given few weights, not a thousand that differ a little.

use std::{
    cmp::{Ordering, Reverse},
    iter::FusedIterator,
    ops::Range,
};

use super::hash::{Key, ln, unit};
use crate::ids::{OrganizationId, SessionKey, UpstreamId, Weight};

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
    /// Whose it is. Decides nothing about where a key lives; see [`candidates`](super::candidates).
    pub organization: OrganizationId,
}

/// A pool, compiled once per configuration and then immutable.
///
/// Every index that goes in or comes out refers to the slice of members that it was made from.
#[derive(Debug)]
pub struct Rendezvous {
    members: Box<[Member]>,
    /// Sorted by weight (the heaviest first, who win most), class and id: what a pick reads stands side by side.
    ids: Box<[u64]>,
    /// For each of `ids`, whose it is.
    index: Box<[u32]>,
    /// Stretches of `ids` that share weight and class.
    runs: Box<[WeightRun]>,
    /// The same ids in ascending order, each with whose it is.
    by_id: Box<[(UpstreamId, u32)]>,
}

#[derive(Debug)]
struct WeightRun {
    ids: Range<usize>,
    weight: f64,
    inverse: f64,
    class: u16,
}

/// One member's draw for one key.
#[derive(Clone, Copy, Debug)]
struct Draw<'a> {
    run: &'a WeightRun,
    hash: u64,
    /// Where in [`Rendezvous::ids`].
    at: usize,
}

/// By how much the bounds are moved apart: far more than rounding can err.
const ROUNDING: f64 = 1e-9;

impl Draw<'_> {
    /// When this member comes in.
    fn time(&self) -> f64 {
        -ln(unit(self.hash)) / self.run.weight
    }

    /// Never later than [`Draw::time`].
    #[inline]
    fn lower_bound(&self) -> f64 {
        let v = 1.0 - unit(self.hash);
        (v + 0.5 * v * v) * (self.run.inverse * (1.0 - ROUNDING))
    }

    /// Never earlier than [`Draw::time`].
    #[inline]
    fn upper_bound(&self) -> f64 {
        let u = unit(self.hash);
        let v = 1.0 - u;
        (v + 0.5 * v * v / u) * (self.run.inverse * (1.0 + ROUNDING))
    }
}

impl Rendezvous {
    /// Compiles a pool. The order of `members` decides nothing but what the indexes mean.
    pub fn new(members: &[Member]) -> Self {
        let mut order: Vec<(u32, &Member)> = (0..).zip(members).collect();
        order.sort_by_key(|(_, member)| (Reverse(member.weight), member.class, member.id));
        let mut runs = Vec::<WeightRun>::new();
        for (at, (_, member)) in order.iter().enumerate() {
            let (weight, class) = (f64::from(member.weight.get()), member.class);
            match runs.last_mut() {
                Some(run) if (run.weight, run.class) == (weight, class) => run.ids.end = at + 1,
                _ => runs.push(WeightRun {
                    ids: at..at + 1,
                    weight,
                    inverse: 1.0 / weight,
                    class,
                }),
            }
        }
        let mut by_id: Box<[(UpstreamId, u32)]> = order.iter().map(|(index, member)| (member.id, *index)).collect();
        by_id.sort_unstable();
        Self {
            members: members.into(),
            ids: order.iter().map(|(_, member)| member.id.as_u64()).collect(),
            index: order.iter().map(|(index, _)| *index).collect(),
            runs: runs.into(),
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
        self.index_of(self.earliest(Key::new(key.as_u64()), &eligible, &[])?)
    }

    /// All eligible members in the order in which `key` would fall to them: first its home, then the home that it would
    /// have if the first were not there, and so on. Each comes once.
    ///
    /// Lazy: the first four cost one pass over the pool each and no memory; whoever wants a fifth pays for sorting.
    pub fn ranked<'a, F: Fn(u16) -> bool + 'a>(&'a self, key: SessionKey, eligible: F) -> Ranked<'a, F> {
        self.ranked_by(key.as_u64(), eligible)
    }

    /// [`Rendezvous::ranked`] for a number that need not be a session's; a random one gives a weighted shuffle.
    pub(super) fn ranked_by<'a, F: Fn(u16) -> bool + 'a>(&'a self, key: u64, eligible: F) -> Ranked<'a, F> {
        Ranked {
            pool: self,
            key: Key::new(key),
            eligible,
            stage: RankedStage::Few([None; FEW]),
        }
    }

    /// Each eligible run's largest hash, which is its earliest time. After `taken`, which are the earliest of all
    /// members, only later ones count.
    #[inline(always)]
    fn winners<'a>(
        &'a self,
        key: Key,
        eligible: &impl Fn(u16) -> bool,
        taken: &[Option<Draw<'a>>],
    ) -> impl Iterator<Item = Draw<'a>> {
        self.runs
            .iter()
            .filter(|run| eligible(run.class))
            .filter_map(move |run| {
                let ids = self.ids.get(run.ids.clone())?;
                let last_taken = taken.iter().flatten().rfind(|draw| run.ids.contains(&draw.at));
                let (hash, at) = match last_taken {
                    None => largest(ids, key),
                    Some(last) => largest_after(ids, key, last.hash, last.at - run.ids.start),
                }?;
                Some(Draw {
                    run,
                    hash,
                    at: run.ids.start + at,
                })
            })
    }

    /// The eligible member whose time comes first, of those that come after all of `taken`.
    #[inline]
    fn earliest<'a>(
        &'a self,
        key: Key,
        eligible: &impl Fn(u16) -> bool,
        taken: &[Option<Draw<'a>>],
    ) -> Option<Draw<'a>> {
        let mut winners = self.winners(key, eligible, taken);
        let mut best = winners.next()?;
        let (mut first, mut second) = (best.lower_bound(), f64::INFINITY);
        for draw in winners {
            let bound = draw.lower_bound();
            if bound < first {
                (second, first, best) = (first, bound, draw);
            } else if bound < second {
                second = bound;
            }
        }
        if second > best.upper_bound() {
            Some(best)
        } else {
            self.earliest_of_close(key, eligible, taken)
        }
    }

    /// The same for a race that the bounds do not decide.
    #[cold]
    fn earliest_of_close<'a>(
        &'a self,
        key: Key,
        eligible: &impl Fn(u16) -> bool,
        taken: &[Option<Draw<'a>>],
    ) -> Option<Draw<'a>> {
        let winners = self.winners(key, eligible, taken).map(|draw| (draw.time(), draw));
        winners.min_by(|a, b| self.order(a, b)).map(|(_, draw)| draw)
    }

    /// The order of the race. Times of different weights can be equal; hashes and ids then decide, never positions.
    fn order(&self, (a_time, a): &(f64, Draw<'_>), (b_time, b): &(f64, Draw<'_>)) -> Ordering {
        let id = |draw: &Draw<'_>| self.ids.get(draw.at);
        a_time
            .total_cmp(b_time)
            .then(b.hash.cmp(&a.hash))
            .then_with(|| id(a).cmp(&id(b)))
    }

    fn index_of(&self, draw: Draw<'_>) -> Option<usize> {
        self.index.get(draw.at).map(|index| *index as usize)
    }

    /// The eligible members that `wanted` accepts by where they stand in [`Rendezvous::ids`], the last first.
    fn sorted<'a>(
        &'a self,
        key: Key,
        eligible: &impl Fn(u16) -> bool,
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<(f64, Draw<'a>)> {
        let mut sorted = Vec::new();
        for run in self.runs.iter().filter(|run| eligible(run.class)) {
            let ids = self.ids.get(run.ids.clone()).unwrap_or_default();
            let wanted = run.ids.clone().zip(ids).filter(|(at, _)| wanted(*at));
            sorted.extend(wanted.map(|(at, id)| {
                let hash = key.hash(*id);
                let draw = Draw { run, hash, at };
                (draw.time(), draw)
            }));
        }
        sorted.sort_unstable_by(|a, b| self.order(b, a));
        sorted
    }
}

/// The largest hash and where it stands, the first of several. This loop is where a pick's time goes.
#[inline]
fn largest(ids: &[u64], key: Key) -> Option<(u64, usize)> {
    let (first, rest) = ids.split_first()?;
    let (mut most, mut at) = (key.hash(*first), 0);
    for (position, id) in (1..).zip(rest) {
        let hash = key.hash(*id);
        if hash > most {
            (most, at) = (hash, position);
        }
    }
    Some((most, at))
}

/// The largest of those that come after one that has hash `limit` and stands at `limit_at`.
fn largest_after(ids: &[u64], key: Key, limit: u64, limit_at: usize) -> Option<(u64, usize)> {
    let (mut most, mut best) = (0, None);
    for (position, id) in ids.iter().enumerate() {
        let hash = key.hash(*id);
        let later = hash < limit || (hash == limit && position > limit_at);
        if later && (hash > most || best.is_none()) {
            (most, best) = (hash, Some(position));
        }
    }
    best.map(|at| (most, at))
}

/// How many members [`Ranked`] yields before it sorts the rest. Requests are tried on fewer.
const FEW: usize = 4;

/// Members in the order of their draws; see [`Rendezvous::ranked`].
#[derive(Clone, Debug)]
pub struct Ranked<'a, F> {
    pool: &'a Rendezvous,
    key: Key,
    eligible: F,
    stage: RankedStage<'a>,
}

#[derive(Clone, Debug)]
enum RankedStage<'a> {
    /// The draws that were yielded so far, in order.
    Few([Option<Draw<'a>>; FEW]),
    /// Those that are still to come, the last first.
    Many(Vec<(f64, Draw<'a>)>),
}

impl<F: Fn(u16) -> bool> Ranked<'_, F> {
    /// The eligible members that `wanted` accepts, whether this has yielded them or not; in the same order, but the
    /// last first. One pass over the pool; memory and sorting only for those who are wanted.
    pub(super) fn among(&self, wanted: impl Fn(&Member) -> bool) -> Vec<usize> {
        let index = |at: usize| self.pool.index.get(at).map(|index| *index as usize);
        let is_wanted = |at| index(at).and_then(|index| self.pool.member(index)).is_some_and(&wanted);
        let sorted = self.pool.sorted(self.key, &self.eligible, is_wanted);
        sorted.into_iter().filter_map(|(_, draw)| index(draw.at)).collect()
    }
}

impl<F: Fn(u16) -> bool> Iterator for Ranked<'_, F> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let draw = match &mut self.stage {
            RankedStage::Few(draws) => {
                let len = draws.iter().flatten().count();
                let (taken, free) = draws.split_at_mut_checked(len)?;
                match free.first_mut() {
                    Some(slot) => *slot.insert(self.pool.earliest(self.key, &self.eligible, taken)?),
                    None => {
                        let is_taken = |at| taken.iter().flatten().any(|draw| draw.at == at);
                        let mut left = self.pool.sorted(self.key, &self.eligible, |at| !is_taken(at));
                        let draw = left.pop();
                        self.stage = RankedStage::Many(left);
                        draw?.1
                    }
                }
            }
            RankedStage::Many(left) => left.pop()?.1,
        };
        self.pool.index_of(draw)
    }
}

impl<F: Fn(u16) -> bool> FusedIterator for Ranked<'_, F> {}
