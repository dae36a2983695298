//! The memory for request bodies: the counters, and the bodies that wait for memory.
//!
//! While no body waits, taking and releasing memory are additions to two counters. A body that finds too little memory is
//! entered in the queue. From then on every body has to enter the queue, so that no body overtakes another, and every
//! release of memory serves the queue: first the bodies whose callers stay within their share, then the others, each in
//! the order of their arrival.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    account::BodyAccount,
    arrivals::Arrivals,
    reclaim::{self, BodyId, Level, Waiting},
};
use crate::{
    cache_padded::CachePadded,
    wire::body::{framing::MemoryRefusal, pace::PaceReading},
};

/// The pause between two searches for bodies that give way. Each search looks at all arriving bodies.
const SEARCH_PAUSE: Duration = Duration::from_millis(20);

/// The configured limits of the memory for bodies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// The maximum for all bodies together.
    pub all: usize,
    /// The maximum for the bodies of one caller while other callers wait for memory.
    pub share: usize,
}

/// The memory for the request bodies of all callers.
pub struct BodyMemory {
    /// The number of bytes that all bodies hold.
    held: CachePadded<AtomicUsize>,
    /// The number of bytes of complete bodies. They keep their memory for as long as their upstreams work.
    settled: AtomicUsize,
    /// The maximum of `held`. After a reload has lowered it, `held` may be larger for some time.
    limit: AtomicUsize,
    /// The maximum of the bytes of one caller while others wait.
    share: AtomicUsize,
    /// The number of bodies in the queue that have no memory yet.
    waiting: AtomicUsize,
    pub(in crate::wire) arrivals: Arrivals,
    queue: Mutex<Queue>,
}

/// Memory that a body holds. It is released when this is dropped.
pub struct BodyPermit {
    memory: Arc<BodyMemory>,
    account: Arc<BodyAccount>,
    bytes: usize,
    /// Whether the bytes are counted as those of a complete body.
    is_settled: bool,
}

/// A body's request for memory.
pub(in crate::wire) struct Want {
    pub account: Arc<BodyAccount>,
    /// The number of bytes that the body waits for.
    pub bytes: usize,
    /// The number of bytes that the body needs as a whole.
    pub whole: usize,
    pub pace: PaceReading,
    /// The body itself, if it holds memory already.
    pub id: Option<BodyId>,
}

struct Entry {
    want: Want,
    since: Instant,
    /// Whether the memory has been taken for the body.
    is_granted: bool,
    /// The task of the body; `None` before it has waited.
    waker: Option<Waker>,
}

#[derive(Default)]
struct Queue {
    /// The bodies by their numbers, which grow.
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// When a body of a caller within its share last got memory, or gave up its place.
    wanted_within_share: Option<Instant>,
    /// When bodies that give way were last searched for.
    searched: Option<Instant>,
}

/// A place in the queue. It is given up when this is dropped.
pub(in crate::wire) struct Ticket {
    memory: Arc<BodyMemory>,
    number: u64,
}

impl BodyMemory {
    /// Memory with these limits, all of it free.
    pub fn new(limits: MemoryLimits) -> Arc<Self> {
        Arc::new(Self {
            held: CachePadded::default(),
            settled: AtomicUsize::new(0),
            limit: AtomicUsize::new(limits.all),
            share: AtomicUsize::new(limits.share),
            waiting: AtomicUsize::new(0),
            arrivals: Arrivals::default(),
            queue: Mutex::default(),
        })
    }

