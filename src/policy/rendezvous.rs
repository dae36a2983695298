//! Weighted rendezvous hashing: every session has a home, and all replicas agree on it without communication.
//!
//! # The idea
//!
//! For a key, every member of the pool draws a pseudo-random number from hash(key, member), and the highest draw wins
//! (Thaler & Ravishankar, *Using name-based mappings to increase hit rates*, 1998). A draw depends only on the key
//! and that one member. So if a member is removed, only the keys that it had won move to other members; if a member
//! is added, it wins its share, and every other key stays in place. There is no table to build and no state to
//! synchronize between replicas.
//!
//! # Weights
//!
//! Each draw `u`, uniform in (0, 1), becomes a time `-ln(u) / weight`, and the earliest time wins. These times are
//! exponentially distributed with rate `weight`, and in a race of exponential clocks a member is first with
//! probability `weight / sum of weights` (Schindelhauer & Schomaker, *Weighted distributed hash tables*, 2005). A
//! higher weight makes the times of one member earlier and changes no other times, so keys move only towards that
//! member.
//!
//! # Speed
//!
//! Within one weight the time falls as the hash rises, so the race among members of equal weight is won by the
//! largest *integer*. Members are therefore grouped by weight: each group needs one integer maximum, and times are
//! computed only for the winners of the groups. Even these rarely need a logarithm. With `v = 1 - u`, the series of
//! the logarithm gives bounds on both sides:
//!
//! ```text
//! v + v²/2  ≤  -ln(u) = v + v²/2 + v³/3 + …  ≤  v + v²/2 · 1/(1 - v)
//! ```
//!
//! The member that is first by the lower bound has won, unless the next member's lower bound is before the winner's
//! upper bound; only such a close race is computed again with logarithms. The result equals that of the plain form
//! exactly, which the tests keep as their oracle.
//!
//! A pick costs about 1 ns for each member and 5 to 7 ns for each different pair of weight and eligibility class. So
//! a pool should have a few different weights, not a thousand that differ a little.

use std::{
    cmp::{Ordering, Reverse},
    iter::FusedIterator,
    ops::Range,
};

use super::hash::{Key, ln, unit};
use crate::ids::{SessionKey, UpstreamId};

mod eligible;
mod member;
#[cfg(test)]
mod tests;

pub use eligible::Eligible;
pub use member::{Member, MemberIndex};

/// A pool of upstreams, compiled once per configuration and then immutable.
///
/// Every [`MemberIndex`] in arguments and results is an index into the slice of members that the pool was made from.
#[derive(Debug)]
pub struct Rendezvous {
    members: Box<[Member]>,
    /// The ids of the members, sorted by weight (the heaviest first, because they win most often), class and id, so
    /// that a pick reads contiguous memory.
    ids: Box<[u64]>,
    /// For each of `ids`, the index of its member.
    index: Box<[MemberIndex]>,
    /// The runs of `ids` that share weight and class.
    runs: Box<[WeightRun]>,
    /// The ids in ascending order, each with the index of its member.
    by_id: Box<[(UpstreamId, MemberIndex)]>,
}

#[derive(Debug)]
struct WeightRun {
    ids: Range<usize>,
    weight: f64,
    inverse: f64,
    class: u16,
}

/// The draw of one member for one key.
#[derive(Clone, Copy, Debug)]
struct Draw<'a> {
    run: &'a WeightRun,
    hash: u64,
    /// The position in [`Rendezvous::ids`].
    at: usize,
}

/// The relative distance by which the bounds are moved apart. It is far more than any rounding error.
const ROUNDING: f64 = 1e-9;

impl Draw<'_> {
    /// The time of this member in the race.
    fn time(&self) -> f64 {
        -ln(unit(self.hash)) / self.run.weight
    }

    /// A lower bound of [`Draw::time`].
    #[inline]
    fn lower_bound(&self) -> f64 {
        let v = 1.0 - unit(self.hash);
        (v + 0.5 * v * v) * (self.run.inverse * (1.0 - ROUNDING))
    }

    /// An upper bound of [`Draw::time`].
    #[inline]
    fn upper_bound(&self) -> f64 {
        let u = unit(self.hash);
        let v = 1.0 - u;
        (v + 0.5 * v * v / u) * (self.run.inverse * (1.0 + ROUNDING))
    }
}

