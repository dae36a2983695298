//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz scan_request`; the checks are in `targets/scan_request.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/scan_request.rs"]
mod target;

fuzz_target!(|input: &[u8]| target::run(input));
