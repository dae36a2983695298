//! An HTTP client over hyper, and a client that sends raw bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::TIMEOUT;

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("UTF-8 text"))
    }

    /// Returns the upstream and the route that the gateway's response headers name.
    pub fn routed(&self) -> (&str, &str) {
        (self.header("x-steadfast-upstream"), self.header("x-steadfast-route"))
    }
}

/// Returns a `POST` request with `content-type: application/json`.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    request(Method::POST, path, body)
}

/// Returns a request with `content-type: application/json`.
pub fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a valid request")
}

/// Sends `request` on a new connection and returns the response as soon as its head has arrived.
pub async fn open(address: SocketAddr, mut request: Request<Full<Bytes>>) -> hyper::Response<Incoming> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server accepts connections");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    if !request.headers().contains_key("host") {
        request
            .headers_mut()
            .insert("host", address.to_string().parse().expect("a valid header value"));
    }
    timeout(TIMEOUT, sender.send_request(request))
        .await
        .expect("a response in time")
        .expect("a response")
}

/// Sends `request` on a new connection and reads the whole response.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let (head, body) = open(address, request).await.into_parts();
    let body = timeout(TIMEOUT, body.collect())
        .await
        .expect("a body in time")
        .expect("a whole body")
        .to_bytes();
    Reply {
        status: head.status,
        headers: head.headers,
        body,
    }
}

/// Sends `POST path` with a JSON body.
pub async fn post_json(address: SocketAddr, path: &str, body: &Value) -> Reply {
    send(address, post(path, body.to_string())).await
}

/// Sends `GET path`.
pub async fn get(address: SocketAddr, path: &str) -> Reply {
    send(
        address,
        Request::get(path).body(Full::default()).expect("a valid request"),
    )
    .await
}

/// Sends `bytes` on a new connection and reads until the server closes it.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the server accepts connections");
    stream.write_all(bytes).await.expect("the peer reads");
    let mut answer = Vec::new();
    // A reset after the response ends it as well.
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection in time");
    String::from_utf8_lossy(&answer).into_owned()
}
