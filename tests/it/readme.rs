//! The examples of the README work as the README says.

use std::{path::Path, process::Output};

use tokio::process::Command;

use crate::kit::gateway::{Gateway, scratch};

/// A fenced code block.
struct Block {
    /// The word after the opening fence.
    language: String,
    text: String,
}

/// Returns the code blocks of the README in order.
fn blocks() -> Vec<Block> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let mut blocks = Vec::new();
    let mut parts = readme.split("```");
    while let (Some(_), Some(fenced)) = (parts.next(), parts.next()) {
        let (language, text) = fenced.split_once('\n').expect("a fence has a line of its own");
        blocks.push(Block {
            language: language.to_owned(),
            text: text.to_owned(),
        });
    }
    blocks
}

/// Returns the texts of the code blocks in `language`.
fn blocks_in(language: &str) -> Vec<String> {
    let found: Vec<_> = blocks()
        .into_iter()
        .filter(|block| block.language == language)
        .map(|block| block.text)
        .collect();
    assert!(!found.is_empty(), "the README has no {language} block");
    found
}

/// Runs `script` in a shell in which `steadfast` is the program of this build.
async fn shell(script: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_steadfast"));
    let folder = program.parent().expect("a folder").to_str().expect("UTF-8 text");
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .env("PATH", path)
        .env("OPENAI_KEY_A", "sk-a")
        .env("OPENAI_KEY_B", "sk-b");
    command.output().await.expect("a shell")
}

#[test]
fn the_commands_to_run_and_to_test_come_first() {
    let shown = blocks_in("sh");
    assert_eq!(shown[0], "cargo run --release\n");
    assert_eq!(shown[2], "cargo test\n");
}

#[tokio::test]
async fn the_curl_example_works_and_is_cached_the_second_time() {
    let gateway = Gateway::bare().await;
    let pasted = blocks_in("sh")
        .into_iter()
        .find(|text| text.starts_with("curl"))
        .expect("a curl line");
    let script = pasted.replace("127.0.0.1:8080", &gateway.address.to_string());
    assert_ne!(script, pasted);
    let first = String::from_utf8(shell(&script).await.stdout).expect("UTF-8 text");
    assert!(
        first.contains("x-steadfast-route: home") && first.contains("\"cached_tokens\":0"),
        "{first}"
    );
    let second = String::from_utf8(shell(&script).await.stdout).expect("UTF-8 text");
    assert!(
        second.contains("x-steadfast-route: pin") && !second.contains("\"cached_tokens\":0"),
        "{second}"
    );
}

#[tokio::test]
async fn every_configuration_example_is_valid() {
    for text in blocks_in("toml") {
        let file = scratch().join("steadfast.toml");
        std::fs::write(&file, &text).expect("a writable folder");
        let output = shell(&format!("steadfast check -c '{}'", file.display())).await;
        assert!(
            output.status.success(),
            "{}\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn the_upstream_flags_are_valid() {
    let shown = blocks_in("sh")
        .into_iter()
        .find(|text| text.starts_with("steadfast --upstream"))
        .expect("flags");
    let output = shell(&shown.replace("steadfast --upstream", "steadfast check --upstream")).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn every_console_example_prints_its_output() {
    for session in blocks_in("console") {
        let (command, shown) = session.split_once('\n').expect("a command and its output");
        let output = shell(command.trim_start_matches("$ ")).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), shown);
    }
}
