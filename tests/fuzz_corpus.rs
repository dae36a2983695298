//! What fuzzing runs on, as plain tests: each target over its corpus.

use std::{fs, path::Path};

#[path = "fuzz/targets/configuration.rs"]
mod configuration;
#[path = "fuzz/targets/request_head.rs"]
mod request_head;
#[path = "fuzz/targets/response_stream.rs"]
mod response_stream;
#[path = "fuzz/targets/scan_request.rs"]
mod scan_request;

/// Runs every file of a target's corpus, and each of its beginnings where they are few.
fn over_corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("a corpus") {
        let input = fs::read(entry.expect("an entry").path()).expect("readable");
        run(&input);
        let step = input.len().div_ceil(200).max(1);
        (0..input.len()).step_by(step).for_each(|end| run(&input[..end]));
        files += 1;
    }
    assert!(files >= 8, "{target} has only {files}");
}

#[test]
fn configurations() {
    over_corpus("configuration", configuration::run);
}

#[test]
fn request_heads() {
    over_corpus("request_head", request_head::run);
}

#[test]
fn response_streams() {
    over_corpus("response_stream", response_stream::run);
}

#[test]
fn request_bodies() {
    over_corpus("scan_request", scan_request::run);
}
