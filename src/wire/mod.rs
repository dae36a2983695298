//! All socket I/O: listening, serving connections, dialling upstreams, pooling what was dialled, and bodies in both directions.
//!
//! Nothing here decides anything. A handler is handed in, time limits are handed in, and what goes wrong comes back as
//! a closed error that says whether the upstream may have seen the request.

mod body;
mod dial;
mod lease;
mod listen;
mod multiplex;
mod pool;
mod replay;
mod send_error;
mod serve;
mod socket;
mod tls;

pub use body::{BodyError, Framing, Intake, Relay};
pub use dial::{DialError, Dialer, Target};
pub use listen::{Address, BindError, Listener};
pub use pool::Pool;
pub use replay::{Keep, Kept, Replay};
pub use send_error::SendError;
pub use serve::{Peer, Phase, ServeLimits, Shutdown, serve};
pub use tls::{TlsError, client_config};
