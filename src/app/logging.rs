//! The log on standard error. Standard output is left to the results of commands.
//!
//! A separate thread writes the lines, many at a time. If standard error is not read, lines are dropped and counted, and
//! requests continue. Characters that a terminal does not print as they are become escapes. A process that is killed loses
//! the lines of its last 50 ms; a process that stops writes all of them.

mod escape;
mod line;
mod writer;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::{
    escape::{EscapedLines, LineForm},
    line::{ACCESS, AccessLines},
    writer::{WriterGuard, WriterLimits},
};
use super::cli::{LogFormat, LogLevel};

/// A line is delayed by at most 50 ms, and a batch is as large as a pipe's buffer. Waiting lines, and as many again that are being
/// written, take at most 16 MiB: more than half a minute of 1,000 requests per second.
const LIMITS: WriterLimits = WriterLimits {
    gather: Duration::from_millis(50),
    batch: 64 << 10,
    waiting: 8 << 20,
    waiting_urgent: 64 << 10,
    closing: Duration::from_secs(1),
};

/// Keeps the log running. When it is dropped, the waiting lines are written.
pub(super) struct Log(WriterGuard);

impl Drop for Log {
    fn drop(&mut self) {
        let dropped = self.0.dropped();
        if dropped > 0 {
            tracing::warn!(
                lines = dropped,
                "log lines were dropped: standard error was not read fast enough"
            );
        }
    }
}

/// Starts the log of this process.
///
/// Libraries log at most warnings, whatever `level` is: their debug messages about frames and handshakes may contain secrets.
///
/// # Errors
/// If the system cannot start a thread.
pub(super) fn start(format: LogFormat, level: LogLevel) -> io::Result<Log> {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("steadfast", level)
        .with_target(ACCESS, level);
    let (lines, guard) = writer::start(io::stderr(), LIMITS)?;
    let is_terminal = io::stderr().is_terminal();
    let form = match format {
        LogFormat::Json => LineForm::Json,
        LogFormat::Text if is_terminal => LineForm::Coloured,
        LogFormat::Text => LineForm::Plain,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(EscapedLines { form, lines })
        .with_ansi(is_terminal);
    let registry = tracing_subscriber::registry().with(targets);
    let installed = match format {
        LogFormat::Text => registry
            .with(layer.map_event_format(|library| AccessLines { format, library }))
            .try_init(),
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true);
            registry
                .with(layer.map_event_format(|library| AccessLines { format, library }))
                .try_init()
        }
    };
    installed.expect("the log is started once in a process, and nothing else sets a subscriber");
    Ok(Log(guard))
}
