//! Graceful shutdown: from the first stop signal until all connections are closed.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{state::Gateway, wire::ShutdownPhase};

/// The signals that stop the process: SIGTERM and SIGINT.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Registers handlers for both signals, which replace their default action.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Drains `servers`: the gateway becomes not ready, no new connection is accepted, and open streams have `grace` to
/// finish. After that time, or at a second signal, the remaining connections are closed.
pub(super) async fn drain(
    gateway: &Gateway,
    phase: &watch::Sender<ShutdownPhase>,
    servers: &mut JoinSet<()>,
    grace: Duration,
    signals: &mut StopSignals,
) {
    gateway.mark_not_ready();
    phase.send_replace(ShutdownPhase::Draining);
    tracing::info!(
        grace_s = grace.as_secs_f64(),
        "stopping: open requests may finish within the grace time; another signal stops at once"
    );
    tokio::select! {
        () = join_all(servers) => {
            tracing::info!("stopped: all requests have finished");
            return;
        }
        () = tokio::time::sleep(grace) => tracing::warn!("stopping: the grace time is over; closing the remaining connections"),
        () = signals.next() => tracing::warn!("stopping at once: closing the remaining connections"),
    }
    gateway.mark_aborting();
    phase.send_replace(ShutdownPhase::Stopping);
    join_all(servers).await;
}

/// Waits until all servers have ended.
async fn join_all(servers: &mut JoinSet<()>) {
    while servers.join_next().await.is_some() {}
}
