//! One shard of an affinity table: a hash table whose entries also stand in the order of their last use.

use std::time::Duration;

use crate::{ids::UpstreamId, tick::Tick};

/// No entry. Indexes of entries stay below it because a table holds fewer entries than that.
const NIL: u32 = u32::MAX;
/// Entries are allocated this many at a time: growing copies none, and fewer than this many lie idle.
const CHUNK: usize = 32;

/// An entry is a member of two lists: its bucket's, and the list of all entries by last use. The classic cache node, as
/// in memcached; indexes instead of pointers make it 40 bytes, and safe.
#[derive(Clone, Copy)]
struct PinEntry {
    key: u64,
    upstream: UpstreamId,
    last: Tick,
    /// The next of the same bucket, or the next free entry.
    chain: u32,
    older: u32,
    newer: u32,
}

const FREE: PinEntry = PinEntry {
    key: 0,
    upstream: UpstreamId::from_u64(0),
    last: Tick::ZERO,
    chain: NIL,
    older: NIL,
    newer: NIL,
};

/// What one lock guards. Keys are random-looking numbers of which the low bits choose a bucket.
pub(super) struct Shard {
    /// First entries of the buckets: a power of two of them, or none yet.
    buckets: Box<[u32]>,
    #[expect(clippy::vec_box, reason = "entries stay where they are when the list grows")]
    chunks: Vec<Box<[PinEntry; CHUNK]>>,
    free: u32,
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            buckets: Box::default(),
            chunks: Vec::new(),
            free: NIL,
            newest: NIL,
            oldest: NIL,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// When the longest unused entry was used, if there is one.
    pub(super) fn oldest(&self) -> Option<Tick> {
        self.entry(self.oldest).map(|entry| entry.last)
    }

    /// The upstream of `key` and its last use, unless that is longer ago than `idle`.
    pub(super) fn find(&self, key: u64, now: Tick, idle: Duration) -> Option<(UpstreamId, Tick)> {
        let entry = self.entry(self.locate(key)?)?;
        (now.since(entry.last) <= idle).then_some((entry.upstream, entry.last))
    }

    /// The upstream of `key`, which becomes the last used, unless it has been idle for longer than `idle`.
    pub(super) fn get(&mut self, key: u64, now: Tick, idle: Duration) -> Option<UpstreamId> {
        let at = self.locate(key)?;
        let entry = self.entry(at)?;
        if now.since(entry.last) > idle {
            return None;
        }
        let upstream = entry.upstream;
        self.touch(at, upstream, now);
        Some(upstream)
    }

    /// Sets the upstream of `key`, which becomes the last used. True if it was not there.
    pub(super) fn put(&mut self, key: u64, upstream: UpstreamId, now: Tick) -> bool {
        match self.locate(key) {
            Some(at) => {
                self.touch(at, upstream, now);
                false
            }
            None => {
                self.insert(key, upstream, now);
                true
            }
        }
    }

