//! Listening sockets.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::wire::{
    tls::server::{Identity, ServerTls},
    transport::Transport,
};

/// Bytes of an answer that may wait in the kernel for a client.
const UNSENT: u32 = 128 << 10;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix domain socket at this path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: Address,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)?;
        if self.source.kind() == io::ErrorKind::AddrInUse {
            f.write_str("; stop what listens there, or choose another address (port 0: any free one)")?;
        }
        Ok(())
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: Address,
    tls: Option<Arc<Identity>>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds `address`. A Unix socket that nobody listens on any more is replaced.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        let bound = match address {
            Address::Tcp(tcp) => TcpListener::bind(tcp)
                .await
                .and_then(|listener| Ok((Address::Tcp(listener.local_addr()?), Kind::Tcp(listener)))),
            Address::Unix(path) => bind_unix(path)
                .await
                .map(|listener| (address.clone(), Kind::Unix(listener))),
        };
        let (address, kind) = bound.map_err(|source| BindError {
            address: address.clone(),
            source,
        })?;
        Ok(Self {
            kind,
            address,
            tls: None,
        })
    }

    /// The same with TLS for who comes over TCP; a Unix socket stays plain.
    #[must_use]
    pub fn secured(mut self, tls: Arc<Identity>) -> Self {
        if let Kind::Tcp(_) = self.kind {
            self.tls = Some(tls);
        }
        self
    }

    /// Whether clients have to speak TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// The address that was bound, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(in crate::wire) async fn accept(&self) -> io::Result<(Accepted, Option<SocketAddr>)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Events are small and must leave as they arrive.
                stream.set_nodelay(true)?;
                // Writable means that the client has read, not that a third of a large buffer is free: a slow reader
                // is no stalled one. It also bounds what the kernel holds for one.
                SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
                let tls = self.tls.as_ref().map(|identity| identity.load());
                let stream = stream.into_std()?;
                Ok((Accepted::Tcp { stream, peer, tls }, Some(peer)))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream.into_std()?), None))
            }
        }
    }
}

/// A client's connection before it belongs to a runtime.
pub(in crate::wire) enum Accepted {
    Tcp {
        stream: std::net::TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    },
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// The connection, driven by the runtime of the calling task.
    pub fn open(self) -> io::Result<Transport> {
        Ok(match self {
            Self::Tcp { stream, tls: None, .. } => Transport::Tcp(TcpStream::from_std(stream)?),
            Self::Tcp {
                stream,
                peer,
                tls: Some(tls),
            } => {
                let accept = TlsAcceptor::from(tls).accept(TcpStream::from_std(stream)?);
                Transport::ServerTls(Box::new(ServerTls::new(accept, peer)))
            }
            Self::Unix(stream) => Transport::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
            if !is_socket || UnixStream::connect(path).await.is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}
