//! The attempt loop with scripted upstreams: a real gateway, no sockets, and paused time.

mod brake;
mod failover;
mod limits;
mod missing_model;
mod records;
mod refusal;
mod search;
mod shortage;
mod waiting;

use crate::policy::LimitCause;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use http::{HeaderValue, StatusCode};

use super::*;
use crate::{
    ids::{OwnedKey, UpstreamId},
    policy::{RequestClass, Scope, outlier::ResponseKind},
    proxy::{
        testing,
        turn::{
            kit::{self, pin, set_pin},
            pick::PickStep,
        },
    },
    state::Gateway,
};

/// Longer than any request waits.
const LONG: Duration = Duration::from_secs(3_600);

/// The behaviour of a scripted upstream for one request.
#[derive(Clone, Copy)]
enum ScriptedStep {
    /// Answers with this status and verdict, and an error body that can be buffered so far.
    Answer(u16, Verdict, BufferedRest),
    /// Gives no answer.
    Fail(fn() -> SendFailure),
}

const SERVED: ScriptedStep = ScriptedStep::Answer(200, Verdict::Served, BufferedRest::Whole);
const BAD_REQUEST: ScriptedStep = ScriptedStep::Answer(400, Verdict::Answered, BufferedRest::Whole);
const FAILED: ScriptedStep = ScriptedStep::Answer(500, Verdict::Failed, BufferedRest::Whole);
const OVERLOADED: ScriptedStep = ScriptedStep::Answer(503, Verdict::Failed, BufferedRest::Whole);
const REFUSED: ScriptedStep = ScriptedStep::Answer(401, Verdict::Refused, BufferedRest::Whole);
const UNAUTHORIZED: ScriptedStep = ScriptedStep::Answer(401, Verdict::Unauthorized, BufferedRest::Whole);
const MODEL_NOT_FOUND: ScriptedStep = ScriptedStep::Answer(404, Verdict::ModelNotFound, BufferedRest::Whole);
const BROKEN_OFF: ScriptedStep = ScriptedStep::Answer(200, Verdict::Failed, BufferedRest::Broken);
const UNREACHABLE: ScriptedStep = ScriptedStep::Fail(|| SendFailure::Unreachable);
const BROKEN: ScriptedStep = ScriptedStep::Fail(|| SendFailure::Broken);
const TIMEOUT: ScriptedStep = ScriptedStep::Fail(|| SendFailure::Timeout(Duration::from_secs(9)));
const NOT_SENDABLE: ScriptedStep = ScriptedStep::Fail(|| SendFailure::NotSendable(Fault::MissingCredential));
const NO_BODY: ScriptedStep = ScriptedStep::Fail(|| SendFailure::RequestBody(Fault::IncompleteBody));

const fn limited(status: u16, reset: Duration) -> ScriptedStep {
    limited_by(status, Some(reset), LimitCause::Rate)
}

const fn limited_by(status: u16, reset: Option<Duration>, cause: LimitCause) -> ScriptedStep {
    let scope = Scope::Upstream;
    ScriptedStep::Answer(status, Verdict::Limited { reset, scope, cause }, BufferedRest::Whole)
}

/// The behaviour of each upstream, by its name, for the requests that it gets in order.
type UpstreamScript<'a> = &'a [(&'a str, &'a [ScriptedStep])];

/// Sends by a script, and records to which upstreams.
struct ScriptedSender {
    script: HashMap<String, Vec<ScriptedStep>>,
    repeatability: Repeatability,
    /// The number of times that the body can be sent.
    bodies: usize,
    /// The result of each check of a credential.
    check: RefusalCheck,
    sent: Arc<Mutex<Vec<String>>>,
    /// Makes the first answer, before those of the script.
    first: Option<MakeStep>,
}

/// Makes a step while its request is in flight.
type MakeStep = Box<dyn FnOnce() -> ScriptedStep + Send>;

/// A response of a scripted upstream.
#[derive(Clone, Copy)]
struct ScriptedResponse {
    /// The part of the error body that can be buffered.
    rest: BufferedRest,
    /// Whether the error body was buffered, and masked with it.
    is_buffered: bool,
}

impl RequestSender for ScriptedSender {
    type Response = ScriptedResponse;

    fn repeatability(&self) -> Repeatability {
        self.repeatability
    }

    fn has_body(&self) -> bool {
        self.sent.lock().expect("no panic").len() < self.bodies
    }

    async fn send(&mut self, upstream: &Upstream) -> SendResult<ScriptedResponse> {
        assert!(
            upstream.state.in_flight() > 0,
            "the request holds a lease while it is sent"
        );
        self.sent.lock().expect("no panic").push(upstream.name.to_string());
        let steps = self.script.get_mut(&*upstream.name);
        let steps = steps.unwrap_or_else(|| panic!("{} must not be called", upstream.name));
        let step = match self.first.take() {
            Some(make) => make(),
            None => steps.remove(0),
        };
        match step {
            ScriptedStep::Answer(status, verdict, rest) => Ok(UpstreamAnswer {
                response: ScriptedResponse {
                    rest,
                    is_buffered: false,
                },
                status: StatusCode::from_u16(status).expect("a status"),
                verdict,
            }),
            ScriptedStep::Fail(failure) => Err(failure()),
        }
    }

