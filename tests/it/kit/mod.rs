//! Helpers that the tests share: a running gateway, simulated accounts, clients that control every byte, and functions
//! that wait for a condition.

pub mod canary;
pub mod client;
pub mod commands;
pub mod descriptors;
pub mod encoders;
pub mod frames;
pub mod gateway;
pub mod h2;
pub mod keys;
pub mod proxy;
pub mod secrets;
pub mod sessions;
pub mod streams;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::{future::Future, path::PathBuf, time::Duration};

use steadfast::sim::{Sim, SimConfig};

use self::gateway::Gateway;

/// The maximum duration of any step of a test. A step that takes longer is considered to hang.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The body of a request for a streamed response.
pub const STREAM: &str = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;
/// The body of a request for a JSON response.
pub const WHOLE: &str = r#"{"model":"gpt-5.2","input":"hi"}"#;

/// Returns the content of a file of `tests/fixtures/recordings`.
pub fn recording(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/recordings")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names of the recorded files that end in `ending`, without that ending.
pub fn recordings(ending: &str) -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let files = std::fs::read_dir(&folder)
        .expect("a readable folder")
        .map(|file| file.expect("a file").file_name());
    let names = files.filter_map(|name| name.into_string().ok());
    let mut stems: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(ending)?.to_owned()))
        .collect();
    stems.sort_unstable();
    stems
}

/// Starts a simulated account that records its requests.
pub async fn sim(name: &str) -> Sim {
    sim_with(name, |_| {}).await
}

/// Starts a simulated account. `change` adjusts its configuration.
pub async fn sim_with(name: &str, change: impl FnOnce(&mut SimConfig)) -> Sim {
    let mut config = SimConfig {
        name: name.to_owned(),
        record: true,
        ..SimConfig::default()
    };
    change(&mut config);
    Sim::start(([127, 0, 0, 1], 0).into(), config)
        .await
        .expect("a free port")
}

/// Starts `count` simulated accounts, named `a`, `b`, `c`, …
pub async fn sims(count: usize) -> Vec<Sim> {
    let mut sims = Vec::new();
    for letter in ('a'..='z').take(count) {
        sims.push(sim(&letter.to_string()).await);
    }
    sims
}

/// Starts one simulated account `a` and a gateway in front of it. The configuration of the gateway begins with `head`
/// (TOML tables).
pub async fn gateway_with_sim(head: &str) -> (Sim, Gateway) {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), head).await;
    (sim, gateway)
}

/// Waits until `check` returns a value, and returns that value. Fails with the text `what` if this takes too long.
pub async fn until<T, F>(what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "timed out while waiting for: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `check` returns true.
pub async fn until_true(what: &str, mut check: impl FnMut() -> bool) {
    until(what, || std::future::ready(check().then_some(()))).await;
}
