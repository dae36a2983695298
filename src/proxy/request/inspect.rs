//! The second stage: reads the body of a request, and the facts about the session in it.
//!
//! A body that an upstream will read as JSON is held until its end, for two reasons: most clients write the session key at
//! the end of the body, and an ambiguous body must not reach any upstream. A form that names its model is held for the same
//! reasons. Of any other form, such as the upload of a large file, only the fields before its first file are held until the
//! route is decided. Every other body is passed on as it arrives.

use crate::proxy::request::{admit::Admitted, form::ReceivedForm};
use crate::{
    body_path::BodyPaths,
    fault::Fault,
    policy::tokens::MediaCost,
    scan::{
        BodyInspector, FormExtent, InspectError, MultipartScanner, PieceInspection, ReferenceSearch, RequestFacts,
        RequestScanRules,
    },
    state::{Gateway, Snapshot},
    wire::{BodyError, BodyReservation, Framing, Intake, KeptBodyBuilder, MemoryRefusal, Replay, ScanWork},
};

/// The maximum number of bytes of a form that are read for the fields before its first file.
const MAX_FIELDS: usize = 64 << 10;
/// The maximum length in bytes of a form that is kept whole where forms are passed on as they arrive.
const MAX_KEPT_FORM: u64 = 1 << 20;

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

/// Reads the body of an admitted request, if it is to be inspected, by the rules of `snapshot`. The body's memory is
/// reserved in `gateway`.
///
/// # Errors
/// If the body is incomplete, too large, too slow, does not decompress or has several readings, or if the buffers are full.
pub(in crate::proxy) async fn inspect(
    admitted: &Admitted<'_>,
    intake: Intake,
    snapshot: &Snapshot,
    gateway: &Gateway,
) -> Result<Inspected, Fault> {
    let framing = admitted.framing;
    if admitted.is_inspected() {
        return read(admitted, intake, snapshot, gateway).await;
    }
    if let Some(form) = &admitted.form {
        // The future is boxed, because such requests are rare and a request's future is as large as its largest branch.
        return Box::pin(read_fields(admitted, form, intake, snapshot, gateway)).await;
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
    gateway: &Gateway,
) -> Result<Inspected, Fault> {
    let max_body = snapshot.limits.max_body;
    let mut reservation = reserve(admitted, &intake, snapshot, gateway);
    let rules = scan_rules(admitted, snapshot);
    let mut inspector = match &admitted.form {
        Some(form) => BodyInspector::form(admitted.coding, max_body, rules, &form.boundary),
        None => BodyInspector::new(admitted.coding, max_body, rules),
    }
    // The coding is known, see `Admitted::is_inspected`. The only failure left is a decompressor that cannot
    // allocate its memory.
    .ok_or(Fault::Internal)?;
    let mut keep = KeptBodyBuilder::default();
    while let Some(piece) = reservation.read(&mut intake).await {
        let piece = piece.map_err(fault_of_body)?;
        scan_piece(&mut inspector, &piece)
            .await
            .map_err(|error| fault_of_inspection(error, rules.paths))?;
        keep.push(piece);
    }
    let permit = reservation.settle(&intake).await.map_err(fault_of_body)?;
    // The decompressor may still hold a few bytes. They do not matter for an estimate.
    let decompressed = inspector.decompressed();
    // SDKs send an empty body with a JSON content type to cancel a response.
    let facts = match intake.received() {
        0 => RequestFacts::default(),
        _ => inspector
            .finish()
            .map_err(|error| fault_of_inspection(error, rules.paths))?,
    };
    Ok(Inspected {
        facts,
        body: Replay::kept(keep.finish(Some(permit)), admitted.framing),
        decompressed,
    })
}

/// Scans the next piece of a body. Other tasks of the thread run in between if that takes long.
async fn scan_piece(inspector: &mut BodyInspector<'_>, piece: &[u8]) -> Result<(), InspectError> {
    let mut inspection = PieceInspection::new(piece);
    loop {
        let work = ScanWork::begin(inspector.decompressed());
        let step = inspection.step(inspector)?;
        work.charge_and_wait(step.scanned).await;
        if !step.has_more {
            return Ok(());
        }
    }
}

/// A reservation of memory for the body, on the account of the caller.
fn reserve<'a>(
    admitted: &Admitted<'_>,
    intake: &Intake,
    snapshot: &Snapshot,
    gateway: &'a Gateway,
) -> BodyReservation<'a> {
    let account = match admitted.caller.key {
        Some(key) => key.body_account.clone(),
        None => gateway.runtime.body_accounts.of_network(admitted.network),
    };
    BodyReservation::new(&gateway.body_memory, account, intake, snapshot.limits.max_body)
}

/// What is looked for in the body of a request.
fn scan_rules<'a>(admitted: &Admitted<'_>, snapshot: &'a Snapshot) -> RequestScanRules<'a> {
    RequestScanRules {
        paths: &snapshot.body_paths,
        references: match admitted.caller.group.shares_accounts {
            true => ReferenceSearch::Exhaustive,
            false => ReferenceSearch::Usual,
        },
    }
}

