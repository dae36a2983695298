//! The roof: what was typed becomes a running gateway.

mod against;
mod cli;
mod drain;
mod embedded;
mod housekeeping;
mod key;
mod logging;
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
    cli::{CheckArgs, Cli, Command, LogFormat, LogLevel, RouteArgs},
};
use crate::{
    ops,
    state::{Gateway, Snapshot},
};

/// Runs the program with the arguments that it was started with.
pub fn run() -> ExitCode {
    panics::keep_quiet();
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Serve(args)) => serve::serve(args),
        None => serve::serve(cli.serve),
        Some(Command::Check(args)) => unless_left(check(&args)),
        Some(Command::Route(args)) => unless_left(route(&args)),
        Some(Command::Key(args)) => unless_left(key::key(&args)),
        Some(Command::Sim(args)) => serve::simulate(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Where even standard error is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Logs as `serve` does unless told otherwise, panics too, until what is returned is dropped. `benches/counts` counts that along.
///
/// # Errors
/// Where the system has no thread to spare.
#[doc(hidden)]
pub fn log_as_served() -> io::Result<impl Sized> {
    panics::keep_quiet();
    logging::start(LogFormat::Text, LogLevel::Info)
}

/// Anything that ends the program; its text says what to do.
type Problem = Box<dyn std::error::Error>;

/// A reader that leaves early, as `head` does, has what it wanted.
fn unless_left(result: Result<(), Problem>) -> Result<(), Problem> {
    match result {
        Err(problem) if problem.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe) => Ok(()),
        other => other,
    }
}

fn check(args: &CheckArgs) -> Result<(), Problem> {
    let config = args.source.load()?;
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
        let old = Gateway::new(&args.source.load_instead(old)?)?;
        writeln!(io::stdout(), "{}", Moves::between(&old.snapshot(), &gateway.snapshot()))?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn route(args: &RouteArgs) -> Result<(), Problem> {
    let gateway = Gateway::new(&args.source.load()?)?;
    let snapshot = gateway.snapshot();
    let answer = ops::route(&snapshot, &args.key, args.model.as_deref(), args.group.as_deref())?;
    if args.json {
        writeln!(io::stdout(), "{answer}")?;
    } else {
        list(&snapshot, args)?;
    }
    Ok(())
}

fn list(snapshot: &Snapshot, args: &RouteArgs) -> Result<(), Problem> {
    let mut out = io::stdout();
    // The answer in JSON, which comes first, has found the group.
    let Some(group) = snapshot.access.group(args.group.as_deref()) else {
        return Ok(());
    };
    let eligibility = snapshot.eligibility(group, args.model.as_deref());
    let order = eligibility
        .iter()
        .flat_map(|eligibility| snapshot.route(group, &args.key, eligibility));
    for (place, upstream) in order.enumerate() {
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
