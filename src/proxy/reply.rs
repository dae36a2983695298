//! Answers of our own. Nothing else makes an error body.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE},
};
use serde::Serialize;

use super::{exchange::body::Outgoing, request::headers::X_REQUEST_ID, request_log::RequestLog};
use crate::fault::{self, Fault, Retry};

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    /// Seconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_in_seconds: Option<u64>,
}

/// The answer to a request that failed on our own account, in OpenAI's shape.
pub(super) fn render(fault: Fault, mut log: RequestLog) -> Response<Outgoing> {
    let request_id = log.request_id.clone();
    log.answered_here(fault.status());
    log.refused(&fault);
    error(&fault, request_id, Some(log))
}

/// How a caller proves who it is (RFC 6750 section 3).
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// The answer to what was no request.
pub(super) fn unread(fault: &Fault, request_id: HeaderValue) -> Response<Outgoing> {
    error(fault, request_id, None)
}

fn error(fault: &Fault, request_id: HeaderValue, log: Option<RequestLog>) -> Response<Outgoing> {
    let detail = ErrorDetail {
        message: fault.message(),
        kind: fault.kind(),
        param: fault.param(),
        code: fault.code(),
        resets_at: fault.resets().map(|(at, _)| at),
        resets_in_seconds: fault.resets().map(|(_, seconds)| seconds),
    };
    // Serializing strings to memory cannot fail.
    let text = serde_json::to_vec(&ErrorBody { error: detail }).unwrap_or_default();
    let (status, retry, closes) = (fault.status(), fault.retry(), fault.closes());
    let mut response = own(status, text.into(), request_id, log);
    let headers = response.headers_mut();
    match retry {
        Retry::Never => {}
        Retry::After(delay) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(fault::seconds(delay)));
        }
    }
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    match status {
        // Both are mandatory (RFC 9110 sections 15.5.6 and 15.5.22).
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
            );
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, BEARER);
        }
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        _ => {}
    }
    response
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, text: Bytes, mut log: RequestLog) -> Response<Outgoing> {
    log.answered_here(status);
    let request_id = log.request_id.clone();
    own(status, text, request_id, Some(log))
}

fn own(status: StatusCode, text: Bytes, request_id: HeaderValue, log: Option<RequestLog>) -> Response<Outgoing> {
    let limits = log.as_ref().map(|log| {
        let mut limits = http::HeaderMap::new();
        log.show_limits(&mut limits);
        limits
    });
    let mut response = Response::new(Outgoing::text(text, log));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    if let Some(limits) = limits {
        response.headers_mut().extend(limits);
    }
    response
}
