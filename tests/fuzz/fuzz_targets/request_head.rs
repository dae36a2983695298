//! The entry of a fuzz target. The checks are in `targets/request_head.rs`.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz request_head` runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/request_head.rs"]
mod target;

fuzz_target!(|input: &[u8]| target::run(input));
