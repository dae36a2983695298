//! Request targets, hosts and methods (RFC 9112 section 3): an ambiguous target or host reaches no upstream.

use crate::kit::{gateway_with_sim, wire};

/// Returns a request with this request line and these header lines.
fn request(line: &str, headers: &str) -> String {
    format!("{line}\r\n{headers}content-length: 0\r\n\r\n")
}

#[tokio::test]
async fn an_ambiguous_target_is_refused() {
    let (sim, gateway) = gateway_with_sim("").await;
    let targets = [
        "/v1/../responses",
        "/v1/./responses",
        "/v1/responses/..",
        "/v1/responses/.",
        "/v1/%2e%2e/admin",
        "/v1/%2E/responses",
        "/v1/files/.%2e/x",
        "//v1/responses",
        "/v1//responses",
        "/v1/responses//",
        "/v1/responses\\..\\x",
        "/v1/files/%5c..%5cx",
        "/v1/files/a;b=c",
        "/v1/files/%00",
        "/v1/files/%0d%0ax",
        "/v1/files/%zz",
        "/v1/files/%2",
        "*",
        "http://other.example/v1/models",
        "http://localhost:81/v1/models",
        "http://user@it/v1/models",
        "http://user:pass@it/v1/models",
        "it:80",
    ];
    for target in targets {
        let answer = wire::ask(
            gateway.address,
            request(&format!("GET {target} HTTP/1.1"), "host: localhost\r\n"),
        )
        .await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "ambiguous_target"),
            "{target}"
        );
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn an_invalid_target_is_refused() {
    let (sim, gateway) = gateway_with_sim("").await;
    for target in ["v1/responses", "/v1/a b", "", "?x"] {
        let answer = wire::Wire::open(gateway.address).await;
        let mut answer = answer;
        answer
            .send(request(&format!("GET {target} HTTP/1.1"), "host: localhost\r\n"))
            .await;
        let head = answer.head().await;
        assert!(
            head.starts_with("http/1.1 400") || head.starts_with("http/1.1 404"),
            "{target}: {head}"
        );
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn an_unambiguous_target_is_forwarded_unchanged() {
    let (sim, gateway) = gateway_with_sim("").await;
    let cases = [
        ("/v1/files/a%2Fb", "/v1/files/a%2Fb"),
        ("/v1/files/a%20b?x=../y&z=//%2e", "/v1/files/a%20b?x=../y&z=//%2e"),
        ("/v1/files/..a/...", "/v1/files/..a/..."),
        ("/v1/files/", "/v1/files/"),
        ("http://localhost/v1/files/absolute", "/v1/files/absolute"),
        ("HTTP://LOCALHOST/v1/files/absolute?q", "/v1/files/absolute?q"),
    ];
    for (target, _) in cases {
        wire::ask(
            gateway.address,
            request(&format!("GET {target} HTTP/1.1"), "host: localhost\r\n"),
        )
        .await;
    }
    let seen: Vec<String> = sim.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(seen, cases.map(|(_, expected)| expected));
    let host = sim.address().to_string();
    assert!(
        sim.requests()
            .iter()
            .all(|request| request.headers["host"] == host.as_str())
    );
}

#[tokio::test]
async fn an_invalid_host_is_refused() {
    let (sim, gateway) = gateway_with_sim("").await;
    let hosts = [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHost: b\r\n",
        "host: \r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@it\r\n",
        "host: localhost@it:80\r\n",
        "host: localhost:80@it\r\n",
        "host: a?b\r\n",
        "host: a#b\r\n",
        "host: [::1\r\n",
        "host: localhost:port\r\n",
        "host: localhost:99999\r\n",
        "host: localhost:80:80\r\n",
        "host: a, b\r\n",
        "host: http://it\r\n",
        "host: localhost\\evil\r\n",
    ];
    for host in hosts {
        let answer = wire::ask(gateway.address, request("GET /v1/files HTTP/1.1", host)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "bad_host"),
            "{host:?}"
        );
    }
    assert_eq!(sim.counts().requests, 0);
    for host in [
        "host: localhost\r\n",
        "host: localhost:80\r\n",
        "host: [::1]:80\r\n",
        "host: 127.0.0.1\r\n",
        "host: LocalHost\r\n",
    ] {
        let answer = wire::ask(gateway.address, request("GET /v1/models/gpt-5.2 HTTP/1.1", host)).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn http_1_0_needs_no_host() {
    let (sim, gateway) = gateway_with_sim("").await;
    let answer = wire::ask(gateway.address, "GET /v1/files/x HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer.status, 404);
    assert_eq!(sim.requests()[0].headers["host"], sim.address().to_string());
}

#[tokio::test]
async fn an_unsupported_method_is_refused() {
    let (sim, gateway) = gateway_with_sim("").await;
    let lines = [
        "get /v1/models HTTP/1.1",
        "Post /v1/responses HTTP/1.1",
        "CONNECT it:443 HTTP/1.1",
        "CONNECT /v1/responses HTTP/1.1",
        "TRACE /v1/models HTTP/1.1",
        "PROPFIND /v1/files HTTP/1.1",
        "PRI * HTTP/1.1",
    ];
    for line in lines {
        let answer = wire::ask(gateway.address, request(line, "host: localhost:443\r\n")).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (405, "method_not_allowed"),
            "{line}"
        );
        assert!(answer.header("allow").is_some(), "{line}");
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn an_unknown_path_suggests_the_path_that_was_meant() {
    let (sim, gateway) = gateway_with_sim("").await;
    let cases = [
        ("/v1/v1/responses", "/v1/responses"),
        ("/response", "/v1/responses"),
        ("/api/chat", "/v1/chat/completions"),
        ("/v1", "/v1/responses"),
        ("/v1/", "/v1/responses"),
        ("/", "/v1/responses"),
        ("/model", "/v1/models"),
    ];
    for (path, meant) in cases {
        let answer = wire::ask(
            gateway.address,
            request(&format!("GET {path} HTTP/1.1"), "host: localhost\r\n"),
        )
        .await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "unknown_path"),
            "{path}"
        );
        assert!(
            answer.text().contains(&format!("mean {meant}?")),
            "{path}: {}",
            answer.text()
        );
    }
    assert_eq!(sim.counts().requests, 0);
}
