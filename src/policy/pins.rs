//! Affinity tables: where a session's cache really is, and which upstream made a response.
//!
//! # The idea
//!
//! A session has a home by hash, but its prompt cache is wherever it was last served, and that need not be home: the
//! home may have been down for a while, or the pool may have changed since. A *pin* remembers it. A pin is written when
//! an upstream has answered, read for every later request, and forgotten when it has been idle for longer than the
//! cache can live. The same kind of table remembers who made which response, for requests that name an earlier one.
//!
//! # Agreement
//!
//! Requests of one session may run at the same time, and while upstreams fail they may be served by different ones.
//! [`AffinityTable::confirm`] is a compare-and-set: a request changes the pin only if it still is what the request saw
//! when it was picked. The first to finish decides, and the others, which saw the state before, leave its pin alone.
//!
//! # Structure
//!
//! The table is bounded, so something must go when it is full: the entry that is longest unused, found without a sweep.
//! Each of 256 shards is a hash table and a list by last use in one, behind one mutex. It also publishes a moment before
//! which none of its entries was last used, in an array small enough (2 KiB) to be searched for the oldest of all. Using
//! an entry leaves that array alone, since a moment that is too early is still true; whoever evicts looks whether
//! the earliest is exact, corrects it if not, and searches again. Eviction is therefore least-recently-used over the
//! whole table, exactly so as long as one thread evicts at a time; threads that evict at the same moment take neighbours
//! in that order. No thread ever holds two locks.
//!
//! What requests of different sessions write is in different shards, on different cache lines, so that more threads do
//! more. All that they share is the number of entries, which changes when a session or a response is new.
//!
//! Why not a `DashMap`, the usual base for such a table? It has no order: the oldest would have to be sampled through
//! its `unsafe` raw interface, or kept in a second structure that must agree with the first. Either way it needs at
//! least 25 bytes a slot in tables that are between 44 and 88 % full, and it rehashes whole entries when it grows. Here
//! an entry takes 42 to 44 bytes, of which growing touches the links alone, some 4,000 of them in a table of a million.
//!
//! Entries are placed by a secret drawn at start: whoever chooses session keys cannot choose ones that share a bucket.

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

mod shard;
#[cfg(test)]
mod tests;

use shard::Shard;

/// Which upstream a session is pinned to.
pub type Pins = AffinityTable<SessionKey>;
/// Which upstream made a response.
pub type Owners = AffinityTable<OwnedKey>;

/// What an affinity table is keyed by: an identity that is a hash already.
pub trait HashedKey: Copy + Eq {
    /// The hash.
    fn as_u64(self) -> u64;
}

impl HashedKey for SessionKey {
    fn as_u64(self) -> u64 {
        self.as_u64()
    }
}

impl HashedKey for OwnedKey {
    fn as_u64(self) -> u64 {
        self.as_u64()
    }
}

/// A power of two: enough that threads rarely meet and that a shard grows fast, few enough to be searched.
const SHARDS: usize = 256;
/// How many entries one insert removes at most because they are idle, and how many because they are too many. More than
/// one, so that the table shrinks.
const REMOVALS: usize = 2;

/// A confirmed entry counts as used again only after this part of the time that it may be idle. Most answers come sooner
/// after their [`AffinityTable::get`]; then there is nothing to write.
const FRESH_SHIFT: u32 = 10;

/// A bounded concurrent table from key to upstream that keeps what was used last. See the [module](self).
pub struct AffinityTable<K> {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// For each shard, a moment before which none of its entries was last used, in nanoseconds. Written under the
    /// shard's lock.
    oldest: Box<[AtomicU64]>,
    /// Apart from what every call reads.
    len: CachePadded<AtomicUsize>,
    capacity: AtomicUsize,
    /// In nanoseconds.
    idle: AtomicU64,
    secret: u64,
    key: PhantomData<fn(K)>,
}

impl<K: HashedKey> AffinityTable<K> {
    /// An empty table of at most `capacity` entries (at most some two billion), which forgets what has been idle for
    /// longer than `idle`. Memory is taken as entries come.
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

    /// The upstream of `key`, which counts as used now; `None` if it has none or has been idle for too long.
    pub fn get(&self, key: K, now: Tick) -> Option<UpstreamId> {
        let key = self.scramble(key);
        self.with_shard(key, |shard| shard.get(key, now, self.idle()))?
    }

    /// The upstream of `key`, for somebody who only looks.
    pub fn peek(&self, key: K, now: Tick) -> Option<UpstreamId> {
        let key = self.scramble(key);
        self.with_shard(key, |shard| shard.find(key, now, self.idle()))?
            .map(|(upstream, _)| upstream)
    }

