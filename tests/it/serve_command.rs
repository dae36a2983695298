//! The command `serve`: its flags, the text that it prints, and errors at the start.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, UnixStream},
    process::Command,
};

use crate::kit::{
    TIMEOUT, client,
    commands::{assert_failed, lossy_text},
    gateway::{Gateway, scratch, steadfast},
    sessions::responses_request,
    sims, until,
};

#[tokio::test]
async fn upstreams_can_be_given_as_flags() {
    let sims = sims(2).await;
    let flags: Vec<String> = sims
        .iter()
        .map(|sim| format!("{}={},env:STEADFAST_TEST_KEY", sim.name(), sim.base_url()))
        .collect();
    let gateway = Gateway::flagged(&["--upstream", &flags[0], "--upstream", &flags[1]]).await;
    gateway.printed_until("Upstreams: a, b").await;
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
            responses_request(json!({"input": "hi", "prompt_cache_key": key}), &[]),
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
async fn invalid_flags_are_reported() {
    for flag in [
        "a",
        "a=https://a.example",
        "=https://a.example,passthrough",
        "a=a.example,passthrough",
        "a=https://a.example,env:NO_SUCH",
    ] {
        let said = assert_failed(&steadfast(&["check", "--upstream", flag]).await);
        assert!(
            said.starts_with("--upstream") && said.lines().count() == 1,
            "{flag}: {said}"
        );
    }
    let said = assert_failed(
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
    assert_eq!(said.lines().count(), 3, "all errors at once: {said}");
}

#[tokio::test]
async fn the_printed_curl_command_works_and_is_cached_the_second_time() {
    let gateway = Gateway::bare().await;
    let said = gateway.printed_until("-d '").await.join("\n");
    assert!(
        said.contains(&format!("http://{}", gateway.address)) && said.contains("simulated"),
        "{said}"
    );
    let line = &said[said.find("curl ").expect("a curl line")..];
    let line = &line[..line.find("}'").expect("the end of the body") + 2];
    let paste = |key: String| {
        let line = line.replace("session-1", &key);
        async move {
            let output = Command::new("sh").args(["-c", &line]).output().await.expect("a shell");
            assert!(output.status.success(), "{}", lossy_text(&output.stderr));
            let said = lossy_text(&output.stdout);
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
async fn an_address_in_use_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for flags in [
        ["--listen", &address, "--admin", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin", &address],
    ] {
        let output = steadfast(&flags).await;
        let said = assert_failed(&output);
        assert!(
            said.contains(&address) && said.contains("in use") && said.lines().count() == 1,
            "{said}"
        );
    }
}

/// Waits until the program names its address in the log, and sends a request there. Returns the log so far.
async fn served_without_output(mut command: Command, what: &str) -> String {
    let mut child = command
        .env("STEADFAST_TEST_KEY", "k")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut log = String::new();
    let address = loop {
        let line = tokio::time::timeout(TIMEOUT, lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{what}: no address in {log}"));
        let line = line.expect("text").unwrap_or_else(|| panic!("{what}: ended: {log}"));
        log.push_str(&line);
        let told: Value = serde_json::from_str(&line).expect("JSON");
        if let Some(url) = told["listen"].as_str() {
            break url.strip_prefix("http://").and_then(|address| address.parse().ok());
        }
    };
    let reply = client::get(address.expect("an address"), "/nowhere").await;
    assert_eq!(reply.status, 404, "{what}");
    log
}

const FLAGS: [&str; 6] = [
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--log-format",
    "json",
];

fn shell(redirections: &str, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("exec \"$0\" \"$@\" {redirections}");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_steadfast")])
        .args(flags);
    command
}

#[tokio::test]
async fn the_program_serves_without_standard_output() {
    for redirection in [">&-", ">/dev/full", ">/dev/null", "<&- >&-"] {
        let log = served_without_output(shell(redirection, &FLAGS), redirection).await;
        assert_eq!(log.matches("standard output").count(), 1, "{redirection}: {log}");
    }
    for (what, is_full) in [("without a reader", false), ("full", true)] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        if is_full {
            std::io::Write::write_all(&mut writer, &[b'x'; 64 << 10]).expect("the capacity of a pipe");
        }
        let reader = Some(reader).filter(|_| is_full);
        let mut command = shell("", &FLAGS);
        command.stdout(writer);
        let log = served_without_output(command, what).await;
        assert_eq!(log.matches("standard output").count(), 1, "{what}: {log}");
        drop(reader);
    }
}

#[tokio::test]
async fn the_program_serves_without_any_output() {
    for redirections in [">&- 2>&-", ">/dev/full 2>/dev/full"] {
        let folder = scratch();
        let path = folder.join("s.sock");
        let socket = format!("unix:{}", path.display());
        let flags = ["--listen", &socket, "--admin", "127.0.0.1:0"];
        let mut child = shell(redirections, &flags)
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        for _ in 0..3 {
            let mut stream = until("the socket", || async { UnixStream::connect(&path).await.ok() }).await;
            let request = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.expect("the peer reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("text");
            // A socket that took the number of a closed output would get log lines too.
            assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with('}'), "{answer}");
        }
        assert!(child.try_wait().expect("a state").is_none(), "the program still runs");
        let _ = std::fs::remove_dir_all(folder);
    }
}
