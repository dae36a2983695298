//! The command line, as it is typed.

use std::process::Output;

use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};

use crate::{
    affinity::ask,
    kit::{
        client,
        gateway::{Gateway, scratch, steadfast},
        sims,
    },
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a file and returns its path.
fn file(content: &str) -> String {
    let path = scratch().join("steadfast.toml");
    std::fs::write(&path, content).expect("a writable folder");
    path.to_str().expect("text").to_owned()
}

/// Checks that the program failed with status 1, said nothing on standard output, and returns what it said.
fn failure(output: &Output) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(text(&output.stdout), "");
    said
}

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
async fn check_accepts_what_is_valid() {
    let output = steadfast(&["check", "-c", &file(VALID)]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        (text(&output.stdout).as_str(), text(&output.stderr).as_str()),
        ("valid: 2 upstreams\n", "")
    );
}

#[tokio::test]
async fn check_names_every_error_with_its_place() {
    let content = concat!(
        "[server]\nlisten = \"0.0.0.0:80\"\ntls = { cert = \"c\" }\ngrace = 5\n[affinity]\nwait = \"2m\"\n",
        "sources = [\"cookie\"]\n[[upstream]]\nname = \"a\"\nbase_url = \"a.example\"\napi_key = \"env:STEADFAST_TEST_UNSET\"\n",
        "wieght = 2\n[[groups]]\nname = \"g\"\n",
    );
    let path = file(content);
    let output = steadfast(&["check", "-c", &path]).await;
    let said = failure(&output);
    let places: Vec<&str> = said
        .lines()
        .map(|line| line.strip_prefix(&path).expect("the file first"))
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
        failure(&steadfast(&["serve", "-c", &path]).await),
        "serving says the same"
    );
    assert_eq!(
        said,
        failure(&steadfast(&["route", "key", "-c", &path]).await),
        "and so does asking for a route"
    );
}

/// The check of a file against another, line by line, words apart.
async fn moves(old: &str, new: &str) -> Vec<Vec<String>> {
    let output = steadfast(&["check", "-c", &file(new), "--against", &file(old)]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let lines = said.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().map(ToOwned::to_owned).collect())
        .collect()
}

