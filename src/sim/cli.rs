//! The command `steadfast sim`. It runs one simulated account as a program of its own.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::config::SimConfig;
use super::instance::Sim;
use crate::secret::Secret;

/// The options of `steadfast sim`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The name of the account. Every answer contains it, and an account accepts only state that was issued under its
    /// own name
    #[arg(long, default_value = "sim")]
    pub name: String,
    /// Time between two events of a stream, for example 20ms or 1.5s
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_time)]
    pub pace: Duration,
    /// Number of pieces of text in an answer
    #[arg(long, value_name = "N", default_value_t = SimConfig::default().deltas)]
    pub deltas: usize,
    /// A model of the account; repeat the option for more models. Requests for other models are refused then
    #[arg(long = "model", value_name = "NAME")]
    pub models: Vec<String>,
    /// How long a background response or a batch is in progress, for example 200ms
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_time)]
    pub background: Duration,
    /// Give the response another id in the last event of a stream than in the first, as some upstreams do. The account
    /// accepts both ids afterwards
    #[arg(long)]
    pub changes_ids: bool,
    /// The only API key that the account accepts [default: any]
    #[arg(long, value_name = "KEY", value_parser = parse_secret)]
    pub api_key: Option<Secret>,
}

impl SimArgs {
    /// Returns the configuration of the account that these options describe.
    pub fn config(self) -> SimConfig {
        let mut config = SimConfig {
            name: self.name,
            pace: self.pace,
            deltas: self.deltas,
            background: self.background,
            changes_ids: self.changes_ids,
            api_key: self.api_key,
            ..SimConfig::default()
        };
        if !self.models.is_empty() {
            config.models = self.models;
            config.only_models = true;
        }
        config
    }
}

/// Runs one account until `shutdown` is ready, then drops its connections.
///
/// # Errors
/// If the address cannot be bound, or if the name is invalid.
pub async fn run(args: SimArgs, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let sim = Sim::start(args.listen, args.clone().config()).await?;
    // The account runs without standard output too.
    let _ = writeln!(
        io::stdout(),
        "simulated account '{}' listening on {} (no model behind it)",
        args.name,
        sim.base_url()
    );
    shutdown.await;
    sim.stop().await;
    Ok(())
}

// This is infallible, but clap needs a parser that returns a result.
fn parse_secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0)];
    units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?.parse::<f64>().ok()?, seconds)))
        .and_then(|(number, seconds)| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| "a time must be a number and a unit (us, ms, s or m), for example 20ms".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct SimCli {
        #[command(flatten)]
        sim: SimArgs,
    }

    fn parse(arguments: &[&str]) -> Result<SimArgs, clap::Error> {
        let arguments = ["sim"].iter().chain(arguments);
        SimCli::try_parse_from(arguments).map(|cli| cli.sim)
    }

    #[test]
    fn options_are_turned_into_a_configuration() {
        let config = parse(&[
            "--name",
            "a",
            "--pace",
            "1.5s",
            "--model",
            "x",
            "--model",
            "y",
            "--api-key",
            "sk-1",
            "--background",
            "2s",
            "--changes-ids",
        ])
        .unwrap()
        .config();
        assert_eq!((config.name.as_str(), config.pace), ("a", Duration::from_millis(1500)));
        assert_eq!(
            (config.models, config.only_models),
            (vec!["x".to_owned(), "y".to_owned()], true)
        );
        assert_eq!((config.background, config.changes_ids), (Duration::from_secs(2), true));
        assert_eq!(config.api_key.as_ref().map(Secret::expose), Some("sk-1"));
        let default = parse(&[]).unwrap().config();
        assert!(!default.only_models && default.api_key.is_none());
        assert_eq!(default.pace, Duration::from_millis(20));
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_time("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_time("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "20", "ms", "-1s", "infs", "1h30"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_command_serves_until_shutdown_and_fails_if_the_address_is_taken() {
        let args = parse(&[]).unwrap();
        run(args, std::future::ready(())).await.unwrap();
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = parse(&["--listen", &taken.local_addr().unwrap().to_string()]).unwrap();
        assert_eq!(
            run(args, std::future::ready(())).await.unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
