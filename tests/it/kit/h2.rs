//! An HTTP/2 client over hyper.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{TIMEOUT, gateway::Gateway};

/// A complete request body.
pub const PLAIN: &str = r#"{"model":"gpt-5.2","input":"hi","prompt_cache_key":"k"}"#;

/// The sending half of an HTTP/2 connection.
pub type Sender<B = Full<Bytes>> = SendRequest<B>;

/// Starts HTTP/2 on an established connection.
pub async fn start_http2<B, I>(io: I) -> Sender<B>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    sender
}

/// Opens an HTTP/2 connection without TLS, by prior knowledge (RFC 9113 section 3.3).
pub async fn connect_h2c(gateway: &Gateway) -> Sender {
    start_http2(
        TcpStream::connect(gateway.address)
            .await
            .expect("the server accepts connections"),
    )
    .await
}

/// Returns a `POST /v1/responses` request.
pub fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    request(Method::POST, "/v1/responses", body)
}

/// Returns a request with `content-type: application/json`.
pub fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a valid request")
}

/// Reads a response to its end and returns its status and body.
pub async fn read_whole(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = timeout(TIMEOUT, response.into_body().collect())
        .await
        .expect("data within the time limit")
        .expect("a whole body");
    (status, String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
