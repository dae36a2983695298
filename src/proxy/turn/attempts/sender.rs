//! The interface between the attempt loop and the transport that sends the request.

use std::time::Duration;

use http::StatusCode;

use crate::{
    fault::Fault,
    policy::{Verdict, outlier::ResponseKind},
    state::Upstream,
    wire::Shortage,
};

/// Sends one request to upstreams: over HTTP, or as a script in tests.
pub(in crate::proxy) trait RequestSender: Send {
    /// An answer of an upstream, its body still to come.
    type Response: Send;

    /// Whether the request may be sent again although an upstream may have begun it.
    fn repeatability(&self) -> Repeatability;

    /// Whether the body of the request can still be sent: it is kept, or nothing of it has been sent.
    fn has_body(&self) -> bool;

    /// Sends the request to `upstream`, and reads the meaning of its answer.
    fn send(&mut self, upstream: &Upstream) -> impl Future<Output = SendResult<Self::Response>> + Send;

    /// Asks `upstream` whether it refuses the credential of the request, with a small request to another endpoint. It is
    /// called after an answer that may concern the credential or only the request ([`Verdict::Unauthorized`]).
    fn confirm_refusal(&mut self, upstream: &Upstream) -> impl Future<Output = RefusalCheck> + Send;

    /// The kind of `response`, for the comparison of times.
    fn response_kind(response: &Self::Response) -> ResponseKind;

    /// Reads the rest of an error answer if it is short and arrives soon, and masks the upstream's secrets in it.
    fn buffer_error(response: &mut Self::Response) -> impl Future<Output = BufferedRest> + Send;
}

/// Whether a request may be sent again although an upstream may have begun it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Repeatability {
    /// The request may be sent again in any case: it only reads.
    Safe,
    /// The request may be sent again if the upstream no longer works on it: it is idempotent, or it is a generation, for
    /// which the caller pays twice at worst. After a timeout, the upstream may still work on it.
    Repeatable,
    /// The request may not be sent again.
    Once,
}

/// An answer of an upstream, and what it means.
pub(in crate::proxy) struct UpstreamAnswer<R> {
    pub response: R,
    pub status: StatusCode,
    pub verdict: Verdict,
}

/// The result of an attempt.
pub(in crate::proxy) type SendResult<R> = Result<UpstreamAnswer<R>, SendFailure>;

/// Why an attempt has no answer.
#[derive(Debug)]
pub(in crate::proxy) enum SendFailure {
    /// The request cannot be sent to this upstream: the caller has to change it.
    NotSendable(Fault),
    /// The caller's body ended early while it was passed on. The upstream is not the cause.
    RequestBody(Fault),
    /// No connection to the upstream could be made.
    Unreachable,
    /// No connection could be made, because this process lacks something for it. The upstream is not the cause.
    Shortage(Shortage),
    /// The upstream sent no response head within this time.
    Timeout(Duration),
    /// The connection broke, or the upstream answered something that is not HTTP.
    Broken,
}

/// Whether an upstream refuses the credential of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum RefusalCheck {
    /// The upstream refuses the credential.
    Refused,
    /// The upstream accepts the credential, or it is not known whether it does.
    NotRefused,
    /// The upstream was not asked, because this process lacks something for a connection.
    NotAsked,
}

/// The part of an error answer that is buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum BufferedRest {
    /// The whole answer, which no longer needs its connection.
    Whole,
    /// The beginning of the answer. The rest still comes from its connection.
    Partial,
    /// The part of the answer that arrived before the connection broke.
    Broken,
}
