//! Looks up the addresses of host names with the system's resolver.
//!
//! A lookup blocks, so each runs on a thread of its own. The pool of threads that Tokio has for this purpose panics if the
//! system provides no thread, and it would hide by which error a lookup failed: `getaddrinfo(3)` reports a failure to open
//! its files and sockets like a host name that does not exist.

use std::{
    error::Error,
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _},
    os::unix::net::UnixDatagram,
    pin::Pin,
    task::{Context, Poll},
    thread, vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::{Semaphore, oneshot};
use tower_service::Service;

use crate::wire::shortage::Shortage;

/// The maximum number of lookups at the same time. Further ones wait. It is that of one of Tokio's pools.
static LOOKUPS: Semaphore = Semaphore::const_new(512);

/// The system's resolver.
#[derive(Clone)]
pub(super) struct SystemResolver;

/// Why a host name has no address.
#[derive(Debug)]
pub(super) enum LookupError {
    /// This process lacks something for the lookup.
    Shortage(Shortage),
    /// The host name does not resolve.
    Failed(io::Error),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortage(shortage) => shortage.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for LookupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Shortage(shortage) => Some(shortage),
            // The numbers of the system's errors mean something else here than for a connection.
            Self::Failed(_) => None,
        }
    }
}

impl Service<Name> for SystemResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { Ok(addresses_of(name.as_str().to_owned()).await?.into_iter()) })
    }
}

/// The addresses of `host`, with port 0.
pub(super) async fn addresses_of(host: String) -> Result<Vec<SocketAddr>, LookupError> {
    let permit = LOOKUPS.acquire().await.expect("the semaphore is never closed");
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        let _permit = permit;
        // The receiver is gone if the dial has timed out.
        let _ = sender.send(look_up(&host));
    });
    if thread.is_err() {
        return Err(LookupError::Shortage(Shortage::Threads));
    }
    let lost = || Err(LookupError::Failed(io::Error::other("the lookup has no result")));
    receiver.await.unwrap_or_else(|_| lost())
}

fn look_up(host: &str) -> Result<Vec<SocketAddr>, LookupError> {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        // The thread has made no other call, so the number of its last error is one of this lookup.
        Err(error) => Err(match shortage_of(&io::Error::last_os_error()).or_else(missing_now) {
            Some(shortage) => LookupError::Shortage(shortage),
            None => LookupError::Failed(error),
        }),
    }
}

/// The shortage that made a lookup fail whose last error was `last`. A name server that does not answer in time leaves
/// `EAGAIN`, so this error says nothing here.
fn shortage_of(last: &io::Error) -> Option<Shortage> {
    Shortage::of_io(last).filter(|shortage| shortage.ends_by_closing())
}

/// The shortage by which no socket can be opened now.
fn missing_now() -> Option<Shortage> {
    shortage_of(&UnixDatagram::unbound().err()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_and_an_unknown_one_is_no_shortage() {
        let found = addresses_of("localhost".to_owned()).await.expect("an address");
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert!(!found.is_empty());
        let error = addresses_of("a name with spaces".to_owned())
            .await
            .expect_err("no such name");
        assert!(matches!(error, LookupError::Failed(_)), "{error}");
        assert_eq!(Shortage::of_error(&error), None);
    }

    #[test]
    fn a_name_server_without_an_answer_is_no_shortage() {
        for (errno, expected) in [
            (libc::EAGAIN, None),
            (libc::ENOENT, None),
            (libc::EMFILE, Some(Shortage::Descriptors)),
            (libc::ENFILE, Some(Shortage::Descriptors)),
            (libc::ENOMEM, Some(Shortage::Memory)),
        ] {
            assert_eq!(shortage_of(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }
}
