//! Pipes that the process has inherited: standard input, and descriptors such as that of a shell's `<(…)`.
//!
//! An operator passes a secret in this way if it must not be on a disk. Such a pipe can be read only once, so its content is
//! kept for the process: a reload finds the same content, and does not wait for a writer that has ended.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::values::show_size;

/// The maximum time until the writer of a pipe has closed it. A program that asks an operator for a password may write late.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// The contents of the pipes that have been read.
static CONTENTS: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Whether `path` names a pipe that the process has inherited. A named pipe in a folder is not inherited.
pub(super) fn is_pipe(path: &Path) -> bool {
    let is_descriptor = path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"]
            .iter()
            .any(|folder| path.parent() == Some(Path::new(folder)));
    is_descriptor && fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Reads a pipe of at most `limit` bytes, or returns its content if it has been read before. The error is a predicate that
/// follows the path. [`is_pipe`] must be true for `path`.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut contents = CONTENTS.lock();
    let content = match contents.get(path) {
        Some(content) => content.clone(),
        None => {
            let mut options = OpenOptions::new();
            let pipe = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
            let content = pipe.and_then(|pipe| read_to_end(pipe, limit, Instant::now() + WRITE_LIMIT));
            let content = content.map_err(|error| match error.kind() {
                ErrorKind::TimedOut => "cannot be read: it is a pipe whose writer has not closed it in time".to_owned(),
                _ => format!("cannot be read: {error}"),
            })?;
            contents.insert(path.to_owned(), content.clone());
            content
        }
    };
    match content.len() as u64 > limit {
        true => Err(format!("is larger than {}", show_size(limit))),
        false => Ok(content),
    }
}

/// Reads a non-blocking `pipe` to its end, or one byte more than `limit`.
///
/// # Errors
/// [`ErrorKind::TimedOut`] if the writer has not closed the pipe before `deadline`.
fn read_to_end(pipe: File, limit: u64, deadline: Instant) -> io::Result<Vec<u8>> {
    let descriptor = pipe.as_raw_fd();
    let (mut pipe, mut content) = (pipe.take(limit + 1), Vec::new());
    loop {
        match pipe.read_to_end(&mut content) {
            Ok(_) => return Ok(content),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut polled = libc::pollfd {
            fd: descriptor,
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: `polled` is one valid entry, and its descriptor is open. A failed call only reads again.
        unsafe { libc::poll(&raw mut polled, 1, timeout) };
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread};

    use super::*;

    /// The path under which the process has this descriptor.
    fn path_of(pipe: &io::PipeReader) -> PathBuf {
        PathBuf::from(format!("/dev/fd/{}", pipe.as_raw_fd()))
    }

    /// Opens the pipe without blocking.
    fn open(path: &Path) -> File {
        let mut options = OpenOptions::new();
        let pipe = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
        pipe.expect("the pipe is open")
    }

    #[test]
    fn a_pipe_is_read_once_and_its_content_is_kept() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let path = path_of(&reader);
        assert!(is_pipe(&path));
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            writer.write_all(b"sk-").expect("a reader");
            thread::sleep(Duration::from_millis(50));
            writer.write_all(b"first\n").expect("a reader");
        });
        for _ in 0..2 {
            assert_eq!(read(&path, 64), Ok(b"sk-first\n".to_vec()));
        }
        late.join().expect("the writer ends");
        assert!(read(&path, 3).is_err_and(|problem| problem.contains("larger")));
        CONTENTS.lock().remove(&path);
    }

    #[test]
    fn a_writer_that_does_not_close_a_pipe_is_not_waited_for_without_end() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"sk-part").expect("a reader");
        let soon = Instant::now() + Duration::from_millis(20);
        let result = read_to_end(open(&path_of(&reader)), 64, soon);
        assert_eq!(result.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
        writer.write_all(&[b'x'; 100]).expect("a reader");
        let long = read_to_end(open(&path_of(&reader)), 64, soon);
        assert_eq!(long.expect("it ends at the limit").len(), 65);
    }

    #[test]
    fn only_pipes_among_the_descriptors_are_inherited() {
        for path in ["/dev/null", "/dev/fd", "/dev/fd/x", "/etc/hosts", "/dev/fd/../zero", ""] {
            assert!(!is_pipe(Path::new(path)), "{path}");
        }
    }
}
