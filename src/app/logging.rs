//! Logs go to standard error, so that standard output stays for what was asked for.
//!
//! A thread of its own writes them. Where nobody reads standard error, lines are dropped and counted; requests go on.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::cli::{LogFormat, LogLevel};

/// Lines that may wait to be written.
const WAITING_LINES: usize = 65_536;

/// Keeps the log alive; dropped, it writes what still waits.
pub(super) struct Log {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

impl Drop for Log {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            tracing::warn!(
                lines = dropped,
                "log lines were dropped: standard error was not read fast enough"
            );
        }
    }
}

/// Starts logging. The libraries below are heard from `warn` on only, unless more was asked for than `info`.
pub(super) fn start(format: LogFormat, level: LogLevel) -> Log {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if level > LevelFilter::INFO {
        level
    } else {
        level.min(LevelFilter::WARN)
    };
    let targets = Targets::new()
        .with_default(libraries)
        .with_target("steadfast", level)
        .with_target("access", level);
    let registry = tracing_subscriber::registry().with(targets);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    // The only subscriber of the process: setting it cannot fail here.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Log {
        _writer: guard,
        dropped,
    }
}
