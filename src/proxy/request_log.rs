//! The record of one request: a line in the access log, and the metrics that count it.
//!
//! The log is write-only. The stages of a request write their findings into it, and no stage reads from it: the data
//! that a later stage needs is passed on with the request. A log ends exactly once, because [`RequestLog::end`]
//! consumes it. If a log is dropped before that, the caller has disconnected, or Steadfast stops and has aborted the
//! request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

use super::text::{deep_copy, truncated};
use crate::{
    endpoint::Endpoint,
    fault::{Fault, RejectReason},
    policy::Route,
    scan::Usage,
    state::{ClientKey, Gateway, GroupMetrics, Lease, NoLabels, RequestLabels, StatusClass, Upstream},
};

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

/// Paths up to this length in bytes are logged as they are; longer ones are cut.
const MAX_PATH: usize = 200;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The caller got the whole response.
    Complete,
    /// The caller disconnected before the end of the response.
    ClientGone,
    /// The upstream broke the connection after its response head.
    UpstreamBroken,
    /// The upstream, or the caller, paused for too long.
    Idle,
    /// Steadfast stopped, and aborted the request.
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

/// The record of one request.
pub(super) struct RequestLog {
    gateway: Arc<Gateway>,
    record: Record,
}

/// The fields of the log line.
struct Record {
    started: Instant,
    request_id: HeaderValue,
    /// The method; `None` if the request line could not be read.
    method: Option<Method>,
    /// The path; `None` if the request line could not be read.
    path: Option<Box<str>>,
    /// The client's address. It is set only for a request without a readable head, because nothing else identifies its
    /// sender. It is boxed because it is large and nearly every request goes without it.
    peer: Option<Box<SocketAddr>>,
    endpoint: Option<Endpoint>,
    /// The client key that the caller has sent.
    key: Option<Arc<ClientKey>>,
    /// The number of bytes of the request body that have arrived. The reader of the body counts them. `None` if there
    /// was no request.
    bytes_in: Option<Arc<AtomicU64>>,
    bytes_out: u64,
    /// The usage that the upstream has reported.
    usage: Option<Usage>,
    answer: Option<AnswerRecord>,
    /// The status of Steadfast's own answer.
    own_status: Option<StatusCode>,
    /// The code of the error that Steadfast answered with.
    reason: Option<&'static str>,
    /// The number of upstreams that were called.
    attempts: u32,
    /// The time that the request waited for upstreams.
    waited: Duration,
    /// Whether the line has been written.
    is_written: bool,
}

/// The response head of an upstream.
struct AnswerRecord {
    upstream: Arc<str>,
    route: Route,
    status: StatusCode,
    upstream_request_id: Option<HeaderValue>,
    /// The time from the arrival of the request to this head.
    first_byte: Duration,
}

impl RequestLog {
    /// Opens the log of a request that has just arrived. `bytes_in` counts the bytes of its body.
    pub fn open(
        gateway: &Arc<Gateway>,
        request_id: HeaderValue,
        method: &Method,
        uri: &Uri,
        bytes_in: Arc<AtomicU64>,
    ) -> Self {
        Self::new(
            gateway,
            Record {
                method: Some(method.clone()),
                path: Some(logged_path(uri)),
                bytes_in: Some(bytes_in),
                ..Record::new(request_id)
            },
        )
    }

    /// Opens the log of a request whose head could not be read, from the client at `peer`.
    pub fn open_unreadable(gateway: &Arc<Gateway>, request_id: HeaderValue, peer: Option<SocketAddr>) -> Self {
        Self::new(
            gateway,
            Record {
                peer: peer.map(Box::new),
                ..Record::new(request_id)
            },
        )
    }

