//! The peers of the proxies in `benches/compare`: upstreams that use as little CPU as possible, and a client that
//! holds many connections.
//!
//! ```text
//! sink serve N FOLDER                           N upstreams in one thread, and N with TLS; writes their certificate
//!                                               into FOLDER, prints their ports, runs until killed
//! sink streams ADDR COUNT RATE SECONDS          COUNT event streams with RATE events per second each, "max", or 0
//! (idle) sink connections ADDR COUNT SECONDS           COUNT connections that made one request each and stay open
//! ```
//! The last two print `open COUNT` when all connections are open, and after SECONDS one line of JSON with the counts.

mod clients;
mod identity;
mod upstreams;

use std::{env, future::Future, io, net::SocketAddr, path::Path, process::ExitCode, time::Duration};

const USAGE: &str = "sink serve N FOLDER | streams ADDR COUNT RATE SECONDS | connections ADDR COUNT SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match parse(&arguments) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("sink: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("usage: {USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<io::Result<()>> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["serve", count, folder] => Some(block_on(upstreams::serve(count.parse().ok()?, Path::new(folder)))),
        ["streams", address, count, rate, seconds] => Some(block_on(clients::streams(
            address.parse::<SocketAddr>().ok()?,
            count.parse().ok()?,
            rate.to_owned(),
            Duration::from_secs_f64(seconds.parse().ok()?),
        ))),
        ["connections", address, count, seconds] => Some(block_on(clients::connections(
            address.parse::<SocketAddr>().ok()?,
            count.parse().ok()?,
            Duration::from_secs_f64(seconds.parse().ok()?),
        ))),
        _ => None,
    }
}

fn block_on(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
