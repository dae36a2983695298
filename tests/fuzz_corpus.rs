//! Runs each fuzz target on its corpus, as plain tests.

use std::{fs, path::Path};

#[path = "fuzz/targets/configuration.rs"]
mod configuration;
#[path = "fuzz/targets/multipart.rs"]
mod multipart;
#[path = "fuzz/targets/request_head.rs"]
mod request_head;
#[path = "fuzz/targets/response_stream.rs"]
mod response_stream;
#[path = "fuzz/targets/scan_request.rs"]
mod scan_request;

/// Runs every file of a target's corpus, and up to 200 beginnings of each file.
fn run_corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is a directory") {
        let input = fs::read(entry.expect("the entries are readable").path()).expect("the file is readable");
        run(&input);
        let step = input.len().div_ceil(200).max(1);
        (0..input.len()).step_by(step).for_each(|end| run(&input[..end]));
        files += 1;
    }
    assert!(files >= 8, "the corpus of {target} has only {files} files");
}

#[test]
fn configuration_corpus_passes() {
    run_corpus("configuration", configuration::run);
}

#[test]
fn form_corpus_passes() {
    run_corpus("multipart", multipart::run);
}

#[test]
fn request_head_corpus_passes() {
    run_corpus("request_head", request_head::run);
}

#[test]
fn response_stream_corpus_passes() {
    run_corpus("response_stream", response_stream::run);
}

#[test]
fn request_body_corpus_passes() {
    run_corpus("scan_request", scan_request::run);
}
