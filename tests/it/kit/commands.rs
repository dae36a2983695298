//! Helpers for tests that run a command of the program.

use std::process::Output;

use super::gateway::{FILE, scratch};

/// Returns the output of a program as text.
pub fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a configuration file and returns its path.
pub fn write_config(content: &str) -> String {
    let path = scratch().join(FILE);
    std::fs::write(&path, content).expect("a writable folder");
    path.to_str().expect("UTF-8 text").to_owned()
}

/// Checks that the program exited with status 1 without any standard output. Returns its standard error.
pub fn assert_failed(output: &Output) -> String {
    let said = lossy_text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(lossy_text(&output.stdout), "");
    said
}

/// Makes a file of another kind at `path`.
pub fn make_irregular(kind: &str, path: &std::path::Path) {
    match kind {
        "a pipe" => {
            let status = std::process::Command::new("mkfifo").arg(path).status();
            assert!(status.expect("mkfifo runs").success());
        }
        "a device" => std::os::unix::fs::symlink("/dev/zero", path).expect("a writable folder"),
        "a directory" => std::fs::create_dir(path).expect("a writable folder"),
        "a socket" => drop(std::os::unix::net::UnixListener::bind(path).expect("a writable folder")),
        other => panic!("{other}"),
    }
}
