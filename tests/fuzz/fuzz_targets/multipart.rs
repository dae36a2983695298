//! The entry of a fuzz target. The checks are in `targets/multipart.rs`.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz multipart` runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/multipart.rs"]
mod target;

fuzz_target!(|input: &[u8]| target::run(input));
