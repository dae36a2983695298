//! A client's TLS connection. Its first read completes the handshake.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use crate::wire::tls::{handshake_log::HandshakeFailure, server::TlsIdentity};

/// A client's connection over TLS.
///
/// The first read drives the handshake. So the handshake runs in the connection's own task and never in the task that
/// accepts connections, and it counts as part of the first request head: one time limit covers both.
pub(in crate::wire) struct ServerTlsStream {
    state: HandshakeState,
    /// The client's address, for the log.
    peer: SocketAddr,
    /// The identity of the listener, which logs failures.
    identity: Arc<TlsIdentity>,
}

enum HandshakeState {
    InProgress(Accept<TcpStream>),
    Complete(TlsStream<TcpStream>),
    Failed,
}

impl ServerTlsStream {
    /// A connection before its handshake.
    pub fn new(tcp: TcpStream, peer: SocketAddr, identity: Arc<TlsIdentity>) -> Self {
        let accept = TlsAcceptor::from(identity.load()).accept(tcp);
        Self {
            state: HandshakeState::InProgress(accept),
            peer,
            identity,
        }
    }

    /// The TCP connection under TLS; `None` after a failed handshake.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.state {
            HandshakeState::InProgress(accept) => accept.get_ref(),
            HandshakeState::Complete(stream) => Some(stream.get_ref().0),
            HandshakeState::Failed => None,
        }
    }

    /// Completes the handshake and returns the stream.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let HandshakeState::InProgress(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(cx)) {
                Ok(stream) => self.state = HandshakeState::Complete(stream),
                Err(error) => {
                    self.identity
                        .failures()
                        .record(self.peer, HandshakeFailure::from(&error), Some(&error));
                    self.state = HandshakeState::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.state {
            HandshakeState::Complete(stream) => Ok(Pin::new(stream)),
            HandshakeState::InProgress(_) | HandshakeState::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl Drop for ServerTlsStream {
    fn drop(&mut self) {
        if let HandshakeState::InProgress(_) = self.state {
            self.identity
                .failures()
                .record(self.peer, HandshakeFailure::CLOSED, None);
        }
    }
}

impl AsyncRead for ServerTlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_handshake(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerTlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_handshake(cx))?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_handshake(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            HandshakeState::Complete(stream) => Pin::new(stream).poll_flush(cx),
            // There is no data to flush before the end of the handshake, which flushes its own messages.
            HandshakeState::InProgress(_) | HandshakeState::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            HandshakeState::Complete(stream) => Pin::new(stream).poll_shutdown(cx),
            HandshakeState::InProgress(accept) => match accept.get_mut() {
                Some(tcp) => Pin::new(tcp).poll_shutdown(cx),
                None => Poll::Ready(Ok(())),
            },
            HandshakeState::Failed => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::wire::tls::server::server_config;

    async fn accepted() -> (ServerTlsStream, TcpStream, ClientConfig) {
        let pair = generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let config = server_config(certificate.as_bytes(), key.as_bytes(), None).expect("they fit");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (stream, peer) = accepted.expect("a connection");
        let server = ServerTlsStream::new(stream, peer, TlsIdentity::new(config));
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, client.expect("it listens"), trusting)
    }

    #[tokio::test]
    async fn the_first_read_completes_the_handshake() {
        let (mut server, client, trusting) = accepted().await;
        let client = tokio::spawn(async move {
            let name = ServerName::try_from("a.example").expect("a name");
            let mut client = TlsConnector::from(Arc::new(trusting)).connect(name, client).await?;
            client.write_all(b"hello").await?;
            client.flush().await?;
            std::io::Result::Ok(client)
        });
        let mut read = [0; 5];
        server.read_exact(&mut read).await.expect("data");
        assert_eq!(&read, b"hello");
        assert!(server.tcp().is_some());
        client.await.expect("no panic").expect("a handshake");
    }

    #[tokio::test]
    async fn a_failed_handshake_fails_every_later_read() {
        let (mut server, mut client, _) = accepted().await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        for _ in 0..2 {
            assert!(server.read(&mut [0; 8]).await.is_err());
        }
        assert!(server.tcp().is_none());
    }
}
