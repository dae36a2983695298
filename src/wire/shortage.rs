//! What this machine or this process lacks if a connection cannot be opened for a reason of its own.
//!
//! The upstream is not the cause of such a failure, and every other upstream fails in the same way. HAProxy makes the same
//! distinction: it answers with 503 and does not try another server.

use std::{error::Error, fmt, io, net::SocketAddr};

use socket2::{Domain, Socket, Type};

/// What this machine or this process lacks for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// File descriptors, of the process (`RLIMIT_NOFILE`) or of the machine.
    Descriptors,
    /// Local ports for connections to the upstream's address and port.
    Ports,
    /// Memory of the kernel.
    Memory,
    /// Threads, which look up host names.
    Threads,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this process has no {} left", self.noun())
    }
}

impl Error for Shortage {}

impl Shortage {
    /// The missing things, in the plural.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Descriptors => "file descriptors",
            Self::Ports => "local ports",
            Self::Memory => "memory",
            Self::Threads => "threads",
        }
    }

    /// The shortage that an error of the system names; `None` if it names none. The names of the errors are those of
    /// `socket(2)`, `connect(2)` and `epoll_ctl(2)`.
    ///
    /// `EADDRNOTAVAIL` means [`Shortage::Ports`] here, but has other causes too, see `missing_for`.
    pub fn of_io(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EMFILE | libc::ENFILE => Some(Self::Descriptors),
            libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN => Some(Self::Ports),
            // The system limits the sockets that an event queue watches by a share of its memory (ENOSPC).
            libc::ENOMEM | libc::ENOBUFS | libc::ENOSPC => Some(Self::Memory),
            _ => None,
        }
    }

    /// The shortage that `error` or one of its causes names.
    pub fn of_error(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let named = error.downcast_ref::<Self>().copied();
            if let Some(shortage) = named.or_else(|| error.downcast_ref().and_then(Self::of_io)) {
                return Some(shortage);
            }
            cause = error.source();
        }
        None
    }

    /// Whether closed connections end this shortage. They do not free ports at once, because a port stays in the state
    /// `TIME_WAIT` after its connection was closed from this side (RFC 9293 section 3.6.1).
    pub fn ends_by_closing(self) -> bool {
        match self {
            Self::Descriptors | Self::Memory => true,
            Self::Ports | Self::Threads => false,
        }
    }
}

/// What is missing for a connection to one of `addresses` after `EADDRNOTAVAIL`; `None` if nothing is missing, and an address
/// cannot be reached from this machine.
///
/// Linux has two causes for `EADDRNOTAVAIL`: all local ports are in use for connections to that address and port, or the
/// machine has no address of its own from which the address could be reached. The second is common where IPv6 is disabled.
/// It concerns UDP as well, which has ports of its own. Connecting a UDP socket sends nothing.
pub(in crate::wire) fn missing_for(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Shortage> {
    let is_unavailable = |address: &SocketAddr, kind| {
        let error = connect(address, kind).err();
        error.is_some_and(|error| error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
    };
    let (unreachable, reachable): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .into_iter()
        .partition(|address| is_unavailable(address, Type::DGRAM));
    if unreachable.is_empty() {
        return Some(Shortage::Ports);
    }
    // The error was that of an unreachable address, unless a reachable one still fails with it.
    let is_short = reachable.iter().any(|address| is_unavailable(address, Type::STREAM));
    is_short.then_some(Shortage::Ports)
}

/// Begins to connect a socket of this kind, and closes it.
fn connect(address: &SocketAddr, kind: Type) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(*address), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&(*address).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_name_the_shortage() {
        for (errno, expected) in [
            (libc::EMFILE, Some(Shortage::Descriptors)),
            (libc::ENFILE, Some(Shortage::Descriptors)),
            (libc::EADDRNOTAVAIL, Some(Shortage::Ports)),
            (libc::EADDRINUSE, Some(Shortage::Ports)),
            (libc::EAGAIN, Some(Shortage::Ports)),
            (libc::ENOMEM, Some(Shortage::Memory)),
            (libc::ENOBUFS, Some(Shortage::Memory)),
            (libc::ENOSPC, Some(Shortage::Memory)),
            (libc::ECONNREFUSED, None),
            (libc::ECONNRESET, None),
            (libc::EHOSTUNREACH, None),
            (libc::ENETUNREACH, None),
            (libc::ENETDOWN, None),
            (libc::ETIMEDOUT, None),
            (libc::EACCES, None),
            (libc::EPERM, None),
            (libc::EINVAL, None),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(Shortage::of_io(&error), expected, "{error}");
            assert_eq!(Shortage::of_error(&error), expected, "{error}");
        }
        assert_eq!(Shortage::of_io(&io::Error::other("no number")), None);
    }

    #[test]
    fn a_reachable_address_lacks_ports() {
        let reachable = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(missing_for([reachable]), Some(Shortage::Ports));
    }
}
