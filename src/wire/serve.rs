//! Serving a listener: accept, count, drain on request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{
    connection::{self, Peer, ServeLimits},
    connections::Connections,
    listen::Listener,
};

/// How long accepting pauses when the system is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Accepting nothing new; what runs may finish.
    Draining,
    /// Cutting what still runs.
    Stopping,
}

/// Tells servers about the [`Phase`].
pub type Shutdown = watch::Receiver<Phase>;

/// Serves every connection of `listener` with `handler` until `shutdown` drains it and the last connection is done.
/// `open` counts connections.
pub async fn serve<H, F, B>(
    listener: Listener,
    limits: ServeLimits,
    open: Arc<AtomicUsize>,
    mut shutdown: Shutdown,
    handler: H,
) where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connections = Connections::new(limits);
    while *shutdown.borrow() == Phase::Running {
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() {
                break;
            },
            () = connections.tend() => {}
            accepted = listener.accept() => match accepted {
                Ok((transport, address)) => {
                    let (count, handler) = (Count::new(&open), handler.clone());
                    connections.spawn(|activity, drain| async move {
                        let _count = count;
                        connection::serve(transport, Peer { address }, limits.stall, activity, drain, handler).await;
                    });
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.drain();
    while !connections.is_empty() {
        tokio::select! {
            () = reached(&mut shutdown, Phase::Stopping) => connections.cut().await,
            () = connections.tend() => {}
        }
    }
}

/// Waits until `phase` has come, or until nobody is left to announce it.
async fn reached(shutdown: &mut Shutdown, phase: Phase) {
    let _ = shutdown.wait_for(|now| *now >= phase).await;
}

/// Errors of a connection that its peer gave up before it was accepted, as opposed to those of the listener.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Counts one open connection.
struct Count(Arc<AtomicUsize>);

impl Count {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
