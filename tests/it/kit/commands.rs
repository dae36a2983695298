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
