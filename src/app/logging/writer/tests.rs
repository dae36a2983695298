use std::sync::mpsc::{self, Receiver, Sender};

use proptest::prelude::*;

use super::*;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3_600);

const PATIENT: Limits = Limits {
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

fn piped(limits: Limits) -> (Lines, Guard, Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let (lines, guard) = start(Pipe(sender), limits).expect("a thread");
    (lines, guard, receiver)
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn append(lines: &Lines, texts: &[String]) {
    for text in texts {
        lines.0.append(text.as_bytes(), false);
    }
}

#[test]
fn lines_wait_for_others_until_the_end() {
    let (lines, guard, written) = piped(PATIENT);
    let texts = numbered(1_000);
    append(&lines, &texts);
    drop(guard);
    assert_eq!(written.iter().collect::<Vec<_>>(), [texts.concat()], "one write");
}

#[test]
fn a_warning_waits_for_nobody() {
    let (lines, _guard, written) = piped(PATIENT);
    let texts = numbered(10);
    append(&lines, &texts);
    lines.0.append(b"warning\n", true);
    assert_eq!(written.recv().expect("a write"), texts.concat() + "warning\n");
    append(&lines, &texts);
    lines.0.append(b"another\n", true);
    assert_eq!(written.recv().expect("a write"), texts.concat() + "another\n");
}

#[test]
fn a_full_batch_waits_no_longer() {
    let texts = numbered(100);
    let batch = texts.concat().len();
    let (lines, _guard, written) = piped(Limits { batch, ..PATIENT });
    append(&lines, &texts);
    assert_eq!(written.recv().expect("a write"), texts.concat());
}

#[test]
fn a_single_line_comes_by_itself() {
    let gather = Duration::from_millis(1);
    let (lines, _guard, written) = piped(Limits { gather, ..PATIENT });
    for text in numbered(3) {
        lines.0.append(text.as_bytes(), false);
        assert_eq!(written.recv().expect("a write"), text);
    }
}

#[test]
fn lines_of_many_threads_are_kept_in_each_thread_s_order() {
    const THREADS: usize = 4;
    const EACH: usize = 5_000;
    let (lines, guard, written) = piped(Limits {
        gather: Duration::ZERO,
        batch: 512,
        ..PATIENT
    });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let lines = &lines;
            scope.spawn(move || {
                for number in 0..EACH {
                    let line = format!("{thread} {number}\n");
                    lines.0.append(line.as_bytes(), number % 1_000 == 7);
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

/// Nobody reads until the other end says so.
struct Stuck {
    entered: Sender<()>,
    opened: Receiver<()>,
    out: Pipe,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Either end may have gone by the test's end.
        let _ = self.entered.send(());
        let _ = self.opened.recv();
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines whose first is being written, to nobody.
fn stuck(limits: Limits) -> (Lines, Guard, Sender<()>, Receiver<String>) {
    let (entered, has_entered) = mpsc::channel();
    let (open, opened) = mpsc::channel();
    let (sender, written) = mpsc::channel();
    let out = Stuck {
        entered,
        opened,
        out: Pipe(sender),
    };
    let (lines, guard) = start(out, limits).expect("a thread");
    lines.0.append(b"first\n", true);
    has_entered.recv().expect("a write");
    (lines, guard, open, written)
}

#[test]
fn over_the_bound_lines_are_dropped_and_counted() {
    let texts = numbered(20);
    let waiting = texts[..10].concat().len();
    let (lines, guard, open, written) = stuck(Limits { waiting, ..PATIENT });
    append(&lines, &texts);
    assert_eq!(guard.dropped(), 10);
    lines.0.append(b"warnings have room of their own\n", true);
    assert_eq!(guard.dropped(), 10);
    lines.0.append(&[b'x'; 100], true);
    assert_eq!(guard.dropped(), 11, "but not for ever");
    drop(open);
    drop(guard);
    let text: String = written.iter().collect();
    assert_eq!(
        text,
        format!("first\n{}warnings have room of their own\n", texts[..10].concat())
    );
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let closing = Duration::from_millis(1);
    let (lines, guard, open, written) = stuck(Limits { closing, ..PATIENT });
    append(&lines, &numbered(10));
    drop(guard);
    assert!(written.try_recv().is_err(), "it went on while nothing was written");
    drop(open);
}

/// Takes pieces and fails as it is told: a count of bytes, or an error.
struct Shaky {
    steps: Vec<Result<usize, ErrorKind>>,
    taken: Vec<u8>,
}

impl Write for Shaky {
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
    fn what_cannot_be_written_is_counted(
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
        let mut out = Shaky { steps, taken: Vec::new() };
        let lost = write_all(&mut out, text.as_bytes());
        prop_assert!(text.as_bytes().starts_with(&out.taken));
        let whole = out.taken.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(lost as usize, count - whole);
        prop_assert_eq!(lost == 0, out.taken.len() == text.len());
    }
}

#[test]
fn a_pipe_that_is_full_for_a_moment_is_tried_again() {
    let steps = vec![Ok(3), Err(ErrorKind::WouldBlock), Ok(2)];
    let mut out = Shaky {
        steps,
        taken: Vec::new(),
    };
    assert_eq!(write_all(&mut out, b"a line\n"), 0);
    assert_eq!(out.taken, b"a line\n");
}
