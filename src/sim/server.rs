//! The server of the simulated account. It passes requests from a connection to the account, and responses back.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName};
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::account::Account;
use super::act::{Act, After, Fixed, Read, Received, ScriptedAnswer};
use super::api::ParsedRequest;
use super::api_error::ApiError;
use super::body::{BodySource, PacedBody};
use super::head::RecordedHead;
use super::intake;
use super::messages::message_error;
use super::outgoing::SimResponse;
use super::recorder::{Ending, RequestGuard};
use super::responses::new_id;
use super::script::Accept;
use super::transport::{self, BreakableStream, ConnectionBreaker, Socket, Takeover};
use crate::tick::Tick;

/// The time for which accepting pauses after an error. Such errors occur when there are no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves connections until `stop` is signalled, then drops every connection.
pub(super) async fn listen(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    account: Arc<Account>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => drop(connections.spawn(serve(tcp, tls.clone(), Arc::clone(&account)))),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    account.recorder.mark_stopping();
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection.
async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, account: Arc<Account>) {
    let connected = account.recorder.connect();
    match account.script.on_accept() {
        Accept::Serve => {}
        Accept::Delay(delay) => sleep(delay).await,
        Accept::Close(how) => return transport::close(&tcp, how),
    }
    // Without this option, a small event waits for the acknowledgement of the event before it.
    let _ = tcp.set_nodelay(true);
    let socket = match tls {
        None => Socket::Plain(tcp),
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => Socket::Tls(Box::new(stream)),
            Err(_) => return,
        },
    };
    let breaker = Arc::new(ConnectionBreaker::default());
    let transport = TokioIo::new(BreakableStream::new(socket, Arc::clone(&breaker)));
    let (nth, connection) = (AtomicU64::new(1), connected.number);
    let service = service_fn(|request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let head = RecordedHead {
            method: parts.method,
            target: parts.uri.to_string(),
            headers: parts.headers,
            connection,
            nth: nth.fetch_add(1, Ordering::Relaxed),
        };
        SimExchange::new(Arc::clone(&account), Arc::clone(&breaker), head).run(body)
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        // An idle connection becomes stale only if a script demands it.
        .header_read_timeout(None)
        .serve_connection(transport, service);
    let takeover = tokio::select! {
        // An error of a connection is also an error of its requests.
        _ = &mut serving => return,
        takeover = breaker.taken_over() => takeover,
    };
    serving.into_parts().io.into_inner().end(takeover).await;
}

/// One request and its response.
struct SimExchange {
    account: Arc<Account>,
    breaker: Arc<ConnectionBreaker>,
    head: RecordedHead,
    guard: RequestGuard,
    /// When the head arrived.
    started: Tick,
    /// The id of the request in the account's answer.
    request_id: String,
}

/// A request's body in each of its forms.
struct DecodedBody {
    /// The body as sent; `None` if the script says that it is not read.
    raw: Option<Bytes>,
    /// The body without its content encoding.
    plain: Bytes,
    json: Result<serde_json::Value, ApiError>,
}

impl SimExchange {
    fn new(account: Arc<Account>, breaker: Arc<ConnectionBreaker>, head: RecordedHead) -> Self {
        Self {
            started: account.clock.now(),
            request_id: new_id("req"),
            guard: account.recorder.begin(&head),
            account,
            breaker,
            head,
        }
    }

    /// Reads the body and answers the request.
    async fn run(mut self, body: Incoming) -> Result<Response<PacedBody>, Infallible> {
        let scripted = self.account.script.on_head(&self.head);
        // Hyper drains a body that is dropped. So a body that must not be read is held until the end.
        let (raw, _unread) = match scripted.as_ref().map_or(Read::Eager, |act| act.read) {
            Read::Never => (None, Some(body)),
            how => (Some(intake::read(body, how, &mut self.guard).await), None),
        };
        let raw = match raw.transpose() {
            Ok(raw) => raw,
            Err(error) => {
                let mut response = self.error_answer(error);
                self.sign(&mut response);
                return Ok(self.finish(response, &Act::default()));
            }
        };
        let body = decode(&self.head, raw);
        let scripted = match (scripted, &body.json) {
            (None, Ok(json)) => self.account.script.on_body(&self.head, json),
            (scripted, _) => scripted,
        };
        let act = scripted.unwrap_or_default();
        if !act.delay.is_zero() {
            sleep(act.delay).await;
        }
        let mut response = self.answer(&act, body).await;
        if !response.thinking.is_zero() {
            sleep(response.thinking).await;
        }
        if matches!(act.answer, ScriptedAnswer::Usual | ScriptedAnswer::Items(_)) {
            self.sign(&mut response);
        }
        Ok(self.finish(response, &act))
    }

