//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{AppError, embedded};
use crate::{
    config::{Config, Overrides, parse_name},
    sim::SimArgs,
};

/// Keeps every LLM session on one upstream account, so that its prompt cache stays warm.
///
/// Without a configuration file and without --upstream, two simulated upstreams run inside the process.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(super) struct SteadfastArgs {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Serve requests (the default command)
    Serve(ServeArgs),
    /// Check a configuration: report every error with its position and what to do. The exit code is 1 if there is an
    /// error
    Check(CheckArgs),
    /// Show the upstreams for a session key, the preferred one first
    Route(RouteArgs),
    /// Make a client key. The key is printed once on standard error, and the lines for the configuration on standard
    /// output
    Key(KeyArgs),
    /// Print the JSON Schema of the configuration file. Editors use it to complete and check the file
    #[command(
        after_help = "Write the schema beside the file:\n\n    steadfast schema > steadfast.schema.json\n\n\
        and name it in the first line of the file, for editors that use Taplo:\n\n    #:schema ./steadfast.schema.json"
    )]
    Schema,
    /// Run one simulated upstream account
    Sim(SimArgs),
}

#[derive(Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The format of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The lowest severity that is logged; "warn" omits the line of each request
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Also show how many sessions in 100 would move, and to which upstreams, if the checked configuration replaced
    /// this one. Active sessions stay on the upstream to which they are pinned
    #[arg(long, value_name = "OLD")]
    pub against: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Args)]
pub(super) struct RouteArgs {
    /// The session key, as clients send it in prompt_cache_key or in the session-id header
    pub key: String,
    /// Show only upstreams that serve this model
    #[arg(long)]
    pub model: Option<String>,
    /// The group of the caller's client key
    #[arg(long)]
    pub group: Option<String>,
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct KeyArgs {
    /// The name of the key in logs and limits
    #[arg(long, default_value = "alice", value_parser = parse_name)]
    pub name: String,
    /// The name of the key's group
    #[arg(long, default_value = "team", value_parser = parse_name)]
    pub group: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Human-readable text
    Text,
    /// One JSON object per line
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

/// The file and the flags from which the configuration is made.
#[derive(Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// An address to listen on. Port 0 selects a free port. Repeat the option for more addresses. It replaces
    /// server.listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The address of the admin listener. It replaces admin.listen [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// An upstream: its name, its base URL, and its key as env:NAME, file:PATH or passthrough. Repeat the option for
    /// more upstreams
    #[arg(long = "upstream", value_name = "NAME=BASE_URL,KEY")]
    upstreams: Vec<String>,
}

impl ConfigArgs {
    /// Whether neither a file nor an upstream is given, so that the simulated upstreams are used.
    pub fn is_embedded(&self) -> bool {
        self.file.is_none() && self.upstreams.is_empty()
    }

    /// The path of the configuration file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The flags that override or extend the file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            upstreams: self.upstreams.clone(),
        }
    }

    /// Loads the file `old` instead of the configured file, with the same flags.
    pub fn load_instead(&self, old: &Path) -> Result<Config, AppError> {
        Ok(Config::load(old, &self.overrides())?)
    }

    /// Loads the configuration. The simulated upstreams are not started.
    pub fn load(&self) -> Result<Config, AppError> {
        let overrides = self.overrides();
        Ok(match &self.file {
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
        SteadfastArgs::command().debug_assert();
    }

    #[test]
    fn the_bare_command_takes_the_flags_of_serve() {
        let args = SteadfastArgs::parse_from(["steadfast", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        assert!(args.command.is_none() && args.serve.log_format == LogFormat::Json);
        assert_eq!(args.serve.config.overrides().listen, ["127.0.0.1:0"]);
    }
}
