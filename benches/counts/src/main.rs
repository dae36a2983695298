//! Runs one of Steadfast's works many times, for `benches/counts/run` to count its instructions and allocations.
//!
//! `steadfast-counts` lists the works, `steadfast-counts WORK` runs one and prints a line of JSON. Run alone it counts
//! allocations only; instructions are callgrind's to count.

mod counting;
mod material;
mod pieces;
mod whole;

use std::process::ExitCode;

use counting::{Allocations, Counted};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What has no answer: the bench itself is broken.
type Broken = Box<dyn std::error::Error>;

/// Runs a work until everything is warm, then as often as it says, counted.
type Work = fn() -> Result<u32, Broken>;

/// Every work, by the name that `expected.toml` has for it.
const WORKS: [(&str, Work); 13] = [
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

/// How bodies are scanned on this processor.
fn lanes() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq") {
        return "avx2";
    }
    "portable"
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        WORKS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, work)) = WORKS.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no work '{name}'");
        return ExitCode::FAILURE;
    };
    // Nothing that is counted may depend on chance.
    fastrand::seed(1);
    match work() {
        Ok(times) => {
            let Allocations { calls, bytes } = Allocations::so_far();
            let (arch, lanes) = (std::env::consts::ARCH, lanes());
            println!(r#"{{"times":{times},"allocations":{calls},"bytes":{bytes},"processor":"{arch} {lanes}"}}"#);
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("{name}: {broken}");
            ExitCode::FAILURE
        }
    }
}
