//! Serving a listener: accept, count, drain on request.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::sync::watch;

use crate::wire::{
    body::request::RequestBody,
    http1::server::serve as http1,
    server::accept::Acceptor,
    server::connections::Connections,
    server::h2 as http2,
    server::listen::Listener,
    server::refusal::Refusal,
    server::service::{Peer, Service},
    server::socket::ClientSocket,
};

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
/// `refuse` answers what never becomes a request.
pub async fn serve<H, R, F, B>(listener: Listener, service: Service, mut shutdown: Shutdown, handler: H, refuse: R)
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + 'static,
    R: Fn(Peer, Refusal) -> Option<Response<B>> + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Service {
        limits,
        capacity,
        workers,
    } = service;
    let mut connections = Connections::new(limits, refuse.clone());
    let mut acceptor = Acceptor::new(&listener, &capacity);
    while *shutdown.borrow() == Phase::Running {
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() {
                break;
            },
            () = connections.tend() => {}
            (accepted, peer, occupied) = acceptor.next() => {
                let (handler, refuse) = (handler.clone(), refuse.clone());
                connections.spawn(peer, workers.as_deref(), |activity, drain| async move {
                    let _occupied = occupied;
                    // What cannot be registered is closed, as what cannot be accepted is.
                    if let Ok(transport) = accepted.open() {
                        let socket = ClientSocket::new(transport, limits.stall, activity.clone());
                        let served = http1::serve(socket, peer, activity.clone(), drain, handler.clone(), refuse);
                        if let Some(preface) = served.await {
                            // In a box, so that a connection of HTTP/1.1 does not hold the room for it.
                            Box::pin(http2::serve(preface, peer, limits, activity, handler)).await;
                        }
                    }
                });
            }
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

#[cfg(test)]
mod tests;