/// Reads the fields of a form that arrive before its first file. The rest of a long body is passed on as it arrives.
async fn read_fields(
    admitted: &Admitted<'_>,
    form: &ReceivedForm,
    mut intake: Intake,
    snapshot: &Snapshot,
    gateway: &Gateway,
) -> Result<Inspected, Fault> {
    let mut reservation = reserve(admitted, &intake, snapshot, gateway);
    let mut scanner = MultipartScanner::new(scan_rules(admitted, snapshot), &form.boundary, FormExtent::BeforeFiles);
    let mut keep = KeptBodyBuilder::default();
    let mut left = MAX_FIELDS;
    let mut is_complete = false;
    // A short form for an object that the path names is kept whole, so that it can be sent to another account if this one
    // does not have the object.
    let names_object = admitted.target.objects(&admitted.method).iter().any(Option::is_some);
    let is_short = matches!(admitted.framing, Framing::Length(length) if names_object && length <= MAX_KEPT_FORM);
    let mut is_read = false;
    while !is_complete && (!is_read || is_short) {
        let Some(piece) = reservation.read(&mut intake).await else {
            is_complete = true;
            continue;
        };
        let piece = piece.map_err(fault_of_body)?;
        if !is_read {
            let (read, _) = piece.split_at(piece.len().min(left));
            scanner
                .feed(read)
                .map_err(|error| fault_of_inspection(InspectError::InvalidForm(error), &snapshot.body_paths))?;
            left -= read.len();
            is_read = left == 0 || scanner.is_at_file();
        }
        keep.push(piece);
    }
    let permit = reservation.settle(&intake).await.map_err(fault_of_body)?;
    let beginning = keep.finish(Some(permit));
    let facts = match (is_complete && !is_read, intake.received()) {
        (false, _) | (true, 0) => scanner.into_facts(),
        (true, _) => scanner
            .finish()
            .map_err(|error| fault_of_inspection(InspectError::InvalidForm(error), &snapshot.body_paths))?,
    };
    let body = match is_complete {
        true => Replay::kept(beginning, admitted.framing),
        false => {
            intake.give_back(beginning);
            Replay::passing(intake, admitted.framing)
        }
    };
    Ok(Inspected {
        // The rest of the form may name another model, so the model decides nothing.
        facts: RequestFacts {
            model: None,
            model_at: None,
            ..facts
        },
        body,
        decompressed: 0,
    })
}

/// The fault of a request whose body could not be received.
pub(in crate::proxy) fn fault_of_body(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge { limit } => Fault::BodyTooLarge { limit },
        BodyError::Idle(idle) => Fault::BodyTimeout { idle },
        BodyError::TooSlow { rate, window } => Fault::BodyTooSlow {
            rate: rate.into(),
            window,
        },
        BodyError::NoMemory(MemoryRefusal::Full) => Fault::BuffersFull,
        BodyError::NoMemory(MemoryRefusal::ShareFull) => Fault::BufferShareFull,
        BodyError::NoMemory(MemoryRefusal::Reclaimed) => Fault::BufferReclaimed,
        BodyError::Broken(_) => Fault::IncompleteBody,
    }
}

/// The fault of a request whose body could not be inspected. The configured paths are `paths`.
#[cold]
fn fault_of_inspection(error: InspectError, paths: &BodyPaths) -> Fault {
    match error {
        InspectError::InvalidJson(error) => {
            let (problem, offset) = (error.kind.describe(paths), error.offset);
            match error.kind.is_ambiguity() {
                true => Fault::AmbiguousBody { problem, offset },
                false => Fault::InvalidJson { problem, offset },
            }
        }
        InspectError::InvalidForm(error) => {
            let (problem, offset) = (error.kind.to_string(), error.offset);
            match error.kind.is_ambiguity() {
                true => Fault::AmbiguousForm { problem, offset },
                false => Fault::InvalidForm { problem, offset },
            }
        }
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
            (
                BodyError::TooSlow { rate: 9, window: idle },
                Fault::BodyTooSlow { rate: 9, window: idle },
            ),
            (BodyError::NoMemory(MemoryRefusal::Full), Fault::BuffersFull),
            (BodyError::NoMemory(MemoryRefusal::ShareFull), Fault::BufferShareFull),
            (BodyError::NoMemory(MemoryRefusal::Reclaimed), Fault::BufferReclaimed),
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
            inspected
                .map_err(|error| fault_of_inspection(error, &BodyPaths::default()))
                .expect_err("a fault")
        };
        assert!(matches!(fault_of(b"{\"model\":1}", 99), Fault::AmbiguousBody { .. }));
        assert!(matches!(fault_of(b"[", 99), Fault::InvalidJson { offset: 0, .. }));
        let undecodable = InspectError::Undecodable("x".to_owned());
        assert_eq!(
            fault_of_inspection(undecodable, &BodyPaths::default()),
            Fault::UndecodableBody {
                problem: "x".to_owned()
            }
        );
        assert_eq!(
            fault_of_inspection(InspectError::TooLarge { limit: 9 }, &BodyPaths::default()),
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
