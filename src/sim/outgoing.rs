//! A response of the account before the server gives it to hyper.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::api_error::ApiError;
use super::body::BodySource;

/// A response before it becomes one of hyper's.
pub(super) struct SimResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub source: BodySource,
    /// The time that the account waits before it responds.
    pub thinking: Duration,
    /// A pause within the body.
    pub hold: Option<Hold>,
}

/// A pause within a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// The number of events before the pause.
    pub after: usize,
    /// The time from the head of the response to the end of the pause.
    pub delay: Duration,
}

impl SimResponse {
    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self::whole(status, value.to_string().into())
    }

    pub(super) fn whole(status: StatusCode, body: Bytes) -> Self {
        Self::new(status, "application/json", BodySource::Whole(Some(body)))
    }

    pub(super) fn stream(source: BodySource) -> Self {
        Self::new(StatusCode::OK, "text/event-stream; charset=utf-8", source)
    }

    fn new(status: StatusCode, content_type: &'static str, source: BodySource) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self {
            status,
            headers,
            source,
            thinking: Duration::ZERO,
            hold: None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        // The value may come from the request, for example the name of a model.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl From<ApiError> for SimResponse {
    fn from(error: ApiError) -> Self {
        Self::json(error.status, error.json())
    }
}
