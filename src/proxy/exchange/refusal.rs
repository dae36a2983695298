//! Asks an upstream whether it refuses a credential.
//!
//! A bare 401 to a generation may concern the credential, the project, or a right that the key lacks (RFC 9110 section
//! 15.5.2 does not tell them apart). The list of models needs no right but a valid credential, and costs nothing. An
//! upstream that answers 401 there as well does not know the credential.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use crate::{
    endpoint::Endpoint,
    policy::Verdict,
    proxy::{
        request::{
            headers::{CallersCredential, set_upstream_headers},
            hops::HopMarkers,
        },
        turn::{attempts::RefusalCheck, verdict::VerdictRules},
    },
    scan::error_notice,
    state::Upstream,
    tick::Clock,
    wire::{DialError, Framing, Replay, SendError, SendOptions},
};

/// The maximum time in which an upstream must answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of bytes that are read of an error.
const MAX_ERROR: usize = 16 << 10;

/// The caller of the request whose credential an upstream has perhaps refused.
pub(super) struct RefusedCaller<'a> {
    /// The caller's own credential.
    pub credential: &'a CallersCredential,
    /// The hop markers of the request.
    pub hops: HopMarkers,
}

/// Asks `upstream` for its list of models, and tells from the answer whether it refuses the credential.
pub(super) async fn check(upstream: &Upstream, caller: RefusedCaller<'_>, clock: Clock) -> RefusalCheck {
    let asked = timeout(TIMEOUT, ask(upstream, caller, clock)).await;
    asked.ok().flatten().unwrap_or(RefusalCheck::NotRefused)
}

/// The result of the check; `None` if the upstream gives no answer.
async fn ask(upstream: &Upstream, caller: RefusedCaller<'_>, clock: Clock) -> Option<RefusalCheck> {
    let mut request = Request::new(Replay::empty(Framing::None));
    *request.uri_mut() = upstream.list_of_models()?;
    // The request is sent to one upstream, so its headers are never taken back.
    let _ = set_upstream_headers(request.headers_mut(), upstream, caller.credential);
    caller.hops.add_to(request.headers_mut());
    let options = SendOptions {
        head: TIMEOUT,
        idle: TIMEOUT,
        is_repeatable: true,
    };
    let response = match upstream.pool.send(&mut request, options).await {
        Ok(response) => response,
        Err(SendError::Dial(DialError::Shortage(_))) => return Some(RefusalCheck::NotAsked),
        Err(_) => return None,
    };
    let status = response.status();
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Some(RefusalCheck::NotRefused);
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ERROR).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let notice = error_notice(&head.headers, &body, None, clock.unix_time());
    // The answer is judged like one to a generation, for which a second bare 401 is unconfirmed as well. Here it confirms
    // the first one.
    let verdict = VerdictRules::new(Endpoint::Responses, None, upstream).of_error(status, &notice);
    Some(match verdict {
        Verdict::Refused => RefusalCheck::Refused,
        Verdict::Unauthorized if status == StatusCode::UNAUTHORIZED => RefusalCheck::Refused,
        _ => RefusalCheck::NotRefused,
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::proxy::testing;

    /// Listens as an upstream that answers one request with `status` and `body`, or closes the connection if the status is
    /// 0. Returns its base URL.
    async fn listen(status: u16, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.expect("a request"));
            }
            let head = String::from_utf8(head).expect("text").to_lowercase();
            assert!(head.starts_with("get /v1/models http/1.1\r\n"), "{head}");
            assert!(head.contains("authorization: bearer "), "{head}");
            assert!(head.contains("steadfast-hop: "), "{head}");
            let length = body.len();
            let response = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n\r\n{body}");
            if status != 0 {
                socket.write_all(response.as_bytes()).await.expect("the client reads");
            }
        });
        format!("http://{address}/v1")
    }

    #[tokio::test]
    async fn only_a_refusal_of_the_list_of_models_confirms_that_a_credential_is_refused() {
        for (status, body, expected) in [
            (401, "", RefusalCheck::Refused),
            (401, r#"{"error":{"message":"no","code":null}}"#, RefusalCheck::Refused),
            (401, r#"{"error":{"code":"invalid_api_key"}}"#, RefusalCheck::Refused),
            (
                403,
                r#"{"error":{"code":"account_deactivated"}}"#,
                RefusalCheck::Refused,
            ),
            (401, r#"{"error":{"code":"missing_scope"}}"#, RefusalCheck::NotRefused),
            (403, r#"{"error":{"code":"missing_scope"}}"#, RefusalCheck::NotRefused),
            (403, "", RefusalCheck::NotRefused),
            (200, r#"{"data":[]}"#, RefusalCheck::NotRefused),
            (404, "", RefusalCheck::NotRefused),
            (429, "", RefusalCheck::NotRefused),
            (500, "", RefusalCheck::NotRefused),
            (0, "", RefusalCheck::NotRefused),
        ] {
            let url = listen(status, body).await;
            let gateway = testing::configured(&format!(
                "[[upstream]]\nname = \"a\"\nbase_url = \"{url}\"\napi_key = \"env:A\"\n"
            ));
            let snapshot = gateway.snapshot();
            let caller = RefusedCaller {
                credential: &CallersCredential::default(),
                hops: HopMarkers::own(&snapshot),
            };
            let found = check(&snapshot.upstreams()[0], caller, gateway.clock).await;
            assert_eq!(found, expected, "{status} {body}");
        }
    }
}
