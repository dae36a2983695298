//! The second stage: read the body, and what it says about its session.
//!
//! A body that an upstream will read as JSON is held until its end: the session key stands at the tail in most requests,
//! and a body that turns out to be ambiguous must not have reached anyone. Any other body is passed on as it arrives.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::proxy::request::admit::Admitted;
use crate::{
    fault::Fault,
    scan::{BodyInspector, InspectError, RequestFacts},
    state::Limits,
    wire::{BodyError, Framing, Intake, Keep, Replay},
};

/// How long a body waits for room in memory.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// Room is taken in steps of this many bytes.
const ROOM_STEP: usize = 16 << 10;

/// A request whose body is known, as far as it is looked into.
pub(in crate::proxy) struct Inspected {
    pub facts: RequestFacts,
    pub body: Replay,
    /// How much of the body has been read.
    pub bytes: u64,
    /// The same, decompressed.
    pub decompressed: u64,
}

/// Reads the body of an admitted request.
pub(in crate::proxy) async fn inspect(
    admitted: &Admitted<'_>,
    intake: Intake,
    limits: Limits,
    buffers: &Arc<Semaphore>,
) -> Result<Inspected, Fault> {
    let framing = admitted.framing;
    if admitted.is_inspected() {
        return read(admitted, intake, limits, buffers).await;
    }
    let body = match framing {
        Framing::None => Replay::empty(framing),
        Framing::Length(_) | Framing::Chunked => Replay::passing(intake, framing),
    };
    Ok(Inspected {
        facts: RequestFacts::default(),
        body,
        bytes: 0,
        decompressed: 0,
    })
}

async fn read(
    admitted: &Admitted<'_>,
    mut intake: Intake,
    limits: Limits,
    buffers: &Arc<Semaphore>,
) -> Result<Inspected, Fault> {
    let mut room = Room::new(buffers, limits.max_body);
    // Only what can be read comes here, see `Admitted::is_inspected`.
    let mut inspector = BodyInspector::new(admitted.coding, limits.max_body).ok_or(Fault::Internal)?;
    let mut keep = Keep::default();
    while let Some(piece) = intake.next().await {
        let piece = piece.map_err(fault_of_body)?;
        room.grow_to(intake.received()).await?;
        inspector.feed(&piece).map_err(fault_of_inspection)?;
        keep.push(piece);
    }
    // What a decompressor still holds is little.
    let decompressed = inspector.decompressed();
    // SDKs post nothing at all, as JSON, to cancel a response.
    let facts = match intake.received() {
        0 => RequestFacts::default(),
        _ => inspector.finish().map_err(fault_of_inspection)?,
    };
    Ok(Inspected {
        facts,
        body: Replay::kept(keep.finish(room.permit), admitted.framing),
        bytes: intake.received(),
        decompressed,
    })
}

/// Room in memory for one body, taken as the body arrives: what is only announced takes none.
///
/// Two half-read bodies may wait for each other; after [`ROOM_WAIT`] one of them gives way.
struct Room {
    buffers: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    /// No body takes more, in bytes.
    limit: usize,
}

impl Room {
    fn new(buffers: &Arc<Semaphore>, limit: u64) -> Self {
        Self {
            buffers: buffers.clone(),
            permit: None,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    async fn grow_to(&mut self, length: u64) -> Result<(), Fault> {
        let taken = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(taken);
        if missing == 0 {
            return Ok(());
        }
        let steps = missing
            .div_ceil(ROOM_STEP)
            .saturating_mul(ROOM_STEP)
            .min(self.limit.saturating_sub(taken));
        self.take(u32::try_from(steps).map_err(|_| Fault::BuffersFull)?).await
    }

    async fn take(&mut self, bytes: u32) -> Result<(), Fault> {
        let taken = match self.buffers.clone().try_acquire_many_owned(bytes) {
            Ok(taken) => taken,
            Err(_) => timeout(ROOM_WAIT, self.buffers.clone().acquire_many_owned(bytes))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(Fault::BuffersFull)?,
        };
        match &mut self.permit {
            Some(permit) => permit.merge(taken),
            None => self.permit = Some(taken),
        }
        Ok(())
    }
}

/// What a broken request body means for its sender.
pub(in crate::proxy) fn fault_of_body(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge { limit } => Fault::BodyTooLarge { limit },
        BodyError::Idle(idle) => Fault::BodyTimeout { idle },
        BodyError::Broken(_) => Fault::IncompleteBody,
    }
}

fn fault_of_inspection(error: InspectError) -> Fault {
    match error {
        InspectError::Refused(refusal) => Fault::AmbiguousBody {
            problem: refusal.problem.to_string(),
            offset: refusal.offset,
        },
        InspectError::TooLarge { limit } => Fault::BodyTooLarge { limit },
        InspectError::Undecodable(problem) => Fault::UndecodableBody { problem },
    }
}
