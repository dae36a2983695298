//! A writer that gathers lines: whoever logs appends to a buffer in memory, one thread writes it out in large pieces.
//!
//! In the steady state a line costs a lock and a copy, no system call: it wakes the thread only where it finds the buffer
//! empty, fills a batch, or is a warning. The thread then waits for a moment, so that more comes along.

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

/// How lines are gathered.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// How long a line waits for others.
    pub gather: Duration,
    /// Bytes that are written without waiting for more.
    pub batch: usize,
    /// Bytes that may wait while nobody reads; what comes then is dropped.
    pub waiting: usize,
    /// Bytes of warnings and errors that may wait beyond that.
    pub waiting_urgent: usize,
    /// How long the end waits for what is still to be written.
    pub closing: Duration,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    /// Wakes the thread.
    wake: Condvar,
    /// Wakes who waits for the thread's end.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    is_urgent: bool,
    is_closing: bool,
    has_ended: bool,
    dropped: u64,
}

impl State {
    fn must_write(&self, limits: &Limits) -> bool {
        self.is_urgent || self.is_closing || self.lines.len() >= limits.batch
    }
}

/// Where lines go.
pub(super) struct Lines(Arc<Shared>);

/// Keeps the thread; dropped, it waits until everything is written, but not for long.
pub(super) struct Guard(Arc<Shared>);

/// Starts the thread that writes to `out`.
///
/// # Errors
/// Where the system has no thread to spare.
pub(super) fn start(out: impl Write + Send + 'static, limits: Limits) -> io::Result<(Lines, Guard)> {
    let shared = Arc::new(Shared {
        limits,
        state: Mutex::default(),
        wake: Condvar::new(),
        ended: Condvar::new(),
    });
    let worker = shared.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || worker.write_until_closed(out))?;
    Ok((Lines(shared.clone()), Guard(shared)))
}

impl Shared {
    fn append(&self, line: &[u8], is_urgent: bool) {
        let limits = &self.limits;
        let mut state = self.state.lock();
        let before = state.lines.len();
        let after = before + line.len();
        let room = limits.waiting + if is_urgent { limits.waiting_urgent } else { 0 };
        if after > room {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        state.is_urgent |= is_urgent;
        let wakes = is_urgent || before == 0 || (before < limits.batch && after >= limits.batch);
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    fn write_until_closed(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            let lost = write_all(&mut out, &batch);
            if lost > 0 {
                self.state.lock().dropped += lost;
            }
            // A burst's memory is given back.
            if batch.capacity() > 4 * self.limits.batch {
                batch = Vec::new();
            }
            batch.clear();
        }
        self.state.lock().has_ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines, gathers, and swaps them for `batch`, which is empty; `false` at the end.
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

/// Writes `rest`, and answers how many lines of it could not be written.
fn write_all(out: &mut impl Write, mut rest: &[u8]) -> u64 {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the pipe has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(10)),
            Ok(_) | Err(_) => return memchr::memchr_iter(b'\n', rest).count() as u64,
        }
    }
    0
}

impl Guard {
    /// Lines that were dropped because nobody read.
    pub fn dropped(&self) -> u64 {
        self.0.state.lock().dropped
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closing = true;
        self.0.wake.notify_one();
        self.0
            .ended
            .wait_while_for(&mut state, |state| !state.has_ended, self.0.limits.closing);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            shared: &self.0,
            is_urgent: false,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            shared: &self.0,
            is_urgent: *metadata.level() <= Level::WARN,
        }
    }
}

/// One line on its way: each write is one whole line.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    is_urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.append(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
