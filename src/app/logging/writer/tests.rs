//! When lines are written, in which order, and which are dropped.

use std::sync::mpsc::{self, Receiver, Sender};

use proptest::prelude::*;

use super::{Urgency::*, *};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3_600);

/// Limits with which a line waits until the writer is closed.
const LONG_GATHER: WriterLimits = WriterLimits {
    gather: NEVER,
    batch: 1 << 30,
    waiting: usize::MAX / 2,
    waiting_urgent: 100,
    closing: Duration::from_secs(10),
};

/// Passes on each write as one message.
struct Pipe(Sender<String>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        self.0.send(text).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn piped(limits: WriterLimits) -> (LogSink, WriterGuard, Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let (lines, guard) = start(Pipe(sender), limits).expect("a thread");
    (lines, guard, receiver)
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn append(lines: &LogSink, texts: &[String]) {
    for text in texts {
        lines.0.append(text.as_bytes(), Normal);
    }
}

#[test]
fn lines_wait_for_others_until_the_end() {
    let (lines, guard, written) = piped(LONG_GATHER);
    let texts = numbered(1_000);
    append(&lines, &texts);
    drop(guard);
    assert_eq!(written.iter().collect::<Vec<_>>(), [texts.concat()], "one write");
}

#[test]
fn a_warning_is_written_at_once() {
    let (lines, _guard, written) = piped(LONG_GATHER);
    let texts = numbered(10);
    append(&lines, &texts);
    lines.0.append(b"warning\n", Urgent);
    assert_eq!(written.recv().expect("a write"), texts.concat() + "warning\n");
    append(&lines, &texts);
    lines.0.append(b"another\n", Urgent);
    assert_eq!(written.recv().expect("a write"), texts.concat() + "another\n");
}

#[test]
fn a_full_batch_is_written_at_once() {
    let texts = numbered(100);
    let batch = texts.concat().len();
    let (lines, _guard, written) = piped(WriterLimits { batch, ..LONG_GATHER });
    append(&lines, &texts);
    assert_eq!(written.recv().expect("a write"), texts.concat());
}

#[test]
fn a_single_line_is_written_after_the_gather_time() {
    let gather = Duration::from_millis(1);
    let (lines, _guard, written) = piped(WriterLimits { gather, ..LONG_GATHER });
    for text in numbered(3) {
        lines.0.append(text.as_bytes(), Normal);
        assert_eq!(written.recv().expect("a write"), text);
    }
}

#[test]
fn the_lines_of_each_thread_stay_in_order() {
    const THREADS: usize = 4;
    const EACH: usize = 5_000;
    let (lines, guard, written) = piped(WriterLimits {
        gather: Duration::ZERO,
        batch: 512,
        ..LONG_GATHER
    });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let lines = &lines;
            scope.spawn(move || {
                for number in 0..EACH {
                    let line = format!("{thread} {number}\n");
                    let urgency = if number % 1_000 == 7 { Urgent } else { Normal };
                    lines.0.append(line.as_bytes(), urgency);
                }
            });
        }
    });
    assert_eq!(guard.dropped(), 0);
    drop(guard);
    let text: String = written.iter().collect();
    let mut next = [0; THREADS];
    for line in text.lines() {
        let (thread, number) = line.split_once(' ').expect("a whole line");
        let next = &mut next[thread.parse::<usize>().expect("a thread")];
        assert_eq!(number.parse(), Ok(*next));
        *next += 1;
    }
    assert_eq!(next, [EACH; THREADS]);
}

/// An output that blocks until the test opens it.
struct BlockedOutput {
    entered: Sender<()>,
    opened: Receiver<()>,
    out: Pipe,
}

impl Write for BlockedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // At the end of a test the other end may be closed.
        let _ = self.entered.send(());
        let _ = self.opened.recv();
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer whose first line is being written to a blocked output.
fn blocked(limits: WriterLimits) -> (LogSink, WriterGuard, Sender<()>, Receiver<String>) {
    let (entered, has_entered) = mpsc::channel();
    let (open, opened) = mpsc::channel();
    let (sender, written) = mpsc::channel();
    let out = BlockedOutput {
        entered,
        opened,
        out: Pipe(sender),
    };
    let (lines, guard) = start(out, limits).expect("a thread");
    lines.0.append(b"first\n", Urgent);
    has_entered.recv().expect("a write");
    (lines, guard, open, written)
}

#[test]
fn lines_over_the_limit_are_dropped_and_counted() {
    let texts = numbered(20);
    let waiting = texts[..10].concat().len();
    let (lines, guard, open, written) = blocked(WriterLimits { waiting, ..LONG_GATHER });
    append(&lines, &texts);
    assert_eq!(guard.dropped(), 10);
    lines.0.append(b"warnings have space of their own\n", Urgent);
    assert_eq!(guard.dropped(), 10);
    lines.0.append(&[b'x'; 100], Urgent);
    assert_eq!(guard.dropped(), 11, "the space for warnings is bounded too");
    drop(open);
    drop(guard);
    let text: String = written.iter().collect();
    assert_eq!(
        text,
        format!("first\n{}warnings have space of their own\n", texts[..10].concat())
    );
}

#[test]
fn closing_a_blocked_writer_does_not_wait_for_ever() {
    let closing = Duration::from_millis(1);
    let (lines, guard, open, written) = blocked(WriterLimits { closing, ..LONG_GATHER });
    append(&lines, &numbered(10));
    drop(guard);
    assert!(
        written.try_recv().is_err(),
        "dropping the guard returned while the output was blocked"
    );
    drop(open);
}

/// An output that takes pieces and fails as given: each step is a number of bytes or an error. The last step comes first.
struct FaultyOutput {
    steps: Vec<Result<usize, ErrorKind>>,
    taken: Vec<u8>,
}

impl Write for FaultyOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = self.steps.pop().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        self.taken.extend_from_slice(&bytes[..piece]);
        Ok(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn lines_that_cannot_be_written_are_counted(
        steps in prop::collection::vec(
            prop_oneof![
                8 => (1..20usize).prop_map(Ok),
                2 => Just(Err(ErrorKind::Interrupted)),
                1 => Just(Err(ErrorKind::StorageFull)),
                1 => Just(Ok(0)),
            ],
            0..12,
        ),
        count in 0..8usize,
    ) {
        let text = numbered(count).concat();
        let mut out = FaultyOutput { steps, taken: Vec::new() };
        let lost = write_all(&mut out, text.as_bytes());
        prop_assert!(text.as_bytes().starts_with(&out.taken));
        let whole = out.taken.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(lost as usize, count - whole);
        prop_assert_eq!(lost == 0, out.taken.len() == text.len());
    }
}

#[test]
fn a_full_non_blocking_pipe_is_tried_again() {
    let steps = vec![Ok(3), Err(ErrorKind::WouldBlock), Ok(2)];
    let mut out = FaultyOutput {
        steps,
        taken: Vec::new(),
    };
    assert_eq!(write_all(&mut out, b"a line\n"), 0);
    assert_eq!(out.taken, b"a line\n");
}
