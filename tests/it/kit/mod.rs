//! What the tests share: a running gateway, a client that sends exactly what it is told, and waiting without sleeping.

pub mod canary;
pub mod client;
pub mod encoders;
pub mod frames;
pub mod gateway;
pub mod keys;
pub mod secrets;
pub mod sessions;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::{future::Future, path::PathBuf, time::Duration};

use steadfast::sim::{Sim, SimConfig};

use self::gateway::Gateway;

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A recorded file of `tests/fixtures/recordings`.
pub fn recording(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/recordings")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The recorded files whose names end in `ending`, less that ending.
pub fn recordings(ending: &str) -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let files = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|file| file.expect("a file").file_name());
    let names = files.filter_map(|name| name.into_string().ok());
    let mut stems: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(ending)?.to_owned()))
        .collect();
    stems.sort_unstable();
    stems
}

/// A simulated account that records what it gets.
pub async fn sim(name: &str) -> Sim {
    sim_with(name, |_| {}).await
}

/// The same, configured.
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

/// Several of them: `a`, `b`, `c`, …
pub async fn sims(count: usize) -> Vec<Sim> {
    let mut sims = Vec::new();
    for letter in ('a'..='z').take(count) {
        sims.push(sim(&letter.to_string()).await);
    }
    sims
}

/// One account `a` and a gateway before it, with `head` (TOML tables).
pub async fn house(head: &str) -> (Sim, Gateway) {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), head).await;
    (sim, gateway)
}

/// Waits until `check` gives something, and fails with `what` if it never does.
pub async fn until<T, F>(what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `check` holds.
pub async fn until_true(what: &str, mut check: impl FnMut() -> bool) {
    until(what, || std::future::ready(check().then_some(()))).await;
}
