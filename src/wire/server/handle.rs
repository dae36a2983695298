//! What the server holds of an open connection outside the connection's own task.

use std::{net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::wire::server::activity::Activity;

/// How a connection is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum DrainMode {
    /// The server stops. The connection ends after its current request, and a head that has begun may become one.
    Shutdown,
    /// A new client needs the place. The connection ends at once unless a request is in progress. Then it ends after
    /// that.
    Shed,
}

/// An open connection, as its listener and the [`Capacity`](super::capacity::Capacity) see it.
pub(in crate::wire) struct ConnectionHandle {
    /// The client's address; `None` over a Unix socket.
    pub address: Option<IpAddr>,
    /// The time after accepting in which a connection without any bytes of a request is not shed.
    pub setup_time: Duration,
    /// What the connection waits for.
    pub activity: Arc<Activity>,
    /// The channel that tells the connection to end; `None` once this has been done.
    drain: Mutex<Option<oneshot::Sender<DrainMode>>>,
}

impl ConnectionHandle {
    /// The handle of a connection that has just been accepted, and the channel that tells the connection to end.
    pub fn new(address: Option<IpAddr>, setup_time: Duration) -> (Arc<Self>, oneshot::Receiver<DrainMode>) {
        let (drain, drained) = oneshot::channel();
        let handle = Self {
            address,
            setup_time,
            activity: Activity::accepted(),
            drain: Mutex::new(Some(drain)),
        };
        (Arc::new(handle), drained)
    }

    /// Tells the connection to end. Returns `false` if it has been told before, or has just ended.
    pub fn drain(&self, mode: DrainMode) -> bool {
        let drain = self.drain.lock().take();
        drain.is_some_and(|drain| drain.send(mode).is_ok())
    }
}
