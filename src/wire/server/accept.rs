//! Accepting: one client after the other, while there is room.

use std::{io, time::Duration};

use crate::wire::{
    server::capacity::{Capacity, Occupied},
    server::listen::{Accepted, Listener},
    server::service::Peer,
    timers::log_throttle::Throttle,
};

/// How long accepting pauses when the system is out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log says that clients wait, or why.
const REMIND: Duration = Duration::from_secs(10);

/// A listener that accepts no more than there is room for.
pub(in crate::wire) struct Acceptor<'a> {
    listener: &'a Listener,
    capacity: &'a Capacity,
    full: Throttle,
    failed: Throttle,
}

impl<'a> Acceptor<'a> {
    pub fn new(listener: &'a Listener, capacity: &'a Capacity) -> Self {
        Self {
            listener,
            capacity,
            full: Throttle::default(),
            failed: Throttle::default(),
        }
    }

    /// Waits for the next client. Dropping it half-way loses none.
    pub async fn next(&mut self) -> (Accepted, Peer, Occupied) {
        loop {
            let room = match self.capacity.try_room() {
                Some(room) => room,
                None => {
                    if self.full.permits(REMIND) {
                        let limit = self.capacity.limit();
                        tracing::warn!(limit, "as many clients as there is room for; new ones wait");
                    }
                    self.capacity.room().await
                }
            };
            match self.listener.accept().await {
                Ok((accepted, address)) => {
                    let is_secure = self.listener.is_secure();
                    return (accepted, Peer { address, is_secure }, self.capacity.occupy(room));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if self.failed.permits(REMIND) {
                        tracing::warn!(%error, "cannot accept connections; trying again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Errors of a connection that its peer gave up before it was accepted, as opposed to those of the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
