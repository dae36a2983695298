//! Workloads that need no connection: the single steps of a request.

use std::hint::black_box;

use http::{HeaderMap, request::Parts};
use steadfast::{
    fault::Fault,
    proxy::stages,
    scan::{BodyInspector, EncodingKind, RequestFacts, RequestScanRules, ResponseReader},
    state::{Gateway, Snapshot},
    wire::{Framing, Peer},
};

use crate::{BenchError, counting::counts_inside, material};

/// The number of runs before counting starts.
const WARM: u32 = 50;
/// The number of counted runs.
const TIMES: u32 = 500;
/// The default of `server.max_body`, in bytes.
const MAX_BODY: u64 = 64 << 20;
/// An upstream address that is never dialed.
const NOWHERE: &str = "127.0.0.1:1";
const CLIENT: Peer = Peer {
    address: None,
    is_secure: false,
};

/// Runs `piece` on input that `prepare` creates; `prepare` is not counted.
fn count<I>(
    mut prepare: impl FnMut() -> I,
    mut piece: impl FnMut(I) -> Result<(), BenchError>,
) -> Result<u32, BenchError> {
    for _ in 0..WARM {
        piece(black_box(prepare()))?;
    }
    for _ in 0..TIMES {
        let mut input = Some(black_box(prepare()));
        let mut result = Ok(());
        counts_inside(&mut || {
            if let Some(input) = input.take() {
                result = piece(input);
            }
        });
        result?;
    }
    Ok(TIMES)
}

fn refused(fault: Fault) -> BenchError {
    fault.message().into()
}

fn facts(body: &[u8]) -> Result<RequestFacts, BenchError> {
    let mut inspector = BodyInspector::new(EncodingKind::Identity, MAX_BODY, RequestScanRules::default())
        .ok_or("a body without a coding can be inspected")?;
    inspector.feed(body)?;
    Ok(inspector.finish()?)
}

fn scan(body: &[u8]) -> Result<u32, BenchError> {
    count(
        || body,
        |body| {
            if black_box(facts(body)?).texts.get(0).is_some() {
                Ok(())
            } else {
                Err("the session key was not found".into())
            }
        },
    )
}

pub fn scan_4kb() -> Result<u32, BenchError> {
    scan(material::conversation_4kb().as_bytes())
}

pub fn scan_codex() -> Result<u32, BenchError> {
    scan(material::CODEX_BODY)
}

/// Reads a response as it streams by, one event at a time.
pub fn read_events() -> Result<u32, BenchError> {
    let events = material::events();
    count(
        || &events,
        |events| {
            let mut reader = ResponseReader::events();
            events.iter().for_each(|event| reader.feed(event.as_bytes()));
            if black_box(&reader).is_terminal() {
                Ok(())
            } else {
                Err("the terminal event was not recognized".into())
            }
        },
    )
}

fn codex() -> Result<(Parts, Framing), BenchError> {
    let length = u64::try_from(material::CODEX_BODY.len())?;
    Ok((material::codex_parts()?, Framing::Length(length)))
}

pub fn admit() -> Result<u32, BenchError> {
    let gateway = material::gateway(10, NOWHERE)?;
    let snapshot = gateway.snapshot();
    let (parts, framing) = codex()?;
    count(
        || parts.clone(),
        |parts| {
            black_box(stages::admit(&snapshot, parts, framing, CLIENT).map_err(refused)?);
            Ok(())
        },
    )
}

/// Picks the upstream of a session that has a pin.
pub fn pick(upstreams: usize) -> Result<u32, BenchError> {
    let gateway = material::gateway(upstreams, NOWHERE)?;
    let snapshot = gateway.snapshot();
    let pooled = Pooled::new(&gateway, &snapshot)?;
    let facts = facts(material::CODEX_BODY)?;
    let pick = || stages::pick_and_pin(pooled.gateway, pooled.snapshot, &pooled.head, black_box(&facts));
    pick().map_err(refused)?;
    count(
        || (),
        |()| {
            if pick().map_err(refused)? {
                Ok(())
            } else {
                Err("the session was not routed to its pin".into())
            }
        },
    )
}

/// Picks the home of a new session. Writing the pin is not counted, because the position of pins in their table is
/// random.
pub fn pick_home(upstreams: usize) -> Result<u32, BenchError> {
    let gateway = material::gateway(upstreams, NOWHERE)?;
    let snapshot = gateway.snapshot();
    let pooled = Pooled::new(&gateway, &snapshot)?;
    let of_turn = |turn| -> Result<RequestFacts, BenchError> {
        let mut facts = facts(material::CODEX_BODY)?;
        facts.texts.set(0, format!("session-{turn}"));
        Ok(facts)
    };
    let turns: Vec<RequestFacts> = (0..WARM + TIMES).map(of_turn).collect::<Result<_, _>>()?;
    let mut turns = turns.iter();
    count(
        || turns.next(),
        |facts| {
            let facts = facts.ok_or("the turns are exhausted")?;
            black_box(stages::pick(pooled.gateway, pooled.snapshot, &pooled.head, facts).map_err(refused)?);
            Ok(())
        },
    )
}

/// The recorded turn, admitted by a gateway.
struct Pooled<'a> {
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    head: stages::AdmittedHead<'a>,
}

impl<'a> Pooled<'a> {
    fn new(gateway: &'a Gateway, snapshot: &'a Snapshot) -> Result<Self, BenchError> {
        let (parts, framing) = codex()?;
        let head = stages::admit(snapshot, parts, framing, CLIENT).map_err(refused)?;
        Ok(Self {
            gateway,
            snapshot,
            head,
        })
    }
}

/// Counts the cost of changing a copy of `headers` with `rewrite` and of dropping that copy.
fn rewrite(headers: &HeaderMap, rewrite: impl Fn(&mut HeaderMap)) -> Result<u32, BenchError> {
    count(
        || headers.clone(),
        |mut headers| {
            rewrite(&mut headers);
            black_box(headers);
            Ok(())
        },
    )
}

pub fn rewrite_request() -> Result<u32, BenchError> {
    let gateway = material::gateway(1, NOWHERE)?;
    let snapshot = gateway.snapshot();
    let [upstream] = snapshot.upstreams() else {
        return Err("the gateway has one upstream".into());
    };
    let (parts, _) = codex()?;
    rewrite(&parts.headers, |headers| stages::rewrite_request(headers, upstream))
}

pub fn rewrite_response() -> Result<u32, BenchError> {
    let gateway = material::gateway(1, NOWHERE)?;
    let snapshot = gateway.snapshot();
    let [upstream] = snapshot.upstreams() else {
        return Err("the gateway has one upstream".into());
    };
    rewrite(&material::response_headers()?, |headers| {
        stages::rewrite_response(headers, upstream);
    })
}
