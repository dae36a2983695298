//! A soak: the release build under full load for minutes, in front of simulated accounts. At the end its counters must
//! equal what the clients have counted, and its memory and descriptors must have levelled off.
//!
//! ```text
//! cargo build --release && cargo run --release --example soak -- [SECONDS] [PROGRAM]
//! ```
//! SECONDS is 180 by default, PROGRAM is `target/release/steadfast`. The exit code is 0 if all checks hold.

mod clients;
mod gateway;
mod samples;

use std::{
    env,
    io::Error,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use steadfast::sim::{Sim, SimConfig};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{
    clients::{KEY, Load, Tally},
    gateway::{Counters, Gateway},
    samples::{Samples, levels_off},
};

/// The number of accounts.
const ACCOUNTS: usize = 4;
/// The number of clients with HTTP/1.1, each with one connection.
const HTTP1_CLIENTS: usize = 64;
/// The number of clients with HTTP/2, each with one connection.
const HTTP2_CLIENTS: usize = 8;
/// The number of bytes by which the memory may grow in the second half of the load, and by which it may be larger at the end.
const GROWTH: u64 = 32 << 20;
/// The number of descriptors by which the open ones may grow in the second half of the load.
const DESCRIPTORS: u64 = 16;
/// The time in which the memory comes back after the load.
const BACK: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(180), |text| text.parse());
    let program = arguments
        .next()
        .unwrap_or_else(|| "target/release/steadfast".to_owned());
    let Ok(seconds) = seconds else {
        eprintln!("usage: soak [SECONDS] [PROGRAM]");
        return ExitCode::FAILURE;
    };
    let runtime = Builder::new_multi_thread().enable_all().build().expect("threads");
    match runtime.block_on(soak(Duration::from_secs(seconds), &program)) {
        Ok(failed) if failed.is_empty() => {
            println!("all checks hold");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            failed.iter().for_each(|failed| println!("FAILED: {failed}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the load for `duration`. Returns the checks that do not hold.
async fn soak(duration: Duration, program: &str) -> Result<Vec<String>> {
    let mut sims = Vec::new();
    for number in 0..ACCOUNTS {
        let config = SimConfig {
            name: format!("account-{number}"),
            ..SimConfig::default()
        };
        sims.push(Sim::start(([127, 0, 0, 1], 0).into(), config).await?);
    }
    let gateway = Gateway::start(program, &sims).await?;
    // Code, tables and the buffers of each thread stay in memory after their first use.
    run(&gateway, Duration::from_secs(1), Arc::default()).await?;
    let first = gateway.settled_counters().await?;
    let before = gateway.resident()?;

    let tally = Arc::new(Tally::default());
    let sampling = tokio::spawn(Samples::take(gateway.pid(), duration));
    run(&gateway, duration, tally.clone()).await?;
    let samples = sampling.await??;
    let counters = gateway.settled_counters().await?;
    let (after, took) = settled_memory(&gateway, before).await?;

    println!("{}", tally.describe(duration));
    println!("{}", samples.describe());
    println!(
        "resident: {} MiB before the load, {} MiB {took:.1?} after it",
        before >> 20,
        after >> 20
    );
    let mut failed = compare(&tally, &counters, &first);
    if !levels_off(&samples.resident, GROWTH) {
        failed.push("the resident memory grows in the second half".to_owned());
    }
    if !levels_off(&samples.descriptors, DESCRIPTORS) {
        failed.push("the descriptors grow in the second half".to_owned());
    }
    if after > before + GROWTH {
        failed.push(format!("{} bytes more are resident after the load", after - before));
    }
    for sim in sims {
        sim.stop().await;
    }
    Ok(failed)
}

/// Runs all clients for `duration`.
async fn run(gateway: &Gateway, duration: Duration, tally: Arc<Tally>) -> Result<()> {
    let load = Arc::new(Load::new(gateway.address(), Instant::now() + duration, tally));
    let mut clients = JoinSet::new();
    for number in 0..HTTP1_CLIENTS {
        clients.spawn(clients::http1(load.clone(), number));
    }
    for number in 0..HTTP2_CLIENTS {
        clients.spawn(clients::http2(load.clone(), number));
    }
    let ended = timeout(duration + Duration::from_secs(60), async {
        while let Some(client) = clients.join_next().await {
            client??;
        }
        Ok(())
    });
    ended.await.map_err(|_| Error::other("a client hangs"))?
}

/// Waits until the memory has come back, or until the time for it is over. Returns the resident memory and the time.
async fn settled_memory(gateway: &Gateway, before: u64) -> Result<(u64, Duration)> {
    let begun = Instant::now();
    loop {
        let resident = gateway.resident()?;
        if resident <= before + GROWTH || begun.elapsed() > BACK {
            return Ok((resident, begun.elapsed()));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Compares the counters, less those of the `first` second, with what the clients have counted.
fn compare(tally: &Tally, counters: &Counters, first: &Counters) -> Vec<String> {
    let counted = |prefix: &str| counters.sum(prefix) - first.sum(prefix);
    let served = tally.served();
    let wrong_keys = tally.wrong_keys.load(Relaxed);
    let bad_bodies = tally.bad_bodies.load(Relaxed);
    let lists = tally.lists.load(Relaxed);
    let mut failed = Vec::new();
    let mut check = |what: &str, counted: f64, expected: u64| {
        println!("{what}: {counted} counted, {expected} expected");
        if counted != expected as f64 {
            failed.push(format!("{what}: {counted} counted, {expected} expected"));
        }
    };
    let answered = "steadfast_requests_total";
    check("answered by an upstream", counted(answered), served);
    let good = counters.sum_with(answered, &["endpoint=\"responses\"", "status=\"2xx\""])
        - first.sum_with(answered, &["endpoint=\"responses\"", "status=\"2xx\""]);
    check("answered with 2xx for responses", good, served);
    let rejected = "steadfast_rejected_requests_total";
    check("rejected", counted(rejected), wrong_keys + bad_bodies);
    check(
        "rejected for the key",
        counted(&format!("{rejected}{{reason=\"key\"")),
        wrong_keys,
    );
    check(
        "rejected for the body",
        counted(&format!("{rejected}{{reason=\"body\"")),
        bad_bodies,
    );
    let durations = "steadfast_request_duration_seconds_count";
    // A request with a wrong key has no endpoint.
    check(
        "requests of known callers",
        counted(durations),
        served + bad_bodies + lists,
    );
    check(
        "lists of models",
        counted(&format!("{durations}{{endpoint=\"models\"")),
        lists,
    );
    for gauge in [
        "in_flight_requests",
        "waiting_requests",
        "connections",
        "buffered_bytes",
    ] {
        check(gauge, counters.sum(&format!("steadfast_{gauge}")), 0);
    }
    check("unexpected answers", tally.unexpected.load(Relaxed) as f64, 0);
    failed
}

/// The SHA-256 of the client key in hexadecimal.
fn key_digest() -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(KEY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
