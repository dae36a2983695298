//! Slots: how many requests an upstream may work on at a time, and the queue of requests that wait for one.
//!
//! # Admission
//!
//! Taking a slot is one atomic step without a lock. While requests wait for a limited number of slots, a new request
//! does not overtake them: [`Slots::is_full`] is true until the queue is empty. Requests that wait for the reset of a limit do
//! not count, because a limit may concern only a part of the upstream.
//!
//! A freed slot is not announced to all waiting requests. [`Slots::serve_queue`] takes it on behalf of the first request
//! in the queue that can use it and sends the result there, so that a request wakes up only when it has a slot.
//!
//! # Memory ordering
//!
//! All atomics of an upstream use `SeqCst`, because one pair of them needs it:
//!
//! - A request that starts to wait writes `waiting`, then reads `in_flight` to see whether a slot has become free.
//! - A request that ends writes `in_flight`, then reads `waiting` to see whether a slot is wanted.
//!
//! With acquire and release alone both may read the old value: the one request finds no free slot, the other finds an
//! empty queue, and the slot stays free while a request waits for it. `SeqCst` puts the four accesses into one order,
//! in which at least one of the two reads comes after the other request's write. The request with that read serves the
//! queue. Serving happens under the lock of the queue, so it does no harm if both do it.
//!
//! A verdict that makes the upstream available again needs no such order: it changes health under the lock of health and
//! then reads `waiting`. A request that starts to wait writes `waiting` and then takes the same lock, unless it reads that
//! health admits everything. If it had the lock first, the reporting request sees it in `waiting` and serves the queue; if
//! not, it sees the change.
//!
//! The other accesses would be correct with a weaker ordering. `in_flight` itself never exceeds the limit because it is
//! changed by compare-and-swap. A raised limit serves the queue in any case, and the lock of the queue orders that
//! against requests that start to wait. On x86-64 a `SeqCst` load is a plain load and every read-modify-write is a full
//! barrier anyway, so a uniform ordering costs nothing on the fast path.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{cache_padded::CachePadded, policy::RequestClass};

/// The value of `limit` if there is no limit.
const UNLIMITED: u32 = u32::MAX;

/// The slots of one upstream and the requests that wait for one. `T` is what a waiting request receives together with its
/// slot. See the [module](self).
pub(super) struct Slots<T> {
    /// The maximum number of requests in flight; [`UNLIMITED`] for no limit.
    limit: AtomicU32,
    /// The number of requests in flight, which is the number of taken slots.
    ///
    /// It is one atomic and not striped over threads: every pick compares these numbers and the limit must hold exactly, so
    /// reading must be as cheap as writing. It has cache lines of its own, so that requests that only read the state of
    /// the upstream are not slowed down.
    in_flight: CachePadded<AtomicU32>,
    /// The length of `queue`, for reading without its lock.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<QueuedRequest<T>>>,
}

/// A request that waits for a slot.
struct QueuedRequest<T> {
    /// The part of the upstream that the request needs, because a limit or an ejection may concern only another part.
    class: RequestClass,
    /// Receives the slot. It is closed when the request no longer waits.
    sender: oneshot::Sender<T>,
}

/// A request's position in the queue. Dropping it leaves the queue.
pub(super) struct QueuePosition<'a, T> {
    slots: &'a Slots<T>,
    receiver: oneshot::Receiver<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            limit: AtomicU32::new(UNLIMITED),
            in_flight: CachePadded::default(),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }
}

