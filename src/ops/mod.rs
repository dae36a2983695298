//! The admin side: metrics, probes, and a JSON API. The API describes the gateway and has a few actions that change it.
//!
//! [`AdminService`] answers the requests to the admin listener. It finds the endpoint of a path in `AdminEndpoint`, where a new
//! endpoint is added, and `guard` decides whether the request may use it. `api` has the answers. [`Reloader`] compiles a
//! changed configuration and replaces the gateway's. `app` calls it for a signal or a changed file, and this module for
//! `POST /api/reload`.

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

use api::UpstreamAction;
pub use api::{RouteError, route};
use guard::{AdminDenial, AdminGuard};
pub use reload::{ConfigChanges, ReloadResult, Reloader, Trigger, server_identity};

use crate::{secret::Secret, state::Gateway, wire::RequestBody};

/// Answers the requests of the admin listener.
pub struct AdminService {
    gateway: Arc<Gateway>,
    reloader: Arc<Reloader>,
    guard: AdminGuard,
}

const NO_SUCH_PATH: &str = "There is no such path. The paths are /metrics, /livez, /readyz, /api/upstreams, /api/route?key=KEY&model=MODEL, POST /api/reload, and POST /api/upstreams/NAME/drain or /enable.";

type AdminResponse = Response<Full<Bytes>>;

/// The endpoint that a request to the admin listener calls.
#[derive(Clone, Copy)]
enum AdminEndpoint<'a> {
    Liveness,
    Readiness,
    Metrics,
    Upstreams,
    Route,
    Reload,
    /// An action on the upstream with this name.
    Act(UpstreamAction, &'a str),
}

impl<'a> AdminEndpoint<'a> {
    fn from_path(path: &'a str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::Liveness,
            "/readyz" => Self::Readiness,
            "/metrics" => Self::Metrics,
            "/api/upstreams" => Self::Upstreams,
            "/api/route" => Self::Route,
            "/api/reload" => Self::Reload,
            _ => {
                let (action, name) = UpstreamAction::from_path(path)?;
                Self::Act(action, name)
            }
        })
    }

    /// Whether this is a probe. A probe needs no token, because its answer is only yes or no.
    fn is_probe(self) -> bool {
        matches!(self, Self::Liveness | Self::Readiness)
    }

    /// The allowed methods, as the header `allow` lists them.
    fn methods(self) -> &'static str {
        match self {
            Self::Reload | Self::Act(..) => "POST",
            Self::Liveness | Self::Readiness | Self::Metrics | Self::Upstreams | Self::Route => "GET, HEAD",
        }
    }
}

impl AdminService {
    /// Makes the service. With a `token`, requests must carry it as `Authorization: Bearer`.
    pub fn new(gateway: Arc<Gateway>, reloader: Arc<Reloader>, token: Option<Secret>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            reloader,
            guard: AdminGuard::new(token),
        })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, request: Request<RequestBody>) -> AdminResponse {
        let mut response = match self.admit(&request) {
            Ok(endpoint) => self.respond(endpoint, &request).await,
            Err(refusal) => *refusal,
        };
        add_browser_protection(response.headers_mut());
        response
    }

    /// Returns the endpoint, if the request is allowed to call it.
    fn admit<'a>(&self, request: &'a Request<RequestBody>) -> Result<AdminEndpoint<'a>, Box<AdminResponse>> {
        let endpoint = AdminEndpoint::from_path(request.uri().path());
        if !endpoint.is_some_and(AdminEndpoint::is_probe) {
            self.guard.check(request).map_err(denied)?;
        }
        let endpoint = endpoint.ok_or_else(|| error(StatusCode::NOT_FOUND, NO_SUCH_PATH))?;
        let methods = endpoint.methods();
        if !methods.split(", ").any(|method| request.method() == method) {
            let message = format!("This path accepts only {methods}.");
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &message);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return Err(response.into());
        }
        Ok(endpoint)
    }

    async fn respond(&self, endpoint: AdminEndpoint<'_>, request: &Request<RequestBody>) -> AdminResponse {
        match endpoint {
            AdminEndpoint::Readiness if !self.gateway.is_ready() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            AdminEndpoint::Liveness | AdminEndpoint::Readiness => text(StatusCode::OK, "ok\n"),
            AdminEndpoint::Metrics => metrics(&self.gateway),
            AdminEndpoint::Upstreams => json_response(StatusCode::OK, &api::upstreams(&self.gateway)),
            AdminEndpoint::Route => match api::route_query(&self.gateway, request.uri().query().unwrap_or_default()) {
                Ok(route) => json_response(StatusCode::OK, &route),
                Err(problem) => error(StatusCode::BAD_REQUEST, &problem.to_string()),
            },
            AdminEndpoint::Act(action, name) => {
                let (status, body) = api::act(&self.gateway, action, name);
                json_response(status, &body)
            }
            AdminEndpoint::Reload => {
                let (status, body) = api::describe_reload(self.reloader.clone().reload(Trigger::Operator).await);
                json_response(status, &body)
            }
        }
    }
}

fn denied(denial: AdminDenial) -> AdminResponse {
    let mut response = error(denial.status(), denial.message());
    if denial == AdminDenial::NoToken {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Adds headers that forbid a browser to guess the type of a response, to store it, or to show it inside another page.
/// No response has `access-control-allow-origin`, so pages of other sites cannot read it. The headers are those of OWASP's
/// REST Security Cheat Sheet.
fn add_browser_protection(headers: &mut HeaderMap) {
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

fn metrics(gateway: &Gateway) -> AdminResponse {
    let mut response = text(StatusCode::OK, gateway.scrape());
    let exposition_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, exposition_format);
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> AdminResponse {
    let mut response = text(status, format!("{value}\n"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn error(status: StatusCode, message: &str) -> AdminResponse {
    json_response(status, &json!({ "error": { "message": message } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints_and_upstreams() {
        let name = |path| match AdminEndpoint::from_path(path) {
            Some(AdminEndpoint::Act(action, name)) => Some((action, name)),
            _ => None,
        };
        assert_eq!(name("/api/upstreams/a/drain"), Some((UpstreamAction::Drain, "a")));
        assert_eq!(name("/api/upstreams/a/enable"), Some((UpstreamAction::Enable, "a")));
        for path in [
            "/",
            "/api",
            "/api/upstreams/",
            "/api/upstreams/a",
            "/api/upstreams/a/stop",
            "/livez/",
        ] {
            assert!(AdminEndpoint::from_path(path).is_none(), "{path}");
        }
    }

    #[test]
    fn only_probes_need_no_token() {
        for (path, is_probe) in [
            ("/livez", true),
            ("/readyz", true),
            ("/metrics", false),
            ("/api/upstreams", false),
            ("/api/route", false),
            ("/api/reload", false),
            ("/api/upstreams/a/drain", false),
        ] {
            let endpoint = AdminEndpoint::from_path(path);
            assert_eq!(endpoint.map(AdminEndpoint::is_probe), Some(is_probe), "{path}");
        }
    }
}
