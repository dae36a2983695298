//! File, flags and environment → a valid [`Config`], or all its errors at once.
//!
//! ```text
//! TOML text ──parse──▶ spanned tree ──reader──▶ sections ──values, secrets, upstream──▶ Config
//!                          │                        │                    │
//!                          └──── syntax ────────────┴── unknown fields ──┴── bad values ──▶ Errors, by position
//! ```
//!
//! Nothing stops at the first mistake: each reader notes what is wrong, with the position in the file, and carries on. A
//! [`Config`] exists only when nothing was noted, so whoever holds one need not check it again: names are unique, addresses
//! do not clash, secrets are resolved and fit a header. Fields that this version does not know are errors, never ignored.
//!
//! Paths in a file are relative to that file's folder; paths in flags are relative to the working directory.

mod access;
mod affinity;
mod base_url;
mod check;
mod errors;
mod file;
mod glob;
mod headers;
mod load;
mod reader;
mod secrets;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod values;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};

pub use self::{
    access::{ClientKey, Group},
    base_url::BaseUrl,
    errors::{Errors, Place, Problem},
    file::File,
    glob::ModelGlobs,
    tls::Tls,
    upstream::{ApiKey, Ca, InvalidUpstream, Upstream, parse_name},
};
use crate::{policy::SessionSource, secret::Secret};

/// Everything that can be configured, valid and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The public listener.
    pub server: Server,
    /// The operator's listener.
    pub admin: Admin,
    /// How sessions find their upstream.
    pub affinity: Affinity,
    /// What happens to a request whose upstream failed.
    pub retry: Retry,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The upstreams, at least one, in the order of the file and then of the flags; their names are unique.
    pub upstreams: Vec<Upstream>,
    /// Groups of callers; their names are unique.
    pub groups: Vec<Group>,
    /// Whether callers need a client key; also where there is none that is good, and so nobody gets in.
    pub has_client_keys: bool,
    /// The files and folders that client keys stand in, beside the main file.
    pub key_places: Vec<PathBuf>,
    /// Client keys; their names and digests are unique, and their groups are there.
    pub keys: Vec<ClientKey>,
    /// What is allowed but probably not meant, for the log or for `check` to print.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// The files and folders that this was read from, beside the main file.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.server.tls.iter();
        let tls = tls.flat_map(|tls| {
            [&tls.cert, &tls.key]
                .into_iter()
                .chain(tls.client_ca.as_ref().map(|(path, _)| path))
        });
        self.key_places.iter().chain(tls).map(PathBuf::as_path)
    }

    /// The first of `listen` at which others than this machine would be served without a key, and without `allow_anonymous`
    /// saying that this is meant. Its own addresses have been checked; sockets of an earlier configuration may be others.
    pub fn opens<'a>(&self, listen: &'a [Listen]) -> Option<&'a Listen> {
        let is_guarded = self.has_client_keys || self.server.allow_anonymous;
        let is_reached = |listen: &&Listen| matches!(listen, Listen::Tcp(address) if !values::is_loopback(address));
        listen.iter().find(is_reached).filter(|_| !is_guarded)
    }
}

/// `[server]`: the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where to listen, at least one, no two alike but for port 0. Without client keys anybody may call: then only on loopback,
    /// unless `allow_anonymous`.
    pub listen: Vec<Listen>,
    /// With what clients over TCP have to speak TLS; without, they speak plain HTTP.
    pub tls: Option<Tls>,
    /// The largest request body in bytes, as sent or decompressed: 1 KiB to 3 GiB.
    pub max_body: u64,
    /// The bytes of request bodies kept over all requests: `max_body` to 1 TiB.
    pub buffered_bodies: u64,
    /// How long streams may go on after a stop was asked for: 0 to 24 h.
    pub grace: Duration,
    /// Whether upstreams are told who calls (`x-forwarded-for`, `-proto`, `-host`).
    pub forwarded: bool,
    /// Whether responses carry `x-steadfast-upstream` and `x-steadfast-route`.
    pub route_headers: bool,
    /// Whether anybody who reaches a listener may call, wherever that is. Never so where there are client keys.
    pub allow_anonymous: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))],
            tls: None,
            max_body: 64 << 20,
            buffered_bodies: 512 << 20,
            grace: Duration::from_secs(30),
            forwarded: false,
            route_headers: true,
            allow_anonymous: false,
        }
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and port; port 0 lets the system choose one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[admin]`: the operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen; empty for nowhere. None is an address of the public listener.
    pub listen: Vec<SocketAddr>,
    /// What callers must show; always there where an address is not loopback.
    pub token: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))],
            token: None,
        }
    }
}

/// `[affinity]`: how sessions find their upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Where to look for the session key, best first; at least one, each once.
    pub sources: Vec<SessionSource>,
    /// How long a pin outlives its last use: 1 s to 720 h.
    pub idle: Duration,
    /// The largest number of pins: 1 to 100,000,000.
    pub capacity: usize,
    /// How long a session waits for its own upstream at least before it leaves: 0 to 24 h, at most `wait_max`.
    pub wait: Duration,
    /// How many prompt tokens an upstream reads a second where nothing is cached: 1 to 10,000,000. A session waits for as long
    /// as its prompt would take to be read elsewhere.
    pub reread_rate: u32,
    /// How long a session waits at most: 0 to 24 h.
    pub wait_max: Duration,
}

impl Default for Affinity {
    fn default() -> Self {
        Self {
            sources: SessionSource::default_order(),
            idle: Duration::from_secs(3600),
            capacity: 1_000_000,
            wait: Duration::from_secs(2),
            reread_rate: 5_000,
            wait_max: Duration::from_secs(60),
        }
    }
}

/// `[retry]`: what happens to a request whose upstream failed before anything of its answer was passed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How many upstreams a request is sent to at most, the first included: 1 to 10.
    pub attempts: u32,
    /// The share of requests that may be sent again: 0 to 1.
    pub budget: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            budget: 0.2,
        }
    }
}

/// `[timeouts]`: each 1 ms to 24 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection to an upstream stands, TLS included.
    pub connect: Duration,
    /// Until an upstream's response head.
    pub head: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
    /// Until a client's request head is complete.
    pub client_header: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            client_header: Duration::from_secs(15),
        }
    }
}

/// What the command line says beside, or instead of, a file.
#[derive(Clone, Default)]
pub struct Overrides {
    /// `--listen ADDR`, repeated: replaces `server.listen`.
    pub listen: Vec<String>,
    /// `--admin ADDR`: replaces `admin.listen`.
    pub admin: Option<String>,
    /// `--upstream NAME=BASE_URL,KEY`, repeated: joins the upstreams of the file. `KEY` is written like `api_key`.
    pub upstreams: Vec<String>,
}

/// Hides the upstreams: a key may be written out in them.
impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overrides")
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .field("upstreams", &self.upstreams.len())
            .finish()
    }
}

/// Headers as configured, in the order of their names.
type Headers = Vec<(HeaderName, HeaderValue)>;
