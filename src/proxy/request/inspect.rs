//! The second stage: reads the body of a request, and the facts about the session in it.
//!
//! A body that an upstream will read as JSON is held until its end, for two reasons: most clients write the session key at
//! the end of the body, and an ambiguous body must not reach any upstream. Every other body is passed on as it arrives.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::proxy::request::{admit::Admitted, buffer::BufferReservation};
use crate::{
    fault::Fault,
    policy::tokens::MediaCost,
    scan::{BodyInspector, InspectError, ReferenceSearch, RequestFacts, RequestScanRules},
    state::Snapshot,
    wire::{BodyError, Framing, Intake, KeptBodyBuilder, Replay},
};

/// The body of a request, and what has been read from it.
pub(in crate::proxy) struct Inspected {
    /// The facts in the body. Empty if the body is not inspected.
    pub facts: RequestFacts,
    pub body: Replay,
    /// The length of the body in bytes after decompression. Zero if the body is not inspected.
    pub decompressed: u64,
}

impl Inspected {
    /// The length in bytes of a text that costs as many tokens as the body. Zero if the body is not inspected.
    pub fn prompt_bytes(&self, media: &MediaCost) -> u64 {
        media.prompt_bytes(self.decompressed, &self.facts.media)
    }
}

/// Reads the body of an admitted request, if it is to be inspected, by the rules of `snapshot`. `buffers` has one permit for
/// each byte of request body that the process may hold.
///
/// # Errors
/// If the body is incomplete, too large, too slow, does not decompress or has several readings, or if the buffers are full.
pub(in crate::proxy) async fn inspect(
    admitted: &Admitted<'_>,
    intake: Intake,
    snapshot: &Snapshot,
    buffers: &Arc<Semaphore>,
) -> Result<Inspected, Fault> {
    let framing = admitted.framing;
    if admitted.is_inspected() {
        return read(admitted, intake, snapshot, buffers).await;
    }
    let body = match framing {
        Framing::None => Replay::empty(framing),
        Framing::Length(_) | Framing::Chunked => Replay::passing(intake, framing),
    };
    Ok(Inspected {
        facts: RequestFacts::default(),
        body,
        decompressed: 0,
    })
}

async fn read(
    admitted: &Admitted<'_>,
    mut intake: Intake,
    snapshot: &Snapshot,
    buffers: &Arc<Semaphore>,
) -> Result<Inspected, Fault> {
    let max_body = snapshot.limits.max_body;
    let mut reservation = BufferReservation::new(buffers, max_body);
    let rules = RequestScanRules {
        paths: &snapshot.body_paths,
        references: match admitted.caller.group.shares_accounts {
            true => ReferenceSearch::Exhaustive,
            false => ReferenceSearch::Usual,
        },
    };
    let mut inspector = BodyInspector::new(admitted.coding, max_body, rules)
        // The coding is known, see `Admitted::is_inspected`. The only failure left is a decompressor that cannot
        // allocate its memory.
        .ok_or(Fault::Internal)?;
    let mut keep = KeptBodyBuilder::default();
    while let Some(piece) = intake.next().await {
        let piece = piece.map_err(fault_of_body)?;
        reservation.grow_to(intake.received()).await?;
        inspector.feed(&piece).map_err(fault_of_inspection)?;
        keep.push(piece);
    }
    // The decompressor may still hold a few bytes. They do not matter for an estimate.
    let decompressed = inspector.decompressed();
    // SDKs send an empty body with a JSON content type to cancel a response.
    let facts = match intake.received() {
        0 => RequestFacts::default(),
        _ => inspector.finish().map_err(fault_of_inspection)?,
    };
    Ok(Inspected {
        facts,
        body: Replay::kept(keep.finish(reservation.into_permit()), admitted.framing),
        decompressed,
    })
}

/// The fault of a request whose body could not be received.
pub(in crate::proxy) fn fault_of_body(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge { limit } => Fault::BodyTooLarge { limit },
        BodyError::Idle(idle) => Fault::BodyTimeout { idle },
        BodyError::Broken(_) => Fault::IncompleteBody,
    }
}

/// The fault of a request whose body could not be inspected.
fn fault_of_inspection(error: InspectError) -> Fault {
    match error {
        InspectError::InvalidJson(error) => Fault::AmbiguousBody {
            problem: error.kind.to_string(),
            offset: error.offset,
        },
        InspectError::TooLarge { limit } => Fault::BodyTooLarge { limit },
        InspectError::Undecodable(problem) => Fault::UndecodableBody { problem },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scan::{Encoding, EncodingKind};

    #[test]
    fn a_body_that_could_not_be_received_has_its_fault() {
        let idle = Duration::from_secs(3);
        for (error, fault) in [
            (BodyError::TooLarge { limit: 5 }, Fault::BodyTooLarge { limit: 5 }),
            (BodyError::Idle(idle), Fault::BodyTimeout { idle }),
            (BodyError::Broken("reset".to_owned()), Fault::IncompleteBody),
        ] {
            assert_eq!(fault_of_body(error), fault);
        }
    }

    #[test]
    fn a_body_that_could_not_be_inspected_has_its_fault() {
        let fault_of = |body: &[u8], limit| {
            let mut inspector =
                BodyInspector::new(EncodingKind::Identity, limit, RequestScanRules::default()).expect("an inspector");
            let inspected = inspector.feed(body).and_then(|()| inspector.finish());
            inspected.map_err(fault_of_inspection).expect_err("a fault")
        };
        assert!(matches!(fault_of(b"{\"model\":1}", 99), Fault::AmbiguousBody { .. }));
        assert!(matches!(fault_of(b"[", 99), Fault::AmbiguousBody { offset: 0, .. }));
        let undecodable = InspectError::Undecodable("x".to_owned());
        assert_eq!(
            fault_of_inspection(undecodable),
            Fault::UndecodableBody {
                problem: "x".to_owned()
            }
        );
        assert_eq!(
            fault_of_inspection(InspectError::TooLarge { limit: 9 }),
            Fault::BodyTooLarge { limit: 9 }
        );
    }

    /// What remains of a prompt's length if the decompressor still holds a part of it.
    const TOLERANCE: f64 = 0.01;

    #[test]
    fn a_compressed_prompt_is_as_long_as_the_same_prompt_without_compression() {
        let words: String = (0..100_000).map(|number| format!("word {number} ")).collect();
        let plain = format!(r#"{{"model":"gpt-5.2","input":"{words}"}}"#).into_bytes();
        let compressed = zstd::encode_all(&*plain, 3).expect("writing to memory succeeds");
        assert!(plain.len() > 1_000_000 && compressed.len() < plain.len() / 2);
        for (coding, kind, body) in [
            ("identity", EncodingKind::Identity, &plain),
            ("zstd", EncodingKind::Known(Encoding::Zstd), &compressed),
        ] {
            let framing = Framing::Length(body.len() as u64);
            let mut inspector = BodyInspector::new(kind, u64::MAX, RequestScanRules::default()).expect("an inspector");
            body.chunks(16_384)
                .for_each(|chunk| inspector.feed(chunk).expect("a good body"));
            let inspected = Inspected {
                body: Replay::empty(framing),
                decompressed: inspector.decompressed(),
                facts: inspector.finish().expect("a good body"),
            };
            let length = inspected.prompt_bytes(&MediaCost::default()) as f64;
            assert!(length >= plain.len() as f64 * (1.0 - TOLERANCE), "{coding}: {length}");
            assert!(length <= plain.len() as f64, "{coding}: {length}");
        }
    }
}