    /// Drops `key`. True if it was there.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(at) = self.locate(key) else { return false };
        self.leave_bucket(at, key);
        self.unlink(at);
        let free = self.free;
        if let Some(entry) = self.entry_mut(at) {
            *entry = PinEntry { chain: free, ..FREE };
        }
        self.free = at;
        self.len -= 1;
        true
    }

    /// Drops the longest unused entry. False if there is none.
    pub(super) fn remove_oldest(&mut self) -> bool {
        self.entry(self.oldest)
            .map(|entry| entry.key)
            .is_some_and(|key| self.remove(key))
    }

    /// When each entry was last used.
    pub(super) fn uses(&self) -> impl Iterator<Item = Tick> {
        self.in_order_of_use().map(|entry| entry.last)
    }

    /// Drops all that was last used before `limit` and gives their memory back. Returns how many went.
    pub(super) fn shrink(&mut self, limit: Tick) -> usize {
        let mut kept = Self::new();
        for entry in self.in_order_of_use().filter(|entry| entry.last >= limit) {
            kept.insert(entry.key, entry.upstream, entry.last);
        }
        let dropped = self.len() - kept.len();
        *self = kept;
        dropped
    }

    fn in_order_of_use(&self) -> impl Iterator<Item = &PinEntry> {
        std::iter::successors(self.entry(self.oldest), |entry| self.entry(entry.newer))
    }

    /// Bytes on the heap, without the allocator's own.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let pointers = self.chunks.capacity() * size_of::<Box<[PinEntry; CHUNK]>>();
        size_of_val(&*self.buckets) + pointers + self.chunks.len() * size_of::<[PinEntry; CHUNK]>()
    }

    fn entry(&self, at: u32) -> Option<&PinEntry> {
        self.chunks.get(at as usize / CHUNK)?.get(at as usize % CHUNK)
    }

    fn entry_mut(&mut self, at: u32) -> Option<&mut PinEntry> {
        self.chunks.get_mut(at as usize / CHUNK)?.get_mut(at as usize % CHUNK)
    }

    /// The head of the bucket that `key` belongs to; `None` only before the first insert.
    fn bucket(&mut self, key: u64) -> Option<&mut u32> {
        let mask = self.buckets.len().checked_sub(1)?;
        self.buckets.get_mut(key as usize & mask)
    }

    fn locate(&self, key: u64) -> Option<u32> {
        let mask = self.buckets.len().checked_sub(1)?;
        let mut at = *self.buckets.get(key as usize & mask)?;
        loop {
            let entry = self.entry(at)?;
            if entry.key == key {
                return Some(at);
            }
            at = entry.chain;
        }
    }

    fn touch(&mut self, at: u32, upstream: UpstreamId, now: Tick) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        if let Some(entry) = self.entry_mut(at) {
            entry.upstream = upstream;
            // Threads read the clock before they get the lock, so an earlier time can come later.
            entry.last = entry.last.max(now);
        }
    }

    fn insert(&mut self, key: u64, upstream: UpstreamId, now: Tick) {
        if self.len() >= self.buckets.len() * 2 {
            self.grow_buckets();
        }
        if self.free == NIL {
            self.grow_entries();
        }
        let at = self.free;
        let Some(head) = self.bucket(key) else { return };
        let chain = std::mem::replace(head, at);
        let Some(entry) = self.entry_mut(at) else { return };
        let free = entry.chain;
        *entry = PinEntry {
            key,
            upstream,
            last: now,
            chain,
            ..FREE
        };
        self.free = free;
        self.link_newest(at);
        self.len += 1;
    }

    /// Chains one chunk more into the free entries.
    fn grow_entries(&mut self) {
        let start = (self.chunks.len() * CHUNK) as u32;
        let mut chunk = Box::new([FREE; CHUNK]);
        for (entry, next) in chunk.iter_mut().rev().skip(1).zip((start..start + CHUNK as u32).rev()) {
            entry.chain = next;
        }
        self.chunks.push(chunk);
        self.free = start;
    }

    /// Doubles the buckets; entries stay where they are. Buckets hold one to two entries on average.
    fn grow_buckets(&mut self) {
        self.buckets = vec![NIL; (self.buckets.len() * 2).max(4)].into();
        let mut next = self.oldest;
        while let Some(PinEntry { key, newer, .. }) = self.entry(next).copied() {
            let Some(head) = self.bucket(key) else { return };
            let chain = std::mem::replace(head, next);
            if let Some(entry) = self.entry_mut(next) {
                entry.chain = chain;
            }
            next = newer;
        }
    }

    fn leave_bucket(&mut self, at: u32, key: u64) {
        let Some(after) = self.entry(at).map(|entry| entry.chain) else {
            return;
        };
        let Some(head) = self.bucket(key) else { return };
        if *head == at {
            *head = after;
            return;
        }
        let mut before = *head;
        while let Some(entry) = self.entry_mut(before) {
            if entry.chain == at {
                entry.chain = after;
                return;
            }
            before = entry.chain;
        }
    }

    /// Takes an entry out of the order of use.
    fn unlink(&mut self, at: u32) {
        let Some(PinEntry { older, newer, .. }) = self.entry(at).copied() else {
            return;
        };
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    /// Puts an entry, which is in no order of use, at its end.
    fn link_newest(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.newest, at);
        match self.entry_mut(older) {
            Some(entry) => entry.newer = at,
            None => self.oldest = at,
        }
        if let Some(entry) = self.entry_mut(at) {
            (entry.older, entry.newer) = (older, NIL);
        }
    }
}
