//! Configurations and secrets from pipes and other files that are not regular.

use super::*;

#[tokio::test]
async fn a_reload_of_a_file_that_is_not_regular_is_refused() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    let path = gateway.file();
    for kind in ["a pipe", "a device", "a directory", "a socket"] {
        fs::remove_file(&path).expect("a file");
        make_irregular(kind, &path);
        let reply = reload(&gateway).await;
        let expected = format!("it is {kind}, not a regular file");
        assert!(reply.text().contains(&expected), "{kind}: {}", reply.text());
        gateway.signal("HUP").await;
        gateway.log_until(&expected).await;
        assert_eq!(
            send_turn(&gateway, "s1").await.status,
            200,
            "the old configuration stays in force"
        );
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        gateway.write(&file(&sims));
        assert_eq!(reload(&gateway).await.json(), json!({"outcome": "unchanged"}), "{kind}");
    }
}

/// Starts the program with the configuration at `path` and with `input` on its standard input, a pipe. Returns it with its
/// addresses: the public one and that of the admin listener.
async fn start_with_input(path: &str, input: &str) -> (tokio::process::Child, [std::net::SocketAddr; 2]) {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_steadfast"))
        .args(["-c", path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("STEADFAST_TEST_KEY", "k")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(input.as_bytes()).await.expect("the program reads");
    drop(pipe);
    let mut printed = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut addresses = Vec::new();
    while addresses.len() < 2 {
        let line = printed.next_line().await.expect("text").expect("an address");
        addresses.extend(
            line.split_once("http://")
                .and_then(|(_, address)| address.parse::<std::net::SocketAddr>().ok()),
        );
    }
    (child, [addresses[0], addresses[1]])
}

/// Stops the program and returns its log.
async fn log_of(child: tokio::process::Child) -> String {
    // A program that is killed would lose its last lines.
    let id = child.id().expect("the program runs").to_string();
    let status = tokio::process::Command::new("kill").arg(id).status().await;
    assert!(status.expect("kill runs").success());
    let output = child.wait_with_output().await.expect("the program ends");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_secret_from_a_pipe_stays_at_a_reload() {
    let sim = sim("a").await;
    let folder = scratch();
    let path = folder.join(FILE);
    let config = upstream(&sim, "").replace("env:STEADFAST_TEST_KEY", "file:/dev/stdin");
    assert!(config.contains("file:/dev/stdin"), "{config}");
    fs::write(&path, &config).expect("a writable folder");
    let (child, addresses) = start_with_input(path.to_str().expect("text"), "sk-piped\n").await;
    for text in [config.clone(), format!("server.grace = \"7s\"\n{config}")] {
        fs::write(&path, text).expect("a writable folder");
        let reply = client::send(addresses[1], post("/api/reload", "")).await;
        // The watcher may have reloaded the file already.
        let outcome = reply.json()["outcome"].clone();
        assert!(outcome == "applied" || outcome == "unchanged", "{}", reply.text());
        let request = responses_request(json!({"input": "hi"}), &[]);
        assert_eq!(client::send(addresses[0], request).await.status, 200);
    }
    let requests = sim.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer sk-piped")
    );
    let log = log_of(child).await;
    assert!(log.contains("a new configuration is in force"), "{log}");
    assert!(!log.contains("not reloaded") && !log.contains("cannot watch"), "{log}");
}

#[tokio::test]
async fn a_configuration_from_a_pipe_is_not_reloaded() {
    let sim = sim("a").await;
    let (child, addresses) = start_with_input("/dev/stdin", &upstream(&sim, "")).await;
    let reply = client::send(addresses[1], post("/api/reload", "")).await;
    assert!(
        reply.text().contains("it is a pipe, not a regular file"),
        "{}",
        reply.text()
    );
    let request = responses_request(json!({"input": "hi"}), &[]);
    assert_eq!(client::send(addresses[0], request).await.status, 200);
    let log = log_of(child).await;
    assert_eq!(
        log.matches("not reloaded").count(),
        1,
        "only the reload that was asked for: {log}"
    );
}
