//! Builds the HTTP request for an upstream and sends it.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::{
    fault::Fault,
    ids::ModelKey,
    policy::{NamedObjects, RequestClass, Verdict, outlier::ResponseKind},
    proxy::{
        exchange::{
            coding,
            peek::{PeekContext, PeekedResponse},
            refusal::{self, RefusedCaller},
        },
        headers::TURN_STATE,
        request::{
            admit::{Admitted, ReturnedTurnState},
            answer_content::answer_content,
            headers::{CallersCredential, UpstreamHeaders, set_upstream_headers},
            hops::{self, HopMarkers},
            inspect::{self, Inspected},
            target::RequestTarget,
        },
        text::truncated,
        turn::{
            answer_content::AnswerContent,
            attempts::{BufferedRest, RefusalCheck, Repeatability, RequestSender, SendFailure, SendResult},
            verdict::VerdictRules,
        },
    },
    scan::{EncodingKind, NamedObject, ReferenceKind},
    state::{Credential, RequestLimits, Upstream},
    tick::Clock,
    wire::{DialError, Relay, Replay, SendError, SendOptions},
};

/// Sends one request over HTTP, to one upstream after the other.
pub(in crate::proxy) struct HttpSender {
    request: Request<Replay>,
    /// The id of the request, for the log.
    request_id: HeaderValue,
    target: RequestTarget,
    /// The changes to the request's headers for the current upstream.
    upstream_headers: UpstreamHeaders,
    callers: CallersCredential,
    turn_state: Option<ReturnedTurnState>,
    model: Option<String>,
    /// The bytes of the body that name the model; `None` if they cannot be replaced.
    model_at: Option<Range<u64>>,
    model_syntax: ModelSyntax,
    repeatability: Repeatability,
    /// Where the request names objects.
    objects: NamedObjects,
    /// What a good answer contains.
    content: AnswerContent,
    limits: RequestLimits,
    clock: Clock,
}

/// How a body writes the name of its model.
#[derive(Clone, Copy)]
enum ModelSyntax {
    /// As a JSON string.
    Json,
    /// As the bytes between two line ends, in a form.
    Plain,
}

impl ModelSyntax {
    /// A name as the body writes it. `name` is the name as a JSON string.
    fn write(self, name: &Bytes) -> Bytes {
        match self {
            Self::Json => name.clone(),
            Self::Plain => {
                let plain: String =
                    serde_json::from_slice(name).expect("the names of upstreams are kept as JSON strings");
                plain.into()
            }
        }
    }
}

impl HttpSender {
    /// A sender of the request `admitted`, whose body has been `inspected`.
    pub fn new(admitted: Admitted<'_>, inspected: Inspected, limits: RequestLimits, clock: Clock) -> Self {
        let repeatability = repeatability(&admitted.method, &admitted.target);
        let objects = named_objects(&admitted, &inspected);
        let is_plain = admitted.coding == EncodingKind::Identity;
        let content = answer_content(&admitted.method, &admitted.target, inspected.facts.store);
        let mut request = Request::new(inspected.body);
        *request.method_mut() = admitted.method;
        *request.headers_mut() = admitted.headers;
        Self {
            request,
            request_id: admitted.request_id,
            target: admitted.target,
            upstream_headers: UpstreamHeaders::default(),
            callers: admitted.callers,
            turn_state: admitted.turn_state,
            model: inspected.facts.model,
            model_at: inspected.facts.model_at.filter(|_| is_plain),
            model_syntax: match admitted.form {
                Some(_) => ModelSyntax::Plain,
                None => ModelSyntax::Json,
            },
            repeatability,
            objects,
            content,
            limits,
            clock,
        }
    }

    /// Changes the request into one for `upstream`. Before, it may have been one for another upstream.
    fn address(&mut self, upstream: &Upstream) -> Result<(), Fault> {
        if matches!(upstream.credential, Credential::Callers) && !self.callers.is_present() {
            return Err(Fault::MissingCredential);
        }
        *self.request.uri_mut() = self.target.uri_at(upstream).ok_or(Fault::Internal)?;
        let head = self.request.headers_mut();
        self.upstream_headers.undo(head);
        self.upstream_headers = set_upstream_headers(head, upstream, &self.callers);
        // Turn state is sent only to its issuer.
        head.remove(TURN_STATE);
        if let Some(turn_state) = &self.turn_state
            && turn_state.issuer == upstream.id
        {
            head.insert(TURN_STATE, turn_state.value.clone());
        }
        self.rename_model(upstream)
    }

    /// Makes the body name the model as `upstream` does.
    fn rename_model(&mut self, upstream: &Upstream) -> Result<(), Fault> {
        let body = self.request.body_mut();
        let model = self.model.as_deref();
        let Some((model, name)) = model.and_then(|model| Some((model, upstream.renames.get(model)?))) else {
            body.restore();
            return Ok(());
        };
        let Some(at) = self.model_at.clone() else {
            return Err(Fault::RenameCompressed {
                model: truncated(model),
            });
        };
        let spliced = body.splice(at, self.model_syntax.write(name));
        spliced.expect("a body whose model is known has been kept, and the model's bytes are in it");
        Ok(())
    }

