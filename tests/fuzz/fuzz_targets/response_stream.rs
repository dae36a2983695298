//! The entry of a fuzz target. The checks are in `targets/response_stream.rs`.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz response_stream` runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/response_stream.rs"]
mod target;

fuzz_target!(|input: &[u8]| target::run(input));
