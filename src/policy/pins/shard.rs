//! One shard of an affinity table: a hash table in which the entries are also linked in the order of their last use.

use std::time::Duration;

use super::prompt_size::PromptSize;
use crate::{ids::UpstreamId, tick::Tick};

/// The index that stands for no entry. Indexes of entries are below it, because a table holds fewer entries.
const NIL: u32 = u32::MAX;
/// The reason why an entry exists at an index.
const LOCATED: &str = "every index in a list is that of an allocated entry";
/// The reason why a key has a bucket.
const BUCKETS: &str = "the first insert allocates the buckets";
/// The number of entries that are allocated at a time. Growing copies no entries, and fewer than this many are
/// unused.
const CHUNK: usize = 32;

/// An entry is a member of two lists: the list of its bucket, and the list of all entries by last use. This is the
/// classic node of a cache, as in memcached; indexes instead of pointers make it 40 bytes, and safe.
#[derive(Clone, Copy)]
struct PinEntry {
    key: u64,
    upstream: UpstreamId,
    /// When the entry was last used.
    last: Tick,
    /// The length of the prompt that the upstream has in its cache.
    prompt: PromptSize,
    /// The next entry of the same bucket, or the next free entry.
    chain: u32,
    /// The index of the entry that was used before this one, or [`NIL`].
    older: u32,
    /// The index of the entry that was used after this one, or [`NIL`].
    newer: u32,
}

const FREE: PinEntry = PinEntry {
    key: 0,
    upstream: UpstreamId::from_u64(0),
    last: Tick::ZERO,
    prompt: PromptSize::NONE,
    chain: NIL,
    older: NIL,
    newer: NIL,
};

/// What an entry says about its key.
#[derive(Clone, Copy)]
pub(super) struct FoundPin {
    pub upstream: UpstreamId,
    /// When the entry was last used.
    pub last: Tick,
    /// The length of the prompt that the upstream has in its cache.
    pub prompt: PromptSize,
}

/// The data behind one lock. Keys are scrambled, and their low bits choose a bucket.
pub(super) struct Shard {
    /// The first entry of each bucket. The number of buckets is a power of two, or zero before the first insert.
    buckets: Box<[u32]>,
    #[expect(clippy::vec_box, reason = "entries stay where they are when the list grows")]
    chunks: Vec<Box<[PinEntry; CHUNK]>>,
    /// The first free entry, or [`NIL`].
    free: u32,
    /// The entry that was used last, or [`NIL`].
    newest: u32,
    /// The entry that has been unused the longest, or [`NIL`].
    oldest: u32,
    /// The number of entries in use.
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

    /// Returns when the oldest entry was last used; `None` if there is no entry.
    pub(super) fn oldest(&self) -> Option<Tick> {
        self.entry(self.oldest).map(|entry| entry.last)
    }

    /// Returns the entry of `key`, unless its last use is longer ago than `idle`.
    pub(super) fn find(&self, key: u64, now: Tick, idle: Duration) -> Option<FoundPin> {
        let entry = self.entry(self.locate(key)?).expect(LOCATED);
        let PinEntry {
            upstream, last, prompt, ..
        } = *entry;
        (now.since(last) <= idle).then_some(FoundPin { upstream, last, prompt })
    }

    /// Returns the upstream of `key` and makes the entry the newest, unless it has been idle for longer than `idle`.
    pub(super) fn get(&mut self, key: u64, now: Tick, idle: Duration) -> Option<UpstreamId> {
        let at = self.locate(key)?;
        let entry = self.entry(at).expect(LOCATED);
        if now.since(entry.last) > idle {
            return None;
        }
        let upstream = entry.upstream;
        self.touch(at, now);
        Some(upstream)
    }

    /// Sets the upstream and the prompt of `key` and makes the entry the newest. Returns whether the entry is new.
    pub(super) fn put(&mut self, key: u64, upstream: UpstreamId, prompt: PromptSize, now: Tick) -> bool {
        match self.locate(key) {
            Some(at) => {
                self.touch(at, now);
                let entry = self.entry_mut(at).expect(LOCATED);
                (entry.upstream, entry.prompt) = (upstream, prompt);
                false
            }
            None => {
                let last = now;
                self.insert(key, FoundPin { upstream, last, prompt });
                true
            }
        }
    }

    /// Sets the prompt of `key`, if there is an entry. That is no use of the entry.
    pub(super) fn set_prompt(&mut self, key: u64, prompt: PromptSize) {
        if let Some(at) = self.locate(key) {
            self.entry_mut(at).expect(LOCATED).prompt = prompt;
        }
    }

