//! The connections of one listener, supervised by the listener's task.
//!
//! A connection's own task has no timers for its limits and is woken only for its bytes. So the supervision adds
//! nothing to the cost of relaying a piece of a stream. Instead, the listener checks all its connections from time to
//! time, with one atomic load for each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use crate::wire::server::{
    activity::ConnectionWait,
    handle::{ConnectionHandle, DrainMode},
    refusal::HeadRefusal,
    service::{Peer, ServeLimits},
    workers::Workers,
};

/// The minimum period of the checks. The period is a quarter of the shorter time limit, but within these bounds.
const MIN_CHECK_PERIOD: Duration = Duration::from_millis(50);
const MAX_CHECK_PERIOD: Duration = Duration::from_secs(1);
/// The time in which a TLS handshake may not be interrupted for a new client.
const HANDSHAKE_TIME: Duration = Duration::from_secs(1);

/// The open connections of one listener.
pub(in crate::wire) struct Connections<R> {
    limits: ServeLimits,
    /// Called with each head that does not arrive in time.
    refuse: R,
    /// The timer of the checks.
    check: Interval,
    /// The tasks of the connections.
    tasks: JoinSet<()>,
    /// The open connections, by the ids of their tasks.
    tracked: HashMap<Id, TrackedConnection>,
}

struct TrackedConnection {
    peer: Peer,
    handle: Arc<ConnectionHandle>,
    /// Aborts the task of the connection.
    task: AbortHandle,
    /// Whether the task has been aborted and has not ended yet.
    is_aborted: bool,
}

impl<R: Fn(Peer, HeadRefusal) -> T, T> Connections<R> {
    /// An empty set of connections. `refuse` is called for each head that does not arrive in time.
    pub fn new(limits: ServeLimits, refuse: R) -> Self {
        let period = limits.client_header.min(limits.keep_alive) / 4;
        let mut check = interval(period.clamp(MIN_CHECK_PERIOD, MAX_CHECK_PERIOD));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            limits,
            refuse,
            check,
            tasks: JoinSet::new(),
            tracked: HashMap::new(),
        }
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Runs the future that `serve` makes, on one of the `workers` if there are any. `serve` receives the connection's
    /// handle and the channel that tells it to drain.
    pub fn spawn<F>(
        &mut self,
        peer: Peer,
        workers: Option<&Workers>,
        serve: impl FnOnce(Arc<ConnectionHandle>, oneshot::Receiver<DrainMode>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let setup_time = if peer.is_secure { HANDSHAKE_TIME } else { Duration::ZERO };
        let (handle, drain) = ConnectionHandle::new(peer.address.map(|address| address.ip()), setup_time);
        let served = serve(handle.clone(), drain);
        let task = match workers.map(Workers::assign) {
            None => self.tasks.spawn(served),
            Some((assignment, worker)) => {
                let counted = async move {
                    let _assignment = assignment;
                    served.await;
                };
                self.tasks.spawn_on(counted, worker)
            }
        };
        let tracked = TrackedConnection {
            peer,
            handle,
            task,
            is_aborted: false,
        };
        self.tracked.insert(tracked.task.id(), tracked);
    }

    /// Waits until a connection has ended or the next check is done. Never completes while there are no connections.
    pub async fn supervise(&mut self) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id() => self.remove(ended),
            _ = self.check.tick() => self.abort_overdue(),
        }
    }

    /// Tells every connection to finish its current requests and to begin no others.
    pub fn drain(&mut self) {
        for tracked in self.tracked.values() {
            tracked.handle.drain(DrainMode::Shutdown);
        }
    }

    /// Aborts every connection, and waits until their tasks have ended.
    pub async fn abort_all(&mut self) {
        self.tasks.shutdown().await;
        self.tracked.clear();
    }

    fn remove(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.tracked.remove(&id);
    }

    fn abort_overdue(&mut self) {
        let now = Instant::now();
        for tracked in self.tracked.values_mut().filter(|tracked| !tracked.is_aborted) {
            let wait = tracked.handle.activity.current_wait(now);
            if is_overdue(wait, self.limits) {
                tracked.is_aborted = true;
                tracked.task.abort();
                if let ConnectionWait::Head(_) = wait {
                    // `refuse` records the request. Its response is dropped, because the connection is already closed.
                    let _ = (self.refuse)(tracked.peer, HeadRefusal::SlowHead);
                }
            }
        }
    }
}

fn is_overdue(wait: ConnectionWait, limits: ServeLimits) -> bool {
    match wait {
        ConnectionWait::None => false,
        ConnectionWait::FirstByte(waited) | ConnectionWait::FirstStream(waited) | ConnectionWait::Head(waited) => {
            waited >= limits.client_header
        }
        ConnectionWait::NextRequest(waited) => waited >= limits.keep_alive,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMITS: ServeLimits = ServeLimits {
        client_header: Duration::from_secs(15),
        keep_alive: Duration::from_secs(75),
        stall: Duration::from_secs(300),
    };
    const PEER: Peer = Peer {
        address: None,
        is_secure: false,
    };

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_refused_and_a_silent_client_is_not() {
        let refused = Cell::new(0);
        let mut connections = Connections::new(LIMITS, |_, refusal| {
            assert_eq!(refusal, HeadRefusal::SlowHead);
            refused.set(refused.get() + 1);
        });
        for has_begun in [true, false] {
            connections.spawn(PEER, None, |handle, _drain| async move {
                if has_begun {
                    handle.activity.record_head_start();
                }
                std::future::pending().await
            });
        }
        let begun = Instant::now();
        while !connections.is_empty() {
            connections.supervise().await;
        }
        assert!(begun.elapsed() >= LIMITS.client_header && begun.elapsed() < LIMITS.client_header * 2);
        assert_eq!(refused.get(), 1);
        assert!(connections.tracked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drained_connection_is_told_once_and_may_finish() {
        let mut connections = Connections::new(LIMITS, |_, _| ());
        connections.spawn(PEER, None, |handle, drain| async move {
            handle.activity.record_request_start(http::Version::HTTP_11);
            assert_eq!(drain.await, Ok(DrainMode::Shutdown));
        });
        connections.drain();
        connections.drain();
        while !connections.is_empty() {
            connections.supervise().await;
        }
    }
}
