//! What the JSON API says.

use std::fmt;

use http::StatusCode;
use serde_json::{Value, json};

use super::reload::Reloaded;
use crate::{
    ids::SessionKey,
    policy::health::Reason,
    state::{Gateway, Group, Snapshot, Upstream},
    tick::Tick,
};

/// A question that has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No key was given.
    NoKey,
    /// No upstream serves this model.
    ModelNotServed(String),
    /// There is no such group.
    UnknownGroup(String),
    /// A parameter that is none.
    UnknownParameter(String),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("Name the session key: /api/route?key=KEY."),
            Self::ModelNotServed(model) => write!(f, "No upstream serves the model '{model}'."),
            Self::UnknownGroup(group) => write!(f, "There is no group '{group}'."),
            Self::UnknownParameter(name) => {
                write!(f, "Unknown parameter '{name}'. There are key, model and group.")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// Every upstream, in the order of the file.
pub(super) fn upstreams(gateway: &Gateway) -> Value {
    let snapshot = gateway.snapshot();
    let describe = |upstream| describe(gateway, upstream);
    let described: Vec<Value> = snapshot.upstreams().iter().map(describe).collect();
    json!({ "upstreams": described })
}

/// Moments are in seconds of Unix time.
fn describe(gateway: &Gateway, upstream: &Upstream) -> Value {
    let (now, unix_now) = (gateway.clock.now(), gateway.clock.unix_time());
    let moment = |tick: Tick| (unix_now + tick.since(now)).as_secs();
    let state = &upstream.state;
    let status = state.status();
    let models: Vec<&str> = upstream.models.patterns().collect();
    json!({
        "name": &*upstream.name,
        "host": upstream.host.to_str().unwrap_or_default(),
        "weight": upstream.weight.get(),
        "models": models,
        "organization": upstream.organization.as_deref(),
        "state": status.state.label(),
        "reason": status.reason.map(Reason::label),
        "until": status.until.map(moment),
        "consecutive_failures": status.failures,
        "cooling_models": status.cooling_models,
        "cooling_models_until": status.models_until.map(moment),
        "in_flight": state.in_flight(),
        "max_in_flight": state.max_in_flight(),
        "waiting": state.waiting(),
        "idle_connections": upstream.pool.idle(),
    })
}

/// What an operator can do to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Let it take no more requests.
    Drain,
    /// Let it take requests again, whatever was held against it.
    Enable,
}

impl Action {
    /// The action that stands at the end of a path, and the upstream's name before it.
    pub fn at(path: &str) -> Option<(Self, &str)> {
        let (name, action) = path.strip_prefix("/api/upstreams/")?.rsplit_once('/')?;
        match action {
            "drain" => Some((Self::Drain, name)),
            "enable" => Some((Self::Enable, name)),
            _ => None,
        }
    }
}

/// Does `action` to the upstream called `name`, and describes it then.
pub(super) fn act(gateway: &Gateway, action: Action, name: &str) -> (StatusCode, Value) {
    let snapshot = gateway.snapshot();
    let Some(upstream) = snapshot.upstreams().iter().find(|upstream| *upstream.name == *name) else {
        let names: Vec<&str> = snapshot.upstreams().iter().map(|upstream| &*upstream.name).collect();
        let message = format!("There is no upstream '{name}'. There are {}.", names.join(", "));
        return (StatusCode::NOT_FOUND, json!({ "error": { "message": message } }));
    };
    match action {
        Action::Drain => upstream.state.drain(),
        Action::Enable => upstream.state.enable(),
    }
    (StatusCode::OK, describe(gateway, upstream))
}

/// The upstreams for the session key `key` and `model`, best first.
///
/// # Errors
/// When no upstream serves the model to the group, or there is no such group.
pub fn route(snapshot: &Snapshot, key: &str, model: Option<&str>, group: Option<&str>) -> Result<Value, RouteError> {
    let caller = find(snapshot, group)?;
    let eligibility = snapshot
        .eligibility(caller, model)
        .ok_or_else(|| RouteError::ModelNotServed(model.unwrap_or_default().to_owned()))?;
    let upstreams: Vec<Value> = snapshot
        .route(caller, key, &eligibility)
        .map(|upstream| json!({ "name": &*upstream.name, "weight": upstream.weight.get() }))
        .collect();
    Ok(json!({ "key": key, "model": model, "group": group, "upstreams": upstreams }))
}

fn find<'a>(snapshot: &'a Snapshot, group: Option<&str>) -> Result<&'a Group, RouteError> {
    let found = snapshot.access.group(group);
    let unknown = || RouteError::UnknownGroup(group.unwrap_or_default().to_owned());
    found.map(|group| &**group).ok_or_else(unknown)
}

/// The same from a query, with the upstream that the session is pinned to, if it is.
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
    let mut answer = route(&snapshot, &key, model.as_deref(), group.as_deref())?;
    let namespace = find(&snapshot, group.as_deref())?.namespace;
    let session = SessionKey::from_text(namespace, &key);
    let pin = gateway.runtime.pins.peek(session, gateway.clock.now());
    let pinned = pin.and_then(|id| snapshot.upstream_of(id));
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("pin".to_owned(), json!(pinned.map(|upstream| &*upstream.name)));
    }
    Ok(answer)
}

/// What became of a reload.
pub(super) fn reloaded(reloaded: Reloaded) -> (StatusCode, Value) {
    match reloaded {
        Reloaded::Applied(changes) => {
            let answer = json!({
                "outcome": "applied",
                "added": changes.added,
                "removed": changes.removed,
                "changed": changes.changed,
                "groups": changes.groups,
                "keys": changes.keys,
                "at_next_start": changes.at_next_start,
                "warnings": changes.warnings,
            });
            (StatusCode::OK, answer)
        }
        Reloaded::Unchanged => (StatusCode::OK, json!({ "outcome": "unchanged" })),
        Reloaded::Refused(problems) => {
            let message = "The new configuration is not valid, so the old one stays in force.";
            let answer = json!({ "outcome": "refused", "error": { "message": message, "problems": problems } });
            (StatusCode::UNPROCESSABLE_ENTITY, answer)
        }
        Reloaded::NoFile => {
            let message = "There is no file to reload: this was started without one.";
            (StatusCode::CONFLICT, json!({ "error": { "message": message } }))
        }
    }
}
