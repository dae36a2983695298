//! Responses that Steadfast makes itself. Nothing else makes an error body.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE},
};
use serde::Serialize;

use super::{
    exchange::{body::ResponseBody, own_body::OwnBodyKind, rate_limit_headers},
    headers::X_REQUEST_ID,
    identity::RequestIdentity,
    request_end::RequestEnd,
};
use crate::fault::{self, Fault, RetryAdvice};

/// The authentication scheme for a caller's key (RFC 6750 section 3).
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
/// The methods that requests may have.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS");

/// An error body in OpenAI's shape.
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
    /// The Unix time in seconds at which the limit resets.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_in_seconds: Option<u64>,
}

/// The response to a request that Steadfast refuses, or for which it found no upstream.
pub(super) fn error(fault: &Fault, identity: RequestIdentity<'_>, mut end: RequestEnd) -> Response<ResponseBody> {
    end.mark_refused(fault);
    let status = fault.status();
    let mut response = own(status, error_text(fault), OwnBodyKind::Error, identity, end);
    let headers = response.headers_mut();
    match fault.retry() {
        RetryAdvice::Never => {}
        RetryAdvice::After(delay) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(fault::seconds(delay)));
        }
    }
    if fault.closes_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    match status {
        // Both headers are mandatory (RFC 9110 sections 15.5.6 and 15.5.2).
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, METHODS);
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, BEARER);
        }
        // This header is mandatory too (RFC 9110 section 15.5.22).
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        _ => {}
    }
    response
}

/// The response to the preflight request of an allowed web page: 204 with `headers`.
pub(super) fn preflight(
    headers: HeaderMap,
    identity: RequestIdentity<'_>,
    mut end: RequestEnd,
) -> Response<ResponseBody> {
    let status = StatusCode::NO_CONTENT;
    end.mark_own_answer(status);
    let mut response = Response::new(ResponseBody::own(Bytes::new(), OwnBodyKind::Answer, end));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(X_REQUEST_ID, identity.id);
    response
}

/// A response with the status 200 and the JSON `text`.
pub(super) fn json(text: Bytes, identity: RequestIdentity<'_>, mut end: RequestEnd) -> Response<ResponseBody> {
    let status = StatusCode::OK;
    end.mark_own_answer(status);
    own(status, text, OwnBodyKind::Answer, identity, end)
}

fn error_text(fault: &Fault) -> Bytes {
    let resets = fault.limit_reset();
    let detail = ErrorDetail {
        message: fault.message(),
        kind: fault.kind(),
        param: fault.param(),
        code: fault.code(),
        resets_at: resets.map(|(at, _)| at),
        resets_in_seconds: resets.map(|(_, seconds)| seconds),
    };
    let text = serde_json::to_vec(&ErrorBody { error: detail });
    text.expect("strings and numbers can be written to memory as JSON")
        .into()
}

fn own(
    status: StatusCode,
    text: Bytes,
    kind: OwnBodyKind,
    identity: RequestIdentity<'_>,
    end: RequestEnd,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(text, kind, end));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_REQUEST_ID, identity.id);
    // The request is still counted in these limits, because its charge ends with the body.
    if let Some(key) = identity.key {
        rate_limit_headers::add(headers, key);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        proxy::{request_log::RequestLog, testing, turn::limits::Charge},
        state::{ClientKey, Gateway},
    };

    const ID: HeaderValue = HeaderValue::from_static("req-1");

    fn end(gateway: &Arc<Gateway>) -> RequestEnd {
        RequestEnd::new(RequestLog::open_unreadable(gateway, ID, None), Charge::default())
    }

    async fn rendered(fault: Fault, key: Option<&Arc<ClientKey>>) -> (StatusCode, HeaderMap, Value) {
        let gateway = testing::gateway("");
        let identity = RequestIdentity { id: ID, key };
        let (parts, body) = error(&fault, identity, end(&gateway)).into_parts();
        let text = body.collect().await.expect("a body").to_bytes();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&text).expect("JSON"),
        )
    }

    #[tokio::test]
    async fn an_error_has_openais_shape_and_says_when_to_retry() {
        let fault = Fault::Limited {
            resets_in: Duration::from_millis(1_500),
            resets_at: 1_800_000_000,
            is_owned: false,
        };
        let message = fault.message();
        let (status, headers, body) = rendered(fault, None).await;
        assert_eq!(status, 429);
        assert_eq!(
            body,
            json!({"error": {
                "message": message, "type": "usage_limit_reached", "param": null, "code": "usage_limit_reached",
                "resets_at": 1_800_000_000, "resets_in_seconds": 2,
            }})
        );
        for (name, value) in [
            ("retry-after", "2"),
            ("x-request-id", "req-1"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(headers.get(name).expect(name), value);
        }
    }

    #[tokio::test]
    async fn a_short_limit_of_the_upstreams_has_the_shape_that_codex_waits_out() {
        let fault = Fault::UpstreamsRateLimited {
            resets_in: Duration::from_millis(8_200),
            is_owned: false,
        };
        let (status, headers, body) = rendered(fault, None).await;
        let error = &body["error"];
        assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &HeaderValue::from(9)));
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("rate_limit_exceeded"), &json!("rate_limit_exceeded"))
        );
        let message = error["message"].as_str().expect("a message");
        assert!(message.ends_with("Please try again in 9s."), "{message}");
        assert_eq!(error.get("resets_at"), None);
    }

    #[tokio::test]
    async fn a_status_brings_the_headers_that_it_must_have() {
        for (fault, name, value) in [
            (
                Fault::BadMethod { problem: "no" },
                "allow",
                "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS",
            ),
            (Fault::MissingKey, "www-authenticate", "Bearer"),
            (Fault::WebSocketUnsupported, "upgrade", "HTTP/1.1"),
            (Fault::WebSocketUnsupported, "connection", "upgrade"),
            (Fault::HeadTooLarge, "connection", "close"),
        ] {
            let (_, headers, body) = rendered(fault, None).await;
            assert_eq!(headers.get(name).expect(name), value);
            assert_eq!(body["error"].get("resets_at"), None);
        }
    }

    #[tokio::test]
    async fn the_limits_of_the_callers_key_are_shown_on_every_response() {
        let key = testing::limited_key("requests_per_minute = 60\n");
        let (_, headers, _) = rendered(Fault::BuffersFull, Some(&key)).await;
        assert_eq!(headers.get("x-ratelimit-limit-requests").expect("a limit"), "60");

        let gateway = testing::gateway("");
        let identity = RequestIdentity { id: ID, key: None };
        let response = json(Bytes::from_static(b"{}"), identity, end(&gateway));
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("x-ratelimit-limit-requests"));
        assert_eq!(response.body().size_hint().exact(), Some(2));
    }
}
