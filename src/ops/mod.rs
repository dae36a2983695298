//! The operator's side: metrics, probes, a JSON API to look in from outside, and the little that can be changed from there.

mod api;
mod reload;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use api::Action;
pub use api::{RouteError, route};
pub use reload::{Changes, Reloaded, Reloader, Trigger};

use crate::{secret::Secret, state::House, wire::RequestBody};

/// The operator's side of a house.
pub struct Admin {
    house: Arc<House>,
    reloader: Arc<Reloader>,
    token: Option<Secret>,
}

/// An answer to an operator.
type Answer = Response<Full<Bytes>>;

/// What can be asked for.
#[derive(Clone, Copy)]
enum Question {
    Live,
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
            "/livez" => Self::Live,
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
        matches!(self, Self::Live | Self::Ready)
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
    pub fn new(house: Arc<House>, reloader: Arc<Reloader>, token: Option<Secret>) -> Arc<Self> {
        Arc::new(Self { house, reloader, token })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, request: Request<RequestBody>) -> Answer {
        let question = Question::at(request.uri().path());
        if let Some(question) = question
            && !question.methods().split(", ").any(|method| request.method() == method)
        {
            let methods = question.methods();
            let mut answer = error(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("Only {methods} is answered here."),
            );
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return answer;
        }
        if !question.is_some_and(Question::is_probe) && !self.admits(&request) {
            let mut answer = error(
                StatusCode::UNAUTHORIZED,
                "Send the admin token as Authorization: Bearer.",
            );
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let Some(question) = question else {
            return error(
                StatusCode::NOT_FOUND,
                "No such path. There are /metrics, /livez, /readyz, /api/upstreams, /api/route?key=KEY&model=MODEL, POST /api/reload, and POST /api/upstreams/NAME/drain or /enable.",
            );
        };
        if question.changes_something() && is_from_elsewhere(request.headers()) {
            return error(
                StatusCode::FORBIDDEN,
                "A page of another site sent this through your browser. Send it from a command line.",
            );
        }
        self.answer(question, &request).await
    }

    async fn answer(&self, question: Question, request: &Request<RequestBody>) -> Answer {
        match question {
            Question::Ready if !self.house.is_ready() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            Question::Live | Question::Ready => text(StatusCode::OK, "ok\n"),
            Question::Metrics => metrics(&self.house),
            Question::Upstreams => json_answer(StatusCode::OK, &api::upstreams(&self.house)),
            Question::Route => match api::route_query(&self.house, request.uri().query().unwrap_or_default()) {
                Ok(answer) => json_answer(StatusCode::OK, &answer),
                Err(problem) => error(StatusCode::BAD_REQUEST, &problem.to_string()),
            },
            Question::Act(action) => {
                let name = Action::at(request.uri().path()).map_or("", |(_, name)| name);
                let (status, answer) = api::act(&self.house, action, name);
                json_answer(status, &answer)
            }
            Question::Reload => {
                let (status, answer) = api::reloaded(self.reloader.clone().reload(Trigger::Operator).await);
                json_answer(status, &answer)
            }
        }
    }

    fn admits(&self, request: &Request<RequestBody>) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = request
            .headers()
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        // The scheme's name has no case (RFC 9110 section 11.1).
        let (scheme, shown) = shown.split_at_checked(7).unwrap_or_default();
        let shown = if scheme.eq_ignore_ascii_case(b"Bearer ") {
            shown
        } else {
            &[]
        };
        shown.ct_eq(token.expose().as_bytes()).into()
    }
}

/// Whether a page of another site sent this through the operator's browser. A page may send a POST anywhere, but what
/// these headers say is not its to choose (<https://fetch.spec.whatwg.org/#origin-header>,
/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>).
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_own = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_some_and(|(_, authority)| authority.as_bytes().eq_ignore_ascii_case(host))
    };
    !headers.get_all(ORIGIN).iter().all(is_own)
}

fn metrics(house: &House) -> Answer {
    let mut answer = text(StatusCode::OK, house.scrape());
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
