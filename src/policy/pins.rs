//! Affinity tables: maps from a session to the upstream that has its prompt cache, and from a response to the
//! upstream that made it.
//!
//! # The idea
//!
//! A session has a home by hash, but its prompt cache is at the upstream that served it last. That upstream can be
//! another one: the home may have failed for a while, or the pool may have changed since. A *pin* remembers the
//! upstream. A pin is written when an upstream has answered, read for every later request, and forgotten when it has
//! been idle for longer than the cache can live. A table of the same kind remembers which upstream made a response,
//! for requests that name an earlier response.
//!
//! # The longest conversation
//!
//! Several conversations can share a key: a subagent of Codex has the key of its main session. If a short one of them
//! has to leave, the pin must not follow it, because the upstream with the long prompt would lose the session. So a
//! pin remembers the [size](PromptSize) of the prompt that confirmed it, and only a request whose prompt is about as long
//! moves it. Shorter prompts that the same upstream serves let the size decay, because a conversation can become
//! shorter. A size takes no room: without it, an entry would have four bytes of padding. Owners have no size; their entries
//! remember in its place whether the [usage](UsageState) of the response has been counted.
//!
//! # Agreement
//!
//! Requests of one session may run at the same time, and different upstreams may serve them while some upstreams
//! fail. [`AffinityTable::claim`] is a compare-and-set: a request changes the pin only if the pin still has the
//! value that the request saw when its upstream was picked. The first request that finishes decides, and the other
//! requests, which saw the earlier value, do not change the new pin.
//!
//! # Structure
//!
//! The table is bounded. An insert into a full table evicts the entry that has been unused the longest, and finds it
//! without a scan. Each of 256 shards is a hash table and a list in order of last use in one, guarded by a mutex. For
//! each shard, the table also publishes a moment before which no entry of the shard was last used. These moments are in
//! an array that is small enough (2 KiB) to be searched for the oldest entry of all. A use of an entry does not change
//! that array, because a moment that is too early is still true. An eviction checks whether the earliest published
//! moment is exact; if it is not, the eviction corrects it and searches again. Eviction is therefore exactly
//! least-recently-used over the whole table, as long as one thread evicts at a time. Threads that evict at the same
//! moment take neighbours in that order. No thread ever holds two locks.
//!
//! Requests of different sessions write to different shards, on different cache lines, so the throughput grows with the
//! number of threads. They share only the number of entries, which changes when a session or a response is new.
//!
//! A `DashMap`, the usual base for such a table, has no order: the oldest entry would have to be sampled through its
//! `unsafe` raw interface, or kept in a second structure that must agree with the first. Either way it needs at least
//! 25 bytes per slot in tables that are between 44 and 88 % full, and it rehashes whole entries when it grows. In
//! this table an entry takes 42 to 44 bytes, and growing touches only the links of entries, some 4,000 of them in a
//! table of a million entries.
//!
//! A secret that is drawn at start decides where entries are placed. So a client that chooses its session keys cannot
//! choose keys that share a bucket.

use std::{
    hash::{BuildHasher, RandomState},
    marker::PhantomData,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    cache_padded::CachePadded,
    ids::{OwnedKey, SessionKey, UpstreamId},
    tick::Tick,
};

mod claim;
mod hashed_key;
mod prompt_size;
mod shard;
#[cfg(test)]
mod tests;
mod usage_state;

pub use claim::{Claim, PinTakeover};
pub use hashed_key::HashedKey;
pub use prompt_size::PromptSize;
use shard::Shard;
pub use usage_state::UsageState;

/// The upstream to which each session is pinned.
pub type Pins = AffinityTable<SessionKey>;
/// The upstream that made each response.
pub type Owners = AffinityTable<OwnedKey>;

/// The number of shards, a power of two. It is large enough that threads rarely meet and a shard grows fast, and
/// small enough that the array of moments can be searched.
const SHARDS: usize = 256;
/// The maximum number of entries that one insert removes because they are idle, and the maximum number that it
/// removes because the table is over its capacity. It is more than one, so that the table can shrink.
const REMOVALS: usize = 2;

