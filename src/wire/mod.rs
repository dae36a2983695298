//! All socket I/O: listening, serving connections, dialling upstreams, pooling what was dialled, and bodies in both directions.
//!
//! Nothing here decides anything. A handler is handed in, time limits are handed in, and what goes wrong comes back as
//! a closed error that says whether the upstream may have seen the request.

mod accept;
mod activity;
mod body;
mod capacity;
mod client_socket;
mod connection;
mod connections;
mod dial;
mod http1;
mod http2;
mod kept;
mod listen;
mod multiplex;
mod pool;
mod refusal;
mod replay;
mod request_body;
mod send_error;
mod serve;
mod server_tls;
mod stall;
mod stream;
mod throttle;
mod tls;
mod transport;
mod upstream_socket;
mod workers;

pub use body::{BodyError, Framing, Intake, Relay};
pub use capacity::Capacity;
pub use connection::{Peer, ServeLimits, Service};
pub use dial::{DialError, Target};
#[doc(hidden)]
pub use http1::read_head;
pub use kept::{Keep, Kept, NotThere};
pub use listen::{Address, BindError, Listener};
pub use pool::{Pool, Terms};
pub use refusal::Refusal;
pub use replay::Replay;
pub use request_body::RequestBody;
pub use send_error::SendError;
pub use serve::{Phase, Shutdown, serve};
pub use server_tls::{Identity, IdentityError, server_config};
pub use tls::{TlsError, client_config};
pub use workers::Workers;
