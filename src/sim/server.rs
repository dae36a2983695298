//! Connections and requests: from the socket to the account and back.

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

use super::Account;
use super::act::{Act, After, Fixed, Read, Received, ScriptedAnswer};
use super::api_error::ApiError;
use super::body::{BodySource, PacedBody};
use super::intake;
use super::recorder::{Ending, RequestGuard};
use super::responses::new_id;
use super::routes::{ParsedRequest, SimResponse};
use super::script::{Accept, ReceivedHead};
use super::transport::{self, BreakableStream, ConnectionBreaker, Socket, Takeover};

/// How long accepting pauses after it failed, which is when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves until told to stop, then drops every connection.
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
    account.recorder.stop();
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
    // Without it, small events would wait for the acknowledgement of the one before.
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
        let head = ReceivedHead {
            method: parts.method,
            target: parts.uri.to_string(),
            headers: parts.headers,
            connection,
            nth: nth.fetch_add(1, Ordering::Relaxed),
        };
        exchange(Arc::clone(&account), Arc::clone(&breaker), head, body)
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        // An idle connection goes stale only when a script says so.
        .header_read_timeout(None)
        .serve_connection(transport, service);
    let takeover = tokio::select! {
        // How a connection ended shows in its requests.
        _ = &mut serving => return,
        takeover = breaker.taken_over() => takeover,
    };
    serving.into_parts().io.into_inner().end(takeover).await;
}

/// One request and its response.
async fn exchange(
    account: Arc<Account>,
    breaker: Arc<ConnectionBreaker>,
    head: ReceivedHead,
    body: Incoming,
) -> Result<Response<PacedBody>, Infallible> {
    let started = account.clock.now();
    let mut guard = account.recorder.begin(&head);
    let scripted = account.script.on_head(&head);
    let how = scripted.as_ref().map_or(Read::Eager, |act| act.read);
    // A body that is not to be read is held: dropped, hyper would drain it.
    let (raw, _unread) = match how {
        Read::Never => (None, Some(body)),
        how => (Some(intake::read(body, how, &mut guard).await), None),
    };
    let raw = match raw.transpose() {
        Ok(raw) => raw,
        Err(error) => {
            let mut made = error.into();
            account.sign(&mut made, started);
            return Ok(respond(made, &account, &Act::default(), breaker, guard));
        }
    };
    let (plain, json) = raw.as_ref().map_or_else(
        || (Bytes::new(), Err(ApiError::broken_body())),
        |raw| decode(&head, raw),
    );
    let scripted = match (scripted, &json) {
        (None, Ok(json)) => account.script.on_body(&head, json),
        (scripted, _) => scripted,
    };
    let act = scripted.unwrap_or_default();
    if !act.delay.is_zero() {
        sleep(act.delay).await;
    }
    let usual = |items| {
        account
            .answer(ParsedRequest {
                head: &head,
                plain,
                json,
                items,
            })
            .unwrap_or_else(SimResponse::from)
    };
    let mut made = match &act.answer {
        ScriptedAnswer::Usual | ScriptedAnswer::Items(_) if raw.is_none() => pending().await,
        ScriptedAnswer::Usual => usual(None),
        ScriptedAnswer::Items(items) => usual(Some(items.clone())),
        ScriptedAnswer::Fixed(fixed) => fixed.clone().into(),
        ScriptedAnswer::Custom(custom) => custom(&Received {
            head: head.clone(),
            body: raw.unwrap_or_default(),
        })
        .into(),
        ScriptedAnswer::Raw(bytes) => break_off(Takeover::Raw(bytes.clone()), &breaker, &mut guard).await,
        ScriptedAnswer::Close(how) => break_off(Takeover::Close(*how), &breaker, &mut guard).await,
        ScriptedAnswer::Never => pending().await,
    };
    if !made.thinking.is_zero() {
        sleep(made.thinking).await;
    }
    if matches!(act.answer, ScriptedAnswer::Usual | ScriptedAnswer::Items(_)) {
        account.sign(&mut made, started);
    }
    Ok(respond(made, &account, &act, breaker, guard))
}

/// Gives the connection up. Never returns: the connection takes this request with it.
async fn break_off(takeover: Takeover, breaker: &ConnectionBreaker, guard: &mut RequestGuard) -> SimResponse {
    guard.end(Ending::Cut);
    breaker.take_over(takeover);
    pending().await
}

/// The body as it was meant: without its encoding, and as JSON.
fn decode(head: &ReceivedHead, raw: &Bytes) -> (Bytes, Result<serde_json::Value, ApiError>) {
    if head.method != Method::POST {
        return (Bytes::new(), Err(ApiError::not_json("no body is read here")));
    }
    match intake::decompress(&head.headers, raw) {
        Ok(plain) => {
            let json = intake::parse(&plain);
            (plain, json)
        }
        Err(error) => (Bytes::new(), Err(error)),
    }
}

fn respond(
    made: SimResponse,
    account: &Account,
    act: &Act,
    breaker: Arc<ConnectionBreaker>,
    guard: RequestGuard,
) -> Response<PacedBody> {
    let mut response = Response::new(PacedBody::new(made.source, account.config.pace, act, breaker, guard));
    *response.status_mut() = made.status;
    *response.headers_mut() = made.headers;
    if act.after == After::Announced {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Account {
    /// Adds the headers that every answer of the account carries.
    fn sign(&self, made: &mut SimResponse, started: crate::tick::Tick) {
        let took = self.clock.now().since(started).as_millis();
        let signature = [
            ("x-request-id", new_id("req")),
            ("openai-processing-ms", took.to_string()),
            ("openai-organization", self.config.name.clone()),
            ("openai-version", "2020-10-01".to_owned()),
        ];
        for (name, value) in signature {
            if let Ok(value) = HeaderValue::from_str(&value) {
                made.headers.insert(HeaderName::from_static(name), value);
            }
        }
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
        }
    }
}
