//! The operator's side: metrics, probes, and a JSON API to look in from outside. Nothing here changes anything.

mod api;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use serde_json::json;
use subtle::ConstantTimeEq as _;

pub use api::{RouteError, route};

use crate::{secret::Secret, state::House, wire::RequestBody};

/// The operator's side of a house.
pub struct Admin {
    house: Arc<House>,
    token: Option<Secret>,
}

/// An answer to an operator.
type Answer = Response<Full<Bytes>>;

impl Admin {
    /// Opens the operator's side; with a `token`, only to those who show it as `Authorization: Bearer`.
    pub fn new(house: Arc<House>, token: Option<Secret>) -> Arc<Self> {
        Arc::new(Self { house, token })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, request: Request<RequestBody>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Only GET is answered here.");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let path = request.uri().path();
        // A probe has no token to show, and learns nothing but this.
        match path {
            "/livez" => return text(StatusCode::OK, "ok\n"),
            "/readyz" if self.house.is_ready() => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            _ => {}
        }
        if !self.admits(&request) {
            let mut answer = error(
                StatusCode::UNAUTHORIZED,
                "Send the admin token as Authorization: Bearer.",
            );
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        match path {
            "/metrics" => metrics(&self.house),
            "/api/upstreams" => json_answer(StatusCode::OK, &api::upstreams(&self.house)),
            "/api/route" => match api::route_query(&self.house, request.uri().query().unwrap_or_default()) {
                Ok(answer) => json_answer(StatusCode::OK, &answer),
                Err(problem) => error(StatusCode::BAD_REQUEST, &problem.to_string()),
            },
            _ => error(
                StatusCode::NOT_FOUND,
                "No such path. There are /metrics, /livez, /readyz, /api/upstreams and /api/route?key=KEY&model=MODEL.",
            ),
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
