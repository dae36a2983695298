//! Tunnels to upstreams through a forward proxy: CONNECT (RFC 9110 section 9.3.6) over HTTP/1.1, to the proxy over TCP or
//! TLS, and SOCKS 5 (RFC 1928).
//!
//! hyper sends the CONNECT request and reads the answer, so that a refusal can be reported with its status. hyper-util
//! makes the SOCKS handshake.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, pending, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{HOST, PROXY_AUTHORIZATION},
    uri::Authority,
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::{client::legacy::connect::proxy::SocksV5, rt::TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::{secret::Secret, wire::error_cause::root_cause};

/// A forward proxy, through which the connections to an upstream are opened.
#[derive(Clone)]
pub struct ProxyTarget {
    /// The host and the port of the proxy.
    pub address: Authority,
    /// How the proxy is asked for a tunnel.
    pub protocol: ProxyProtocol,
}

/// How a proxy is asked for a tunnel.
#[derive(Clone)]
pub enum ProxyProtocol {
    /// A CONNECT request.
    Http {
        /// The TLS configuration of a proxy that is called over TLS; `None` for plain TCP.
        tls: Option<Arc<ClientConfig>>,
        /// The value of `Proxy-Authorization`, marked as sensitive.
        authorization: Option<HeaderValue>,
    },
    /// SOCKS 5. The proxy resolves the name of the upstream.
    Socks5 {
        /// User and password, each at most 255 bytes.
        credentials: Option<(String, Secret)>,
    },
}

/// Shows no credentials.
impl fmt::Debug for ProxyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyTarget")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A byte stream to the upstream, through the proxy.
pub(in crate::wire) enum ProxyTunnel {
    /// The proxy is connected over TCP.
    Tcp(TcpStream),
    /// The proxy is connected over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ProxyTarget {
    /// Asks the proxy, to which `stream` is connected, for a tunnel to `upstream` (host and port).
    ///
    /// # Errors
    /// A text that says why there is no tunnel. It is a predicate with the proxy as its subject.
    pub(in crate::wire) async fn open_tunnel(
        &self,
        stream: TcpStream,
        upstream: &Authority,
    ) -> Result<ProxyTunnel, String> {
        match &self.protocol {
            ProxyProtocol::Http {
                tls: None,
                authorization,
            } => {
                let stream = connect(stream, upstream, authorization.as_ref()).await?;
                Ok(ProxyTunnel::Tcp(stream))
            }
            ProxyProtocol::Http {
                tls: Some(config),
                authorization,
            } => {
                let name = ServerName::try_from(host_without_brackets(&self.address).to_owned())
                    .map_err(|error| format!("has a name that cannot be compared with a certificate: {error}"))?;
                let stream = TlsConnector::from(config.clone())
                    .connect(name, stream)
                    .await
                    .map_err(|error| format!("cannot be reached over TLS: {error}"))?;
                let stream = connect(stream, upstream, authorization.as_ref()).await?;
                Ok(ProxyTunnel::Tls(Box::new(stream)))
            }
            ProxyProtocol::Socks5 { credentials } => {
                let stream = self.socks(stream, upstream, credentials.as_ref()).await?;
                Ok(ProxyTunnel::Tcp(stream))
            }
        }
    }

    async fn socks(
        &self,
        stream: TcpStream,
        upstream: &Authority,
        credentials: Option<&(String, Secret)>,
    ) -> Result<TcpStream, String> {
        // The stream is open already, so the address of the proxy is not used.
        let mut handshake = SocksV5::new(Uri::default(), Opened(Some(TokioIo::new(stream))));
        if let Some((user, password)) = credentials {
            handshake = handshake.with_auth(user.clone(), password.expose().to_owned());
        }
        let opened = handshake.call(origin_uri(upstream)).await;
        opened
            .map(TokioIo::into_inner)
            .map_err(|error| format!("refused: {error}"))
    }
}

/// A connector that returns a stream that is open already.
struct Opened(Option<TokioIo<TcpStream>>);

impl Service<Uri> for Opened {
    type Response = TokioIo<TcpStream>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _proxy: Uri) -> Self::Future {
        ready(Ok(self.0.take().expect("one handshake is made on a stream")))
    }
}

