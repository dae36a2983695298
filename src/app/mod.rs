//! The program: parses the command line, and starts, reloads and stops a gateway.
//!
//! `cli` declares the commands and their flags; a new one is added there and in [`run`]. `serve` connects the layers: it
//! loads the configuration (or starts the simulated accounts of `embedded`), makes the gateway, opens the listeners for
//! `proxy` and `ops`, and runs `housekeeping` (with `memory`) and `reload` until a signal begins the `drain`. `logging` and
//! `panics` decide what reaches standard error, and `announce` prints the addresses on standard output.

mod against;
mod announce;
mod cli;
mod drain;
mod embedded;
mod error;
mod housekeeping;
mod key;
mod logging;
mod memory;
mod panics;
mod reload;
mod serve;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser as _;

use self::{
    against::Moves,
    cli::{CheckArgs, Command, LogFormat, LogLevel, RouteArgs, SteadfastArgs},
    error::AppError,
};
use crate::{
    config, ops,
    state::{Gateway, Snapshot},
};

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    panics::install_hook();
    let args = SteadfastArgs::parse();
    let result = match args.command {
        Some(Command::Serve(args)) => serve::serve(args),
        None => serve::serve(args.serve),
        Some(Command::Check(args)) => ignore_closed_output(check(&args)),
        Some(Command::Route(args)) => ignore_closed_output(route(&args)),
        Some(Command::Key(args)) => ignore_closed_output(key::key(&args)),
        Some(Command::Schema) => ignore_closed_output(schema()),
        Some(Command::Sim(args)) => serve::simulate(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed too, only the exit code reports the error.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Installs the panic hook, and starts the log as `serve` does by default. The log ends when the returned value is
/// dropped. Only `benches/counts` and the integration tests call this function.
///
/// # Errors
/// If the system cannot start a thread.
#[doc(hidden)]
pub fn log_as_served() -> io::Result<impl Sized> {
    panics::install_hook();
    logging::start(LogFormat::Text, LogLevel::Info)
}

/// Turns a closed standard output into success, because a reader such as `head` closes it when it needs no more lines.
fn ignore_closed_output(result: Result<(), AppError>) -> Result<(), AppError> {
    match result {
        Err(error) if error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe) => Ok(()),
        other => other,
    }
}

fn check(args: &CheckArgs) -> Result<(), AppError> {
    let config = args.config.load()?;
    for warning in &config.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    let gateway = Gateway::new(&config)?;
    let mut counts = vec![counted(config.upstreams.len(), "upstream")];
    if config.has_client_keys {
        counts.push(counted(config.groups.len(), "group"));
        counts.push(counted(config.keys.len(), "key"));
    }
    writeln!(io::stdout(), "valid: {}", counts.join(", "))?;
    if let Some(old) = &args.against {
        let old = Gateway::new(&args.config.load_instead(old)?)?;
        writeln!(io::stdout(), "{}", Moves::between(&old.snapshot(), &gateway.snapshot()))?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn schema() -> Result<(), AppError> {
    io::stdout().write_all(config::json_schema().as_bytes())?;
    Ok(())
}

fn route(args: &RouteArgs) -> Result<(), AppError> {
    let gateway = Gateway::new(&args.config.load()?)?;
    let snapshot = gateway.snapshot();
    let answer = ops::route(&gateway, &args.key, args.model.as_deref(), args.group.as_deref())?;
    if args.json {
        writeln!(io::stdout(), "{answer}")?;
    } else {
        print_upstreams(&snapshot, args)?;
    }
    Ok(())
}

fn print_upstreams(snapshot: &Snapshot, args: &RouteArgs) -> Result<(), AppError> {
    let mut out = io::stdout();
    let group = snapshot.access.group(args.group.as_deref());
    let group = group.expect("ops::route has reported an unknown group");
    let eligibility = snapshot.eligibility(group, args.model.as_deref());
    let eligibility = eligibility.expect("ops::route has reported a model that no upstream serves");
    for (place, upstream) in snapshot.route(group, &args.key, &eligibility).enumerate() {
        let note = if place == 0 { "  home" } else { "" };
        writeln!(
            out,
            "{}. {} (weight {}){note}",
            place + 1,
            upstream.name,
            upstream.weight.get()
        )?;
    }
    Ok(())
}
