//! Memory for one request body, reserved while the body arrives.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::fault::Fault;

/// The maximum time that a body waits for memory that other bodies hold.
const WAIT: Duration = Duration::from_secs(10);
/// Memory is reserved in steps of this many bytes, so that not every piece of a body needs the semaphore.
const STEP: usize = 16 << 10;

/// The memory that is reserved for one request body.
///
/// The semaphore has one permit for each byte that all bodies together may hold. Permits are acquired as the body arrives:
/// a `Content-Length` alone reserves nothing. Two bodies that are half read may wait for each other's permits; after
/// [`WAIT`] one of them is refused, and its permits are free for the other.
pub(super) struct BufferReservation {
    buffers: Arc<Semaphore>,
    /// The permits acquired so far.
    permit: Option<OwnedSemaphorePermit>,
    /// The maximum size of a body in bytes. No more permits than that are acquired.
    max_body: usize,
}

impl BufferReservation {
    pub fn new(buffers: &Arc<Semaphore>, max_body: u64) -> Self {
        Self {
            buffers: buffers.clone(),
            permit: None,
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        }
    }

    /// Reserves memory for the first `length` bytes of the body, and waits for it if necessary.
    ///
    /// # Errors
    /// [`Fault::BuffersFull`] if there is not enough memory within [`WAIT`].
    pub async fn grow_to(&mut self, length: u64) -> Result<(), Fault> {
        let reserved = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(reserved);
        if missing == 0 {
            return Ok(());
        }
        let bytes = missing
            .div_ceil(STEP)
            .saturating_mul(STEP)
            .min(self.max_body.saturating_sub(reserved));
        self.acquire(u32::try_from(bytes).map_err(|_| Fault::BuffersFull)?)
            .await
    }

    async fn acquire(&mut self, bytes: u32) -> Result<(), Fault> {
        let acquired = match self.buffers.clone().try_acquire_many_owned(bytes) {
            Ok(acquired) => acquired,
            Err(_) => timeout(WAIT, self.buffers.clone().acquire_many_owned(bytes))
                .await
                .map_err(|_| Fault::BuffersFull)?
                .expect("the semaphore is never closed"),
        };
        match &mut self.permit {
            Some(permit) => permit.merge(acquired),
            None => self.permit = Some(acquired),
        }
        Ok(())
    }

    /// The permits, to be kept for as long as the body is held. `None` if the body is empty.
    pub fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        self.permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BODY: u64 = 40 << 10;

    #[tokio::test]
    async fn memory_is_reserved_in_steps_up_to_the_limit() {
        let buffers = Arc::new(Semaphore::new(1 << 20));
        let mut reservation = BufferReservation::new(&buffers, MAX_BODY);
        for (length, steps) in [(0, 0), (1, 1), (STEP, 1), (STEP + 1, 2)] {
            reservation.grow_to(length as u64).await.expect("enough memory");
            assert_eq!((1 << 20) - buffers.available_permits(), steps * STEP, "{length}");
        }
        reservation.grow_to(MAX_BODY).await.expect("enough memory");
        assert_eq!((1 << 20) - buffers.available_permits(), 40 << 10);
        assert_eq!(reservation.into_permit().expect("a body").num_permits(), 40 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_memory_that_others_hold() {
        let buffers = Arc::new(Semaphore::new(STEP));
        let mut held = BufferReservation::new(&buffers, MAX_BODY);
        held.grow_to(1).await.expect("enough memory");
        let mut waiting = BufferReservation::new(&buffers, MAX_BODY);
        let release = async {
            tokio::time::sleep(WAIT / 2).await;
            drop(held);
        };
        let (reserved, ()) = tokio::join!(waiting.grow_to(1), release);
        assert_eq!(reserved, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_refused_when_the_wait_is_over() {
        let buffers = Arc::new(Semaphore::new(STEP));
        let mut reservation = BufferReservation::new(&buffers, MAX_BODY);
        reservation.grow_to(1).await.expect("enough memory");
        assert_eq!(reservation.grow_to(STEP as u64 + 1).await, Err(Fault::BuffersFull));
    }
}
