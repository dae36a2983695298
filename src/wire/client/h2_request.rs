//! Sends one request on a stream of an HTTP/2 connection.

use std::pin::pin;

use http::{
    Request, Response, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use crate::wire::{
    body::{
        framing::content_length,
        replay::{Replay, UploadProgress},
    },
    client::{
        freshness::CLOSE_DETECTION,
        h2::H2Stream,
        send_error::{SendError, is_closed, is_unprocessed},
        send_options::SendOptions,
    },
    limits::is_head_too_large,
};

/// The reasons why a request has no response head, and the unsent parts of the request.
pub(in crate::wire) struct H2SendFailure {
    pub error: SendError,
    /// The request's body, if nothing of the request was written.
    pub unsent: Option<Replay>,
    /// Whether the upstream has said that it did not process the request (RFC 9113 section 8.7).
    pub is_refused: bool,
    /// Whether the connection closed soon and without a byte of a response. Such a connection was most likely closed
    /// before.
    pub is_silent_close: bool,
    /// Whether the response head did not arrive in time. The upstream may be unreachable.
    pub is_timeout: bool,
}

impl H2Stream {
    /// Sends `request` and waits for the response head. `origin` becomes part of the request target.
    pub async fn send(
        &mut self,
        request: &mut Request<Replay>,
        origin: (&Scheme, &Authority),
        options: SendOptions,
    ) -> Result<Response<Incoming>, H2SendFailure> {
        let begun = Instant::now();
        let reads_before = self.reads.count();
        let mut body = request.body_mut().share();
        let upload = body.track_upload();
        let request = to_http2(request, body, origin);
        let response = wait_for_head(options, upload, self.sender.try_send_request(request)).await;
        let response = response.map_err(|error| H2SendFailure {
            is_timeout: !matches!(error, SendError::Body(_)),
            error,
            unsent: None,
            is_refused: false,
            is_silent_close: false,
        })?;
        let response = response.map_err(|mut failed| {
            let unsent = failed.take_message().map(Request::into_body);
            let error = failed.into_error();
            let is_silent = self.reads.count() == reads_before;
            H2SendFailure {
                is_silent_close: is_silent && begun.elapsed() < CLOSE_DETECTION && is_closed(&error),
                is_refused: is_unprocessed(&error),
                error: SendError::from(&error),
                unsent,
                is_timeout: false,
            }
        })?;
        match check_head(&response) {
            Ok(()) => Ok(response),
            Err(problem) => Err(H2SendFailure {
                error: SendError::Broken(problem.to_owned()),
                unsent: None,
                is_silent_close: false,
                is_refused: false,
                is_timeout: false,
            }),
        }
    }
}

/// Checks the head of a response against the rules for responses over HTTP/1.1. The problem is an error of the upstream.
fn check_head<B>(response: &Response<B>) -> Result<(), &'static str> {
    const FIRST_LINE: usize = "HTTP/1.1 200 OK\r\n".len();
    if is_head_too_large(FIRST_LINE, response.headers()) {
        return Err("the response head is too large");
    }
    content_length(response.headers()).map(|_| ())
}

/// Waits for a response head. The time limit begins at the end of the request, because the time of the upload depends
/// on the client. A client that pauses for too long ends its body with an error.
async fn wait_for_head<T>(
    options: SendOptions,
    upload: Option<UploadProgress>,
    response: impl Future<Output = T>,
) -> Result<T, SendError> {
    let mut response = pin!(response);
    if let Some(upload) = upload {
        tokio::select! {
            // If the body has ended with an error, the stream has been reset, which must not be taken for a failure of the
            // upstream.
            biased;
            finished = upload.wait_until_sent(options.idle + CLOSE_DETECTION) => {
                let stopped = |_| SendError::Broken("the upstream stopped reading the request body".to_owned());
                if let Some(error) = finished.map_err(stopped)? {
                    return Err(SendError::Body(error));
                }
            }
            response = &mut response => return Ok(response),
        }
    }
    let late = |_| SendError::Timeout(options.head);
    timeout(options.head, response).await.map_err(late)
}

/// The same request with `body`, in the form of HTTP/2: without framing headers, because the protocol frames bodies itself
/// (RFC 9113 section 8.2.2), and with the authority in the target and not in `Host` (section 8.3.1).
fn to_http2(request: &Request<Replay>, body: Replay, (scheme, authority): (&Scheme, &Authority)) -> Request<Replay> {
    let mut sent = Request::new(body);
    *sent.method_mut() = request.method().clone();
    *sent.headers_mut() = request.headers().clone();
    sent.headers_mut().remove(HOST);
    sent.headers_mut().remove(TRANSFER_ENCODING);
    // hyper adds the length of the body that is sent. It differs from the client's length if a part of the body is
    // replaced.
    sent.headers_mut().remove(CONTENT_LENGTH);
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.clone());
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *sent.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path make a URI");
    *sent.version_mut() = Version::HTTP_2;
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::framing::Framing;

    #[test]
    fn a_request_names_its_authority_in_the_target_only() {
        let authority = Authority::from_static("api.example:8443");
        for (target, expected) in [
            ("/v1/models?a=1", "https://api.example:8443/v1/models?a=1"),
            ("/", "https://api.example:8443/"),
        ] {
            let request = Request::post(target)
                .header("host", "other")
                .header("content-length", "5")
                .header("transfer-encoding", "chunked")
                .header("accept", "*/*")
                .body(Replay::empty(Framing::None))
                .expect("a request");
            let sent = to_http2(&request, Replay::empty(Framing::None), (&Scheme::HTTPS, &authority));
            assert_eq!(sent.uri(), expected);
            assert_eq!(sent.headers().len(), 1);
            assert_eq!((sent.method().as_str(), sent.version()), ("POST", Version::HTTP_2));
        }
    }

    #[test]
    fn the_head_of_a_response_keeps_the_rules_of_http_1() {
        let response = |count: usize, length: usize| {
            let mut response = Response::new(());
            for _ in 0..count {
                let value = http::HeaderValue::from_bytes(&vec![b'x'; length]).expect("a value");
                response.headers_mut().append("x-a", value);
            }
            response
        };
        assert_eq!(check_head(&response(100, 1)), Ok(()));
        assert!(check_head(&response(101, 1)).is_err());
        assert!(check_head(&response(2, 40_000)).is_err());
        let mut twice = response(0, 0);
        for length in [5, 5] {
            twice.headers_mut().append(CONTENT_LENGTH, length.into());
        }
        assert!(check_head(&twice).is_err());
    }
}