impl<T> Slots<T> {
    /// The number of requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(SeqCst)
    }

    /// The number of requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// The maximum number of requests in flight; `None` if there is no limit.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(SeqCst)).filter(|limit| *limit != UNLIMITED)
    }

    /// Changes the maximum. Requests above a lower maximum finish. The caller serves the queue afterwards.
    pub fn set_limit(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(UNLIMITED), SeqCst);
    }

    /// Whether every slot is taken, or belongs to a request in the queue. `can_use` returns whether a request of a class
    /// could use a free slot now.
    pub fn is_full(&self, can_use: impl Fn(RequestClass) -> bool) -> bool {
        !self.has_free() || (self.limit().is_some() && self.waiting() > 0 && self.is_wanted(can_use))
    }

    /// Whether a request in the queue could use a free slot now.
    #[cold]
    fn is_wanted(&self, can_use: impl Fn(RequestClass) -> bool) -> bool {
        // The classes that cannot use a slot. They are not asked about again.
        let mut refused = Vec::new();
        self.queue.lock().iter().any(|request| {
            let is_new = !refused.contains(&request.class);
            if is_new && can_use(request.class) {
                return true;
            }
            if is_new {
                refused.push(request.class);
            }
            false
        })
    }

    fn has_free(&self) -> bool {
        self.limit().is_none_or(|limit| self.in_flight() < limit)
    }

    /// Takes a slot if one is free. The caller gives it back with [`Slots::release`].
    pub fn try_take(&self) -> bool {
        match self.limit() {
            None => {
                self.in_flight.fetch_add(1, SeqCst);
                true
            }
            Some(limit) => {
                let more = |taken: u32| (taken < limit).then_some(taken + 1);
                self.in_flight.fetch_update(SeqCst, SeqCst, more).is_ok()
            }
        }
    }

    /// Gives a slot back. Returns whether requests wait, in which case the caller serves the queue.
    #[must_use = "a slot that is free while a request waits for it must be handed over"]
    pub fn release(&self) -> bool {
        let before = self.in_flight.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "a slot is given back once, by the request that took it");
        self.waiting() > 0
    }

    /// Puts a request of `class` at the end of the queue.
    pub fn enqueue(&self, class: RequestClass) -> QueuePosition<'_, T> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.push_back(QueuedRequest { class, sender });
        self.waiting.store(queue.len(), SeqCst);
        drop(queue);
        QueuePosition { slots: self, receiver }
    }

    /// Hands slots to waiting requests, in the order of the queue. `admit` takes a slot for a request, if it can.
    pub fn serve_queue(&self, admit: impl Fn(RequestClass) -> Option<T>) {
        // The classes for which `admit` has failed. A failure is not tried again for the other requests of the class.
        let mut refused = Vec::new();
        while let Some((request, admitted)) = self.take_first_admitted(&mut refused, &admit) {
            // The slot is sent without the lock. If the request no longer waits, the slot is dropped here, which
            // releases it and serves the queue again.
            drop(request.sender.send(admitted));
        }
    }

    fn take_first_admitted(
        &self,
        refused: &mut Vec<RequestClass>,
        admit: impl Fn(RequestClass) -> Option<T>,
    ) -> Option<(QueuedRequest<T>, T)> {
        let mut queue = self.queue.lock();
        let (at, admitted) = queue.iter().enumerate().find_map(|(at, request)| {
            if !self.has_free() || refused.contains(&request.class) {
                return None;
            }
            let admitted = admit(request.class);
            if admitted.is_none() {
                refused.push(request.class);
            }
            admitted.map(|admitted| (at, admitted))
        })?;
        let request = queue.remove(at).expect("the request was just found at this index");
        self.waiting.store(queue.len(), SeqCst);
        Some((request, admitted))
    }
}

impl<T> QueuePosition<'_, T> {
    /// Waits until a slot is handed over.
    pub async fn receive(&mut self) -> T {
        let received = (&mut self.receiver).await;
        received.expect("the sender stays in the queue until it sends, or until this position is dropped")
    }

    /// Returns the slot if it has been handed over.
    pub fn try_receive(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl<T> Drop for QueuePosition<'_, T> {
    fn drop(&mut self) {
        // From here on nothing can be sent. A slot that has been sent is dropped together with the receiver, without
        // the lock.
        self.receiver.close();
        let mut queue = self.slots.queue.lock();
        queue.retain(|request| !request.sender.is_closed());
        self.slots.waiting.store(queue.len(), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelKey;

    const ANY: RequestClass = RequestClass::generation(None);

    fn model(name: &str) -> RequestClass {
        RequestClass::generation(Some(ModelKey::from_name(name)))
    }

    /// Serves the queue with the classes that requests are admitted for; requests of the class `refused` are not admitted.
    fn serve(slots: &Slots<RequestClass>, refused: RequestClass) {
        slots.serve_queue(|class| (class != refused && slots.try_take()).then_some(class));
    }

    #[test]
    fn a_slot_goes_to_the_first_request_that_can_use_it() {
        let slots = Slots::default();
        slots.set_limit(Some(1));
        let mut cooling = slots.enqueue(model("cooling"));
        let mut first = slots.enqueue(model("ready"));
        let mut second = slots.enqueue(model("ready"));
        serve(&slots, model("cooling"));
        assert_eq!(first.try_receive(), Some(model("ready")));
        assert_eq!((cooling.try_receive(), second.try_receive()), (None, None));
        assert_eq!((slots.in_flight(), slots.waiting()), (1, 2));
        assert!(slots.release(), "two requests still wait");
        serve(&slots, ANY);
        assert_eq!(cooling.try_receive(), Some(model("cooling")));
    }

    #[test]
    fn a_limit_is_never_exceeded_and_a_queue_makes_a_free_slot_full() {
        let slots = Slots::<()>::default();
        assert!(slots.try_take() && slots.try_take() && !slots.is_full(|_| true));
        slots.set_limit(Some(1));
        assert!(!slots.try_take() && slots.is_full(|_| false));
        let position = slots.enqueue(ANY);
        assert!(slots.release() && slots.release());
        assert!(
            slots.is_full(|_| true),
            "the free slot belongs to the request in the queue"
        );
        assert!(!slots.is_full(|_| false), "the request in the queue cannot use it");
        drop(position);
        assert!(!slots.is_full(|_| true) && slots.try_take());
        assert_eq!((slots.in_flight(), slots.limit()), (1, Some(1)));
    }
}
