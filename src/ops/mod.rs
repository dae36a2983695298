//! The operator's side: metrics, probes, a JSON API to look in from outside, and the little that can be changed from there.

mod api;
mod guard;
mod reload;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use serde_json::json;

use api::Action;
pub use api::{RouteError, route};
use guard::{Barred, Guard};
pub use reload::{Changes, Reloaded, Reloader, Trigger, server_identity};

use crate::{secret::Secret, state::Gateway, wire::RequestBody};

/// The operator's side of a gateway.
pub struct Admin {
    gateway: Arc<Gateway>,
    reloader: Arc<Reloader>,
    guard: Guard,
}

const NO_SUCH_PATH: &str = "No such path. There are /metrics, /livez, /readyz, /api/upstreams, /api/route?key=KEY&model=MODEL, POST /api/reload, and POST /api/upstreams/NAME/drain or /enable.";

/// An answer to an operator.
type Answer = Response<Full<Bytes>>;

/// What can be asked for.
#[derive(Clone, Copy)]
enum Question {
    UpstreamState,
    Ready,
    Metrics,
    Upstreams,
    Route,
    Reload,
    Act(Action),
}

impl Question {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::UpstreamState,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/api/upstreams" => Self::Upstreams,
            "/api/route" => Self::Route,
            "/api/reload" => Self::Reload,
            _ => Self::Act(Action::at(path)?.0),
        })
    }

    /// Whether it is asked by a probe, which has no token to show, and learns nothing but yes or no.
    fn is_probe(self) -> bool {
        matches!(self, Self::UpstreamState | Self::Ready)
    }

    fn changes_something(self) -> bool {
        matches!(self, Self::Reload | Self::Act(_))
    }

    /// The methods that it takes, as `allow` lists them.
    fn methods(self) -> &'static str {
        if self.changes_something() { "POST" } else { "GET, HEAD" }
    }
}

impl Admin {
    /// Opens the operator's side; with a `token`, only to those who show it as `Authorization: Bearer`.
    pub fn new(gateway: Arc<Gateway>, reloader: Arc<Reloader>, token: Option<Secret>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            reloader,
            guard: Guard::new(token),
        })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, request: Request<RequestBody>) -> Answer {
        let mut answer = match self.admit(&request) {
            Ok(question) => self.answer(question, &request).await,
            Err(refusal) => *refusal,
        };
        protect(answer.headers_mut());
        answer
    }

    /// What is asked, where it may be.
    fn admit(&self, request: &Request<RequestBody>) -> Result<Question, Box<Answer>> {
        let question = Question::at(request.uri().path());
        if !question.is_some_and(Question::is_probe) {
            self.guard.check(request).map_err(barred)?;
        }
        let question = question.ok_or_else(|| error(StatusCode::NOT_FOUND, NO_SUCH_PATH))?;
        let methods = question.methods();
        if !methods.split(", ").any(|method| request.method() == method) {
            let mut answer = error(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("Only {methods} is answered here."),
            );
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return Err(answer.into());
        }
        Ok(question)
    }

    async fn answer(&self, question: Question, request: &Request<RequestBody>) -> Answer {
        match question {
            Question::Ready if !self.gateway.is_ready() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            Question::UpstreamState | Question::Ready => text(StatusCode::OK, "ok\n"),
            Question::Metrics => metrics(&self.gateway),
            Question::Upstreams => json_answer(StatusCode::OK, &api::upstreams(&self.gateway)),
            Question::Route => match api::route_query(&self.gateway, request.uri().query().unwrap_or_default()) {
                Ok(answer) => json_answer(StatusCode::OK, &answer),
                Err(problem) => error(StatusCode::BAD_REQUEST, &problem.to_string()),
            },
            Question::Act(action) => {
                let name = Action::at(request.uri().path()).map_or("", |(_, name)| name);
                let (status, answer) = api::act(&self.gateway, action, name);
                json_answer(status, &answer)
            }
            Question::Reload => {
                let (status, answer) = api::reloaded(self.reloader.clone().reload(Trigger::Operator).await);
                json_answer(status, &answer)
            }
        }
    }
}

fn barred(why: Barred) -> Answer {
    let mut answer = error(why.status(), why.message());
    if why == Barred::NoToken {
        answer
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// Says what a browser must not do with an answer: guess its type, keep it, or show it inside a page. There is no
/// `access-control-allow-origin`, so no page of another site reads it (the headers are those that OWASP's REST Security Cheat
/// Sheet names).
fn protect(headers: &mut HeaderMap) {
    const HEADERS: [(HeaderName, HeaderValue); 4] = [
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    headers.extend(HEADERS);
}

fn metrics(gateway: &Gateway) -> Answer {
    let mut answer = text(StatusCode::OK, gateway.scrape());
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = text(status, format!("{value}\n"));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn error(status: StatusCode, message: &str) -> Answer {
    json_answer(status, &json!({ "error": { "message": message } }))
}
