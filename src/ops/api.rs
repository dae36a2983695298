//! The answers of the JSON API.

use std::fmt;

use http::StatusCode;
use serde_json::{Value, json};

use super::reload::ReloadResult;
use crate::{
    ids::{ModelKey, SessionKey},
    policy::health::{ClassStatus, Reason},
    state::{Gateway, Group, Snapshot, Upstream},
    tick::Tick,
};

/// Why a route cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The query has no session key.
    NoKey,
    /// No upstream that the group may call serves this model. `None` if the group may call no upstream.
    NotServed(Option<String>),
    /// No group has this name.
    UnknownGroup(String),
    /// The query has an unknown parameter.
    UnknownParameter(String),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("The session key is missing. Send it as /api/route?key=KEY."),
            Self::NotServed(Some(model)) => write!(f, "No upstream serves the model '{model}'."),
            Self::NotServed(None) => f.write_str("No upstream serves this group."),
            Self::UnknownGroup(group) => write!(f, "There is no group '{group}'."),
            Self::UnknownParameter(name) => {
                write!(
                    f,
                    "Unknown parameter '{name}'. The parameters are key, model and group."
                )
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// Describes every upstream, in the order of the file.
pub(super) fn upstreams(gateway: &Gateway) -> Value {
    let snapshot = gateway.snapshot();
    let describe = |upstream| describe_upstream(gateway, upstream);
    let described: Vec<Value> = snapshot.upstreams().iter().map(describe).collect();
    json!({ "upstreams": described })
}

/// Describes an upstream. Moments are in seconds of Unix time.
fn describe_upstream(gateway: &Gateway, upstream: &Upstream) -> Value {
    let (now, unix_now) = (gateway.clock.now(), gateway.clock.unix_time());
    let moment = |tick: Tick| (unix_now + tick.since(now)).as_secs();
    let state = &upstream.state;
    let status = state.status();
    let models: Vec<&str> = upstream.models.patterns().collect();
    let describe_class = |class: &ClassStatus| {
        json!({
            "class": class.endpoint.label(),
            "state": class.state.label(),
            "reason": class.reason.label(),
            "until": moment(class.until),
        })
    };
    let endpoints: Vec<Value> = status.classes.iter().map(describe_class).collect();
    json!({
        "name": &*upstream.name,
        "host": upstream.host.to_str().expect("the host of a URL is visible ASCII"),
        "weight": upstream.weight.get(),
        "models": models,
        "organization": upstream.organization.as_deref(),
        "state": status.state.label(),
        "reason": status.reason.map(Reason::label),
        "until": status.until.map(moment),
        "consecutive_failures": status.failures,
        "cooling_models": status.cooling_models,
        "cooling_models_until": status.models_until.map(moment),
        "endpoints": endpoints,
        "in_flight": state.in_flight(),
        "speed": state.speed().label(),
        "max_in_flight": state.max_in_flight(),
        "waiting": state.waiting(),
        "idle_connections": upstream.pool.idle(),
    })
}

/// An action of the operator on one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpstreamAction {
    /// Stops new requests to the upstream.
    Drain,
    /// Lets the upstream take requests again. It ends the drain, a cooldown, an ejection and a disabled state.
    Enable,
}

impl UpstreamAction {
    /// Returns the action at the end of a path, and the name of the upstream before it.
    pub fn from_path(path: &str) -> Option<(Self, &str)> {
        let (name, action) = path.strip_prefix("/api/upstreams/")?.rsplit_once('/')?;
        match action {
            "drain" => Some((Self::Drain, name)),
            "enable" => Some((Self::Enable, name)),
            _ => None,
        }
    }
}

/// Applies `action` to the upstream called `name`, and describes the upstream afterwards.
pub(super) fn act(gateway: &Gateway, action: UpstreamAction, name: &str) -> (StatusCode, Value) {
    let snapshot = gateway.snapshot();
    let Some(upstream) = snapshot.upstreams().iter().find(|upstream| *upstream.name == *name) else {
        let names: Vec<&str> = snapshot.upstreams().iter().map(|upstream| &*upstream.name).collect();
        let message = format!("There is no upstream '{name}'. The upstreams are {}.", names.join(", "));
        return (StatusCode::NOT_FOUND, json!({ "error": { "message": message } }));
    };
    match action {
        UpstreamAction::Drain => upstream.state.drain(),
        UpstreamAction::Enable => {
            upstream.state.enable();
            // The operator may have given the account more models.
            gateway.runtime.models.forget_refusals(upstream.id);
            // Requests that failed at every upstream may be served now.
            gateway.runtime.brakes.clear();
        }
    }
    (StatusCode::OK, describe_upstream(gateway, upstream))
}