/// An entry that is confirmed sooner than this part (as a right shift) of its idle time after its last use is not
/// marked as used again. Most answers come sooner after their [`AffinityTable::get`], so there is nothing to write.
const FRESH_SHIFT: u32 = 10;

/// The decision of an eviction about an entry that was used after its shard published its moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfUsed {
    Keep,
    Evict,
}

/// A bounded concurrent table from keys to upstreams that keeps the entries that were used last. See the
/// [module](self).
pub struct AffinityTable<K> {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// For each shard, a moment in nanoseconds before which none of its entries was last used. It is written under
    /// the shard's lock.
    oldest: Box<[AtomicU64]>,
    /// The number of entries, on a cache line of its own, apart from the fields that every call reads.
    len: CachePadded<AtomicUsize>,
    capacity: AtomicUsize,
    /// The time in nanoseconds after which an unused entry is forgotten.
    idle: AtomicU64,
    secret: u64,
    key: PhantomData<fn(K)>,
}

impl<K: HashedKey> AffinityTable<K> {
    /// Creates an empty table of at most `capacity` entries (about two billion at most), which forgets entries that
    /// have been idle for longer than `idle`. Memory is allocated as entries are added.
    pub fn new(capacity: usize, idle: Duration) -> Self {
        let table = Self {
            shards: (0..SHARDS)
                .map(|_| CachePadded::new(Mutex::new(Shard::new())))
                .collect(),
            oldest: (0..SHARDS).map(|_| AtomicU64::new(u64::MAX)).collect(),
            len: CachePadded::new(AtomicUsize::new(0)),
            capacity: AtomicUsize::new(0),
            idle: AtomicU64::new(0),
            secret: RandomState::new().hash_one(0u64),
            key: PhantomData,
        };
        table.set_bounds(capacity, idle);
        table
    }

    /// Returns the upstream of `key`, and marks the entry as used now; `None` if there is no entry or it has been
    /// idle for too long.
    pub fn get(&self, key: K, now: Tick) -> Option<UpstreamId> {
        let key = self.scramble(key);
        self.with_shard(key, |shard| shard.get(key, now, self.idle()))
    }

    /// Returns the upstream of `key` without marking the entry as used.
    pub fn peek(&self, key: K, now: Tick) -> Option<UpstreamId> {
        let key = self.scramble(key);
        self.with_shard(key, |shard| shard.find(key, now, self.idle()))
            .map(|found| found.upstream)
    }

    /// Records that `upstream` has served a request of `key` for which [`AffinityTable::get`] had returned `seen`, and
    /// which has no prompt. Does the same as [`AffinityTable::claim`].
    pub fn confirm(&self, key: K, seen: Option<UpstreamId>, upstream: UpstreamId, now: Tick) -> UpstreamId {
        let claim = Claim {
            seen,
            upstream,
            prompt: PromptSize::NONE,
            takeover: PinTakeover::IfAsLong,
        };
        self.claim(key, claim, now)
    }

    /// Records that an upstream has served a request of `key`. Returns the upstream that `key` has from now on.
    ///
    /// The result is the upstream of `claim` if the entry has that upstream already, is gone or has been idle for too
    /// long, or if no other request has changed it since and the claim [takes it over](PinTakeover). Otherwise the entry
    /// stays. An entry with the claim's upstream counts as used now, up to an error of a thousandth of the time that it
    /// may be idle.
    pub fn claim(&self, key: K, claim: Claim, now: Tick) -> UpstreamId {
        let (key, idle) = (self.scramble(key), self.idle());
        let Claim {
            upstream, mut prompt, ..
        } = claim;
        let (confirmed, is_new) = self.with_shard(key, |shard| {
            if let Some(found) = shard.find(key, now, idle) {
                if found.upstream == upstream {
                    prompt = prompt.confirming(found.prompt);
                    if now.since(found.last) <= self.fresh() {
                        if prompt != found.prompt {
                            shard.set_prompt(key, prompt);
                        }
                        return (upstream, false);
                    }
                } else if !claim.takes(&found) {
                    return (found.upstream, false);
                }
            }
            let is_new = shard.put(key, upstream, prompt, now);
            if is_new {
                self.len.fetch_add(1, Relaxed);
                self.drop_idle(shard, now, idle);
            }
            (upstream, is_new)
        });
        if is_new {
            self.evict_excess();
        }
        confirmed
    }

