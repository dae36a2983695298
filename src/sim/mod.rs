//! A simulated upstream account: the embedded default, and the upstream of tests and benches.
//!
//! There is no model behind it, but it is an account in all that matters to a proxy: it listens on a real socket, speaks
//! the OpenAI API (ResponseStore whole and streamed, compaction, chat completions, embeddings, models), keeps a prompt cache
//! of its own, and refuses what another account issued: a `previous_response_id`, an `encrypted_content`, a turn state. So a
//! session that is sent to the wrong account fails here as it fails at the real ones.
//!
//! An account is its [name](SimConfig::name): the name stands in every answer, and a simulator restarted under the same
//! name honours the encrypted items and turn states from before (response ids are lost with the process).
//!
//! A test steers it through its [`Script`] while it runs, and looks at what reached it in [`Sim::requests`] and [`Sim::counts`].
//!
//! | part | its job |
//! | --- | --- |
//! | `server` | connections, and one request's way through |
//! | `routes` | what is answered where: the account's usual behaviour |
//! | `responses`, `events`, `chat`, `catalog`, `refusal` | the shapes on the wire |
//! | `cache`, `issued` | what the account remembers: prompts read, things issued |
//! | `script`, `act`, `transport`, `body` | faults: when, what, and how it is done to a socket or a body |
//! | `intake`, `recorder` | request bodies; what has been seen |
//! | `cli` | `steadfast sim` |

mod act;
mod api_error;
mod body;
mod cache;
mod catalog;
mod chat;
mod cli;
mod events;
mod intake;
mod issued;
mod recorder;
mod responses;
mod routes;
mod script;
mod server;
#[cfg(test)]
mod tests;
mod transport;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use act::{Act, After, Close, CustomAnswer, Fixed, Point, Read, Received, ScriptedAnswer};
pub use cli::{SimArgs, run};
pub use recorder::{Ending, RequestRecord, SimCounts};
pub use script::{Accept, ReceivedHead, Rule, Script};

use crate::secret::Secret;
use crate::tick::Clock;

/// What an account is like.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Its identity: 1 to 64 visible ASCII characters.
    pub name: String,
    /// Time between two events of a stream; zero: as fast as it goes. An answer in one piece takes as long as its
    /// text would take to stream.
    pub pace: Duration,
    /// Pieces of text in an answer, at least 1.
    pub deltas: usize,
    /// The models in its list.
    pub models: Vec<String>,
    /// Whether a model that is not in the list is refused, as 404 `model_not_found`.
    pub only_models: bool,
    /// The only credential that it accepts; `None`: any, or none.
    pub api_key: Option<Secret>,
    /// Whether a request without `x-codex-turn-state` gets one in its response.
    pub turn_state: bool,
    /// Whether it refuses turn states, response ids and encrypted items that it did not issue.
    pub refuse_foreign: bool,
    /// How long a prompt stays cached after its last use.
    pub cache_ttl: Duration,
    /// Places in prompts that the cache remembers, at some 50 bytes each; a 40 KB prompt has about 150. Zero: no cache.
    pub cache_marks: usize,
    /// Whether requests are kept for [`Sim::requests`].
    pub record: bool,
}

impl Default for SimConfig {
    fn default() -> Self {
        let models = ["gpt-5.2", "gpt-5.2-codex", "gpt-5-mini", "text-embedding-3-small"];
        Self {
            name: "sim".to_owned(),
            pace: Duration::ZERO,
            deltas: 8,
            models: models.map(str::to_owned).to_vec(),
            only_models: false,
            api_key: None,
            turn_state: true,
            refuse_foreign: true,
            cache_ttl: Duration::from_secs(3600),
            cache_marks: 100_000,
            record: false,
        }
    }
}

/// What the requests of an account share.
struct Account {
    config: SimConfig,
    clock: Clock,
    cache: Mutex<cache::PromptCache>,
    issued: issued::IssuedObjects,
    script: Script,
    recorder: Arc<recorder::RequestRecorder>,
}

/// A running account. Dropped, it stops by itself, a moment later.
pub struct Sim {
    address: SocketAddr,
    scheme: &'static str,
    account: Arc<Account>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Sim {
    /// Starts an account that speaks plain HTTP/1.1. Port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound, or the name is not 1 to 64 visible ASCII characters.
    pub async fn start(listen: SocketAddr, config: SimConfig) -> io::Result<Self> {
        Self::launch(listen, config, None).await
    }

    /// Starts an account that speaks HTTP/1.1 over TLS.
    ///
    /// # Errors
    /// As [`Sim::start`].
    pub async fn start_tls(listen: SocketAddr, config: SimConfig, tls: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Self::launch(listen, config, Some(tls.into())).await
    }

    async fn launch(listen: SocketAddr, config: SimConfig, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        if !(1..=64).contains(&config.name.len()) || !config.name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "an account's name is 1 to 64 visible ASCII characters";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let clock = Clock::start();
        let account = Arc::new(Account {
            cache: Mutex::new(cache::PromptCache::new(config.cache_marks, config.cache_ttl)),
            issued: issued::IssuedObjects::new(&config.name),
            script: Script::default(),
            recorder: Arc::new(recorder::RequestRecorder::new(clock, config.record)),
            clock,
            config,
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server::listen(listener, tls, Arc::clone(&account), stopped));
        Ok(Self {
            address,
            scheme,
            account,
            stop,
            serving,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client takes as base URL: `http://127.0.0.1:PORT/v1`. Listening on all addresses, it names loopback.
    pub fn base_url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            } else {
                IpAddr::V6(Ipv6Addr::LOCALHOST)
            });
        }
        format!("{}://{address}/v1", self.scheme)
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.account.config.name
    }

    /// The rules by which it misbehaves.
    pub fn script(&self) -> &Script {
        &self.account.script
    }

    /// The requests that reached it, in the order of their heads; empty unless [`SimConfig::record`] is on. The last
    /// 10,000 are kept.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.account.recorder.recorded()
    }

    /// Its counters.
    pub fn counts(&self) -> SimCounts {
        self.account.recorder.counts()
    }

    /// Stops as if killed: drops all connections at once and refuses new ones. When this returns, the address is free.
    pub async fn stop(self) {
        // Either fails only if serving has ended already.
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}
