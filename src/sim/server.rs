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
use super::act::{Act, After, Answer, Fixed, Read, Received};
use super::body::{Outgoing, Source};
use super::intake;
use super::journal::{Ending, Ticket};
use super::line::{self, Breaker, Line, Seizure, Socket};
use super::refusal::Refusal;
use super::responses::new_id;
use super::routes::{Call, Made};
use super::script::{Accept, Head};

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
    account.journal.stop();
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection.
async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, account: Arc<Account>) {
    let connected = account.journal.connect();
    match account.script.on_accept() {
        Accept::Serve => {}
        Accept::Delay(delay) => sleep(delay).await,
        Accept::Close(how) => return line::close(&tcp, how),
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
    let breaker = Arc::new(Breaker::default());
    let line = TokioIo::new(Line::new(socket, Arc::clone(&breaker)));
    let (nth, connection) = (AtomicU64::new(1), connected.number);
    let service = service_fn(|request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let head = Head {
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
        .serve_connection(line, service);
    let seizure = tokio::select! {
        // How a connection ended shows in its requests.
        _ = &mut serving => return,
        seizure = breaker.seized() => seizure,
    };
    serving.into_parts().io.into_inner().end(seizure).await;
}

/// One request and its response.
async fn exchange(
    account: Arc<Account>,
    breaker: Arc<Breaker>,
    head: Head,
    body: Incoming,
) -> Result<Response<Outgoing>, Infallible> {
    let started = account.clock.now();
    let mut ticket = account.journal.begin(&head);
    let scripted = account.script.on_head(&head);
    let how = scripted.as_ref().map_or(Read::Eager, |act| act.read);
    // A body that is not to be read is held: dropped, hyper would drain it.
    let (raw, _unread) = match how {
        Read::Never => (None, Some(body)),
        how => (Some(intake::read(body, how, &mut ticket).await), None),
    };
    let raw = match raw.transpose() {
        Ok(raw) => raw,
        Err(refusal) => {
            let mut made = refusal.into();
            account.sign(&mut made, started);
            return Ok(respond(made, &account, &Act::default(), breaker, ticket));
        }
    };
    let (plain, json) = raw
        .as_ref()
        .map_or_else(|| (Bytes::new(), Err(Refusal::broken_body())), |raw| decode(&head, raw));
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
            .answer(Call {
                head: &head,
                plain,
                json,
                items,
            })
            .unwrap_or_else(Made::from)
    };
    let mut made = match &act.answer {
        Answer::Usual | Answer::Items(_) if raw.is_none() => pending().await,
        Answer::Usual => usual(None),
        Answer::Items(items) => usual(Some(items.clone())),
        Answer::Fixed(fixed) => fixed.clone().into(),
        Answer::Custom(custom) => custom(&Received {
            head: head.clone(),
            body: raw.unwrap_or_default(),
        })
        .into(),
        Answer::Raw(bytes) => break_off(Seizure::Raw(bytes.clone()), &breaker, &mut ticket).await,
        Answer::Close(how) => break_off(Seizure::Close(*how), &breaker, &mut ticket).await,
        Answer::Never => pending().await,
    };
    if !made.thinking.is_zero() {
        sleep(made.thinking).await;
    }
    if matches!(act.answer, Answer::Usual | Answer::Items(_)) {
        account.sign(&mut made, started);
    }
    Ok(respond(made, &account, &act, breaker, ticket))
}

/// Gives the connection up. Never returns: the connection takes this request with it.
async fn break_off(seizure: Seizure, breaker: &Breaker, ticket: &mut Ticket) -> Made {
    ticket.end(Ending::Cut);
    breaker.seize(seizure);
    pending().await
}

/// The body as it was meant: without its encoding, and as JSON.
fn decode(head: &Head, raw: &Bytes) -> (Bytes, Result<serde_json::Value, Refusal>) {
    if head.method != Method::POST {
        return (Bytes::new(), Err(Refusal::not_json("no body is read here")));
    }
    match intake::decompress(&head.headers, raw) {
        Ok(plain) => {
            let json = intake::parse(&plain);
            (plain, json)
        }
        Err(refusal) => (Bytes::new(), Err(refusal)),
    }
}

fn respond(made: Made, account: &Account, act: &Act, breaker: Arc<Breaker>, ticket: Ticket) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::new(made.source, account.config.pace, act, breaker, ticket));
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
    fn sign(&self, made: &mut Made, started: crate::tick::Tick) {
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

impl From<Fixed> for Made {
    fn from(fixed: Fixed) -> Self {
        let Fixed {
            status,
            headers,
            mut pieces,
        } = fixed;
        let source = match pieces.len() {
            0 | 1 => Source::Whole(Some(pieces.pop().unwrap_or_default())),
            _ => Source::Pieces(pieces.into()),
        };
        Self {
            status,
            headers,
            source,
            thinking: Duration::ZERO,
        }
    }
}