    /// `upstream` has served a request of `key` for which [`AffinityTable::get`] had said `seen`. Returns the upstream
    /// that `key` has from now on.
    ///
    /// That is `upstream` if nobody has changed the entry since, or if it is gone or idle for too long. Otherwise
    /// another request was faster, and what it wrote stays. The entry counts as used now, give or take a thousandth of
    /// the time that it may be idle.
    pub fn confirm(&self, key: K, seen: Option<UpstreamId>, upstream: UpstreamId, now: Tick) -> UpstreamId {
        let (key, idle) = (self.scramble(key), self.idle());
        let confirmed = self.with_shard(key, |shard| {
            if let Some((pinned, last)) = shard.find(key, now, idle) {
                let is_fresh = now.since(last) <= self.fresh();
                if (pinned == upstream && is_fresh) || (pinned != upstream && Some(pinned) != seen) {
                    return (pinned, false);
                }
            }
            let is_new = shard.put(key, upstream, now);
            if is_new {
                self.len.fetch_add(1, Relaxed);
                self.drop_idle(shard, now, idle);
            }
            (upstream, is_new)
        });
        let (standing, is_new) = confirmed.unwrap_or((upstream, false));
        if is_new {
            self.make_room();
        }
        standing
    }

    /// Forgets `key`. True if it was there.
    pub fn remove(&self, key: K) -> bool {
        let key = self.scramble(key);
        self.with_shard(key, |shard| self.counted(shard.remove(key)))
            .unwrap_or(false)
    }

    /// How many entries there are, those included that are idle and not yet dropped. While threads insert it can be
    /// above the capacity by one for each of them.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries there may be.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Relaxed)
    }

    /// Changes the bounds. If there are more entries than the new capacity, the longest unused go now and their memory
    /// is given back. That takes a look at every entry (about 0.1 s for a million), but one shard at a time, so that
    /// others wait for less than a millisecond.
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
        // The earliest use that stays.
        let limit = if excess < uses.len() {
            *uses.select_nth_unstable(excess).1
        } else {
            Tick::from_nanos(u64::MAX)
        };
        for at in 0..self.shards.len() {
            self.with_shard_at(at, |shard| self.len.fetch_sub(shard.shrink(limit), Relaxed));
        }
        // Of those last used at that very moment, some are too many.
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

    /// A bijection, so that the result stands for the key. Its high bits choose the shard and its low bits the bucket;
    /// both depend on more bits of the key than anybody can search for.
    fn scramble(&self, key: K) -> u64 {
        let bits = (key.as_u64() ^ self.secret).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (bits ^ (bits >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    /// Runs `act` under the lock of the key's shard, and publishes if the shard now has an older entry.
    fn with_shard<R>(&self, scrambled: u64, act: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        const { assert!(SHARDS.is_power_of_two() && SHARDS > 1) };
        self.with_shard_at((scrambled >> (u64::BITS - SHARDS.trailing_zeros())) as usize, act)
    }

    fn with_shard_at<R>(&self, at: usize, act: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        let mut shard = self.shards.get(at)?.lock();
        let result = act(&mut shard);
        let published = self.oldest.get(at)?;
        let oldest = oldest_of(&shard);
        // Most calls change nothing here, and a store would take the line from all whose shards are beside this one.
        if oldest < published.load(Relaxed) {
            published.store(oldest, Relaxed);
        }
        Some(result)
    }

    /// So that the table follows what is alive and does not only ever grow to its bound.
    fn drop_idle(&self, shard: &mut Shard, now: Tick, idle: Duration) {
        for _ in 0..REMOVALS {
            if shard.oldest().is_some_and(|last| now.since(last) > idle) {
                self.counted(shard.remove_oldest());
            }
        }
    }

    /// More than one may be too many: after a resize, or where threads met.
    fn make_room(&self) {
        for _ in 0..REMOVALS {
            if self.len() > self.capacity() {
                self.evict();
            }
        }
    }

    /// Drops the entry that is longest unused. When others are doing the same it may find nothing; then they have
    /// made room.
    fn evict(&self) {
        // Each try corrects one shard at least, so the last is needed only while others use what was oldest.
        _ = (0..=SHARDS).any(|tried| self.evict_oldest(tried == SHARDS));
    }

    /// Drops the oldest entry of the shard that has published the earliest moment, unless it was used since and that
    /// does not matter. Either way what is published is exact again. False if there is more to do.
    fn evict_oldest(&self, even_if_used: bool) -> bool {
        let moments = self.oldest.iter().enumerate();
        let earliest = moments.min_by_key(|(_, oldest)| oldest.load(Relaxed));
        let Some((at, published)) = earliest else { return true };
        let Some(shard) = self.shards.get(at) else { return true };
        let mut shard = shard.lock();
        let is_exact = oldest_of(&shard) <= published.load(Relaxed);
        if is_exact || even_if_used {
            self.counted(shard.remove_oldest());
        }
        published.store(oldest_of(&shard), Relaxed);
        is_exact
    }

    /// Counts an entry that was removed, if it was; under the same lock, or else it could be counted out before it is
    /// in.
    fn counted(&self, removed: bool) -> bool {
        self.len.fetch_sub(usize::from(removed), Relaxed);
        removed
    }
}

/// When the shard's longest unused entry was used, in nanoseconds; `u64::MAX` if there is none.
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