    /// Records and logs that the request has come back from `upstream` to this gateway.
    #[cold]
    fn record_loop(&self, upstream: &Upstream) {
        let now = self.clock.now();
        if upstream.state.may_log_loop(now) {
            tracing::error!(
                upstream = &*upstream.name,
                "the upstream leads back to a gateway that has sent the request; correct its base_url"
            );
        }
        if hops::has_own_marker_only(self.request.headers()) {
            let class = RequestClass {
                endpoint: self.target.endpoint.class(),
                model: self.model.as_deref().map(ModelKey::from_name),
            };
            upstream.state.record_loop(class, now);
        }
    }

    /// Reports why there is no response head, and logs the reason if the client has not caused it.
    fn failure(&self, error: SendError, upstream: &Upstream) -> SendFailure {
        let (upstream, request_id) = (&*upstream.name, self.request_id.to_str().unwrap_or("(not text)"));
        match &error {
            SendError::Body(_) => {}
            SendError::Dial(DialError::Shortage(_)) => {
                tracing::warn!(upstream, %error, request_id, "no connection to the upstream could be opened");
            }
            _ => tracing::warn!(upstream, %error, request_id, "the upstream sent no valid response"),
        }
        match error {
            SendError::Body(error) => SendFailure::RequestBody(inspect::fault_of_body(error)),
            SendError::Dial(DialError::Shortage(shortage)) => SendFailure::Shortage(shortage),
            SendError::Dial(_) => SendFailure::Unreachable,
            SendError::Timeout(limit) => SendFailure::Timeout(limit),
            SendError::Broken(_) => SendFailure::Broken,
        }
    }
}

impl RequestSender for HttpSender {
    type Response = PeekedResponse;

    fn repeatability(&self) -> Repeatability {
        self.repeatability
    }

    fn has_body(&self) -> bool {
        self.request.body().is_sendable()
    }

    async fn send(&mut self, upstream: &Upstream) -> SendResult<PeekedResponse> {
        self.address(upstream).map_err(SendFailure::NotSendable)?;
        let terms = SendOptions {
            head: self.limits.head,
            idle: self.limits.idle,
            is_repeatable: self.repeatability != Repeatability::Once,
        };
        let sent = upstream.pool.send(&mut self.request, terms).await;
        let readable = match sent.and_then(refuse_upgrade) {
            // The future is boxed, because few answers are compressed and a request's future is as large as its largest
            // branch.
            Ok(coded) if coding::must_be_decoded(&coded, upstream) => Box::pin(coding::decode(coded, upstream)).await,
            sent => sent,
        };
        let response = match readable {
            Ok(response) => response,
            Err(error) => return Err(self.failure(error, upstream)),
        };
        let model = self.model.as_deref();
        let context = PeekContext {
            endpoint: self.target.endpoint,
            content: self.content,
            model,
            rules: VerdictRules::new(self.target.endpoint, model, upstream).with_objects(self.objects),
            limits: self.limits,
            clock: self.clock,
        };
        let mut answer = context.peek(response).await;
        if answer.verdict == Verdict::Looped {
            self.record_loop(upstream);
        }
        if !answer.verdict.fails_over() {
            // The request is not sent again, so its body needs the model from now on.
            answer.response.model = self.model.take();
        }
        Ok(answer)
    }

    fn response_kind(response: &PeekedResponse) -> ResponseKind {
        match &response.reader {
            Some(reader) if reader.is_stream() => ResponseKind::Stream,
            _ => ResponseKind::Whole,
        }
    }

    async fn confirm_refusal(&mut self, upstream: &Upstream) -> RefusalCheck {
        let caller = RefusedCaller {
            credential: &self.callers,
            hops: HopMarkers::of_marked(self.request.headers()),
        };
        refusal::check(upstream, caller, self.clock).await
    }

    async fn buffer_error(response: &mut PeekedResponse) -> BufferedRest {
        response.buffer_rest().await
    }
}

/// Whether a request may be sent again although an upstream may have begun it. A generation may: at worst, the caller pays
/// for it twice. So may a count of tokens, which changes nothing.
///
/// A header `idempotency-key` does not change this. It is passed on, but no upstream is known to honour it at every endpoint,
/// and one that ignores it would make the object twice.
fn repeatability(method: &Method, target: &RequestTarget) -> Repeatability {
    let is_generation = target.endpoint.is_repeatable() || target.counts_tokens();
    match method.is_safe() {
        true => Repeatability::Safe,
        false if method.is_idempotent() || (*method == Method::POST && is_generation) => Repeatability::Repeatable,
        false => Repeatability::Once,
    }
}

/// Where the request names objects that its upstream must have.
fn named_objects(admitted: &Admitted<'_>, inspected: &Inspected) -> NamedObjects {
    let facts = &inspected.facts;
    let is_needed = |object: &NamedObject| object.kind != ReferenceKind::ComparedResponse;
    if admitted.target.objects(&admitted.method)[0].is_some() {
        NamedObjects::InPath
    } else if facts.named.iter().any(is_needed) || !facts.encrypted.is_empty() {
        NamedObjects::InBody
    } else {
        NamedObjects::None
    }
}

/// No request asks to switch protocols, so an upstream must not do it (RFC 9110 section 15.2.2).
fn refuse_upgrade(response: Response<Relay>) -> Result<Response<Relay>, SendError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(SendError::Broken(
            "it switched protocols without a request to do so".to_owned(),
        ));
    }
    Ok(response)
}

#[cfg(test)]
mod tests;
