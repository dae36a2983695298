//! The error object of a response body, as upstreams write it in JSON.

use serde_json::{Map, Value};

/// The members of an error object that are read. Every one of them may be absent.
#[derive(Clone, Copy, Default)]
pub(super) struct ErrorObject<'a> {
    /// `type`, or `status` of Google's errors.
    pub kind: Option<&'a Value>,
    /// `code`, or the `reason` in `details` of Google's errors, whose code repeats the status of the response.
    pub code: Option<&'a Value>,
    /// `message` or `detail`.
    pub message: Option<&'a str>,
    /// `metadata.raw`: the upstream's own error, as OpenRouter quotes it.
    pub quoted: Option<&'a str>,
    /// `model`.
    pub model: Option<&'a str>,
    /// All members of the error object.
    pub members: Option<&'a Map<String, Value>>,
    /// The members of the object in which the error object is.
    pub around: Option<&'a Map<String, Value>>,
}

impl<'a> ErrorObject<'a> {
    /// Reads the error in a body: its member `error` or `detail`, the first of its `errors`, or the body itself. Google wraps
    /// an array around the body.
    pub fn from_body(body: &'a Value) -> Option<Self> {
        let body = match body {
            Value::Array(elements) => elements.first()?,
            other => other,
        };
        let body = body.as_object()?;
        let detail = || Some(Self::from_object(body.get("detail")?.as_object()?));
        let first = || Some(Self::from_object(body.get("errors")?.as_array()?.first()?.as_object()?));
        // Some gateways write the error without the member `error`, and some write a text instead of an object.
        Some(
            Self::from_member(body)
                .or_else(detail)
                .or_else(first)
                .unwrap_or_else(|| Self::from_object(body)),
        )
    }

    /// Reads the member `error` of `object`. Returns `None` if there is none, or if it is neither an object nor a text.
    pub fn from_member(object: &'a Map<String, Value>) -> Option<Self> {
        let error = match object.get("error")? {
            Value::Object(error) => Self::from_object(error),
            Value::String(message) => Self {
                message: Some(message),
                ..Self::default()
            },
            _ => return None,
        };
        Some(Self {
            around: Some(object),
            ..error
        })
    }

    /// Reads the error object itself.
    pub fn from_object(error: &'a Map<String, Value>) -> Self {
        let text = |name| error.get(name).and_then(Value::as_str);
        let code = error.get("code");
        let is_number = code.is_none_or(Value::is_number);
        Self {
            kind: error
                .get("type")
                .or_else(|| error.get("status").filter(|status| status.is_string())),
            code: reason(error).filter(|_| is_number).or(code),
            message: text("message").or_else(|| text("detail")),
            quoted: error.get("metadata").and_then(|metadata| metadata.get("raw")?.as_str()),
            model: text("model"),
            members: Some(error),
            around: None,
        }
    }

    /// The headers that the error repeats: `error.metadata.headers` of OpenRouter, and `headers` of a WebSocket error.
    pub fn headers(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let metadata = self.members.and_then(|members| members.get("metadata")?.as_object());
        let objects = [metadata, self.members, self.around].into_iter().flatten();
        let headers = objects.filter_map(|object| object.get("headers")?.as_object());
        headers.flatten()
    }
}

/// `details[].reason` of Google's errors.
fn reason(error: &Map<String, Value>) -> Option<&Value> {
    let details = error.get("details")?.as_array()?;
    details.iter().find_map(|detail| detail.get("reason"))
}
