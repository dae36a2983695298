//! One request on a stream of HTTP/2.

use std::pin::pin;

use http::{
    Request, Response, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::{Authority, Scheme},
};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use crate::wire::{
    body::replay::{Replay, Upload},
    client::h2::Stream,
    client::pool::{SOON, Terms},
    client::send_error::{SendError, is_closed},
};

/// A request that failed, and what is left of it.
pub(in crate::wire) struct Failure {
    pub error: SendError,
    /// The request's body, where nothing of the request was written.
    pub unsent: Option<Replay>,
    /// The connection closed at once and without a byte of response: most likely it had been closed before.
    pub is_stale: bool,
    /// No answer came in time: perhaps the peer is gone.
    pub is_late: bool,
}

impl Stream {
    /// Sends `request` and waits for the response head. `origin` is what HTTP/2 puts into each request target.
    pub(in crate::wire) async fn send(
        &mut self,
        request: &mut Request<Replay>,
        origin: (&Scheme, &Authority),
        terms: Terms,
    ) -> Result<Response<Incoming>, Failure> {
        let begun = Instant::now();
        let heard = self.arrivals.count();
        let mut body = request.body_mut().share();
        let upload = body.upload();
        let request = to_http2(request, body, origin);
        let answer = within(terms, upload, self.sender.try_send_request(request)).await;
        let answer = answer.map_err(|error| Failure {
            error,
            unsent: None,
            is_stale: false,
            is_late: true,
        })?;
        answer.map_err(|mut failed| {
            let unsent = failed.take_message().map(Request::into_body);
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
async fn within<T>(terms: Terms, upload: Option<Upload>, answer: impl Future<Output = T>) -> Result<T, SendError> {
    let mut answer = pin!(answer);
    if let Some(upload) = upload {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            finished = upload.finished(terms.idle + SOON) => {
                finished.map_err(|_| SendError::Broken("the upstream takes no more of the body".to_owned()))?;
            }
        }
    }
    let late = |_| SendError::Timeout(terms.head);
    timeout(terms.head, answer).await.map_err(late)
}

/// `request` with `body`, as HTTP/2 has it: it frames bodies by itself (RFC 9113 section 8.2.2), and names the authority in
/// the target and not in `Host` (section 8.3.1).
fn to_http2(request: &Request<Replay>, body: Replay, (scheme, authority): (&Scheme, &Authority)) -> Request<Replay> {
    let mut sent = Request::new(body);
    *sent.method_mut() = request.method().clone();
    *sent.headers_mut() = request.headers().clone();
    sent.headers_mut().remove(HOST);
    sent.headers_mut().remove(TRANSFER_ENCODING);
    // hyper names the length that the body has, which is not the one that the client named where a part is replaced.
    sent.headers_mut().remove(CONTENT_LENGTH);
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.clone());
    *sent.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *sent.version_mut() = Version::HTTP_2;
    sent
}
