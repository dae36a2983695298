//! A forward proxy that the test controls: CONNECT over TCP or TLS, and SOCKS 5.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::tls::TestIdentity;

/// What a proxy does with a request for a tunnel.
#[derive(Clone)]
pub enum Tunnel {
    /// It opens a tunnel to this address, whatever the name of the upstream is.
    To(SocketAddr),
    /// It answers with these bytes, and closes the connection.
    Refused(&'static str),
    /// It never answers.
    Silent,
}

/// A running proxy. It runs until the test ends.
pub struct TestProxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    tunnel: Arc<Mutex<Tunnel>>,
}

impl TestProxy {
    /// Returns the requests for tunnels: the heads of CONNECT requests in lower case, or for SOCKS "user:password
    /// host:port".
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// Changes what the proxy does with later requests.
    pub fn set(&self, tunnel: Tunnel) {
        *self.tunnel.lock() = tunnel;
    }
}

/// How clients talk to a proxy.
#[derive(Clone)]
enum Language {
    Connect(Option<TlsAcceptor>),
    Socks,
}

/// Starts a proxy for CONNECT.
pub async fn connect_proxy(tunnel: Tunnel) -> TestProxy {
    start(Language::Connect(None), tunnel).await
}

/// Starts a proxy for CONNECT over TLS.
pub async fn secure_proxy(identity: &TestIdentity, tunnel: Tunnel) -> TestProxy {
    let acceptor = TlsAcceptor::from(identity.config.clone());
    start(Language::Connect(Some(acceptor)), tunnel).await
}

/// Starts a SOCKS 5 proxy that demands a user and a password.
pub async fn socks_proxy(tunnel: Tunnel) -> TestProxy {
    start(Language::Socks, tunnel).await
}

async fn start(language: Language, tunnel: Tunnel) -> TestProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let tunnel = Arc::new(Mutex::new(tunnel));
    let proxy = TestProxy {
        address,
        asked: asked.clone(),
        tunnel: tunnel.clone(),
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (language, asked, tunnel) = (language.clone(), asked.clone(), tunnel.clone());
            tokio::spawn(async move {
                match language {
                    Language::Connect(None) => connect(stream, &asked, &tunnel).await,
                    Language::Connect(Some(acceptor)) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            connect(stream, &asked, &tunnel).await;
                        }
                    }
                    Language::Socks => socks(stream, &asked, &tunnel).await,
                }
            });
        }
    });
    proxy
}

async fn connect<S>(mut client: S, asked: &Mutex<Vec<String>>, tunnel: &Mutex<Tunnel>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    asked.lock().push(String::from_utf8_lossy(&head).to_lowercase());
    let tunnel = tunnel.lock().clone();
    match tunnel {
        Tunnel::To(address) => {
            let upstream = TcpStream::connect(address).await.expect("the upstream listens");
            let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
            relay(client, upstream).await;
        }
        Tunnel::Refused(answer) => drop(client.write_all(answer.as_bytes()).await),
        Tunnel::Silent => std::future::pending().await,
    }
}

async fn socks(mut client: TcpStream, asked: &Mutex<Vec<String>>, tunnel: &Mutex<Tunnel>) {
    // The client offers one method: user and password (2). RFC 1928 section 3 and RFC 1929 section 2.
    assert_eq!(take(&mut client, 3).await, [5, 1, 2]);
    client.write_all(&[5, 2]).await.expect("written");
    take(&mut client, 1).await;
    let user = text(&mut client).await;
    let password = text(&mut client).await;
    client.write_all(&[1, 0]).await.expect("written");
    // CONNECT (1) to a name (3).
    assert_eq!(take(&mut client, 4).await, [5, 1, 0, 3]);
    let host = text(&mut client).await;
    let port = client.read_u16().await.expect("a port");
    asked.lock().push(format!("{user}:{password} {host}:{port}"));
    let tunnel = tunnel.lock().clone();
    let status = match tunnel {
        Tunnel::To(_) => 0,
        _ => 2,
    };
    let answer = [5, status, 0, 1, 127, 0, 0, 1, 0, 80];
    client.write_all(&answer).await.expect("written");
    if let Tunnel::To(address) = tunnel {
        let upstream = TcpStream::connect(address).await.expect("the upstream listens");
        relay(client, upstream).await;
    }
}

async fn relay<S>(mut client: S, mut upstream: TcpStream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _ = copy_bidirectional(&mut client, &mut upstream).await;
}

async fn take(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).await.expect("bytes");
    bytes
}

/// Reads a text with its length before it.
async fn text(client: &mut TcpStream) -> String {
    let length = client.read_u8().await.expect("a length");
    let bytes = take(client, length.into()).await;
    String::from_utf8(bytes).expect("text")
}
