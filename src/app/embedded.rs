//! The upstreams that are used without any configuration: two simulated accounts inside this process, behind real sockets.

use std::{net::Ipv4Addr, time::Duration};

use super::error::AppError;
use crate::{
    config::{ApiKey, Upstream},
    secret::Secret,
    sim::{Sim, SimConfig},
};

const NAMES: [&str; 2] = ["account-a", "account-b"];
/// The pause between two pieces of a simulated stream: long enough that streaming is visible.
const PACE: Duration = Duration::from_millis(20);

/// Starts the simulated accounts, and returns them with the upstreams that lead to them.
///
/// # Errors
/// If an account has no port to listen on.
pub(super) async fn start() -> Result<(Vec<Sim>, Vec<Upstream>), AppError> {
    let mut sims = Vec::new();
    let mut upstreams = Vec::new();
    for name in NAMES {
        let config = SimConfig {
            name: name.to_owned(),
            pace: PACE,
            ..SimConfig::default()
        };
        let sim = Sim::start((Ipv4Addr::LOCALHOST, 0).into(), config).await?;
        upstreams.push(upstream(name, &sim.base_url())?);
        sims.push(sim);
    }
    Ok((sims, upstreams))
}

/// The same upstreams for commands that send no request, without running accounts.
pub(super) fn placeholders() -> Result<Vec<Upstream>, AppError> {
    NAMES
        .into_iter()
        .map(|name| upstream(name, "http://127.0.0.1:1/v1"))
        .collect()
}

fn upstream(name: &str, base_url: &str) -> Result<Upstream, AppError> {
    Ok(Upstream::new(
        name,
        base_url,
        ApiKey::Key(Secret::new(format!("sk-simulated-{name}"))),
    )?)
}