#[tokio::test]
async fn check_says_how_many_sessions_a_change_would_move() {
    let upstream = |name: &str, weight: u32| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nbase_url = \"https://{name}.example/v1\"\napi_key = \"passthrough\"\nweight = {weight}\n"
        )
    };
    let three = ["a", "b", "c"].map(|name| upstream(name, 1)).concat();
    let [a, b] = ["a", "b"].map(|name| upstream(name, 1));
    let none = [["0", "of", "100", "sessions", "would", "move"]];
    assert_eq!(moves(&three, &three).await, none);
    let elsewhere = format!(
        "server.grace = \"1s\"\n{}",
        upstream("b", 1).replace("b.example", "x.example") + &a
    );
    assert_eq!(
        moves(&(a.clone() + &b), &elsewhere).await,
        none,
        "homes depend on names and weights only"
    );

    // The third takes a third, as much from the first as from the second, and nothing moves between these.
    let moved = moves(&(a.clone() + &b), &three).await;
    let share = |line: &[String], at: usize| line[at].parse::<f64>().expect("a share");
    assert!((share(&moved[0], 0) - 33.3).abs() < 0.5, "{moved:?}");
    assert_eq!(moved.len(), 3, "{moved:?}");
    assert!(
        share(&moved[1], 3) >= share(&moved[2], 3),
        "the largest first: {moved:?}"
    );
    for line in &moved[1..] {
        assert!(line[2] == "c" && (share(line, 3) - 16.7).abs() < 0.5, "{moved:?}");
    }
    // One that leaves moves its own sessions only.
    let moved = moves(&three, &(a.clone() + &b)).await;
    assert!(moved[1..].iter().all(|line| line[0] == "c"), "{moved:?}");
    // A tiny share is not none.
    let moved = moves(&a, &(upstream("a", 1_000_000) + &upstream("b", 100))).await;
    assert_eq!(
        (moved[0][0].as_str(), &moved[1][..]),
        ("<0.1", &["a", "->", "b", "<0.1"].map(String::from)[..])
    );

    let output = steadfast(&["check", "-c", &file(&a), "--against", "/nowhere.toml"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("/nowhere.toml: cannot be read"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn check_warns_of_secrets_written_out_without_showing_them() {
    let path = file(&VALID.replace("env:STEADFAST_TEST_KEY", "sk-literal-canary"));
    let output = steadfast(&["check", "-c", &path]).await;
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.starts_with("warning: ") && said.contains(&format!("{path}:5:11:")),
        "{said}"
    );
    assert!(!said.contains("sk-literal-canary"), "{said}");
}

#[tokio::test]
async fn check_says_what_is_wrong_with_a_missing_file() {
    let said = failure(&steadfast(&["check", "-c", "/nonexistent/steadfast.toml"]).await);
    assert!(
        said.starts_with("/nonexistent/steadfast.toml: ") && said.lines().count() == 1,
        "{said}"
    );
}

#[tokio::test]
async fn the_example_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/steadfast.example.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command
        .args(["check", "-c", example])
        .env("OPENAI_KEY_A", "sk-a")
        .env("OPENAI_KEY_B", "sk-b");
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "valid: 2 upstreams\n");
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test]
async fn route_lists_the_upstreams_best_first() {
    let path = file(VALID);
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
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    for (line, upstream) in lines.iter().zip(&upstreams) {
        let name = upstream["name"].as_str().expect("a name");
        assert!(
            line.contains(&format!(" {name} (weight {})", upstream["weight"])),
            "{line}"
        );
    }
    let moved = file(
        &VALID
            .replace("https://a.example/v1", "http://elsewhere:1")
            .replace("env:STEADFAST_TEST_KEY", "passthrough"),
    );
    let output = steadfast(&["route", "session-1", "--json", "-c", &moved]).await;
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON"),
        answer,
        "only names and weights count"
    );
}

#[tokio::test]
async fn route_says_when_nobody_serves_the_model() {
    let path = file(&VALID.replace("name =", "models = [\"gpt-5*\"]\nname ="));
    for arguments in [&["--json"][..], &[]] {
        let output = steadfast(&[&["route", "k", "--model", "o4", "-c", &path], arguments].concat()).await;
        assert!(failure(&output).contains("'o4'"));
    }
}

