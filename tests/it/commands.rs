//! The commands `check`, `route` and `key`.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::kit::{
    commands::{assert_failed, lossy_text, make_irregular, write_config},
    gateway::{scratch, steadfast},
    keys::sha256_hex,
};

const VALID: &str = r#"
[[upstream]]
name = "a"
base_url = "https://a.example/v1"
api_key = "env:STEADFAST_TEST_KEY"
[[upstream]]
name = "b"
base_url = "https://b.example/v1"
api_key = "passthrough"
weight = 3
"#;

#[tokio::test]
async fn check_accepts_a_valid_file() {
    let output = steadfast(&["check", "-c", &write_config(VALID)]).await;
    assert!(output.status.success(), "{}", lossy_text(&output.stderr));
    assert_eq!(
        (lossy_text(&output.stdout).as_str(), lossy_text(&output.stderr).as_str()),
        ("valid: 2 upstreams\n", "")
    );
}

#[tokio::test]
async fn check_reports_every_error_with_its_position() {
    let content = concat!(
        "[server]\nlisten = \"0.0.0.0:80\"\ntls = { cert = \"c\" }\ngrace = 5\n[affinity]\nwait = \"2m\"\n",
        "sources = [\"cookie\"]\n[[upstream]]\nname = \"a\"\nbase_url = \"a.example\"\napi_key = \"env:STEADFAST_TEST_UNSET\"\n",
        "wieght = 2\n[[groups]]\nname = \"g\"\n",
    );
    let path = write_config(content);
    let output = steadfast(&["check", "-c", &path]).await;
    let said = assert_failed(&output);
    let places: Vec<&str> = said
        .lines()
        .map(|line| line.strip_prefix(&path).expect("a line begins with the file name"))
        .collect();
    let places: Vec<String> = places
        .iter()
        .map(|line| line.splitn(4, ':').take(3).collect::<Vec<_>>().join(":"))
        .collect();
    assert_eq!(
        places,
        [
            ":2:10", ":3:7", ":3:16", ":4:9", ":6:8", ":7:12", ":10:12", ":11:11", ":12:1", ":13:3"
        ],
        "{said}"
    );
    for hint in [
        "did you mean \"group\"?",
        "did you mean \"weight\"?",
        "STEADFAST_TEST_UNSET",
        "https://",
    ] {
        assert!(said.contains(hint), "{hint} is not in {said}");
    }
    assert_eq!(
        said,
        assert_failed(&steadfast(&["serve", "-c", &path]).await),
        "serve reports the same errors"
    );
    assert_eq!(
        said,
        assert_failed(&steadfast(&["route", "key", "-c", &path]).await),
        "route reports the same errors"
    );
}

/// Runs `check` on `new` against `old` and returns the words of each line about moved sessions.
async fn moved_sessions(old: &str, new: &str) -> Vec<Vec<String>> {
    let output = steadfast(&["check", "-c", &write_config(new), "--against", &write_config(old)]).await;
    assert!(output.status.success(), "{}", lossy_text(&output.stderr));
    let said = lossy_text(&output.stdout);
    let lines = said.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().map(ToOwned::to_owned).collect())
        .collect()
}

#[tokio::test]
async fn check_reports_how_many_sessions_a_change_would_move() {
    let upstream = |name: &str, weight: u32| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nbase_url = \"https://{name}.example/v1\"\napi_key = \"passthrough\"\nweight = {weight}\n"
        )
    };
    let three = ["a", "b", "c"].map(|name| upstream(name, 1)).concat();
    let [a, b] = ["a", "b"].map(|name| upstream(name, 1));
    let none = [["0", "of", "100", "sessions", "would", "move"]];
    assert_eq!(moved_sessions(&three, &three).await, none);
    let elsewhere = format!(
        "server.grace = \"1s\"\n{}",
        upstream("b", 1).replace("b.example", "x.example") + &a
    );
    assert_eq!(
        moved_sessions(&(a.clone() + &b), &elsewhere).await,
        none,
        "homes depend on names and weights only"
    );

    // A third upstream takes a third of the sessions, in equal parts from the other two. No session moves between those
    // two.
    let moved = moved_sessions(&(a.clone() + &b), &three).await;
    let share = |line: &[String], at: usize| line[at].parse::<f64>().expect("a percentage");
    assert!((share(&moved[0], 0) - 33.3).abs() < 0.5, "{moved:?}");
    assert_eq!(moved.len(), 3, "{moved:?}");
    assert!(
        share(&moved[1], 3) >= share(&moved[2], 3),
        "the largest share comes first: {moved:?}"
    );
    for line in &moved[1..] {
        assert!(line[2] == "c" && (share(line, 3) - 16.7).abs() < 0.5, "{moved:?}");
    }
    // A removed upstream moves only its own sessions.
    let moved = moved_sessions(&three, &(a.clone() + &b)).await;
    assert!(moved[1..].iter().all(|line| line[0] == "c"), "{moved:?}");
    // A tiny share is not printed as 0.
    let moved = moved_sessions(&a, &(upstream("a", 1_000_000) + &upstream("b", 100))).await;
    assert_eq!(
        (moved[0][0].as_str(), &moved[1][..]),
        ("<0.1", &["a", "->", "b", "<0.1"].map(String::from)[..])
    );

    let output = steadfast(&["check", "-c", &write_config(&a), "--against", "/nowhere.toml"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        lossy_text(&output.stderr).starts_with("/nowhere.toml: cannot be read"),
        "{}",
        lossy_text(&output.stderr)
    );
}

