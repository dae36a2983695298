//! Listening sockets, over TCP or on a Unix path.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::wire::{
    server::unix_socket_file::UnixSocketFile,
    tls::{server::TlsIdentity, server_stream::ServerTlsStream},
    transport::Transport,
};

/// The maximum number of unsent bytes of a response that wait in the kernel for a client.
const MAX_UNSENT: u32 = 128 << 10;

/// The time between two keepalive probes of a client, and the number of probes without an answer after which the
/// connection is dead.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// The address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP address. With port 0, the system chooses a free port.
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

/// The error for an address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: Address,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)?;
        if self.source.kind() == io::ErrorKind::AddrInUse {
            f.write_str("; stop the process that listens there, or choose another address (port 0: any free port)")?;
        }
        Ok(())
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A bound socket, with a TLS identity if clients have to use TLS.
#[derive(Debug)]
pub struct Listener {
    socket: ListenerSocket,
    address: Address,
    tls: Option<Arc<TlsIdentity>>,
}

#[derive(Debug)]
enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixSocketFile),
}

impl Listener {
    /// Binds `address`. A Unix socket is replaced if no process listens on it any more.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        let bound = match address {
            Address::Tcp(tcp) => TcpListener::bind(tcp)
                .await
                .and_then(|listener| Ok((Address::Tcp(listener.local_addr()?), ListenerSocket::Tcp(listener)))),
            Address::Unix(path) => UnixSocketFile::bind(path)
                .await
                .map(|file| (address.clone(), ListenerSocket::Unix(file))),
        };
        let (address, socket) = bound.map_err(|source| BindError {
            address: address.clone(),
            source,
        })?;
        Ok(Self {
            socket,
            address,
            tls: None,
        })
    }

    /// The same listener with TLS. A listener on a Unix socket stays without TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<TlsIdentity>) -> Self {
        if let ListenerSocket::Tcp(_) = self.socket {
            self.tls = Some(tls);
        }
        self
    }

    /// The same listener with TCP keepalive: a connection on which no segment has arrived for `idle` (at least a second)
    /// is probed, and is closed if its client has vanished. A listener on a Unix socket stays as it is.
    ///
    /// # Errors
    /// If the system refuses the option.
    pub fn with_keepalive(self, idle: Duration) -> io::Result<Self> {
        if let ListenerSocket::Tcp(listener) = &self.socket {
            let keepalive = TcpKeepalive::new()
                .with_time(idle.max(Duration::from_secs(1)))
                .with_interval(PROBE_INTERVAL)
                .with_retries(PROBES);
            // Accepted sockets inherit the option from their listener (tcp(7), and likewise BSD), so that a connection
            // costs no further system call.
            SockRef::from(listener).set_tcp_keepalive(&keepalive)?;
        }
        Ok(self)
    }

    /// Whether clients have to use TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// The address that was bound, with the port that the system has chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a connection. Returns its socket, and the client's address over TCP.
    pub(in crate::wire) async fn accept(&self) -> io::Result<(AcceptedSocket, Option<SocketAddr>)> {
        match &self.socket {
            ListenerSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Events are small, and each must be sent as soon as it arrives.
                stream.set_nodelay(true)?;
                // With this option, the socket becomes writable as soon as the client has read a little, and not only
                // when a third of a large buffer is free. So a slow client is not mistaken for a stalled one. The
                // option also limits the memory that the kernel holds for a client.
                SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT)?;
                let tls = self.tls.clone();
                let stream = stream.into_std()?;
                Ok((AcceptedSocket::Tcp { stream, peer, tls }, Some(peer)))
            }
            ListenerSocket::Unix(file) => {
                let (stream, _) = file.listener().accept().await?;
                Ok((AcceptedSocket::Unix(stream.into_std()?), None))
            }
        }
    }
}

/// The socket of a client's connection that is not registered with a runtime yet.
pub(in crate::wire) enum AcceptedSocket {
    Tcp {
        stream: std::net::TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<TlsIdentity>>,
    },
    Unix(std::os::unix::net::UnixStream),
}

impl AcceptedSocket {
    /// Registers the socket with the runtime of the calling task. The first read performs the TLS handshake.
    pub fn register(self) -> io::Result<Transport> {
        Ok(match self {
            Self::Tcp { stream, tls: None, .. } => Transport::Tcp(TcpStream::from_std(stream)?),
            Self::Tcp {
                stream,
                peer,
                tls: Some(identity),
            } => {
                let stream = ServerTlsStream::new(TcpStream::from_std(stream)?, peer, identity);
                Transport::ServerTls(Box::new(stream))
            }
            Self::Unix(stream) => Transport::Unix(UnixStream::from_std(stream)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chosen_port_is_part_of_the_address() {
        let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()))
            .await
            .expect("a free port");
        assert!(matches!(listener.address(), Address::Tcp(address) if address.port() > 0));
        assert!(!listener.is_secure());
    }

    /// Accepts a connection on a listener with these keepalive settings.
    async fn accepted(keepalive: Option<Duration>) -> AcceptedSocket {
        let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()))
            .await
            .expect("a free port");
        let listener = match keepalive {
            Some(idle) => listener.with_keepalive(idle).expect("the system takes the option"),
            None => listener,
        };
        let Address::Tcp(address) = *listener.address() else {
            panic!("a TCP listener")
        };
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        client.expect("connected");
        accepted.expect("accepted").0
    }

    #[tokio::test]
    async fn accepted_connections_are_probed_if_keepalive_is_set() {
        let AcceptedSocket::Tcp { stream, .. } = accepted(Some(Duration::from_secs(60))).await else {
            panic!("a TCP socket")
        };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("known"));
        assert_eq!(socket.tcp_keepalive_time().expect("known"), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().expect("known"), PROBE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().expect("known"), PROBES);
        let AcceptedSocket::Tcp { stream, .. } = accepted(None).await else {
            panic!("a TCP socket")
        };
        assert!(!SockRef::from(&stream).keepalive().expect("known"));
    }
}
