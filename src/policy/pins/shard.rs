//! One shard of an affinity table: a hash table whose entries also stand in the order of their last use.

use crate::{ids::UpstreamId, tick::Tick};

/// No entry. Indexes of entries stay below it because a table holds fewer entries than that.
const NIL: u32 = u32::MAX;
/// Entries are allocated this many at a time. Growing copies none, and at most this many less one lie idle.
const CHUNK: usize = 32;

/// An entry is a member of two lists: its bucket's, and the list of all by last use. The classic cache node, as in
/// memcached; indexes instead of pointers make it 40 bytes without any `unsafe`.
#[derive(Clone, Copy)]
struct Entry {
    key: u64,
    upstream: UpstreamId,
    last: Tick,
    /// The next of the same bucket, or the next free entry.
    chain: u32,
    older: u32,
    newer: u32,
}

const FREE: Entry =
    Entry { key: 0, upstream: UpstreamId::from_u64(0), last: Tick::ZERO, chain: NIL, older: NIL, newer: NIL };

/// What one lock guards.
pub(super) struct Shard {
    /// First entries of the buckets; a power of two, or empty.
    buckets: Box<[u32]>,
    chunks: Vec<Box<[Entry; CHUNK]>>,
    /// First of the free entries.
    free: u32,
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self { buckets: Box::default(), chunks: Vec::new(), free: NIL, newest: NIL, oldest: NIL, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// The entry of `key`, without touching it. `place` is the key's hash, of which the low bits choose the bucket.
    pub(super) fn find(&self, key: u64, place: u64) -> Option<(UpstreamId, Tick)> {
        let entry = self.entry(self.locate(key, place)?)?;
        Some((entry.upstream, entry.last))
    }

    /// Makes the entry of `key` the newest, last used at `now`, with this upstream. It must be there.
    pub(super) fn touch(&mut self, key: u64, place: u64, upstream: UpstreamId, now: Tick) {
        let Some(at) = self.locate(key, place) else { return };
        self.unlink(at);
        self.link_newest(at);
        if let Some(entry) = self.entry_mut(at) {
            entry.upstream = upstream;
            // Threads read the clock before they get the lock, so a time can arrive late.
            entry.last = entry.last.max(now);
        }
    }

    /// Adds `key`, which must not be there, as the newest.
    pub(super) fn insert(&mut self, key: u64, place: u64, upstream: UpstreamId, now: Tick) {
        if self.len as usize >= self.buckets.len() * 2 {
            self.grow_buckets();
        }
        let at = self.take_free();
        let bucket = self.bucket(place);
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        let chain = std::mem::replace(head, at);
        if let Some(entry) = self.entry_mut(at) {
            *entry = Entry { key, upstream, last: now, chain, ..FREE };
        }
        self.link_newest(at);
        self.len += 1;
    }
}