/// Sends a CONNECT request on `stream`, and returns the stream once the proxy has connected it with `upstream`.
async fn connect<S>(stream: S, upstream: &Authority, authorization: Option<&HeaderValue>) -> Result<S, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("broke the connection: {}", root_cause(&error));
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let exchange = async move {
        let response = sender
            .send_request(connect_request(upstream, authorization))
            .await
            .map_err(failed)?;
        if !response.status().is_success() {
            return Err(refusal(response.status()));
        }
        hyper::upgrade::on(response).await.map_err(failed)
    };
    let driver = async {
        // The exchange receives the error too.
        let _ = connection.with_upgrades().await;
        pending::<Infallible>().await
    };
    let tunnel = tokio::select! {
        biased;
        tunnel = exchange => tunnel?,
        never = driver => match never {},
    };
    let parts = tunnel
        .downcast::<TokioIo<S>>()
        .expect("the tunnel is the stream on which the request was sent");
    if !parts.read_buf.is_empty() {
        return Err("sent bytes before the upstream could answer".to_owned());
    }
    Ok(parts.io.into_inner())
}

fn connect_request(upstream: &Authority, authorization: Option<&HeaderValue>) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from(upstream.clone());
    let host = HeaderValue::from_str(upstream.as_str()).expect("an authority is visible ASCII");
    request.headers_mut().insert(HOST, host);
    if let Some(authorization) = authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    request
}

fn refusal(status: StatusCode) -> String {
    let remedy = if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        "; check its user and password"
    } else {
        ""
    };
    format!("answered CONNECT with {status}{remedy}")
}

/// The URI of an origin, for connectors. The scheme says nothing here.
fn origin_uri(authority: &Authority) -> Uri {
    Uri::builder()
        .scheme("http")
        .authority(authority.clone())
        .path_and_query("/")
        .build()
        .expect("a scheme, an authority and a path make a URI")
}

impl ProxyTarget {
    /// The URI to which a TCP connector connects.
    pub(in crate::wire) fn uri(&self) -> Uri {
        origin_uri(&self.address)
    }
}

/// The host of an authority, without the brackets of an IPv6 address.
pub(in crate::wire) fn host_without_brackets(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Lets a proxy answer a CONNECT request with `answer`. Returns the request and what the client got.
    async fn tunnel(answer: &str, authorization: Option<&HeaderValue>) -> (String, Result<DuplexStream, String>) {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let upstream = Authority::from_static("api.example:443");
        let proxy = async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.expect("a request"));
            }
            far.write_all(answer.as_bytes()).await.expect("written");
            // A proxy without an answer closes the connection.
            let open = (!answer.is_empty()).then_some(far);
            (String::from_utf8(head).expect("text"), open)
        };
        let ((head, far), opened) = tokio::join!(proxy, connect(near, &upstream, authorization));
        drop(far);
        (head, opened)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_the_credentials() {
        let authorization = HeaderValue::from_static("Basic dTpw");
        for status in ["200 Connection established", "200 OK"] {
            let answer = format!("HTTP/1.1 {status}\r\nvia: a\r\n\r\n");
            let (head, opened) = tunnel(&answer, Some(&authorization)).await;
            assert!(opened.is_ok(), "{status}: {opened:?}");
            assert_eq!(
                head,
                "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
            );
        }
        assert!(
            !tunnel("HTTP/1.1 200 OK\r\n\r\n", None)
                .await
                .0
                .contains("Authorization")
        );
    }

    #[tokio::test]
    async fn a_refusal_is_reported_with_its_status() {
        for (answer, expected) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 2\r\n\r\nno",
                "answered CONNECT with 407 Proxy Authentication Required; check its user and password",
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\n\r\n",
                "answered CONNECT with 502 Bad Gateway",
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\n\r\n",
                "answered CONNECT with 302 Found",
            ),
            ("no HTTP\r\n\r\n", "broke the connection: "),
            ("", "broke the connection: "),
            (
                "HTTP/1.1 200 OK\r\n\r\nearly",
                "sent bytes before the upstream could answer",
            ),
        ] {
            let why = tunnel(answer, None).await.1.expect_err(answer);
            assert!(why.starts_with(expected), "{answer:?}: {why}");
        }
    }
}
