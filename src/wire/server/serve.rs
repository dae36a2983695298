//! Serves a listener: accepts connections, runs them, and drains them on shutdown.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::sync::watch;

use crate::wire::{
    body::request::RequestBody,
    http1::server::serve as http1,
    server::{
        accept::Acceptor,
        connections::Connections,
        h2::{self, Http2Connection},
        listen::Listener,
        refusal::HeadRefusal,
        service::{Peer, Service},
        socket::{ClientSocket, ServedConnection},
    },
};

/// The phases of a server, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownPhase {
    /// The server accepts connections and requests.
    Running,
    /// The server accepts no new connections or requests. Requests in progress may finish.
    Draining,
    /// The server closes the connections that are still open.
    Stopping,
}

/// The receiver of the current [`ShutdownPhase`], for servers.
pub type Shutdown = watch::Receiver<ShutdownPhase>;

/// Serves every connection of `listener` with `handler`, until `shutdown` drains it and the last connection has ended.
///
/// `refuse` makes the response to a request head that is refused.
pub async fn serve<H, R, F, B>(listener: Listener, service: Service, mut shutdown: Shutdown, handler: H, refuse: R)
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + 'static,
    R: Fn(Peer, HeadRefusal) -> Option<Response<B>> + Clone + Send + 'static,
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
    while *shutdown.borrow() == ShutdownPhase::Running {
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() {
                break;
            },
            () = connections.supervise() => {}
            (accepted, peer, permit) = acceptor.next() => {
                let (handler, refuse) = (handler.clone(), refuse.clone());
                connections.spawn(peer, workers.as_deref(), |handle, drain| {
                    let activity = handle.activity.clone();
                    let open = capacity.open(permit, handle);
                    async move {
                        let _open = open;
                        // A socket that cannot be registered is closed, like one that cannot be accepted.
                        let Ok(transport) = accepted.register() else { return };
                        let socket = ClientSocket::new(transport, limits.stall, activity.clone());
                        let connection = ServedConnection { socket, peer, activity: activity.clone(), drain };
                        if let Some(preface) = http1::serve(connection, handler.clone(), refuse.clone()).await {
                            let connection = Http2Connection { preface, peer, activity };
                            // HTTP/2 is boxed, so that an HTTP/1.1 connection does not hold the memory of its future.
                            Box::pin(h2::serve(connection, limits, handler, refuse)).await;
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
            () = reached(&mut shutdown, ShutdownPhase::Stopping) => connections.abort_all().await,
            () = connections.supervise() => {}
        }
    }
}

/// Waits until `phase` has begun, or until the sender of phases is dropped, which stops the server too.
async fn reached(shutdown: &mut Shutdown, phase: ShutdownPhase) {
    let _ = shutdown.wait_for(|now| *now >= phase).await;
}

#[cfg(test)]
mod tests;
