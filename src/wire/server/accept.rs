//! Accepts connections, one after the other, while the number of connections is below its limit.

use std::{io, time::Duration};

use crate::wire::{
    client::reclaim,
    server::{
        capacity::{Capacity, OpenConnection},
        listen::{AcceptedSocket, Listener},
        service::Peer,
    },
    shortage::Shortage,
    timers::log_throttle::LogThrottle,
};

/// How long accepting pauses when the system has no file descriptor or memory left.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The pause after idle connections to upstreams have been closed. Some are closed only after a moment.
const FREED_PAUSE: Duration = Duration::from_millis(5);
/// The minimum time between two log lines about waiting clients or about failures to accept connections.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// A listener that accepts a connection only when there is capacity for it.
pub(in crate::wire) struct Acceptor<'a> {
    listener: &'a Listener,
    capacity: &'a Capacity,
    /// Limits the log lines that say that clients wait.
    full_log: LogThrottle,
    /// Limits the log lines about failures to accept.
    error_log: LogThrottle,
}

impl<'a> Acceptor<'a> {
    /// An acceptor that accepts as many connections from `listener` as `capacity` allows.
    pub fn new(listener: &'a Listener, capacity: &'a Capacity) -> Self {
        Self {
            listener,
            capacity,
            full_log: LogThrottle::default(),
            error_log: LogThrottle::default(),
        }
    }

    /// Waits for the next connection. Dropping the future loses no connection.
    pub async fn next(&mut self) -> (AcceptedSocket, Peer, OpenConnection) {
        loop {
            let permit = match self.capacity.try_acquire() {
                Some(permit) => permit,
                None => {
                    if self.full_log.try_pass(LOG_PERIOD) {
                        let limit = self.capacity.limit();
                        tracing::warn!(
                            limit,
                            "the maximum number of client connections is open; new clients wait"
                        );
                    }
                    self.capacity.acquire().await
                }
            };
            match self.listener.accept().await {
                Ok((socket, address)) => {
                    let is_secure = self.listener.is_secure();
                    return (socket, Peer { address, is_secure }, self.capacity.open(permit));
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    if self.error_log.try_pass(LOG_PERIOD) {
                        tracing::warn!(%error, "cannot accept connections; trying again");
                    }
                    let lacks = Shortage::of_io(&error).is_some_and(Shortage::ends_by_closing);
                    let has_freed = lacks && reclaim::close_oldest() > 0;
                    tokio::time::sleep(if has_freed { FREED_PAUSE } else { RETRY_PAUSE }).await;
                }
            }
        }
    }
}

/// Whether the error concerns one connection, which its client closed before it was accepted, and not the listener.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_closed_does_not_pause_the_listener() {
        assert!(is_of_connection(&io::ErrorKind::ConnectionAborted.into()));
        assert!(!is_of_connection(&io::Error::from_raw_os_error(libc::EMFILE)));
    }
}