    /// Removes the entry of `key`. Returns whether there was one.
    pub fn remove(&self, key: K) -> bool {
        let key = self.scramble(key);
        self.with_shard(key, |shard| {
            let is_removed = shard.remove(key);
            self.uncount(usize::from(is_removed));
            is_removed
        })
    }

    /// Returns the number of entries, including idle entries that were not dropped yet. While threads insert, it can
    /// exceed the capacity by one for each of them.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the maximum number of entries.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Relaxed)
    }

    /// Changes the bounds. If there are more entries than the new capacity, the entries that have been unused the
    /// longest are dropped now, and their memory is returned. That takes a look at every entry (about 0.1 s for a
    /// million entries), but at one shard at a time, so other threads wait for less than a millisecond.
    pub fn resize(&self, capacity: usize, idle: Duration) {
        self.set_bounds(capacity, idle);
        if self.len() <= self.capacity() {
            return;
        }
        let mut uses = Vec::with_capacity(self.len());
        for shard in &self.shards {
            uses.extend(shard.lock().uses());
        }
        let excess = uses.len().saturating_sub(self.capacity());
        // The earliest last use of an entry that stays.
        let limit = if excess < uses.len() {
            *uses.select_nth_unstable(excess).1
        } else {
            Tick::from_nanos(u64::MAX)
        };
        for at in 0..self.shards.len() {
            self.with_shard_at(at, |shard| self.uncount(shard.shrink(limit)));
        }
        // Entries that were last used at exactly that moment may still be too many.
        for _ in self.capacity()..self.len() {
            self.evict();
        }
    }

    fn set_bounds(&self, capacity: usize, idle: Duration) {
        self.capacity.store(capacity.min(u32::MAX as usize / 2), Relaxed);
        self.idle
            .store(u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn idle(&self) -> Duration {
        Duration::from_nanos(self.idle.load(Relaxed))
    }

    fn fresh(&self) -> Duration {
        Duration::from_nanos(self.idle.load(Relaxed) >> FRESH_SHIFT)
    }

    /// Scrambles a key by a bijection, so that the result stands for the key. The high bits of the result choose the
    /// shard and its low bits the bucket; both depend on more bits of the key than a client can search for.
    fn scramble(&self, key: K) -> u64 {
        let bits = (key.as_u64() ^ self.secret).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (bits ^ (bits >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    /// Runs `act` under the lock of the key's shard, and publishes a new moment if the shard now has an older entry.
    fn with_shard<R>(&self, scrambled: u64, act: impl FnOnce(&mut Shard) -> R) -> R {
        const { assert!(SHARDS.is_power_of_two() && SHARDS > 1) };
        self.with_shard_at((scrambled >> (u64::BITS - SHARDS.trailing_zeros())) as usize, act)
    }

    fn with_shard_at<R>(&self, at: usize, act: impl FnOnce(&mut Shard) -> R) -> R {
        let (shard, published) = self.shard(at);
        let mut shard = shard.lock();
        let result = act(&mut shard);
        let oldest = oldest_of(&shard);
        // Most calls change nothing here, and a store would take the cache line away from the threads whose shards
        // are next to this one.
        if oldest < published.load(Relaxed) {
            published.store(oldest, Relaxed);
        }
        result
    }

    /// Returns the shard at an index below [`SHARDS`], and the moment that it has published.
    fn shard(&self, at: usize) -> (&Mutex<Shard>, &AtomicU64) {
        let shard = self.shards.get(at).expect("there are `SHARDS` shards");
        let published = self.oldest.get(at).expect("there are `SHARDS` moments");
        (shard, published)
    }

    /// Removes some idle entries, so that the size of the table follows the number of active sessions instead of
    /// growing to its bound.
    fn drop_idle(&self, shard: &mut Shard, now: Tick, idle: Duration) {
        for _ in 0..REMOVALS {
            if shard.oldest().is_some_and(|last| now.since(last) > idle) {
                self.uncount(usize::from(shard.remove_oldest()));
            }
        }
    }

    /// Evicts some entries if the table is over its capacity. More than one entry can be too many: after a resize, or
    /// when threads insert at the same time.
    fn evict_excess(&self) {
        for _ in 0..REMOVALS {
            if self.len() > self.capacity() {
                self.evict();
            }
        }
    }

    /// Drops the entry that has been unused the longest. When other threads evict at the same time it may find no
    /// entry; then those threads have evicted enough.
    fn evict(&self) {
        // Each attempt corrects at least one shard, so the last one is needed only while other threads use the oldest
        // entries.
        _ = (0..SHARDS).any(|_| self.evict_oldest(IfUsed::Keep)) || self.evict_oldest(IfUsed::Evict);
    }

    /// Drops the oldest entry of the shard that has published the earliest moment, unless the entry was used since
    /// then and `if_used` keeps it. In both cases the published moment is exact afterwards. Returns whether the
    /// eviction is done.
    fn evict_oldest(&self, if_used: IfUsed) -> bool {
        let moments = self.oldest.iter().enumerate();
        let earliest = moments.min_by_key(|(_, oldest)| oldest.load(Relaxed));
        let (at, _) = earliest.expect("there are `SHARDS` moments");
        let (shard, published) = self.shard(at);
        let mut shard = shard.lock();
        let is_exact = oldest_of(&shard) <= published.load(Relaxed);
        if is_exact || if_used == IfUsed::Evict {
            self.uncount(usize::from(shard.remove_oldest()));
        }
        published.store(oldest_of(&shard), Relaxed);
        is_exact
    }

    /// Subtracts removed entries from the count. Called under the shard's lock, because otherwise an entry could be
    /// subtracted before it is added.
    fn uncount(&self, removed: usize) {
        self.len.fetch_sub(removed, Relaxed);
    }
}

impl Owners {
    /// The state of the usage of the response `key`.
    pub fn usage_state(&self, key: OwnedKey, now: Tick) -> UsageState {
        let key = self.scramble(key);
        let found = self.with_shard(key, |shard| shard.find(key, now, self.idle()));
        found.map_or(UsageState::Unknown, |found| UsageState::of_size(found.prompt))
    }

    /// Sets the usage of the response `key` to [`UsageState::Counted`], and returns its state before. Of several requests
    /// that do this at the same time, only one gets another state than `Counted`. A response without an entry gets one
    /// with the owner `upstream`.
    pub fn count_usage(&self, key: OwnedKey, upstream: UpstreamId, now: Tick) -> UsageState {
        let (key, size) = (self.scramble(key), UsageState::Counted.size());
        let (before, is_new) = self.with_shard(key, |shard| match shard.find(key, now, self.idle()) {
            Some(found) => {
                shard.set_prompt(key, size);
                (UsageState::of_size(found.prompt), false)
            }
            None => {
                let is_new = shard.put(key, upstream, size, now);
                self.len.fetch_add(usize::from(is_new), Relaxed);
                (UsageState::Unknown, is_new)
            }
        });
        if is_new {
            self.evict_excess();
        }
        before
    }
}

/// Returns when the shard's oldest entry was last used, in nanoseconds; `u64::MAX` if the shard is empty.
fn oldest_of(shard: &Shard) -> u64 {
    shard.oldest().map_or(u64::MAX, Tick::as_nanos)
}

impl<K> std::fmt::Debug for AffinityTable<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (len, capacity) = (self.len.load(Relaxed), self.capacity.load(Relaxed));
        f.debug_struct("AffinityTable")
            .field("len", &len)
            .field("capacity", &capacity)
            .finish_non_exhaustive()
    }
}