#[tokio::test]
async fn check_warns_of_literal_secrets_without_printing_them() {
    let path = write_config(&VALID.replace("env:STEADFAST_TEST_KEY", "sk-literal-canary"));
    let output = steadfast(&["check", "-c", &path]).await;
    let said = lossy_text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.starts_with("warning: ") && said.contains(&format!("{path}:5:11:")),
        "{said}"
    );
    assert!(!said.contains("sk-literal-canary"), "{said}");
}

#[tokio::test]
async fn check_reports_a_missing_file() {
    let said = assert_failed(&steadfast(&["check", "-c", "/nonexistent/steadfast.toml"]).await);
    assert!(
        said.starts_with("/nonexistent/steadfast.toml: ") && said.lines().count() == 1,
        "{said}"
    );
}

#[tokio::test]
async fn the_example_file_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/steadfast.example.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command
        .args(["check", "-c", example])
        .env("OPENAI_KEY_A", "sk-a")
        .env("OPENAI_KEY_B", "sk-b");
    let output = command.output().await.expect("the program runs");
    assert!(output.status.success(), "{}", lossy_text(&output.stderr));
    assert_eq!(lossy_text(&output.stdout), "valid: 2 upstreams\n");
    assert_eq!(lossy_text(&output.stderr), "");
}

#[tokio::test]
async fn route_lists_the_upstreams_best_first() {
    let path = write_config(VALID);
    let output = steadfast(&["route", "session-1", "--json", "-c", &path]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let upstreams = answer["upstreams"].as_array().expect("a list").clone();
    let mut sorted = upstreams.clone();
    sorted.sort_by_key(|upstream| upstream["name"].to_string());
    assert_eq!(
        sorted,
        [json!({"name": "a", "weight": 1}), json!({"name": "b", "weight": 3})]
    );
    let output = steadfast(&["route", "session-1", "-c", &path]).await;
    let lines: Vec<String> = lossy_text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    for (line, upstream) in lines.iter().zip(&upstreams) {
        let name = upstream["name"].as_str().expect("a name");
        assert!(
            line.contains(&format!(" {name} (weight {})", upstream["weight"])),
            "{line}"
        );
    }
    let moved = write_config(
        &VALID
            .replace("https://a.example/v1", "http://elsewhere:1")
            .replace("env:STEADFAST_TEST_KEY", "passthrough"),
    );
    let output = steadfast(&["route", "session-1", "--json", "-c", &moved]).await;
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON"),
        answer,
        "the order depends on names and weights only"
    );
}

#[tokio::test]
async fn route_fails_if_no_upstream_serves_the_model() {
    let path = write_config(&VALID.replace("name =", "models = [\"gpt-5*\"]\nname ="));
    for arguments in [&["--json"][..], &[]] {
        let output = steadfast(&[&["route", "k", "--model", "o4", "-c", &path], arguments].concat()).await;
        assert!(assert_failed(&output).contains("'o4'"));
    }
}

