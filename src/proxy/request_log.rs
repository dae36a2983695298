//! One request's record: it counts as the request goes, and is written when the request has ended, however it ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

use super::{request::admit::Identified, request::target::bounded, turn::limits};
use crate::{
    endpoint::Endpoint,
    fault::Fault,
    policy::Route,
    scan::Usage,
    state::{ClientKey, Gateway, Lease, NoLabels, Permit, RequestLabels, StatusClass, UpstreamState},
};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The caller got everything that there was.
    Complete,
    /// The caller went away before.
    ClientGone,
    /// The upstream broke off after its response head.
    UpstreamBroken,
    /// The upstream, or the caller, paused for too long.
    Idle,
    /// Steadfast stopped, and cut it.
    Stopped,
    /// Steadfast answered with an error of its own.
    Refused,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroken => "upstream_broken",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
        }
    }
}

/// A request's record. Dropping it writes it: once, and also for a caller that went before it had an answer.
pub(super) struct RequestLog {
    gateway: Arc<Gateway>,
    started: Instant,
    method: Method,
    path: Box<str>,
    /// The caller's id of the request, or the one that was made for it.
    pub request_id: HeaderValue,
    pub endpoint: Option<Endpoint>,
    /// Bytes of the body that have arrived, wherever the body is by now.
    bytes_in: Arc<AtomicU64>,
    pub bytes_out: u64,
    pub outcome: Option<Outcome>,
    /// Who called.
    caller: Option<Arc<ClientKey>>,
    /// What the caller's limits let it use.
    pub permit: Option<Permit>,
    /// What the upstream says that it used.
    usage: Option<Usage>,
    /// Bytes of a stream that ended, or was left, before it told a usage.
    streamed: u64,
    answer: Option<Answer>,
    own_status: Option<StatusCode>,
    refusal: Option<&'static str>,
    /// Whether an upstream has been sent the request, or is being sent it.
    is_sent: bool,
    /// How many upstreams were called.
    attempts: u32,
    /// How long the request waited for an upstream to take it.
    waited: Duration,
}

/// What an upstream answered.
struct Answer {
    upstream: Arc<str>,
    route: Route,
    status: StatusCode,
    upstream_request_id: Option<HeaderValue>,
    first_byte: Duration,
}

impl RequestLog {
    pub fn open(
        gateway: &Arc<Gateway>,
        method: &Method,
        uri: &Uri,
        request_id: HeaderValue,
        bytes_in: Arc<AtomicU64>,
    ) -> Self {
        Self {
            gateway: gateway.clone(),
            started: Instant::now(),
            method: method.clone(),
            path: path(uri),
            request_id,
            endpoint: None,
            bytes_in,
            bytes_out: 0,
            outcome: None,
            caller: None,
            permit: None,
            usage: None,
            streamed: 0,
            answer: None,
            own_status: None,
            refusal: None,
            is_sent: false,
            attempts: 0,
            waited: Duration::ZERO,
        }
    }

    /// Notes that an upstream is being called: from now on it may work on the request.
    pub fn sent(&mut self) {
        self.is_sent = true;
    }

    /// Notes that an upstream was called, for the `attempts`th time, after waiting for `waited` in all.
    pub fn tried(&mut self, attempts: u32, waited: Duration) {
        self.attempts = attempts;
        self.waited = waited;
    }

    /// Notes who called, and what for.
    pub fn identified(&mut self, identified: &Identified<'_>) {
        self.endpoint = Some(identified.target.endpoint);
        self.caller = identified.caller.key.cloned();
    }

    /// Notes what an upstream says that the request has used, of which `lease` is the place there.
    pub fn used(&mut self, usage: Usage, lease: Option<&Lease>) {
        self.usage = Some(usage);
        if let (Some(lease), Some(answer)) = (lease, &self.answer) {
            lease.metrics().tokens.add(answer.route, usage);
        }
        if let Some(metrics) = self.caller.as_ref().and_then(|key| key.group.metrics.as_ref()) {
            metrics.tokens.add(NoLabels, usage);
        }
    }

    /// Notes that a stream will tell no usage: what of it has passed stands for what it used.
    pub fn used_unknown(&mut self) {
        self.streamed = self.bytes_out;
    }