impl Rendezvous {
    /// Compiles a pool. The order of `members` determines only the meaning of indexes.
    pub fn new(members: &[Member]) -> Self {
        let mut order: Vec<(MemberIndex, &Member)> = MemberIndex::all(members.len()).zip(members).collect();
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
        let mut by_id: Box<[_]> = order.iter().map(|(index, member)| (member.id, *index)).collect();
        by_id.sort_unstable();
        Self {
            members: members.into(),
            ids: order.iter().map(|(_, member)| member.id.as_u64()).collect(),
            index: order.iter().map(|(index, _)| *index).collect(),
            runs: runs.into(),
            by_id,
        }
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns whether the pool has no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the indexes of all members, in ascending order.
    pub fn indexes(&self) -> impl Iterator<Item = MemberIndex> + Clone {
        MemberIndex::all(self.len())
    }

    /// Returns the member at `index`.
    ///
    /// # Panics
    /// If `index` comes from another pool that has more members.
    #[inline]
    pub fn member(&self, index: MemberIndex) -> &Member {
        let member = self.members.get(index.as_usize());
        member.expect("an index is used only with the pool that made it")
    }

    /// Returns the index of the member with this id, if the pool has one. It takes log n steps.
    pub fn position(&self, id: UpstreamId) -> Option<MemberIndex> {
        let at = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, index) = self.by_id.get(at).expect("the search found this position");
        Some(*index)
    }

    /// Returns the home of `key` among the members of the classes that `eligible` accepts, if there is such a member.
    pub fn home(&self, key: SessionKey, eligible: impl Fn(u16) -> bool) -> Option<MemberIndex> {
        let winner = self.earliest(Key::new(key.as_u64()), &eligible, &[])?;
        Some(self.index_of(winner.at))
    }