/// Returns the upstreams for the session key `key` and `model`, best first. Without `group`, the group is that of anonymous
/// callers. Upstreams that are known not to have the model are left out.
///
/// # Errors
/// If no upstream serves the model to the group, or if there is no such group.
pub fn route(gateway: &Gateway, key: &str, model: Option<&str>, group: Option<&str>) -> Result<Value, RouteError> {
    let snapshot = &*gateway.snapshot();
    let caller = find_group(snapshot, group)?;
    let not_served = || RouteError::NotServed(model.map(str::to_owned));
    let eligibility = snapshot.eligibility(caller, model).ok_or_else(not_served)?;
    let model_key = model.map(ModelKey::from_name);
    let eligibility = snapshot.narrowed(eligibility, &gateway.runtime, model_key, gateway.clock.now());
    let upstreams: Vec<Value> = snapshot
        .route(caller, key, &eligibility)
        .map(|upstream| json!({ "name": &*upstream.name, "weight": upstream.weight.get() }))
        .collect();
    Ok(json!({ "key": key, "model": model, "group": group, "upstreams": upstreams }))
}

fn find_group<'a>(snapshot: &'a Snapshot, name: Option<&str>) -> Result<&'a Group, RouteError> {
    let unknown = |name: &str| RouteError::UnknownGroup(name.to_owned());
    match name {
        None => Ok(snapshot.access.anonymous()),
        Some(name) => snapshot
            .access
            .group(Some(name))
            .map(|group| &**group)
            .ok_or_else(|| unknown(name)),
    }
}

/// Answers a query for a [`route`], and adds the name of the upstream that the session is pinned to.
pub(super) fn route_query(gateway: &Gateway, query: &str) -> Result<Value, RouteError> {
    let (mut key, mut model, mut group) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = Some(value.into_owned()).filter(|value| !value.is_empty());
        match &*name {
            "key" => key = value,
            "model" => model = value,
            "group" => group = value,
            _ => return Err(RouteError::UnknownParameter(name.into_owned())),
        }
    }
    let key = key.ok_or(RouteError::NoKey)?;
    let snapshot = gateway.snapshot();
    let mut route = route(gateway, &key, model.as_deref(), group.as_deref())?;
    let namespace = find_group(&snapshot, group.as_deref())?.namespace;
    let session = SessionKey::from_text(namespace, &key);
    let pin = gateway.runtime.pins.peek(session, gateway.clock.now());
    let pinned = pin.and_then(|id| snapshot.upstream_of(id));
    route["pin"] = json!(pinned.map(|upstream| &*upstream.name));
    Ok(route)
}

/// Describes the result of a reload.
pub(super) fn describe_reload(result: ReloadResult) -> (StatusCode, Value) {
    match result {
        ReloadResult::Applied(changes) => {
            let body = json!({
                "outcome": "applied",
                "added": changes.added,
                "removed": changes.removed,
                "changed": changes.changed,
                "groups": changes.groups,
                "keys": changes.keys,
                "at_next_start": changes.at_next_start,
                "warnings": changes.warnings,
            });
            (StatusCode::OK, body)
        }
        ReloadResult::Unchanged => (StatusCode::OK, json!({ "outcome": "unchanged" })),
        ReloadResult::Refused(problems) => {
            let message = "The new configuration is invalid, so the old one stays in force.";
            let body = json!({ "outcome": "refused", "error": { "message": message, "problems": problems } });
            (StatusCode::UNPROCESSABLE_ENTITY, body)
        }
        ReloadResult::NoFile => {
            let message = "There is no file to reload, because the process was started without one.";
            (StatusCode::CONFLICT, json!({ "error": { "message": message } }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn gateway(text: &str) -> std::sync::Arc<Gateway> {
        let env = |_: &str| Some("sk-test".to_owned());
        let upstream = "[[upstream]]\nname = \"a\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"env:K\"\n";
        let text = format!("{upstream}{text}");
        let config = Config::from_toml(&text, "test.toml", &env, &Overrides::default()).expect("valid");
        Gateway::new(&config).expect("a gateway")
    }

    #[test]
    fn a_route_lists_the_upstreams_that_serve_the_model() {
        let gateway = gateway("models = [\"gpt-*\"]\n");
        let found = route(&gateway, "k", Some("gpt-5.2"), None).expect("a route");
        assert_eq!(found["upstreams"][0]["name"], "a");
        let missing = route(&gateway, "k", Some("o3"), None);
        assert_eq!(missing, Err(RouteError::NotServed(Some("o3".to_owned()))));
    }

    #[test]
    fn a_route_for_an_unknown_group_is_an_error() {
        let unknown = route(&gateway(""), "k", None, Some("team"));
        assert_eq!(unknown, Err(RouteError::UnknownGroup("team".to_owned())));
    }
}
