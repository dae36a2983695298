//! A buffered writer of log lines: threads that log append lines to a buffer, and one thread writes the buffer in large pieces.
//!
//! Under load a line costs a lock and a copy, but no system call: it wakes the writing thread only if the buffer was
//! empty, if a batch is full, or if it is a warning. The writing thread then waits for a moment, so that it can write
//! more lines at once.

#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The limits of the buffer: its size in bytes, and the time that lines stay in it.
#[derive(Clone, Copy)]
pub(super) struct WriterLimits {
    /// The maximum time that a line waits for others.
    pub gather: Duration,
    /// The number of bytes that are written without waiting for more.
    pub batch: usize,
    /// The maximum number of bytes that wait while the output is blocked. Lines over it are dropped.
    pub waiting: usize,
    /// The number of bytes that warnings and errors may use in addition to `waiting`.
    pub waiting_urgent: usize,
    /// The maximum time that dropping the [`WriterGuard`] waits until everything is written.
    pub closing: Duration,
}

/// The lines between the threads that log and the thread that writes.
struct LogBuffer {
    limits: WriterLimits,
    state: Mutex<BufferState>,
    /// Wakes the writing thread.
    wake: Condvar,
    /// Wakes the thread that waits for the end of the writing thread.
    ended: Condvar,
}

#[derive(Default)]
struct BufferState {
    /// Lines that are not yet written.
    lines: Vec<u8>,
    /// Whether a warning or an error is among the lines.
    is_urgent: bool,
    /// Whether the writing thread must end when everything is written.
    is_closing: bool,
    /// Whether the writing thread has ended.
    has_ended: bool,
    /// The number of lines that were dropped.
    dropped: u64,
}

/// Whether a line may wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// The line may wait.
    Normal,
    /// The line is a warning or an error, and is written at once.
    Urgent,
}

impl BufferState {
    fn must_write(&self, limits: &WriterLimits) -> bool {
        self.is_urgent || self.is_closing || self.lines.len() >= limits.batch
    }
}

/// Makes writers that append lines to the buffer.
pub(super) struct LogSink(Arc<LogBuffer>);

/// Keeps the writing thread running. Dropping it waits until everything is written, at most [`WriterLimits::closing`].
pub(super) struct WriterGuard(Arc<LogBuffer>);

/// Starts the thread that writes to `out`.
///
/// # Errors
/// If the system cannot start a thread.
pub(super) fn start(out: impl Write + Send + 'static, limits: WriterLimits) -> io::Result<(LogSink, WriterGuard)> {
    let buffer = Arc::new(LogBuffer {
        limits,
        state: Mutex::default(),
        wake: Condvar::new(),
        ended: Condvar::new(),
    });
    let worker = buffer.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || worker.write_until_closed(out))?;
    Ok((LogSink(buffer.clone()), WriterGuard(buffer)))
}

impl LogBuffer {
    /// Appends a line, or drops it if the buffer is full.
    fn append(&self, line: &[u8], urgency: Urgency) {
        let limits = &self.limits;
        let mut state = self.state.lock();
        let before = state.lines.len();
        let after = before + line.len();
        let most = match urgency {
            Urgency::Normal => limits.waiting,
            Urgency::Urgent => limits.waiting + limits.waiting_urgent,
        };
        if after > most {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        let is_urgent = urgency == Urgency::Urgent;
        state.is_urgent |= is_urgent;
        let wakes = is_urgent || before == 0 || (before < limits.batch && after >= limits.batch);
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// The writing thread: writes batches until the guard is dropped and everything is written.
    fn write_until_closed(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            let lost = write_all(&mut out, &batch);
            if lost > 0 {
                self.state.lock().dropped += lost;
            }
            // The memory of a burst is freed.
            if batch.capacity() > 4 * self.limits.batch {
                batch = Vec::new();
            }
            batch.clear();
        }
        self.state.lock().has_ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines, waits until a batch is complete, and swaps it with `batch`, which must be empty. Returns `false` at the
    /// end.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        self.wake
            .wait_while(&mut state, |state| state.lines.is_empty() && !state.is_closing);
        let until = Instant::now() + self.limits.gather;
        self.wake
            .wait_while_until(&mut state, |state| !state.must_write(&self.limits), until);
        state.is_urgent = false;
        std::mem::swap(&mut state.lines, batch);
        !batch.is_empty()
    }
}

/// Writes `rest`. Returns the number of lines that could not be written.
fn write_all(out: &mut impl Write, mut rest: &[u8]) -> u64 {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written) if written > 0 => rest = rest.get(written..).expect("a writer takes at most what it is given"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The pipe is full, and another process that shares it has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(10)),
            Ok(_) | Err(_) => return memchr::memchr_iter(b'\n', rest).count() as u64,
        }
    }
    0
}

impl WriterGuard {
    /// The number of lines that were dropped because the output was blocked or failed.
    pub fn dropped(&self) -> u64 {
        self.0.state.lock().dropped
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closing = true;
        self.0.wake.notify_one();
        self.0
            .ended
            .wait_while_for(&mut state, |state| !state.has_ended, self.0.limits.closing);
    }
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine {
            buffer: &self.0,
            urgency: Urgency::Normal,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LogLine<'a> {
        LogLine {
            buffer: &self.0,
            urgency: if *metadata.level() <= Level::WARN {
                Urgency::Urgent
            } else {
                Urgency::Normal
            },
        }
    }
}

/// A writer of one line. `tracing_subscriber` writes each line by a single call.
pub(super) struct LogLine<'a> {
    buffer: &'a LogBuffer,
    urgency: Urgency,
}

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.buffer.append(line, self.urgency);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
