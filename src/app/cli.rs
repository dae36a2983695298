//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{Problem, embedded};
use crate::{
    config::{Config, Overrides, parse_name},
    sim::SimArgs,
};

/// Keeps every LLM session on one upstream account, so that its prompt cache stays warm.
///
/// Without a configuration file and without --upstream, two simulated upstreams run inside the process.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Serve requests (also without any command)
    Serve(ServeArgs),
    /// Check a configuration: every error with its place and what to do; exit code 0 or 1
    Check(CheckArgs),
    /// Show the upstreams for a session key, best first
    Route(RouteArgs),
    /// Make a client key: the key on standard error, only once, and on standard output the lines for the configuration
    Key(KeyArgs),
    /// Run one simulated upstream account on its own
    Sim(SimArgs),
}

#[derive(Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub source: Source,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: "warn" leaves out the line that each request gets
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Say how many sessions in 100 would move if this file's configuration were replaced by the one that is checked, and to
    /// where. Sessions that run keep to the upstream that they are pinned to
    #[arg(long, value_name = "OLD")]
    pub against: Option<PathBuf>,
    #[command(flatten)]
    pub source: Source,
}

#[derive(Args)]
pub(super) struct RouteArgs {
    /// The session key, as clients send it in prompt_cache_key or the session-id header
    pub key: String,
    /// Only upstreams that serve this model
    #[arg(long)]
    pub model: Option<String>,
    /// The group of the client key that calls
    #[arg(long)]
    pub group: Option<String>,
    #[command(flatten)]
    pub source: Source,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct KeyArgs {
    /// What the log and the limits are to know it by
    #[arg(long, default_value = "alice", value_parser = parse_name)]
    pub name: String,
    /// Whom it belongs to: the name of a [[group]]
    #[arg(long, default_value = "team", value_parser = parse_name)]
    pub group: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// For machines: one object a line
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Where the configuration comes from.
#[derive(Args)]
pub(super) struct Source {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, repeated for more; port 0 takes a free one. Replaces server.listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Address of the admin side. Replaces admin.listen [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// An upstream, repeated for more: its name, its base URL, and its key as env:NAME, file:PATH or passthrough
    #[arg(long = "upstream", value_name = "NAME=BASE_URL,KEY")]
    upstreams: Vec<String>,
}

impl Source {
    /// Whether nothing names an upstream, so that the simulated ones are meant.
    pub fn is_embedded(&self) -> bool {
        self.config.is_none() && self.upstreams.is_empty()
    }

    pub fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            upstreams: self.upstreams.clone(),
        }
    }

    /// What the file `old` would be with the same flags.
    pub fn load_instead(&self, old: &Path) -> Result<Config, Problem> {
        Ok(Config::load(old, &self.overrides())?)
    }

    /// The configuration; that of the simulated upstreams without running them.
    pub fn load(&self) -> Result<Config, Problem> {
        let overrides = self.overrides();
        Ok(match &self.config {
            Some(path) => Config::load(path, &overrides)?,
            None if self.is_embedded() => Config::embedded(embedded::placeholders()?, &overrides)?,
            None => Config::from_flags(&overrides)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_bare_command_takes_the_flags_of_serve() {
        let cli = Cli::parse_from(["steadfast", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        assert!(cli.command.is_none() && cli.serve.log_format == LogFormat::Json);
        assert_eq!(cli.serve.source.overrides().listen, ["127.0.0.1:0"]);
    }
}
