//! The request bodies that are arriving, so that one of them can be told to give way.
//!
//! A body is entered when it has to wait for its client, or for memory, while it holds memory. A body that has arrived
//! together with its head is never entered. The table is striped by threads, so its locks are free in practice.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    account::BodyAccount,
    reclaim::{Arriving, BodyId},
};
use crate::{cache_padded::CachePadded, wire::body::pace::PaceReading};

/// The number of stripes. It is a power of two.
const STRIPES: usize = 16;

/// A body that is arriving.
struct Arrival {
    account: Arc<BodyAccount>,
    /// The bytes that it holds.
    bytes: usize,
    pace: PaceReading,
    /// The task that reads the body.
    waker: Waker,
    /// Whether the body has been told to give way.
    is_reclaimed: bool,
    /// Distinguishes the body from others that used the same slot before.
    generation: u32,
}

#[derive(Default)]
struct ArrivalStripe {
    slots: Vec<Option<Arrival>>,
    /// The indices of the slots that are free.
    free: Vec<u32>,
    /// The number of bodies so far.
    generation: u32,
}

/// The bodies that are arriving.
#[derive(Default)]
pub(in crate::wire) struct Arrivals {
    stripes: [CachePadded<Mutex<ArrivalStripe>>; STRIPES],
}

/// What a body that arrives holds, and how fast it is.
pub(in crate::wire) struct ArrivalProgress<'a> {
    pub account: &'a Arc<BodyAccount>,
    /// The bytes that the body holds.
    pub bytes: usize,
    pub pace: PaceReading,
}

/// The stripe of the calling thread.
fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        let stripe = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Relaxed) % STRIPES);
        own.set(Some(stripe));
        stripe
    })
}

impl Arrivals {
    /// Enters or updates a body. Ready if the body has to give way; otherwise its task is woken when it has to.
    pub fn poll_reclaimed(
        &self,
        id: &mut Option<BodyId>,
        progress: &ArrivalProgress<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(id) = id else {
            *id = Some(self.enter(progress, cx.waker().clone()));
            return Poll::Pending;
        };
        let mut stripe = self.stripes[id.stripe].lock();
        let arrival = stripe.slots[id.slot as usize].as_mut();
        let arrival = arrival.expect("a body stays in its slot until it is removed");
        (arrival.bytes, arrival.pace) = (progress.bytes, progress.pace);
        if !arrival.waker.will_wake(cx.waker()) {
            arrival.waker.clone_from(cx.waker());
        }
        match arrival.is_reclaimed {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn enter(&self, progress: &ArrivalProgress<'_>, waker: Waker) -> BodyId {
        let index = own_stripe();
        let mut stripe = self.stripes[index].lock();
        stripe.generation = stripe.generation.wrapping_add(1);
        let generation = stripe.generation;
        let arrival = Some(Arrival {
            account: progress.account.clone(),
            bytes: progress.bytes,
            pace: progress.pace,
            waker,
            is_reclaimed: false,
            generation,
        });
        let slot = match stripe.free.pop() {
            Some(slot) => {
                stripe.slots[slot as usize] = arrival;
                slot
            }
            None => {
                stripe.slots.push(arrival);
                u32::try_from(stripe.slots.len() - 1).expect("there are fewer bodies than bytes of memory")
            }
        };
        BodyId {
            stripe: index,
            slot,
            generation,
        }
    }

    /// Removes a body, because it is complete or refused.
    pub fn remove(&self, id: BodyId) {
        let mut stripe = self.stripes[id.stripe].lock();
        let removed = stripe.slots[id.slot as usize].take();
        stripe.free.push(id.slot);
        drop(stripe);
        // The waker is dropped after the lock has been released, because dropping it may run other code.
        drop(removed);
    }

    /// The bodies that have not been told to give way, and the bytes that the others will release.
    pub fn list(&self, now: Instant) -> (Vec<Arriving>, usize) {
        let (mut arriving, mut leaving) = (Vec::new(), 0);
        for (index, stripe) in self.stripes.iter().enumerate() {
            let stripe = stripe.lock();
            for (slot, arrival) in stripe.slots.iter().enumerate() {
                let Some(arrival) = arrival else { continue };
                if arrival.is_reclaimed {
                    leaving += arrival.bytes;
                    continue;
                }
                arriving.push(Arriving {
                    id: BodyId {
                        stripe: index,
                        slot: slot as u32,
                        generation: arrival.generation,
                    },
                    account: arrival.account.id(),
                    account_held: arrival.account.held(),
                    bytes: arrival.bytes,
                    rate: arrival.pace.rate(now),
                });
            }
        }
        (arriving, leaving)
    }

    /// Tells a body to give way, if it is still arriving. The caller must wake the waker when it holds no lock.
    pub fn reclaim(&self, id: BodyId) -> Option<Waker> {
        let mut stripe = self.stripes[id.stripe].lock();
        let arrival = stripe.slots[id.slot as usize].as_mut();
        let arrival = arrival.filter(|arrival| arrival.generation == id.generation)?;
        arrival.is_reclaimed = true;
        Some(arrival.waker.clone())
    }
}
