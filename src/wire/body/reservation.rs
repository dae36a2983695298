//! The memory of one request body, reserved while the body arrives.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::wire::body::{
    framing::{BodyError, Framing, MemoryRefusal},
    intake::Intake,
    memory::{
        account::BodyAccount,
        arrivals::ArrivalProgress,
        pool::{BodyMemory, BodyPermit, Ticket, Want},
        reclaim::BodyId,
    },
    pace::PaceReading,
};

/// The maximum time that a body waits for memory that other bodies hold.
const WAIT: Duration = Duration::from_secs(10);
/// The pause after which a waiting body searches for bodies that give way to it.
const REVIEW: Duration = Duration::from_millis(100);
/// Memory is reserved in steps of this many bytes, so that not every piece of a body needs the counters.
const STEP: usize = 16 << 10;

/// Reads one request body, and reserves memory for it as it arrives.
///
/// A `Content-Length` alone reserves nothing. Two bodies that are half read may wait for each other's memory; after
/// `WAIT` one of them is refused, and its memory is free for the other.
pub struct BodyReservation<'a> {
    /// The memory reserved so far. It is declared before `arrival`: while a body leaves, its memory is released first, so
    /// that no second body has to give way for the same bytes.
    permit: BodyPermit,
    arrival: ArrivalEntry<'a>,
    /// The maximum size of a body in bytes. No more memory than that is reserved.
    max_body: usize,
    /// The size of this body in bytes by its `Content-Length`; without one, the maximum.
    whole: usize,
}

/// The entry of the body in the table of arriving bodies; `None` before it has had to wait.
struct ArrivalEntry<'a> {
    memory: &'a BodyMemory,
    id: Option<BodyId>,
}

impl Drop for ArrivalEntry<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.memory.arrivals.remove(id);
        }
    }
}

impl<'a> BodyReservation<'a> {
    /// A reservation in `memory` for the body `intake` of the caller with this account. The body has at most `max_body`
    /// bytes.
    pub fn new(memory: &'a Arc<BodyMemory>, account: Arc<BodyAccount>, intake: &Intake, max_body: u64) -> Self {
        let max_body = usize::try_from(max_body).unwrap_or(usize::MAX);
        Self {
            permit: BodyPermit::empty(memory, account),
            arrival: ArrivalEntry { memory, id: None },
            max_body,
            whole: match intake.framing() {
                Framing::Length(length) => usize::try_from(length).map_or(max_body, |length| length.min(max_body)),
                Framing::None | Framing::Chunked => max_body,
            },
        }
    }

    /// Reads the next piece of `intake`, or `None` at its end. Memory for all pieces so far has been reserved.
    ///
    /// # Errors
    /// If the piece could not be received, if there is not enough memory within `WAIT`, or if the body has to give way
    /// to others.
    pub async fn read(&mut self, intake: &mut Intake) -> Option<Result<Bytes, BodyError>> {
        let piece = match poll_fn(|cx| self.poll_piece(intake, cx)).await {
            Some(Ok(piece)) => piece,
            end => return end,
        };
        let missing = self.missing(intake.received());
        if missing > 0 && !self.take(missing) {
            // The future is boxed, because such waits are rare and a request's future is as large as its largest branch.
            if let Err(refusal) = Box::pin(self.wait(missing, intake.pace())).await {
                return Some(Err(BodyError::NoMemory(refusal)));
            }
        }
        Some(Ok(piece))
    }

    /// Ends the reservation after the end of `intake`. Returns the permit, to be kept for as long as the body is held.
    ///
    /// # Errors
    /// If the caller is over its share, and complete bodies hold so much memory that others would find too little: after
    /// `WAIT`, or as soon as the body has to give way to others.
    pub async fn settle(mut self, intake: &Intake) -> Result<BodyPermit, BodyError> {
        if !self.permit.try_settle() {
            let settled = Box::pin(self.wait_to_settle(intake.pace())).await;
            settled.map_err(BodyError::NoMemory)?;
        }
        Ok(self.permit)
    }

    async fn wait_to_settle(&mut self, pace: PaceReading) -> Result<(), MemoryRefusal> {
        let end = Instant::now() + WAIT;
        while Instant::now() < end {
            let review = end.min(Instant::now() + REVIEW);
            if timeout_at(review, poll_fn(|cx| self.poll_reclaimed(pace, cx)))
                .await
                .is_ok()
            {
                return Err(MemoryRefusal::Reclaimed);
            }
            if self.permit.try_settle() {
                return Ok(());
            }
        }
        Err(MemoryRefusal::ShareFull)
    }

    fn poll_piece(&mut self, intake: &mut Intake, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Poll::Ready(piece) = intake.poll_next(cx) {
            return Poll::Ready(piece);
        }
        if self.permit.bytes() == 0 {
            return Poll::Pending;
        }
        ready!(self.poll_reclaimed(intake.pace(), cx));
        Poll::Ready(Some(Err(BodyError::NoMemory(MemoryRefusal::Reclaimed))))
    }

    /// Ready if the body has to give way.
    fn poll_reclaimed(&mut self, pace: PaceReading, cx: &mut Context<'_>) -> Poll<()> {
        let progress = ArrivalProgress {
            account: self.permit.account(),
            bytes: self.permit.bytes(),
            pace,
        };
        let ArrivalEntry { memory, id } = &mut self.arrival;
        memory.arrivals.poll_reclaimed(id, &progress, cx)
    }

    /// The number of bytes to reserve, so that the first `length` bytes of the body have memory.
    fn missing(&self, length: u64) -> usize {
        let reserved = self.permit.bytes();
        let missing = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(reserved);
        let step = missing.div_ceil(STEP).saturating_mul(STEP);
        step.min(self.max_body.saturating_sub(reserved))
    }

    fn take(&mut self, bytes: usize) -> bool {
        let is_taken = self.permit.memory().try_take(self.permit.account(), bytes);
        if is_taken {
            self.permit.add(bytes);
        }
        is_taken
    }

    /// Waits for memory that other bodies hold.
    async fn wait(&mut self, bytes: usize, pace: PaceReading) -> Result<(), MemoryRefusal> {
        let ticket = self.permit.memory().enqueue(Want {
            account: self.permit.account().clone(),
            bytes,
            whole: self.whole,
            pace,
            id: self.arrival.id,
        });
        let end = Instant::now() + WAIT;
        loop {
            let review = end.min(Instant::now() + REVIEW);
            let served = timeout_at(review, poll_fn(|cx| self.poll_served(&ticket, pace, cx))).await;
            match served {
                Ok(Ok(())) => {
                    self.permit.add(bytes);
                    return Ok(());
                }
                Ok(Err(refusal)) => return Err(refusal),
                Err(_) if Instant::now() >= end => return Err(ticket.refusal()),
                Err(_) => ticket.review(),
            }
        }
    }

    fn poll_served(
        &mut self,
        ticket: &Ticket,
        pace: PaceReading,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), MemoryRefusal>> {
        if ticket.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.permit.bytes() == 0 {
            return Poll::Pending;
        }
        ready!(self.poll_reclaimed(pace, cx));
        Poll::Ready(Err(MemoryRefusal::Reclaimed))
    }
}

#[cfg(test)]
mod tests;
