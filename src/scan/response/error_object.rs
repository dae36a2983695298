//! The error object of a response body, as upstreams write it in JSON.

use serde_json::{Map, Value};

/// The members of an error object that are read. Every one of them may be absent.
#[derive(Clone, Copy, Default)]
pub(super) struct ErrorObject<'a> {
    /// `type`.
    pub kind: Option<&'a Value>,
    /// `code`.
    pub code: Option<&'a Value>,
    /// `message` or `detail`.
    pub message: Option<&'a str>,
    /// `model`.
    pub model: Option<&'a str>,
    /// `resets_at`: when the limit is reset, in seconds since 1970.
    pub resets_at: Option<f64>,
    /// `resets_in_seconds`: how long it takes until the limit is reset.
    pub resets_in: Option<f64>,
}

impl<'a> ErrorObject<'a> {
    /// Reads the member `error` of `object`. Returns `None` if there is none, or if it is neither an object nor a text.
    pub fn from_member(object: &'a Map<String, Value>) -> Option<Self> {
        match object.get("error")? {
            Value::Object(error) => Some(Self::from_object(error)),
            Value::String(message) => Some(Self {
                message: Some(message),
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Reads the error object itself.
    pub fn from_object(error: &'a Map<String, Value>) -> Self {
        let text = |name| error.get(name).and_then(Value::as_str);
        let number = |name| error.get(name).and_then(Value::as_f64);
        Self {
            kind: error.get("type"),
            code: error.get("code"),
            message: text("message").or_else(|| text("detail")),
            model: text("model"),
            resets_at: number("resets_at"),
            resets_in: number("resets_in_seconds"),
        }
    }
}
