//! From the first signal to the last byte.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{state::Gateway, wire::ShutdownPhase};

/// SIGTERM and SIGINT, whichever comes.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes over both signals.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Finishes what runs in `servers`: not ready, nothing new accepted, streams finish within `grace`. A second signal cuts
/// what is left at once.
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
        "stopping: finishing what runs; another signal stops at once"
    );
    tokio::select! {
        () = finish(servers) => {
            tracing::info!("stopped: everything finished");
            return;
        }
        () = tokio::time::sleep(grace) => tracing::warn!("stopping: the grace time is over; cutting what still runs"),
        () = signals.next() => tracing::warn!("stopping at once"),
    }
    gateway.mark_aborting();
    phase.send_replace(ShutdownPhase::Stopping);
    finish(servers).await;
}

async fn finish(servers: &mut JoinSet<()>) {
    while servers.join_next().await.is_some() {}
}