    /// Returns all eligible members in the order of their draws for `key`: first the home of the key, then the home
    /// that it would have without the first member, and so on. Each member comes once.
    ///
    /// The order is computed lazily: each of the first four members costs one pass, and a fifth one sorts the rest.
    pub fn ranked<'a, E: Eligible + 'a>(&'a self, key: SessionKey, eligible: E) -> Ranked<'a, E> {
        self.ranked_by(key.as_u64(), eligible)
    }

    /// Does the same as [`Rendezvous::ranked`] for any number as the key; a random number gives a weighted shuffle.
    pub(super) fn ranked_by<'a, E: Eligible + 'a>(&'a self, key: u64, eligible: E) -> Ranked<'a, E> {
        Ranked {
            pool: self,
            key: Key::new(key),
            eligible,
            stage: RankedStage::Few([None; FEW]),
        }
    }

    /// Returns the largest hash of each eligible run, which is the run's earliest time. Only draws after all of `taken` count.
    #[inline(always)]
    fn winners<'a>(
        &'a self,
        key: Key,
        eligible: &impl Eligible,
        taken: &[Option<Draw<'a>>],
    ) -> impl Iterator<Item = Draw<'a>> {
        self.runs
            .iter()
            .filter(|run| eligible.allows_class(run.class))
            .filter_map(move |run| {
                let ids = self.ids_of(run);
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

    /// Returns the draw with the earliest time among the eligible members, of the draws after all of `taken`.
    #[inline]
    fn earliest<'a>(&'a self, key: Key, eligible: &impl Eligible, taken: &[Option<Draw<'a>>]) -> Option<Draw<'a>> {
        // One loop without a first step of its own, so that the iterator is inlined once.
        let mut best = None::<Draw<'a>>;
        let (mut first, mut second) = (f64::INFINITY, f64::INFINITY);
        for draw in self.winners(key, eligible, taken) {
            let bound = draw.lower_bound();
            if best.is_none() || bound < first {
                (second, first, best) = (first, bound, Some(draw));
            } else if bound < second {
                second = bound;
            }
        }
        let best = best?;
        if second > best.upper_bound() {
            Some(best)
        } else {
            self.earliest_of_close(key, eligible, taken)
        }
    }

    /// Does the same as [`Rendezvous::earliest`] for a race that the bounds do not decide.
    #[cold]
    fn earliest_of_close<'a>(
        &'a self,
        key: Key,
        eligible: &impl Eligible,
        taken: &[Option<Draw<'a>>],
    ) -> Option<Draw<'a>> {
        let winners = self.winners(key, eligible, taken).map(|draw| (draw.time(), draw));
        winners.min_by(|a, b| self.order(a, b)).map(|(_, draw)| draw)
    }

    /// Compares two draws in the order of the race. If times are equal, hashes and ids decide, never positions.
    fn order(&self, (a_time, a): &(f64, Draw<'_>), (b_time, b): &(f64, Draw<'_>)) -> Ordering {
        let id = |draw: &Draw<'_>| self.ids.get(draw.at);
        a_time
            .total_cmp(b_time)
            .then(b.hash.cmp(&a.hash))
            .then_with(|| id(a).cmp(&id(b)))
    }

    /// Returns the index of the member whose id is at this position in [`Rendezvous::ids`].
    fn index_of(&self, at: usize) -> MemberIndex {
        *self.index.get(at).expect("every position has an index")
    }

    fn ids_of(&self, run: &WeightRun) -> &[u64] {
        self.ids.get(run.ids.clone()).expect("a run is a range of ids")
    }

    /// Returns the draws of the members of the eligible classes with a position in [`Rendezvous::ids`] that satisfies `wanted`, the
    /// last in the order of the race first.
    fn sorted<'a>(
        &'a self,
        key: Key,
        eligible: &impl Eligible,
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<(f64, Draw<'a>)> {
        let mut sorted = Vec::new();
        for run in self.runs.iter().filter(|run| eligible.allows_class(run.class)) {
            let wanted = run.ids.clone().zip(self.ids_of(run)).filter(|(at, _)| wanted(*at));
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

/// Returns the largest hash and its position, the first of several. This loop takes most of the time of a pick.
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

/// Returns the largest hash that comes after the one with hash `limit` at position `limit_at`.
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

/// The number of members that [`Ranked`] yields before it sorts the rest. A request is rarely tried on more.
const FEW: usize = 4;

/// An iterator over members in the order of their draws; see [`Rendezvous::ranked`].
#[derive(Clone, Debug)]
pub struct Ranked<'a, E> {
    pool: &'a Rendezvous,
    key: Key,
    eligible: E,
    stage: RankedStage<'a>,
}

#[derive(Clone, Debug)]
enum RankedStage<'a> {
    /// The draws that were yielded so far, in order.
    Few([Option<Draw<'a>>; FEW]),
    /// The draws that are still to come, the last first.
    Many(Vec<(f64, Draw<'a>)>),
}

impl<E: Eligible> Ranked<'_, E> {
    /// Returns the indexes of the eligible members that `wanted` accepts, whether the iterator has yielded them or
    /// not, in the same order but the last first. It makes one pass over the pool, and needs memory and sorting only
    /// for the wanted members.
    pub(super) fn among(&self, wanted: impl Fn(&Member) -> bool) -> Vec<MemberIndex> {
        let index = |at| self.pool.index_of(at);
        let is_wanted = |at| self.eligible.allows_member(index(at)) && wanted(self.pool.member(index(at)));
        let sorted = self.pool.sorted(self.key, &self.eligible, is_wanted);
        sorted.into_iter().map(|(_, draw)| index(draw.at)).collect()
    }

    /// Returns the next member of the eligible classes.
    #[inline]
    fn next_of_classes(&mut self) -> Option<MemberIndex> {
        let draw = match &mut self.stage {
            RankedStage::Few(draws) => {
                let len = draws.iter().flatten().count();
                let (taken, free) = draws.split_at_mut(len);
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
        Some(self.pool.index_of(draw.at))
    }
}

impl<E: Eligible> Iterator for Ranked<'_, E> {
    type Item = MemberIndex;

    /// Excluded members are passed over. That does not change the order of the others: a draw depends on one member only.
    #[inline]
    fn next(&mut self) -> Option<MemberIndex> {
        loop {
            let index = self.next_of_classes()?;
            if self.eligible.allows_member(index) {
                return Some(index);
            }
        }
    }
}

impl<E: Eligible> FusedIterator for Ranked<'_, E> {}