    /// Removes the entry of `key`. Returns whether there was one.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(at) = self.locate(key) else { return false };
        self.remove_from_bucket(at, key);
        self.unlink(at);
        let free = self.free;
        *self.entry_mut(at).expect(LOCATED) = PinEntry { chain: free, ..FREE };
        self.free = at;
        self.len -= 1;
        true
    }

    /// Removes the oldest entry. Returns whether there was one.
    pub(super) fn remove_oldest(&mut self) -> bool {
        self.entry(self.oldest)
            .map(|entry| entry.key)
            .is_some_and(|key| self.remove(key))
    }

    /// Returns the last use of each entry.
    pub(super) fn uses(&self) -> impl Iterator<Item = Tick> {
        self.in_order_of_use().map(|entry| entry.last)
    }

    /// Drops the entries that were last used before `limit` and returns their memory. Returns the number of dropped
    /// entries.
    pub(super) fn shrink(&mut self, limit: Tick) -> usize {
        let mut kept = Self::new();
        for entry in self.in_order_of_use().filter(|entry| entry.last >= limit) {
            let PinEntry {
                upstream, last, prompt, ..
            } = *entry;
            kept.insert(entry.key, FoundPin { upstream, last, prompt });
        }
        let dropped = self.len() - kept.len();
        *self = kept;
        dropped
    }

    fn in_order_of_use(&self) -> impl Iterator<Item = &PinEntry> {
        std::iter::successors(self.entry(self.oldest), |entry| self.entry(entry.newer))
    }

    /// Returns the number of bytes on the heap, without the overhead of the allocator.
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

    /// Returns the head of the bucket of `key`; `None` only before the first insert.
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

    fn touch(&mut self, at: u32, now: Tick) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        let entry = self.entry_mut(at).expect(LOCATED);
        // Threads read the clock before they get the lock, so an earlier time can come later.
        entry.last = entry.last.max(now);
    }

    fn insert(&mut self, key: u64, pin: FoundPin) {
        if self.len() >= self.buckets.len() * 2 {
            self.grow_buckets();
        }
        if self.free == NIL {
            self.grow_entries();
        }
        let at = self.free;
        let chain = std::mem::replace(self.bucket(key).expect(BUCKETS), at);
        let entry = self.entry_mut(at).expect("a free entry was allocated above");
        let free = entry.chain;
        *entry = PinEntry {
            key,
            upstream: pin.upstream,
            last: pin.last,
            prompt: pin.prompt,
            chain,
            ..FREE
        };
        self.free = free;
        self.link_newest(at);
        self.len += 1;
    }

    /// Adds one chunk to the list of free entries.
    fn grow_entries(&mut self) {
        let start = (self.chunks.len() * CHUNK) as u32;
        let mut chunk = Box::new([FREE; CHUNK]);
        for (entry, next) in chunk.iter_mut().rev().skip(1).zip((start..start + CHUNK as u32).rev()) {
            entry.chain = next;
        }
        self.chunks.push(chunk);
        self.free = start;
    }

    /// Doubles the number of buckets. The entries stay in place. A bucket holds one to two entries on average.
    fn grow_buckets(&mut self) {
        self.buckets = vec![NIL; (self.buckets.len() * 2).max(4)].into();
        let mut next = self.oldest;
        while let Some(PinEntry { key, newer, .. }) = self.entry(next).copied() {
            let chain = std::mem::replace(self.bucket(key).expect(BUCKETS), next);
            self.entry_mut(next).expect("the entry was read above").chain = chain;
            next = newer;
        }
    }

    /// Removes the entry of `key` at index `at` from the list of its bucket.
    fn remove_from_bucket(&mut self, at: u32, key: u64) {
        let after = self.entry(at).expect(LOCATED).chain;
        let head = self.bucket(key).expect(BUCKETS);
        if *head == at {
            *head = after;
            return;
        }
        let mut before = *head;
        loop {
            let entry = self.entry_mut(before).expect("the bucket's list contains the entry");
            if entry.chain == at {
                entry.chain = after;
                return;
            }
            before = entry.chain;
        }
    }

    /// Removes an entry from the list by last use.
    fn unlink(&mut self, at: u32) {
        let PinEntry { older, newer, .. } = *self.entry(at).expect(LOCATED);
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    /// Appends an entry, which is in no list by last use, to that list as the newest.
    fn link_newest(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.newest, at);
        match self.entry_mut(older) {
            Some(entry) => entry.newer = at,
            None => self.oldest = at,
        }
        let entry = self.entry_mut(at).expect(LOCATED);
        (entry.older, entry.newer) = (older, NIL);
    }
}