    async fn answer(&mut self, act: &Act, body: DecodedBody) -> SimResponse {
        match &act.answer {
            ScriptedAnswer::Usual | ScriptedAnswer::Items(_) if body.raw.is_none() => pending().await,
            ScriptedAnswer::Usual => self.usual_answer(body, None, act.background),
            ScriptedAnswer::Items(items) => self.usual_answer(body, Some(items.clone()), act.background),
            ScriptedAnswer::Fixed(fixed) => fixed.clone().into(),
            ScriptedAnswer::Custom(custom) => custom(&Received {
                head: self.head.clone(),
                body: body.raw.unwrap_or_default(),
            })
            .into(),
            ScriptedAnswer::Raw(bytes) => self.break_off(Takeover::Raw(bytes.clone())).await,
            ScriptedAnswer::Close(how) => self.break_off(Takeover::Close(*how)).await,
            ScriptedAnswer::Never => pending().await,
        }
    }

    /// Returns the account's usual response, with `items` as its output if they are given.
    fn usual_answer(
        &self,
        body: DecodedBody,
        items: Option<Vec<serde_json::Value>>,
        background: Option<Duration>,
    ) -> SimResponse {
        let request = ParsedRequest {
            head: &self.head,
            plain: body.plain,
            json: body.json,
            items,
            background,
        };
        let answer = self.account.answer(request);
        answer.unwrap_or_else(|error| self.error_answer(error))
    }

    /// Returns an error in the shape of the API that the request's path belongs to.
    fn error_answer(&self, error: ApiError) -> SimResponse {
        if is_message_path(self.head.path()) {
            return SimResponse::json(error.status, &message_error(&error, &self.request_id));
        }
        error.into()
    }

    /// Takes the connection over from hyper. The future never completes, because this request ends with the connection.
    async fn break_off(&mut self, takeover: Takeover) -> SimResponse {
        self.guard.end(Ending::Cut);
        self.breaker.take_over(takeover);
        pending().await
    }

    /// Adds the headers that every answer of the account carries.
    fn sign(&self, response: &mut SimResponse) {
        let took = self.account.clock.now().since(self.started).as_millis();
        let signature = [
            ("x-request-id", self.request_id.clone()),
            ("openai-processing-ms", took.to_string()),
            ("openai-organization", self.account.config.name.clone()),
            ("openai-version", "2020-10-01".to_owned()),
        ];
        for (name, value) in signature {
            let value = HeaderValue::from_str(&value).expect("ids, numbers and checked names are header values");
            response.headers.insert(HeaderName::from_static(name), value);
        }
        if is_message_path(self.head.path()) {
            let id = HeaderValue::from_str(&self.request_id).expect("an id is a header value");
            response.headers.insert(HeaderName::from_static("request-id"), id);
        }
    }

    /// Makes hyper's response, with a body that follows `act`.
    fn finish(self, response: SimResponse, act: &Act) -> Response<PacedBody> {
        let pace = self.account.config.pace;
        let mut body = PacedBody::new(response.source, pace, act, self.breaker, self.guard);
        if let Some(hold) = response.hold {
            body = body.held(hold.after, hold.delay);
        }
        let mut finished = Response::new(body);
        *finished.status_mut() = response.status;
        *finished.headers_mut() = response.headers;
        if act.after == After::Announced {
            finished
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        finished
    }
}

/// Whether a path belongs to Anthropic's Messages API.
fn is_message_path(path: &str) -> bool {
    path == "/v1/messages" || path.starts_with("/v1/messages/")
}

/// Decodes a request's body: without its content encoding, and as JSON.
fn decode(head: &RecordedHead, raw: Option<Bytes>) -> DecodedBody {
    let decoded = match &raw {
        None => Err(ApiError::broken_body()),
        Some(_) if head.method != Method::POST => Err(ApiError::not_json("this method takes no body")),
        Some(raw) => intake::decompress(&head.headers, raw),
    };
    match decoded {
        Ok(plain) => DecodedBody {
            raw,
            json: intake::parse(&plain),
            plain,
        },
        Err(error) => DecodedBody {
            raw,
            plain: Bytes::new(),
            json: Err(error),
        },
    }
}

impl From<Fixed> for SimResponse {
    fn from(fixed: Fixed) -> Self {
        let Fixed {
            status,
            headers,
            mut pieces,
        } = fixed;
        let source = match pieces.len() {
            0 | 1 => BodySource::Whole(Some(pieces.pop().unwrap_or_default())),
            _ => BodySource::Pieces(pieces.into()),
        };
        Self {
            status,
            headers,
            source,
            thinking: Duration::ZERO,
            hold: None,
        }
    }
}