#[tokio::test]
async fn a_closed_standard_output_is_not_an_error() {
    for arguments in [&["route", "key"][..], &["route", "key", "--json"], &["check"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        let running = command
            .args(arguments)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn();
        let output = running
            .expect("the program starts")
            .wait_with_output()
            .await
            .expect("the program exits");
        assert!(output.status.success(), "{}", lossy_text(&output.stderr));
        assert_eq!(lossy_text(&output.stderr), "");
    }
}

#[tokio::test]
async fn a_full_standard_output_is_an_error() {
    for arguments in [
        &["route", "key"][..],
        &["route", "key", "--json"],
        &["check"],
        &["key"],
        &["schema"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command.args(arguments).stdout(full.expect("the device exists"));
        let output = command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = output.wait_with_output().await.expect("the program exits");
        let shown = lossy_text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {shown}");
        assert!(
            shown.contains("No space left") && !shown.contains("panicked"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn files_of_other_kinds_are_refused_at_once() {
    for kind in ["a pipe", "a device", "a directory", "a socket"] {
        let folder = scratch();
        make_irregular(kind, &folder.join("x"));
        let secret = VALID.replace("env:STEADFAST_TEST_KEY", "file:x");
        let ca = VALID.replacen("api_key", "ca = \"x\"\napi_key", 1);
        let keys = format!("server.keys_file = \"x\"\n{VALID}");
        let tls = format!("server.tls = {{ cert = \"x\", key = \"x\" }}\n{VALID}");
        for (what, config) in [("secret", secret), ("ca", ca), ("keys", keys), ("tls", tls)] {
            if (what, kind) == ("keys", "a directory") {
                // A folder of files of keys is one of the forms of this setting.
                continue;
            }
            let path = folder.join("steadfast.toml");
            std::fs::write(&path, config).expect("a writable folder");
            let output = steadfast(&["check", "-c", path.to_str().expect("text")]).await;
            let shown = assert_failed(&output);
            assert!(
                shown.contains(&format!("it is {kind}, not a regular file")),
                "{what}: {shown}"
            );
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}

#[tokio::test]
async fn the_main_file_may_be_a_pipe_at_the_start() {
    let mut command = Command::new("sh");
    command.args(["-c", "printf %s \"$1\" | \"$0\" check -c /dev/stdin"]);
    command
        .args([env!("CARGO_BIN_EXE_steadfast"), VALID])
        .env("STEADFAST_TEST_KEY", "k");
    let output = command.output().await.expect("the shell runs");
    assert_eq!(
        lossy_text(&output.stdout),
        "valid: 2 upstreams\n",
        "{}",
        lossy_text(&output.stderr)
    );
}

#[tokio::test]
async fn a_secret_may_come_from_a_pipe_that_the_process_inherits() {
    for (redirection, path) in [
        ("(sleep 0.2; echo sk-piped) |", "/dev/stdin"),
        ("(sleep 0.2; echo sk-piped) |", "/dev/fd/0"),
        ("echo sk-piped |", "/proc/self/fd/0"),
    ] {
        let script = format!("{redirection} \"$0\" check --upstream a=https://a.example/v1,file:{path}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_steadfast")]);
        let output = command.output().await.expect("the shell runs");
        let shown = lossy_text(&output.stderr);
        assert_eq!(lossy_text(&output.stdout), "valid: 1 upstream\n", "{path}: {shown}");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_its_lines_can_be_appended() {
    let output = steadfast(&["key", "--name", "bob", "--group", "team"]).await;
    assert!(output.status.success());
    let (lines, shown) = (lossy_text(&output.stdout), lossy_text(&output.stderr));
    let key = shown
        .lines()
        .find(|line| line.trim().starts_with("sk-steadfast-"))
        .expect("a key")
        .trim();
    let digest = sha256_hex(key);
    assert_eq!(
        lines,
        format!("[[key]]\nname = \"bob\"\nsha256 = \"{digest}\"\ngroup = \"team\"\n")
    );
    assert!(!lines.contains(key));
    let path = write_config(
        &format!("{VALID}[[group]]\nname = \"team\"\n{lines}").replace("\"passthrough\"", "\"env:STEADFAST_TEST_KEY\""),
    );
    let output = steadfast(&["check", "-c", &path]).await;
    assert_eq!(
        lossy_text(&output.stdout),
        "valid: 2 upstreams, 1 group, 1 key\n",
        "{}",
        lossy_text(&output.stderr)
    );
    let again = steadfast(&["key"]).await;
    assert_ne!(lossy_text(&again.stderr), shown);
    assert_eq!(steadfast(&["key", "--name", "a b"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn schema_prints_the_committed_json_schema() {
    let output = steadfast(&["schema"]).await;
    assert!(output.status.success(), "{}", lossy_text(&output.stderr));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/steadfast.schema.json");
    let committed = std::fs::read_to_string(path).expect("the schema is committed");
    assert_eq!(lossy_text(&output.stdout), committed);
}
