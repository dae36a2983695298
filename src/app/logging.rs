//! Logs go to standard error, so that standard output stays for what was asked for.
//!
//! A thread of its own writes them, many lines at a time. Where nobody reads standard error, lines are dropped and counted;
//! requests go on. A process that is killed takes the lines of its last 50 ms with it; one that stops writes them all.

mod line;
mod writer;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::{
    line::{ACCESS, AccessLines},
    writer::{Guard, Limits},
};
use super::cli::{LogFormat, LogLevel};

/// A line is at most 50 ms late, and one write takes as much as a pipe holds. What waits, and as much again that is being
/// written, is 16 MiB at most: more than half a minute of 1,000 requests a second.
const LIMITS: Limits = Limits {
    gather: Duration::from_millis(50),
    batch: 64 << 10,
    waiting: 8 << 20,
    waiting_urgent: 64 << 10,
    closing: Duration::from_secs(1),
};

/// Keeps the log alive; dropped, it writes what still waits.
pub(super) struct Log(Guard);

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

/// Starts logging. Of the libraries below only warnings are heard, whatever was asked for: what they say of frames and
/// handshakes further down is made for their own authors, who do not know what of it is secret.
///
/// # Errors
/// Where the system has no thread to spare.
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
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(targets);
    // The only subscriber of the process: setting it cannot fail here.
    let _ = match format {
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
    Ok(Log(guard))
}