    /// The gateway that handles the request.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn new(gateway: &Arc<Gateway>, record: Record) -> Self {
        Self {
            gateway: gateway.clone(),
            record,
        }
    }

    /// Notes which endpoint the request calls, and the client key of its caller.
    pub fn record_caller(&mut self, endpoint: Endpoint, key: Option<&Arc<ClientKey>>) {
        self.record.endpoint = Some(endpoint);
        self.record.key = key.cloned();
    }

    /// Notes that an upstream was called, as the attempt of this `number`, after waiting for `waited` in all.
    pub fn record_attempt(&mut self, number: u32, waited: Duration) {
        self.record.attempts = number;
        self.record.waited = waited;
    }

    /// Notes the response head of an upstream.
    pub fn record_upstream_answer(
        &mut self,
        upstream: &Upstream,
        route: Route,
        status: StatusCode,
        upstream_request_id: Option<&HeaderValue>,
    ) {
        let first_byte = self.record.started.elapsed();
        let metrics = &upstream.state.metrics;
        metrics.time_to_first_byte.observe(NoLabels, first_byte);
        if let Some(endpoint) = self.record.endpoint {
            metrics.requests.increment(RequestLabels {
                endpoint,
                route,
                status: StatusClass::from_status(status),
            });
        }
        self.record.answer = Some(AnswerRecord {
            upstream: upstream.name.clone(),
            route,
            status,
            upstream_request_id: upstream_request_id.map(deep_copy),
            first_byte,
        });
    }

    /// Notes that Steadfast answers the request itself.
    pub fn record_own_answer(&mut self, status: StatusCode) {
        self.record.own_status = Some(status);
    }

    /// Notes that Steadfast answers with an error.
    pub fn record_fault(&mut self, fault: &Fault) {
        self.gateway.metrics.rejected_requests.increment(fault.reject_reason());
        self.record.own_status = Some(fault.status());
        self.record.reason = Some(fault.code());
    }

    /// Notes that the head of a request did not arrive in time. Such a request has no answer, and therefore no fault.
    pub fn record_slow_head(&mut self) {
        self.gateway.metrics.rejected_requests.increment(RejectReason::Head);
        self.record.reason = Some("slow_head");
    }

    /// Notes a usage that an upstream has reported and that has not been counted before. Counts it for the upstream of `lease`
    /// and for the caller's group.
    pub fn record_usage(&mut self, usage: Usage, lease: Option<&Lease>) {
        self.record.usage = Some(usage);
        if let (Some(lease), Some(answer)) = (lease, &self.record.answer) {
            lease.metrics().tokens.add(answer.route, usage);
        }
        if let Some(metrics) = self.record.group_metrics() {
            metrics.tokens.add(NoLabels, usage);
        }
    }

    /// Notes how many bytes of the response body were passed to the caller.
    pub fn record_bytes_out(&mut self, bytes_out: u64) {
        self.record.bytes_out = bytes_out;
    }

    /// Ends the log: counts the request, and writes its line.
    pub fn end(mut self, outcome: Outcome) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome) {
        self.record.is_written = true;
        let took = self.record.started.elapsed();
        if let Some(endpoint) = self.record.endpoint {
            self.gateway.metrics.request_duration.observe(endpoint, took);
        }
        if let (Some(metrics), Some(status)) = (self.record.group_metrics(), self.record.status()) {
            metrics.requests.increment(StatusClass::from_status(status));
        }
        self.record.write(outcome, took);
    }
}

impl Drop for RequestLog {
    /// Ends the log of a request that was dropped, or whose response was dropped.
    fn drop(&mut self) {
        if !self.record.is_written {
            let outcome = match self.gateway.is_aborting() {
                true => Outcome::Stopped,
                false => Outcome::ClientGone,
            };
            self.write(outcome);
        }
    }
}

impl Record {
    fn new(request_id: HeaderValue) -> Self {
        Self {
            started: Instant::now(),
            request_id,
            method: None,
            path: None,
            peer: None,
            endpoint: None,
            key: None,
            bytes_in: None,
            bytes_out: 0,
            usage: None,
            answer: None,
            own_status: None,
            reason: None,
            attempts: 0,
            waited: Duration::ZERO,
            is_written: false,
        }
    }

    /// The status that the caller got.
    fn status(&self) -> Option<StatusCode> {
        self.answer.as_ref().map(|answer| answer.status).or(self.own_status)
    }

    fn group_metrics(&self) -> Option<&GroupMetrics> {
        self.key.as_ref()?.group.metrics.as_deref()
    }

    fn write(&self, outcome: Outcome, took: Duration) {
        let answer = self.answer.as_ref();
        tracing::info!(
            target: "access",
            request_id = text(&self.request_id),
            method = self.method.as_ref().map(Method::as_str),
            path = self.path.as_deref().map(tracing::field::display),
            endpoint = self.endpoint.map(Endpoint::label),
            key = self.key.as_ref().map(|key| &*key.name),
            group = self.key.as_ref().map(|key| &*key.group.name),
            status = self.status().map(|status| status.as_u16()),
            outcome = outcome.label(),
            reason = self.reason,
            peer = self.peer.as_ref().map(tracing::field::display),
            upstream = answer.map(|answer| &*answer.upstream),
            upstream_request_id = answer.and_then(|answer| answer.upstream_request_id.as_ref()).map(text),
            route = answer.map(|answer| answer.route.label()),
            attempts = (self.attempts > 1).then_some(self.attempts),
            waited_ms = (self.waited > Duration::ZERO).then(|| millis(self.waited)),
            bytes_in = self.bytes_in.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed)),
            bytes_out = self.bytes_out,
            input_tokens = self.usage.map(|usage| usage.input_tokens),
            cached_input_tokens = self.usage.map(|usage| usage.cached_input_tokens),
            cache_write_tokens = self.usage.map(|usage| usage.cache_write_tokens).filter(|tokens| *tokens > 0),
            output_tokens = self.usage.map(|usage| usage.output_tokens),
            reasoning_tokens = self.usage.map(|usage| usage.reasoning_tokens).filter(|tokens| *tokens > 0),
            first_byte_ms = answer.map(|answer| millis(answer.first_byte)),
            duration_ms = millis(took),
        );
    }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("(not text)")
}

/// Milliseconds, rounded to microseconds.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A path short enough for a line.
fn logged_path(uri: &Uri) -> Box<str> {
    match uri.path() {
        path if path.len() <= MAX_PATH => path.into(),
        path => truncated(path).into(),
    }
}