    fn response_kind(_: &Self::Response) -> ResponseKind {
        ResponseKind::Whole
    }

    async fn confirm_refusal(&mut self, upstream: &Upstream) -> RefusalCheck {
        self.sent
            .lock()
            .expect("no panic")
            .push(format!("check {}", upstream.name));
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.check
    }

    async fn buffer_error(response: &mut ScriptedResponse) -> BufferedRest {
        response.is_buffered = true;
        response.rest
    }
}

/// How a turn has ended: with the answer of an upstream and its status, or with a fault's code.
#[derive(Debug, PartialEq)]
enum Ended {
    Answer(String, u16),
    Fault(&'static str),
}

fn answer(upstream: impl Into<String>, status: u16) -> Ended {
    Ended::Answer(upstream.into(), status)
}

/// A turn of the session [`kit::KEY`] that is to be run.
struct Scenario {
    gateway: Arc<Gateway>,
    script: HashMap<String, Vec<ScriptedStep>>,
    repeatability: Repeatability,
    bodies: usize,
    check: RefusalCheck,
    previous_response: Option<&'static str>,
    first: Option<MakeStep>,
}

impl Scenario {
    fn new(gateway: &Arc<Gateway>, script: UpstreamScript) -> Self {
        let steps = |(name, steps): &(&str, &[ScriptedStep])| ((*name).to_owned(), steps.to_vec());
        Self {
            gateway: gateway.clone(),
            script: script.iter().map(steps).collect(),
            repeatability: Repeatability::Repeatable,
            bodies: usize::MAX,
            check: RefusalCheck::NotRefused,
            previous_response: None,
            first: None,
        }
    }

    /// Runs the turn: the upstreams that were called, in their order, and how it has ended.
    async fn run(self) -> (Vec<String>, Ended) {
        let gateway = self.gateway.clone();
        let result = self.run_charged(&mut Charge::default()).await;
        for upstream in gateway.snapshot().upstreams() {
            let in_flight = upstream.state.in_flight();
            assert_eq!(in_flight, 0, "the lease at {} is given back", upstream.name);
        }
        result
    }

    /// Runs the turn, and charges it to `charge`.
    async fn run_charged(self, charge: &mut Charge) -> (Vec<String>, Ended) {
        let gateway = self.gateway;
        let snapshot = gateway.snapshot();
        let turn = match open(&gateway, &snapshot, self.previous_response) {
            Ok(turn) => turn,
            Err(fault) => return (Vec::new(), Ended::Fault(fault.code())),
        };
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sender = ScriptedSender {
            script: self.script,
            repeatability: self.repeatability,
            bodies: self.bodies,
            check: self.check,
            sent: sent.clone(),
            first: self.first,
        };
        let mut log = RequestLog::open_unreadable(&gateway, HeaderValue::from_static("id"), None);
        let ended = match run(turn, sender, &mut log, charge, Instant::now()).await {
            Ok(answer) => {
                let status = answer.answer.status;
                assert_eq!(
                    answer.answer.response.is_buffered,
                    status.as_u16() >= 400,
                    "an error is buffered and masked before it is passed on"
                );
                Ended::Answer(answer.upstream.name.to_string(), status.as_u16())
            }
            Err(fault) => Ended::Fault(fault.code()),
        };
        let sent = sent.lock().expect("no panic").clone();
        (sent, ended)
    }
}

fn open<'a>(
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    previous_response: Option<&'static str>,
) -> Result<Turn<'a>, Fault> {
    let named = previous_response.map(kit::previous_response);
    let mut facts = kit::facts(snapshot);
    facts.named_state.in_body = named.as_slice();
    Turn::open(gateway, snapshot, &facts)
}

fn three_upstreams(settings: &str) -> Arc<Gateway> {
    let third = "[[upstream]]\nname = \"c\"\nbase_url = \"http://c.test/v1\"\napi_key = \"env:C_KEY\"\n";
    testing::gateway(&format!("{settings}\n{third}"))
}

/// The names of the upstreams in the order of the session's candidates.
fn order(gateway: &Gateway) -> Vec<String> {
    let snapshot = gateway.snapshot();
    let eligible = |_| true;
    let ranked = snapshot.rendezvous.ranked(kit::session_key(gateway), eligible);
    let name = |index| Some(snapshot.upstream(index).name.to_string());
    ranked.filter_map(name).collect()
}

fn spend_retry_budget(gateway: &Gateway) {
    let snapshot = gateway.snapshot();
    let turn = open(gateway, &snapshot, None).expect("the upstreams serve every model");
    while turn.try_spend_retry() {}
}
