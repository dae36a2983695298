//! Accepts connections, one after the other. Idle connections are closed for new clients at the limit on their number, and
//! when the process has no file descriptors left.

use std::{io, net::SocketAddr, time::Duration};

use tokio::time::{Instant, timeout};

use crate::wire::{
    client::reclaim,
    server::{
        capacity::{Capacity, ConnectionPermit},
        listen::{AcceptedSocket, Listener},
        service::Peer,
    },
    shortage::Shortage,
    timers::log_throttle::LogThrottle,
};

/// How long accepting pauses when the system has no file descriptor or memory left.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The pause after idle connections have been closed. Some are closed only after a moment.
const FREED_PAUSE: Duration = Duration::from_millis(5);
/// The minimum time between two log lines about the limit, or about failures to accept connections.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// A listener that hands out a connection only when there is capacity for it.
pub(in crate::wire) struct Acceptor<'a> {
    listener: &'a Listener,
    capacity: &'a Capacity,
    /// A client's connection that waits for capacity. Further clients wait in the system's queue.
    waiting: Option<(AcceptedSocket, Option<SocketAddr>)>,
    /// The number of connections that were shed for clients of this listener since the last log line about them.
    shed: usize,
    /// Limits the log lines that say that connections are shed, and those that say that clients wait.
    shed_log: LogThrottle,
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
            waiting: None,
            shed: 0,
            shed_log: LogThrottle::default(),
            full_log: LogThrottle::default(),
            error_log: LogThrottle::default(),
        }
    }

    /// Waits for the next connection. Dropping the future loses no connection.
    pub async fn next(&mut self) -> (AcceptedSocket, Peer, ConnectionPermit) {
        loop {
            if self.waiting.is_some() {
                let permit = self.permit().await;
                if let Some((socket, address)) = self.waiting.take() {
                    let is_secure = self.listener.is_secure();
                    return (socket, Peer { address, is_secure }, permit);
                }
            }
            match self.listener.accept().await {
                Ok(accepted) => self.waiting = Some(accepted),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => self.recover(&error).await,
            }
        }
    }

    /// Frees descriptors after a failure to accept a connection, and waits until it is time to try again.
    async fn recover(&mut self, error: &io::Error) {
        let lacks = Shortage::of_io(error).is_some_and(Shortage::ends_by_closing);
        // There is no pause then, in which another listener or a dial could take the descriptor.
        if lacks && self.capacity.release_reserved() {
            return;
        }
        if self.error_log.try_pass(LOG_PERIOD) {
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
        // A client loses less by the close of an idle connection to an upstream than by that of its own connection.
        let has_freed = lacks && (reclaim::close_oldest() > 0 || self.capacity.shed_idle(Instant::now()) > 0);
        tokio::time::sleep(if has_freed { FREED_PAUSE } else { RETRY_PAUSE }).await;
    }

    /// Waits for a permit for the client that waits. At the limit, idle connections are shed for it.
    async fn permit(&mut self) -> ConnectionPermit {
        loop {
            if let Some(permit) = self.capacity.try_acquire() {
                return permit;
            }
            let shed = self.capacity.shed_idle(Instant::now());
            self.log_full(shed);
            if shed == 0 {
                // A connection may become idle at any time, so the search is repeated.
                let permit = timeout(self.capacity.search_period(), self.capacity.acquire());
                if let Ok(permit) = permit.await {
                    return permit;
                }
            }
        }
    }

    /// Says that the limit is reached, and what happens to new clients.
    fn log_full(&mut self, shed: usize) {
        let (limit, listener) = (self.capacity.limit(), self.listener.address());
        self.shed += shed;
        if shed > 0 && self.shed_log.try_pass(LOG_PERIOD) {
            let closed = std::mem::take(&mut self.shed);
            tracing::warn!(
                limit,
                closed,
                %listener,
                "the maximum number of client connections is open; idle ones are closed for new clients"
            );
        }
        if shed == 0 && self.full_log.try_pass(LOG_PERIOD) {
            tracing::warn!(
                limit,
                %listener,
                "the maximum number of client connections is open and none is idle; new clients wait"
            );
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
