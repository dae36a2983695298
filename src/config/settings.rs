//! The settings of the tables `[server]`, `[admin]`, `[affinity]`, `[retry]`, `[health]` and `[timeouts]`, and the flags
//! that override them. The default of each setting is here, and [`super::fields`] shows it in the example file; a test compares the two.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{listen::Listen, tls::Tls};
use crate::{policy::SessionSource, secret::Secret};

/// `[server]`: the public listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// The addresses to listen on: at least one, and no two that clash (port 0 never clashes). Without client keys and without
    /// `allow_anonymous` all of them are loopback addresses or Unix sockets.
    pub listen: Vec<Listen>,
    /// The certificate with which TCP clients are served over TLS; `None` serves plain HTTP.
    pub tls: Option<Tls>,
    /// The maximum size of a request body in bytes, applied to the body as sent and after decompression: 1 KiB to 3 GiB.
    pub max_body: u64,
    /// The maximum number of bytes of request bodies that are kept over all requests: `max_body` to 1 TiB.
    pub buffered_bodies: u64,
    /// The maximum fraction of `buffered_bodies` that one caller may fill while others wait for memory: 0.01 to 1.
    pub buffered_share: f64,
    /// The minimum number of bytes per second with which a request body must arrive: up to 1 GiB; 0 means no minimum.
    pub min_body_rate: u64,
    /// The time over which the rate of a request body is measured: 1 ms to 24 h.
    pub body_rate_window: Duration,
    /// The maximum time that open streams may continue after a stop signal: 0 to 24 h.
    pub grace: Duration,
    /// The time after which a silent TCP connection of a client is probed: 1 ms to 2 h; 0 turns probes off.
    pub keepalive: Duration,
    /// Whether upstreams receive the client's address, scheme and host (`x-forwarded-for`, `-proto`, `-host`).
    pub forwarded: bool,
    /// Whether responses carry `x-steadfast-upstream` and `x-steadfast-route`.
    pub route_headers: bool,
    /// Whether clients need no key, even on addresses that are not loopback. Never `true` together with client keys.
    pub allow_anonymous: bool,
    /// The origins whose web pages may call the listener through a browser, each once, in lower case and without the
    /// default port.
    pub allow_origins: Vec<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))],
            tls: None,
            max_body: 64 << 20,
            buffered_bodies: 512 << 20,
            buffered_share: 0.25,
            min_body_rate: 10 << 10,
            body_rate_window: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            keepalive: Duration::from_secs(60),
            forwarded: false,
            route_headers: true,
            allow_anonymous: false,
            allow_origins: Vec::new(),
        }
    }
}

/// `[admin]`: the operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// The addresses to listen on; an empty list turns the admin listener off. None of them clashes with the public
    /// listener.
    pub listen: Vec<SocketAddr>,
    /// The bearer token that callers must send; always set if one of the addresses is not loopback.
    pub token: Option<Secret>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))],
            token: None,
        }
    }
}

/// `[affinity]`: the choice of a session's upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinitySettings {
    /// The places that are searched for the session key, in this order: at least one, each once.
    pub sources: Vec<SessionSource>,
    /// The time that a pin stays valid after its last use: 1 s to 720 h.
    pub idle: Duration,
    /// The maximum number of pins: 1 to 100,000,000.
    pub capacity: usize,
    /// The minimum time that a session waits for its own upstream before it moves: 0 to 24 h, at most `wait_max`.
    pub wait: Duration,
    /// The number of uncached prompt tokens that an upstream reads per second: 1 to 10,000,000. A session waits as long as
    /// another upstream would need to read its prompt.
    pub reread_rate: u32,
    /// The maximum time that a session waits for its own upstream: 0 to 24 h.
    pub wait_max: Duration,
}

impl Default for AffinitySettings {
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

/// `[retry]`: failover. If an upstream fails before any part of its response has reached the caller, the request is
/// sent to another upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// The maximum number of upstreams that one request is sent to, the first included: 1 to 10.
    pub attempts: u32,
    /// The maximum number of retries, as a fraction of the number of requests: 0 to 1.
    pub budget: f64,
    /// The maximum time after the response head for which a stream is held back until its first output: 0 to 1 min.
    pub decide_within: Duration,
    /// The maximum number of bytes of a stream that are held back until its first output: 1 KiB to 16 MiB.
    pub decide_bytes: u64,
    /// Whether a request is sent to another upstream after `timeouts.head`, although the first one may be generating.
    pub on_timeout: bool,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts: 3,
            budget: 0.2,
            decide_within: Duration::from_secs(5),
            decide_bytes: 256 << 10,
            on_timeout: false,
        }
    }
}

/// `[health]`: the ejection of upstreams that fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthSettings {
    /// The maximum fraction of the upstreams that are ejected for failures at the same time: 0 to 1. Below 1 at least
    /// one upstream always stays. Of two or more upstreams at least one can be ejected, unless this is 0.
    pub max_ejected: f64,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { max_ejected: 0.5 }
    }
}

/// `[timeouts]`: each is 1 ms to 24 h, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The maximum time to establish a connection to an upstream, including the proxy and the TLS handshake.
    pub connect: Duration,
    /// The maximum time until the head of an upstream's response has arrived.
    pub head: Duration,
    /// The maximum time between two pieces of a body, in either direction.
    pub idle: Duration,
    /// The time after which a connection to an upstream gets no new request, give or take a tenth of it: up to 24 h;
    /// 0 means no limit.
    pub connection_age: Duration,
    /// The maximum time until the head of a client's request is complete.
    pub client_header: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            connection_age: Duration::from_secs(600),
            client_header: Duration::from_secs(15),
        }
    }
}

/// The flags of the command line that override or extend the file.
#[derive(Clone, Default)]
pub struct Overrides {
    /// `--listen ADDR`, repeatable: replaces `server.listen`.
    pub listen: Vec<String>,
    /// `--admin ADDR`: replaces `admin.listen`.
    pub admin: Option<String>,
    /// `--upstream NAME=BASE_URL,KEY`, repeatable: adds upstreams to those of the file. `KEY` is written like `api_key`.
    pub upstreams: Vec<String>,
}

/// Prints the number of upstreams only, since their flags may contain a key.
impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overrides")
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .field("upstreams", &self.upstreams.len())
            .finish()
    }
}
