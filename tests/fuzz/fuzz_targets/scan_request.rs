//! The entry of a fuzz target. The checks are in `targets/scan_request.rs`.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz scan_request` runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/scan_request.rs"]
mod target;

fuzz_target!(|input: &[u8]| target::run(input));
