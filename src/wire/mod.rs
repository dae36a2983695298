//! All socket I/O: listening, serving connections, dialling upstreams, pooling what was dialled, and bodies in both directions.
//!
//! Nothing here decides anything. A handler is handed in, time limits are handed in, and what goes wrong comes back as
//! a closed error that says whether the upstream may have seen the request.

mod body;
mod client;
mod http1;
mod server;
mod timers;
mod tls;
mod transport;

pub use body::{
    kept::{Keep, Kept, NotThere},
    relay::{BodyError, Framing, Intake, Relay},
    replay::Replay,
    request::RequestBody,
};
pub use client::{
    dial::{DialError, Target},
    pool::{Pool, Terms},
    send_error::SendError,
};
#[doc(hidden)]
pub use http1::read_head;
pub use server::{
    capacity::Capacity,
    listen::{Address, BindError, Listener},
    refusal::Refusal,
    serve::{Phase, Shutdown, serve},
    service::{Peer, ServeLimits, Service},
    workers::Workers,
};
pub use tls::{
    client::{TlsError, client_config},
    server::{Identity, IdentityError, server_config},
};
