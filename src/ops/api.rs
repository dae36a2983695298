//! What the JSON API says.

use std::fmt;

use http::StatusCode;
use serde_json::{Value, json};

use super::reload::Reloaded;
use crate::{
    ids::SessionKey,
    state::{House, Snapshot, Upstream},
};

/// A question that has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No key was given.
    NoKey,
    /// No upstream serves this model.
    ModelNotServed(String),
    /// Groups were asked about.
    GroupsUnsupported,
    /// A parameter that is none.
    UnknownParameter(String),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("Name the session key: /api/route?key=KEY."),
            Self::ModelNotServed(model) => write!(f, "No upstream serves the model '{model}'."),
            Self::GroupsUnsupported => f.write_str("Groups are not supported yet. Leave the group out."),
            Self::UnknownParameter(name) => {
                write!(f, "Unknown parameter '{name}'. There are key, model and group.")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// Every upstream, in the order of the file.
pub(super) fn upstreams(house: &House) -> Value {
    let snapshot = house.snapshot();
    let described: Vec<Value> = snapshot.upstreams().iter().map(describe).collect();
    json!({ "upstreams": described })
}

fn describe(upstream: &Upstream) -> Value {
    let models: Vec<&str> = upstream.models.patterns().collect();
    json!({
        "name": &*upstream.name,
        "host": upstream.host.to_str().unwrap_or_default(),
        "weight": upstream.weight.get(),
        "models": models,
        "in_flight": upstream.live.in_flight(),
        "idle_connections": upstream.pool.idle(),
    })
}

/// The upstreams for the session key `key` and `model`, best first.
///
/// # Errors
/// When no upstream serves the model, or a group is named.
pub fn route(snapshot: &Snapshot, key: &str, model: Option<&str>, group: Option<&str>) -> Result<Value, RouteError> {
    if group.is_some() {
        return Err(RouteError::GroupsUnsupported);
    }
    let eligibility = snapshot
        .eligibility(model)
        .ok_or_else(|| RouteError::ModelNotServed(model.unwrap_or_default().to_owned()))?;
    let upstreams: Vec<Value> = snapshot
        .route(key, &eligibility)
        .map(|upstream| json!({ "name": &*upstream.name, "weight": upstream.weight.get() }))
        .collect();
    Ok(json!({ "key": key, "model": model, "upstreams": upstreams }))
}

/// The same from a query, with the upstream that the session is pinned to, if it is.
pub(super) fn route_query(house: &House, query: &str) -> Result<Value, RouteError> {
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
    let snapshot = house.snapshot();
    let mut answer = route(&snapshot, &key, model.as_deref(), group.as_deref())?;
    let pin = house
        .roster
        .pins
        .peek(SessionKey::from_text(snapshot.namespace, &key), house.clock.now());
    let pinned = pin
        .and_then(|id| snapshot.rendezvous.position(id))
        .and_then(|index| snapshot.upstream(index));
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
