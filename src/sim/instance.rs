//! A running simulated account: its start, its state as tests see it, and its end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::account::Account;
use super::config::SimConfig;
use super::recorder::{RequestRecord, SimCounts};
use super::script::Script;
use super::server;

/// A running account. Dropped, it stops by itself, a moment later.
pub struct Sim {
    address: SocketAddr,
    scheme: &'static str,
    pub(super) account: Arc<Account>,
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
        let account = Arc::new(Account::new(config));
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
