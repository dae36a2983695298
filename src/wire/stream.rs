//! One request on a stream of HTTP/2.

use std::pin::pin;

use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::{Authority, Scheme},
};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::{
    multiplex::Stream,
    pool::{Limits, SOON},
    replay::{Replay, Upload},
    send_error::{SendError, is_closed},
};

/// A request that failed, and what is left of it.
pub(super) struct Failure {
    pub error: SendError,
    /// The request, where nothing of it was written.
    pub unsent: Option<Request<Replay>>,
    /// The connection closed at once and without a byte of response: most likely it had been closed before.
    pub is_stale: bool,
    /// No answer came in time: perhaps the peer is gone.
    pub is_late: bool,
}

impl Stream {
    /// Sends `request` and waits for the response head. `origin` is what HTTP/2 puts into each request target.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Replay>,
        origin: (&Scheme, &Authority),
        limits: Limits,
    ) -> Result<Response<Incoming>, Failure> {
        let begun = Instant::now();
        let heard = self.arrivals.count();
        let upload = request.body_mut().upload();
        to_http2(&mut request, origin);
        let answer = within(limits, upload, self.sender.try_send_request(request)).await;
        let answer = answer.map_err(|error| Failure {
            error,
            unsent: None,
            is_stale: false,
            is_late: true,
        })?;
        answer.map_err(|mut failed| {
            let unsent = failed.take_message().map(to_http1);
            let error = failed.into_error();
            let is_silent = self.arrivals.count() == heard;
            Failure {
                is_stale: is_silent && begun.elapsed() < SOON && is_closed(&error),
                error: SendError::from(&error),
                unsent,
                is_late: false,
            }
        })
    }
}

/// Waits for a response head. Its time runs from the end of the request: how long an upload takes is up to the client,
/// and a client that pauses for too long ends its body itself.
async fn within<T>(limits: Limits, upload: Option<Upload>, answer: impl Future<Output = T>) -> Result<T, SendError> {
    let mut answer = pin!(answer);
    if let Some(upload) = upload {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            finished = upload.finished(limits.idle + SOON) => {
                finished.map_err(|_| SendError::Broken("the upstream takes no more of the body".to_owned()))?;
            }
        }
    }
    let late = |_| SendError::Timeout(limits.head);
    timeout(limits.head, answer).await.map_err(late)
}

/// A copy of `request` to send once more, where its body is kept.
pub(super) fn again(request: &Request<Replay>) -> Option<Request<Replay>> {
    let mut copy = Request::new(request.body().again()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// HTTP/2 frames bodies by itself (RFC 9113 section 8.2.2), and names the authority in the target and not in `Host`
/// (section 8.3.1).
fn to_http2(request: &mut Request<Replay>, (scheme, authority): (&Scheme, &Authority)) {
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.clone());
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// Undoes [`to_http2`], so that an unsent request can go to a connection of either version.
fn to_http1(mut request: Request<Replay>) -> Request<Replay> {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
    }
    request
}