    /// Tells on an answer what the caller may still use.
    pub fn show_limits(&self, headers: &mut HeaderMap) {
        if let Some(key) = &self.caller {
            limits::show(headers, key);
        }
    }

    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Notes the response head of an upstream.
    pub fn answered(
        &mut self,
        state: &UpstreamState,
        upstream: &Arc<str>,
        route: Route,
        status: StatusCode,
        upstream_request_id: Option<&HeaderValue>,
    ) {
        let first_byte = self.started.elapsed();
        state.metrics.time_to_first_byte.observe(NoLabels, first_byte);
        if let Some(endpoint) = self.endpoint {
            state.metrics.requests.increment(RequestLabels {
                endpoint,
                route,
                status: StatusClass::of(status),
            });
        }
        self.answer = Some(Answer {
            upstream: upstream.clone(),
            route,
            status,
            upstream_request_id: upstream_request_id.map(copied),
            first_byte,
        });
    }

    /// Notes that Steadfast answers itself.
    pub fn answered_here(&mut self, status: StatusCode) {
        self.own_status = Some(status);
    }

    /// Notes that what Steadfast answers is an error.
    pub fn refused(&mut self, fault: &Fault) {
        self.gateway.metrics.rejected_requests.increment(fault.reject_reason());
        self.outcome = Some(Outcome::Refused);
        self.refusal = Some(fault.code());
    }

    /// Gives back what the request held, and counts it for its group.
    fn close(&mut self) {
        let answered = self.answer.as_ref().map(|answer| answer.status);
        if let Some(permit) = self.permit.take() {
            let was_served = match (answered, self.own_status) {
                (Some(status), _) => status.is_success(),
                (None, Some(_)) => false,
                // The caller went away while an upstream worked for it.
                (None, None) => self.is_sent,
            };
            limits::settle(permit, self.usage, was_served, self.streamed);
        }
        let metrics = self.caller.as_ref().and_then(|key| key.group.metrics.as_ref());
        if let (Some(metrics), Some(status)) = (metrics, answered.or(self.own_status)) {
            metrics.requests.increment(StatusClass::of(status));
        }
    }

    fn write(&self) {
        let took = self.started.elapsed();
        if let Some(endpoint) = self.endpoint {
            self.gateway.metrics.request_duration.observe(endpoint, took);
        }
        let unfinished = if self.gateway.is_aborting() {
            Outcome::Stopped
        } else {
            Outcome::ClientGone
        };
        let outcome = self.outcome.unwrap_or(unfinished);
        let answer = self.answer.as_ref();
        let status = answer.map(|answer| answer.status).or(self.own_status);
        tracing::info!(
            target: "access",
            request_id = text(&self.request_id),
            method = self.method.as_str(),
            path = %self.path,
            endpoint = self.endpoint.map(Endpoint::label),
            key = self.caller.as_ref().map(|key| &*key.name),
            group = self.caller.as_ref().map(|key| &*key.group.name),
            status = status.map(|status| status.as_u16()),
            outcome = outcome.label(),
            reason = self.refusal,
            upstream = answer.map(|answer| &*answer.upstream),
            upstream_request_id = answer.and_then(|answer| answer.upstream_request_id.as_ref()).map(text),
            route = answer.map(|answer| answer.route.label()),
            attempts = (self.attempts > 1).then_some(self.attempts),
            waited_ms = (self.waited > Duration::ZERO).then(|| millis(self.waited)),
            bytes_in = self.bytes_in.load(Ordering::Relaxed),
            bytes_out = self.bytes_out,
            input_tokens = self.usage.map(|usage| usage.input_tokens),
            cached_input_tokens = self.usage.map(|usage| usage.cached_input_tokens),
            output_tokens = self.usage.map(|usage| usage.output_tokens),
            first_byte_ms = answer.map(|answer| millis(answer.first_byte)),
            duration_ms = millis(took),
        );
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.close();
        self.write();
    }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("(not text)")
}

/// Milliseconds with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A path short enough for a line.
fn path(uri: &Uri) -> Box<str> {
    if uri.path().len() <= 200 {
        uri.path().into()
    } else {
        bounded(uri.path()).into()
    }
}

/// The same value in memory of its own: a head's values are windows on a buffer that many requests share.
pub(super) fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}