    /// Changes the limits. Bodies keep the memory that they hold. If that is more than the new limit, no body gets more
    /// until enough has been released.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.limit.store(limits.all, SeqCst);
        self.share.store(limits.share, SeqCst);
        self.serve_queue();
    }

    /// The number of bytes that all bodies hold.
    pub fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// Takes memory, unless there is too little or other bodies wait for it.
    pub(in crate::wire) fn try_take(&self, account: &BodyAccount, bytes: usize) -> bool {
        self.waiting.load(SeqCst) == 0 && self.take(account, bytes)
    }

    fn take(&self, account: &BodyAccount, bytes: usize) -> bool {
        let limit = self.limit.load(SeqCst);
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        let is_taken = self.held.fetch_update(SeqCst, SeqCst, more).is_ok();
        if is_taken {
            account.add(bytes);
        }
        is_taken
    }

    /// Counts a complete body. Returns `false` if the caller is over its share, and such bodies would leave less than one
    /// share to others: a complete body does not give way.
    fn try_settle(&self, account: &BodyAccount, bytes: usize) -> bool {
        let (limit, share) = (self.limit.load(SeqCst), self.share.load(SeqCst));
        let limit = match account.held() <= share {
            true => usize::MAX,
            false => limit.saturating_sub(share).max(share),
        };
        let more = |settled: usize| settled.checked_add(bytes).filter(|settled| *settled <= limit);
        self.settled.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    fn release(&self, account: &BodyAccount, bytes: usize) {
        account.subtract(bytes);
        self.held.fetch_sub(bytes, SeqCst);
        // A body enters the queue before it looks at `held`, so one of both sees the other.
        if self.waiting.load(SeqCst) > 0 {
            self.serve_queue();
        }
    }

    #[cold]
    fn serve_queue(&self) {
        let mut wakers = Vec::new();
        self.serve(&mut self.queue.lock(), &mut wakers);
        // Tasks are woken without the lock.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Gives free memory to the bodies in the queue.
    fn serve(&self, queue: &mut Queue, wakers: &mut Vec<Waker>) {
        let share = self.share.load(SeqCst);
        for is_within in [true, false] {
            for entry in queue.entries.values_mut().filter(|entry| !entry.is_granted) {
                if entry.is_within(share) != is_within {
                    continue;
                }
                let want = &entry.want;
                if !self.take(&want.account, want.bytes) {
                    return;
                }
                entry.is_granted = true;
                self.waiting.fetch_sub(1, SeqCst);
                wakers.extend(entry.waker.take());
                if is_within {
                    queue.wanted_within_share = Some(Instant::now());
                }
            }
        }
    }

    /// Enters a body in the queue. It may get its memory at once.
    pub(in crate::wire) fn enqueue(self: &Arc<Self>, want: Want) -> Ticket {
        let mut wakers = Vec::new();
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        self.waiting.fetch_add(1, SeqCst);
        let entry = Entry {
            want,
            since: Instant::now(),
            is_granted: false,
            waker: None,
        };
        queue.entries.insert(number, entry);
        self.serve(&mut queue, &mut wakers);
        self.reclaim(&mut queue, &mut wakers);
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
        Ticket {
            memory: self.clone(),
            number,
        }
    }

    /// Tells bodies to give way, if the bodies in the queue need their memory.
    fn reclaim(&self, queue: &mut Queue, wakers: &mut Vec<Waker>) {
        let now = Instant::now();
        let is_early = queue.searched.is_some_and(|last| now - last < SEARCH_PAUSE);
        if is_early || self.waiting.load(SeqCst) == 0 {
            return;
        }
        queue.searched = Some(now);
        let unserved = queue.entries.values().filter(|entry| !entry.is_granted);
        let waiting: Vec<Waiting> = unserved.map(|entry| entry.as_waiting(now)).collect();
        let (arriving, leaving) = self.arrivals.list(now);
        let level = Level {
            free: (self.limit.load(SeqCst).saturating_add(leaving)).saturating_sub(self.held()),
            share: self.share.load(SeqCst),
        };
        let victims = reclaim::choose(&waiting, arriving, level);
        wakers.extend(victims.into_iter().filter_map(|victim| self.arrivals.reclaim(victim)));
    }
}

impl Entry {
    /// Whether the caller stays within its share.
    fn is_within(&self, share: usize) -> bool {
        self.want.account.held().saturating_add(self.want.bytes) <= share
    }

    fn as_waiting(&self, now: Instant) -> Waiting {
        Waiting {
            id: self.want.id,
            account: self.want.account.id(),
            account_held: self.want.account.held(),
            bytes: self.want.bytes,
            whole: self.want.whole,
            rate: self.want.pace.rate(now),
            waited: now - self.since,
        }
    }
}

impl Ticket {
    /// Whether the body has got its memory. From then on the caller owns it.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.memory.queue.lock();
        let entry = queue.entries.get_mut(&self.number);
        let entry = entry.expect("a body is in the queue until its ticket is dropped or it has got its memory");
        if !entry.is_granted {
            entry.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        queue.entries.remove(&self.number);
        Poll::Ready(())
    }

    /// Searches for bodies that give way to this one, which may have been waiting for some time.
    pub fn review(&self) {
        let mut wakers = Vec::new();
        self.memory.reclaim(&mut self.memory.queue.lock(), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Why the body is refused when its wait is over.
    pub fn refusal(&self) -> MemoryRefusal {
        let memory = &self.memory;
        let share = memory.share.load(SeqCst);
        let queue = memory.queue.lock();
        let Some(own) = queue.entries.get(&self.number) else {
            return MemoryRefusal::Full;
        };
        let others_wait = || {
            let mut entries = queue.entries.values();
            entries.any(|entry| !entry.is_granted && entry.is_within(share))
        };
        let others_waited = queue.wanted_within_share.is_some_and(|wanted| wanted >= own.since);
        match !own.is_within(share) && (others_waited || others_wait()) {
            true => MemoryRefusal::ShareFull,
            false => MemoryRefusal::Full,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.memory.queue.lock();
        let removed = queue.entries.remove(&self.number);
        if let Some(entry) = &removed
            && entry.is_within(self.memory.share.load(SeqCst))
        {
            queue.wanted_within_share = Some(Instant::now());
        }
        drop(queue);
        match removed {
            None => {}
            Some(entry) if entry.is_granted => self.memory.release(&entry.want.account, entry.want.bytes),
            Some(_) => {
                self.memory.waiting.fetch_sub(1, SeqCst);
                // The body may have stood before others that need less.
                self.memory.serve_queue();
            }
        }
    }
}

impl BodyPermit {
    /// A permit for no bytes yet.
    pub(in crate::wire) fn empty(memory: &Arc<BodyMemory>, account: Arc<BodyAccount>) -> Self {
        Self {
            memory: memory.clone(),
            account,
            bytes: 0,
            is_settled: false,
        }
    }

    /// The number of bytes.
    pub(in crate::wire) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::wire) fn memory(&self) -> &Arc<BodyMemory> {
        &self.memory
    }

    pub(in crate::wire) fn account(&self) -> &Arc<BodyAccount> {
        &self.account
    }

    /// Counts the body as complete. Returns `false` if that has to wait, because the caller is over its share and complete
    /// bodies hold too much memory.
    pub(in crate::wire) fn try_settle(&mut self) -> bool {
        self.is_settled = self.memory.try_settle(&self.account, self.bytes);
        self.is_settled
    }

    /// Adds bytes that have been taken for the body.
    pub(in crate::wire) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        if self.is_settled {
            self.memory.settled.fetch_sub(self.bytes, SeqCst);
        }
        if self.bytes > 0 {
            self.memory.release(&self.account, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
