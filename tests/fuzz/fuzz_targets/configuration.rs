//! The entry of a fuzz target. The checks are in `targets/configuration.rs`.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz configuration` runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/configuration.rs"]
mod target;

fuzz_target!(|input: &[u8]| target::run(input));
