//! All socket I/O: listeners, the connections of clients, the connections to upstreams, and bodies in both directions.
//!
//! This module makes no decisions about requests. It receives a handler and time limits. It reports each failure as a
//! variant of a closed error type, which says whether the upstream may have seen the request.
//!
//! # How it is built
//!
//! | module | what it does |
//! | --- | --- |
//! | `server` | listens, accepts, assigns connections to workers, closes those that wait too long or are in the way; HTTP/2 towards clients |
//! | `client` | dials upstreams, also through proxies, pools connections, sends requests; HTTP/2 towards upstreams |
//! | `http1` | HTTP/1.1: its codec, the server loop of a client's connection, and one exchange with an upstream |
//! | `body` | request and response bodies, independent of the version of HTTP |
//! | `tls` | rustls on both sides |
//! | `cooperation` | ends the run of a task that has read, written or scanned much |
//! | `timers`, `limits` | time limits and size limits that HTTP/1.1 and HTTP/2 share |
//! | `shortage` | what this process lacks if a connection fails for a reason of its own |
//! | `transport` | one byte stream type for TCP, Unix sockets and TLS |
//!
//! No file imports, directly or through others, a file that imports it.
//!
//! # Why HTTP/1.1 is our own
//!
//! HTTP/1.1 is implemented here over httparse, on both sides. The reason is strictness, and not speed. A bare proxy
//! made of hyper, without any of Steadfast's work, needs less CPU time than nginx: 0.99 times as much for a GET, 0.82
//! times for a POST of 4 KB, 0.67 times for one of 40 KB and 0.87 times for one of 64 KB. The table shows user
//! instructions per request (callgrind, whole process, one kept connection; 2026-11-30):
//!
//! | request | nginx | bare hyper proxy | HAProxy | Steadfast |
//! | --- | --- | --- | --- | --- |
//! | GET | 19,400 | 23,600 | 29,700 | 42,500 |
//! | POST of 4 KB | 24,700 | 28,000 | 33,700 | 74,300 |
//! | Codex turn of 40 KB | 25,000 | 28,300 | 71,100 (routes by a header) | 199,500 |
//!
//! Steadfast makes the minimum of system calls for a request: two each of `epoll_wait`, `read` and `write`. Its
//! additional instructions are its own work. Of the 199,500 instructions for a Codex turn, the scan of the body takes
//! 147,000. Of the 42,500 for a GET, the header map takes 9,000, copies of large values take 6,000, and the log line
//! takes 4,400.
//!
//! The reason for an implementation of our own is that hyper 1.12 **accepts** messages that a proxy must not pass on,
//! because the next reader may understand them differently (request smuggling):
//!
//! * `Transfer-Encoding` beside `Content-Length`;
//! * `Transfer-Encoding: gzip, chunked`, and a coding that is named twice;
//! * an HTTP/1.1 request without `Host`, with two of them, or with an invalid one;
//! * a target in absolute form with another authority than `Host`, or with userinfo;
//! * `..`, `%2e`, `//` or a fragment in a path;
//! * methods in lower case, and targets in authority form;
//! * headers that `Connection` names, which concern one connection only;
//! * trailers such as `content-length` or `authorization`, which arrive after all decisions have been made.
//!
//! hyper hides some of these before a handler sees them, so a handler could not refuse them. The codec refuses every
//! fault of the framing, closes the connection if RFC 9112 section 6.1 demands it, and drops trailers. The proxy judges
//! targets, hosts and headers, which it receives unchanged. hyper serves HTTP/2 on both sides, because each HTTP/2
//! frame has a length and can be read in only one way. Three things are checked here beside hyper: the number and size
//! of a head's fields, lengths that are named twice, and streams that are reset with NO_ERROR before their end, which hyper
//! reports as the end of the body.

mod body;
mod client;
mod cooperation;
mod error_cause;
mod http1;
mod limits;
mod server;
mod shortage;
mod timers;
mod tls;
mod transport;

pub use body::{
    framing::{BodyError, Framing, MemoryRefusal},
    intake::Intake,
    kept::{KeptBody, KeptBodyBuilder, SpliceError},
    memory::{
        account::BodyAccount,
        pool::{BodyMemory, BodyPermit, MemoryLimits},
    },
    pace::MinBodyRate,
    relay::{PieceDecoder, Relay},
    replay::Replay,
    request::RequestBody,
    reservation::BodyReservation,
};
pub use client::{
    dial::{DialError, DialTarget},
    pool::{Pool, PoolOptions},
    proxy::{ProxyProtocol, ProxyTarget},
    send_error::SendError,
    send_options::SendOptions,
};
pub use cooperation::{ScanWork, poll_budget};
#[doc(hidden)]
pub use http1::codec::head_reader::read_head;
pub use server::{
    capacity::{Capacity, ConnectionCounts, raise_descriptor_limit},
    client_network::ClientNetwork,
    listen::{Address, BindError, Listener},
    refusal::HeadRefusal,
    serve::{Shutdown, ShutdownPhase, serve},
    service::{Peer, ServeLimits, Service},
    workers::Workers,
};
pub use shortage::Shortage;
pub use tls::{
    client::{HttpVersions, TlsError, client_config},
    identity::{ClientIdentity, IdentityError, client_identity},
    server::{TlsIdentity, server_config},
};
