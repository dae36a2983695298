//! The admin listener refuses requests from web pages and from unexpected hosts: DNS rebinding and cross-site
//! requests.

use crate::kit::{client, gateway::Gateway, gateway_with_sim};

/// Sends `head`, in which `ADMIN` stands for the admin address, and returns the response.
async fn response_to(gateway: &Gateway, head: &str) -> String {
    let head = head.replace("ADMIN", &gateway.admin.to_string());
    client::raw(gateway.admin, format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// DNS rebinding: a browser considers a page to be of the same origin as the admin listener if the page's host name
/// was pointed at this machine. Only `Host` reveals that.
#[tokio::test]
async fn without_a_token_only_loopback_hosts_are_accepted() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let port = gateway.admin.port();
    for path in ["/metrics", "/api/upstreams", "/api/route?key=k", "/", "/nothing"] {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.7",
            "0.0.0.0",
            "[::]",
            "127.1",
        ] {
            for host in [host.to_owned(), format!("{host}:{port}")] {
                let answer = response_to(&gateway, &format!("GET {path} HTTP/1.1\r\nhost: {host}")).await;
                assert_eq!(status(&answer), "403", "{path} {host}: {answer}");
                assert!(answer.contains("admin.token"), "the message names the remedy: {answer}");
                assert!(!answer.contains("steadfast_"), "{answer}");
            }
        }
    }
    for host in [
        "ADMIN",
        "127.0.0.1",
        "localhost",
        "LOCALHOST:1",
        "[::1]:9090",
        "127.8.8.8",
    ] {
        let answer = response_to(&gateway, &format!("GET /metrics HTTP/1.1\r\nhost: {host}")).await;
        assert_eq!(status(&answer), "200", "{host}: {answer}");
    }
    for (head, expected) in [
        ("GET http://evil.example/metrics HTTP/1.1\r\nhost: ADMIN", "403"),
        ("GET http://ADMIN/metrics HTTP/1.1\r\nhost: evil.example", "403"),
        ("GET /metrics HTTP/1.1\r\nhost: ADMIN\r\nhost: evil.example", "400"),
        ("GET /metrics HTTP/1.1\r\nhost: a@ADMIN", "400"),
        ("GET /metrics HTTP/1.1", "400"),
        // HTTP/1.0 without `Host` does not come from a browser.
        ("GET /metrics HTTP/1.0", "200"),
        ("GET /metrics HTTP/1.0\r\nhost: evil.example", "403"),
        (
            "POST /api/upstreams/a/drain HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0",
            "403",
        ),
        // Probes use a pod's address, and their response contains nothing secret.
        ("GET /livez HTTP/1.1\r\nhost: 10.1.2.3:9090", "200"),
        ("GET /readyz HTTP/1.1\r\nhost: pod.example", "200"),
    ] {
        assert_eq!(status(&response_to(&gateway, head).await), expected, "{head}");
    }
    let upstreams = gateway.ask("/api/upstreams").await.json();
    assert_eq!(upstreams["upstreams"][0]["state"], "ready", "nothing was drained");
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let (_sim, gateway) = gateway_with_sim("").await;
    for path in ["/metrics", "/api/upstreams", "/api/route?key=k", "/nothing"] {
        for line in [
            "origin: https://evil.example",
            "origin: null",
            "origin: http://127.0.0.1:1",
            "origin: http://localhost",
            "sec-fetch-site: cross-site",
            "sec-fetch-site: same-site",
            "sec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\nsec-fetch-dest: script",
        ] {
            let answer = response_to(&gateway, &format!("GET {path} HTTP/1.1\r\nhost: ADMIN\r\n{line}")).await;
            assert_eq!(status(&answer), "403", "{path} {line}: {answer}");
        }
        // The preflight request, which a browser sends before it lets a page send more than a form can (CORS).
        let preflight = "host: ADMIN\r\norigin: https://evil.example\r\naccess-control-request-method: POST\r\n\
                         access-control-request-headers: authorization\r\naccess-control-request-private-network: true";
        let answer = response_to(&gateway, &format!("OPTIONS {path} HTTP/1.1\r\n{preflight}")).await;
        assert_eq!(status(&answer), "403", "{answer}");
        assert!(!answer.contains("access-control"), "{answer}");
    }
    for line in [
        "origin: http://ADMIN",
        "sec-fetch-site: same-origin",
        "sec-fetch-site: none",
    ] {
        let answer = response_to(&gateway, &format!("GET /metrics HTTP/1.1\r\nhost: ADMIN\r\n{line}")).await;
        assert_eq!(status(&answer), "200", "{line}: {answer}");
        assert!(!answer.contains("access-control"), "{answer}");
    }
}

#[tokio::test]
async fn with_a_token_every_host_is_accepted_and_other_sites_are_refused() {
    let (_sim, gateway) = gateway_with_sim("[admin]\ntoken = \"env:STEADFAST_TEST_KEY\"\n").await;
    let token = "authorization: Bearer sk-upstream-canary";
    let host = "host: steadfast.monitoring.svc:9090";
    for (head, expected) in [
        (format!("{host}\r\n{token}"), "200"),
        (format!("host: 10.1.2.3:9090\r\n{token}"), "200"),
        (
            format!("{host}\r\n{token}\r\norigin: http://steadfast.monitoring.svc:9090"),
            "200",
        ),
        (format!("{host}\r\n{token}\r\norigin: https://evil.example"), "403"),
        (format!("{host}\r\n{token}\r\nsec-fetch-site: cross-site"), "403"),
        (host.to_owned(), "401"),
        (format!("{host}\r\n{token}x"), "401"),
    ] {
        let answer = response_to(&gateway, &format!("GET /metrics HTTP/1.1\r\n{head}")).await;
        assert_eq!(status(&answer), expected, "{head}: {answer}");
    }
}

#[tokio::test]
async fn every_response_has_browser_security_headers() {
    let (_sim, gateway) = gateway_with_sim("").await;
    for (path, status) in [
        ("/metrics", 200),
        ("/livez", 200),
        ("/api/upstreams", 200),
        ("/nothing", 404),
        ("/api/reload", 405),
    ] {
        let reply = gateway.ask(path).await;
        assert_eq!(reply.status.as_u16(), status, "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            let values: Vec<_> = reply.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{path}");
        }
    }
}
