//! Runs one workload of Steadfast many times, so that `benches/counts/run` can count its instructions and allocations.
//!
//! `steadfast-counts` lists the workloads. `steadfast-counts WORKLOAD` runs one and prints a line of JSON. The program
//! itself counts only allocations; callgrind counts the instructions.

mod counting;
mod material;
mod pieces;
mod whole;

use std::process::ExitCode;

use counting::{Allocations, Counted};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// An error of the bench itself.
type BenchError = Box<dyn std::error::Error>;

/// A workload. It warms up, then runs a number of times with counting on, and returns that number.
type Workload = fn() -> Result<u32, BenchError>;

/// All workloads, by their names in `expected.toml`.
const WORKLOADS: [(&str, Workload); 13] = [
    ("scan_4kb", pieces::scan_4kb),
    ("scan_codex_40kb", pieces::scan_codex),
    ("read_100_events", pieces::read_events),
    ("admit_codex", pieces::admit),
    ("pick_of_10", || pieces::pick(10)),
    ("pick_of_100", || pieces::pick(100)),
    ("pick_home_of_10", || pieces::pick_home(10)),
    ("pick_home_of_100", || pieces::pick_home(100)),
    ("rewrite_request", pieces::rewrite_request),
    ("rewrite_response", pieces::rewrite_response),
    ("whole_get", whole::get),
    ("whole_post_codex_40kb", whole::post),
    ("whole_stream_100_events", whole::stream),
];

/// Returns the instruction set with which bodies are scanned on this processor.
fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq") {
        return "avx2";
    }
    "portable"
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        WORKLOADS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, workload)) = WORKLOADS.iter().find(|(known, _)| *known == name) else {
        eprintln!("unknown workload '{name}'");
        return ExitCode::FAILURE;
    };
    // A fixed seed, because the counts must not depend on chance.
    fastrand::seed(1);
    match workload() {
        Ok(times) => {
            let Allocations { calls, bytes } = Allocations::so_far();
            let (arch, simd) = (std::env::consts::ARCH, simd());
            println!(r#"{{"times":{times},"allocations":{calls},"bytes":{bytes},"processor":"{arch} {simd}"}}"#);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
