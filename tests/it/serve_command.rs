//! The command `serve`: its flags, the text that it prints, and errors at the start.

use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};

use crate::kit::{
    client,
    commands::{assert_failed, lossy_text},
    gateway::{Gateway, steadfast},
    sessions::responses_request,
    sims,
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