#[tokio::test]
async fn a_listing_that_nobody_reads_to_the_end_is_no_error() {
    for arguments in [&["route", "key"][..], &["route", "key", "--json"], &["check"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        let running = command
            .args(arguments)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn();
        let output = running.expect("it starts").wait_with_output().await.expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
    }
}

#[tokio::test]
async fn upstreams_can_be_flags() {
    let sims = sims(2).await;
    let flags: Vec<String> = sims
        .iter()
        .map(|sim| format!("{}={},env:STEADFAST_TEST_KEY", sim.name(), sim.base_url()))
        .collect();
    let gateway = Gateway::flagged(&["--upstream", &flags[0], "--upstream", &flags[1]]).await;
    gateway.said_until("Upstreams: a, b").await;
    for number in 0..6 {
        let key = format!("session-{number}");
        let output = steadfast(&[
            "route",
            &key,
            "--json",
            "--upstream",
            &flags[0],
            "--upstream",
            &flags[1],
        ])
        .await;
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let reply = client::send(
            gateway.address,
            ask(json!({"input": "hi", "prompt_cache_key": key}), &[]),
        )
        .await;
        assert_eq!(
            reply.routed(),
            (told["upstreams"][0]["name"].as_str().expect("a name"), "home")
        );
    }
    let all = sims.iter().flat_map(|sim| sim.requests());
    assert!(
        all.into_iter()
            .all(|request| request.headers["authorization"] == "Bearer sk-upstream-canary")
    );
}

#[tokio::test]
async fn flags_that_are_wrong_are_named() {
    for flag in [
        "a",
        "a=https://a.example",
        "=https://a.example,passthrough",
        "a=a.example,passthrough",
        "a=https://a.example,env:NO_SUCH",
    ] {
        let said = failure(&steadfast(&["check", "--upstream", flag]).await);
        assert!(
            said.starts_with("--upstream") && said.lines().count() == 1,
            "{flag}: {said}"
        );
    }
    let said = failure(
        &steadfast(&[
            "serve",
            "--listen",
            "0.0.0.0:0",
            "--admin",
            "nonsense",
            "--upstream",
            "a=x,y",
        ])
        .await,
    );
    assert_eq!(said.lines().count(), 3, "all at once: {said}");
}

#[tokio::test]
async fn the_line_to_paste_works_and_is_cached_the_second_time() {
    let gateway = Gateway::bare().await;
    let said = gateway.said_until("-d '").await.join("\n");
    assert!(
        said.contains(&format!("http://{}", gateway.address)) && said.contains("simulated"),
        "{said}"
    );
    let line = &said[said.find("curl ").expect("a curl line")..];
    let line = &line[..line.find("}'").expect("its end") + 2];
    let paste = |key: String| {
        let line = line.replace("session-1", &key);
        async move {
            let output = Command::new("sh").args(["-c", &line]).output().await.expect("a shell");
            assert!(output.status.success(), "{}", text(&output.stderr));
            let said = text(&output.stdout);
            let (head, body) = said.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let upstream = head
                .lines()
                .find_map(|line| line.strip_prefix("x-steadfast-upstream: "));
            let body: Value = serde_json::from_str(body).expect("JSON");
            let cached = body["usage"]["input_tokens_details"]["cached_tokens"]
                .as_u64()
                .expect("a number");
            (upstream.expect("an upstream").to_owned(), cached)
        }
    };
    let (first, none) = paste("session-1".to_owned()).await;
    let (second, some) = paste("session-1".to_owned()).await;
    assert_eq!((&first, none), (&second, 0));
    assert!(some > 0);
    let mut used = std::collections::BTreeSet::from([first]);
    for number in 2..12 {
        used.insert(paste(format!("session-{number}")).await.0);
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["account-a", "account-b"]);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for flags in [
        ["--listen", &address, "--admin", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin", &address],
    ] {
        let output = steadfast(&flags).await;
        let said = failure(&output);
        assert!(
            said.contains(&address) && said.contains("in use") && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_its_lines_can_be_appended() {
    use sha2::Digest as _;

    let output = steadfast(&["key", "--name", "bob", "--group", "team"]).await;
    assert!(output.status.success());
    let (lines, shown) = (text(&output.stdout), text(&output.stderr));
    let key = shown
        .lines()
        .find(|line| line.trim().starts_with("sk-steadfast-"))
        .expect("a key")
        .trim();
    let digest: String = sha2::Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        lines,
        format!("[[key]]\nname = \"bob\"\nsha256 = \"{digest}\"\ngroup = \"team\"\n")
    );
    assert!(!lines.contains(key));
    let path = file(
        &format!("{VALID}[[group]]\nname = \"team\"\n{lines}").replace("\"passthrough\"", "\"env:STEADFAST_TEST_KEY\""),
    );
    let output = steadfast(&["check", "-c", &path]).await;
    assert_eq!(
        text(&output.stdout),
        "valid: 2 upstreams, 1 group, 1 key\n",
        "{}",
        text(&output.stderr)
    );
    let again = steadfast(&["key"]).await;
    assert_ne!(text(&again.stderr), shown);
    assert_eq!(steadfast(&["key", "--name", "a b"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn schema_prints_the_committed_json_schema() {
    let output = steadfast(&["schema"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/steadfast.schema.json");
    let committed = std::fs::read_to_string(path).expect("the schema is committed");
    assert_eq!(text(&output.stdout), committed);
}
