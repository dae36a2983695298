//! A request that has been read.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::super::api_error::ApiError;
use super::super::head::RecordedHead;

/// A request that has been read.
pub(in crate::sim) struct ParsedRequest<'a> {
    pub head: &'a RecordedHead,
    /// The body without its content encoding.
    pub plain: Bytes,
    /// The body, parsed as JSON.
    pub json: Result<Value, ApiError>,
    /// The output items that a script demands.
    pub items: Option<Vec<Value>>,
    /// How long a background response or a batch is in progress, if a script demands it.
    pub background: Option<Duration>,
}

impl ParsedRequest<'_> {
    /// Returns the JSON body, or an empty object if the request has no body.
    pub(super) fn json_or_empty(self) -> Result<Value, ApiError> {
        if self.plain.is_empty() {
            return Ok(Value::Object(Map::new()));
        }
        self.json
    }
}

/// Returns the string in a field that a request must have.
pub(super) fn required<'r>(request: &'r Value, field: &str) -> Result<&'r str, ApiError> {
    match request.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Null) | None => Err(ApiError::missing(field)),
        Some(_) => Err(ApiError::wrong_type(field, "a string")),
    }
}

/// Returns the value of a field, or `default` if the field is absent or null.
pub(super) fn field_or(request: &Value, field: &str, default: Value) -> Value {
    match request.get(field) {
        Some(Value::Null) | None => default,
        Some(value) => value.clone(),
    }
}

/// Returns the strings of a list, or none if there is no such list.
pub(super) fn strings<'r>(request: &'r Value, field: &str) -> impl Iterator<Item = &'r str> {
    let list = request.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// Replaces those of `fields` in `object` that the request names.
pub(super) fn replace_fields(object: &mut Value, request: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = request.get(field) {
            object[*field] = value.clone();
        }
    }
}
