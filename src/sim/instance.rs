//! A running simulated account: how it starts, how tests observe it, and how it stops.

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

/// A running account. If the value is dropped, the account stops shortly afterwards.
pub struct Sim {
    address: SocketAddr,
    scheme: &'static str,
    pub(super) account: Arc<Account>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Sim {
    /// Starts an account that serves plain HTTP/1.1. Port 0 chooses a free port.
    ///
    /// # Errors
    /// If the address cannot be bound, or the name is not 1 to 64 visible ASCII characters.
    pub async fn start(listen: SocketAddr, config: SimConfig) -> io::Result<Self> {
        Self::launch(listen, config, None).await
    }

    /// Starts an account that serves HTTP/1.1 over TLS.
    ///
    /// # Errors
    /// See [`Sim::start`].
    pub async fn start_tls(listen: SocketAddr, config: SimConfig, tls: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Self::launch(listen, config, Some(tls.into())).await
    }

    async fn launch(listen: SocketAddr, config: SimConfig, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        if !(1..=64).contains(&config.name.len()) || !config.name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "the name of a simulated account must be 1 to 64 visible ASCII characters";
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

    /// Returns the address that the account listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL for clients: `http://127.0.0.1:PORT/v1`. It names loopback if the account listens on all
    /// addresses.
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

    /// Returns the account's name.
    pub fn name(&self) -> &str {
        &self.account.config.name
    }

    /// Returns the rules that change the account's behaviour.
    pub fn script(&self) -> &Script {
        &self.account.script
    }

    /// Returns the requests that reached the account, in the order of their heads. It is empty unless
    /// [`SimConfig::record`] is set. The last 10,000 requests are kept.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.account.recorder.recorded()
    }

    /// Returns the account's counters.
    pub fn counts(&self) -> SimCounts {
        self.account.recorder.counts()
    }

    /// Stops the account as if its process were killed: all connections are dropped at once, and new ones are refused.
    /// When this function returns, the address is free.
    pub async fn stop(self) {
        // Both calls fail only if the server has ended already.
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}
