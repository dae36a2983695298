//! Forward proxies towards upstreams: from the configuration and from the environment, over TCP, TLS and SOCKS 5, for
//! upstreams with and without TLS and HTTP/2.

use std::{fs, net::SocketAddr};

use bytes::Bytes;
use http::Request;
use http_body_util::channel::Channel;
use steadfast::sim::{Sim, SimConfig};

use crate::kit::{
    STREAM, WHOLE,
    commands::{lossy_text, write_config},
    gateway::{Gateway, steadfast_in, upstream_at},
    proxy::{Tunnel, connect_proxy, secure_proxy, socks_proxy},
    sim,
    tls::{self, TestIdentity},
    wire::{self, End, RawResponse},
};

/// The password of the proxies. It may appear nowhere.
const PASSWORD: &str = "canary-of-proxy";

/// A name that only the proxy resolves.
const HOST: &str = "api.example.invalid";

fn identity(alpn: &[&str]) -> TestIdentity {
    tls::identity(&[HOST, "127.0.0.1"], alpn)
}

async fn tls_sim(identity: &TestIdentity) -> Sim {
    let config = SimConfig {
        name: "a".to_owned(),
        record: true,
        ..SimConfig::default()
    };
    let started = Sim::start_tls(([127, 0, 0, 1], 0).into(), config, identity.config.clone()).await;
    started.expect("a free port")
}

fn proxy_line(scheme: &str, address: SocketAddr) -> String {
    format!("proxy = \"{scheme}://user:{PASSWORD}@{address}\"\n")
}

async fn ask(gateway: &Gateway) -> RawResponse {
    wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await
}

async fn assert_answers(gateway: &Gateway) {
    let answer = ask(gateway).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole), "{:?}", gateway.log());
}

fn assert_hidden(gateway: &Gateway) {
    let log = gateway.log().join("\n");
    // "Basic dXNlcjp..." is the credential as it is sent.
    assert!(!log.contains(PASSWORD) && !log.contains("dXNlcj"), "{log}");
}

#[tokio::test]
async fn an_https_upstream_is_reached_through_a_proxy_with_credentials() {
    let identity = identity(&["http/1.1"]);
    let sim = tls_sim(&identity).await;
    let proxy = connect_proxy(Tunnel::To(sim.address())).await;
    let lines = format!("ca = {:?}\n{}", identity.ca, proxy_line("http", proxy.address));
    let gateway = Gateway::configured(&upstream_at("a", &format!("https://{HOST}/v1"), &lines)).await;
    for _ in 0..3 {
        assert_answers(&gateway).await;
    }
    let asked = proxy.asked();
    assert!(
        asked[0].starts_with(&format!("connect {HOST}:443 http/1.1\r\n")),
        "{asked:?}"
    );
    assert!(asked[0].contains(&format!("\r\nhost: {HOST}:443\r\n")), "{asked:?}");
    // base64 of "user:canary-of-proxy", in lower case.
    assert!(
        asked[0].contains("\r\nproxy-authorization: basic dxnlcjpjyw5hcnktb2ytchjvehk=\r\n"),
        "{asked:?}"
    );
    assert_eq!(identity.server_names.lock()[0].as_deref(), Some(HOST));
    // A request is inside the tunnel, so the proxy's credential is not in it.
    let request = &sim.requests()[0];
    assert_eq!(request.headers["host"], HOST);
    assert!(!request.headers.contains_key("proxy-authorization"));
    assert_hidden(&gateway);
}

#[tokio::test]
async fn connections_through_a_proxy_are_used_again() {
    let sim = sim("a").await;
    let proxy = connect_proxy(Tunnel::To(sim.address())).await;
    let lines = proxy_line("http", proxy.address);
    let gateway = Gateway::configured(&upstream_at("a", &format!("http://{HOST}/v1"), &lines)).await;
    let mut client = wire::Wire::open(gateway.address).await;
    for _ in 0..10 {
        client.send(wire::post("/v1/responses", STREAM)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.end), (200, End::Whole));
    }
    let asked = proxy.asked();
    assert!(asked.len() < 10, "{} tunnels", asked.len());
    assert!(
        asked[0].starts_with(&format!("connect {HOST}:80 http/1.1\r\n")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_http2_upstream_is_reached_through_a_proxy() {
    let identity = identity(&["h2"]);
    let (address, connections) = tls::http2_upstream(&identity, |request: Request<Bytes>| {
        assert_eq!(request.uri().host(), Some(HOST));
        let (mut sender, body) = Channel::new(1);
        tokio::spawn(async move { sender.send_data(Bytes::from_static(b"data: {}\n\n")).await });
        body
    })
    .await;
    let plain = connect_proxy(Tunnel::To(address)).await;
    let proxy_identity = self::identity(&["http/1.1"]);
    let secure = secure_proxy(&proxy_identity, Tunnel::To(address)).await;
    let authorities = [&identity.ca, &proxy_identity.ca].map(|path| fs::read_to_string(path).expect("a file"));
    let ca = identity.ca.with_file_name("both.pem");
    fs::write(&ca, authorities.concat()).expect("a writable folder");
    for (scheme, proxy) in [("http", &plain), ("https", &secure)] {
        let lines = format!("ca = {:?}\nhttp2 = true\n{}", ca, proxy_line(scheme, proxy.address));
        let gateway = Gateway::configured(&upstream_at("a", &format!("https://{HOST}:8443/v1"), &lines)).await;
        for _ in 0..3 {
            let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
            assert_eq!(answer.status, 200, "{scheme}: {:?}", gateway.log());
        }
        let asked = proxy.asked();
        assert_eq!(asked.len(), 1, "{scheme}: streams share the tunnel");
        assert!(asked[0].starts_with(&format!("connect {HOST}:8443 ")), "{asked:?}");
    }
    assert_eq!(*connections.lock(), 2);
}

#[tokio::test]
async fn a_proxy_can_be_called_over_tls() {
    let identity = identity(&["http/1.1"]);
    let (plain, secure) = (sim("a").await, tls_sim(&identity).await);
    for (scheme, address) in [("http", plain.address()), ("https", secure.address())] {
        let proxy = secure_proxy(&identity, Tunnel::To(address)).await;
        let lines = format!("ca = {:?}\n{}", identity.ca, proxy_line("https", proxy.address));
        let gateway = Gateway::configured(&upstream_at("a", &format!("{scheme}://{HOST}/v1"), &lines)).await;
        for _ in 0..3 {
            assert_answers(&gateway).await;
        }
        assert!(!proxy.asked().is_empty());
    }
    // A proxy whose certificate is not trusted gets no request.
    let proxy = secure_proxy(&identity, Tunnel::To(plain.address())).await;
    let other = tls::identity(&["127.0.0.1"], &[]);
    let lines = format!("ca = {:?}\n{}", other.ca, proxy_line("https", proxy.address));
    let gateway = Gateway::configured(&upstream_at("a", &format!("http://{HOST}/v1"), &lines)).await;
    assert_eq!(ask(&gateway).await.status, 502);
    gateway
        .log_until("cannot be reached over TLS: invalid peer certificate")
        .await;
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_socks_proxy_resolves_the_name_of_the_upstream() {
    let identity = identity(&["http/1.1"]);
    let sim = tls_sim(&identity).await;
    let proxy = socks_proxy(Tunnel::To(sim.address())).await;
    let lines = format!("ca = {:?}\n{}", identity.ca, proxy_line("socks5", proxy.address));
    let gateway = Gateway::configured(&upstream_at("a", &format!("https://{HOST}/v1"), &lines)).await;
    assert_answers(&gateway).await;
    assert_eq!(proxy.asked()[0], format!("user:{PASSWORD} {HOST}:443"));
    proxy.set(Tunnel::Silent);
    let refusing = socks_proxy(Tunnel::Silent).await;
    let lines = proxy_line("socks5", refusing.address);
    let refused = Gateway::configured(&upstream_at("a", &format!("http://{HOST}/v1"), &lines)).await;
    assert_eq!(ask(&refused).await.status, 502);
    refused
        .log_until(&format!("the proxy {} refused: ", refusing.address))
        .await;
    assert_hidden(&refused);
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_a_failed_connection_with_a_reason() {
    for (answer, reason) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n",
            "answered CONNECT with 407 Proxy Authentication Required; check its user and password",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "answered CONNECT with 502 Bad Gateway",
        ),
        ("", "broke the connection: "),
    ] {
        let proxy = connect_proxy(Tunnel::Refused(answer)).await;
        let lines = proxy_line("http", proxy.address);
        let gateway = Gateway::configured(&upstream_at("a", &format!("http://{HOST}/v1"), &lines)).await;
        let told = ask(&gateway).await;
        assert_eq!((told.status, told.error_code().as_str()), (502, "upstream_unreachable"));
        let port = proxy.address.port().to_string();
        assert!(
            !told.text().contains("proxy 127") && !told.text().contains(&port),
            "{told:?}"
        );
        gateway
            .log_until(&format!("the proxy {} {reason}", proxy.address))
            .await;
        assert_hidden(&gateway);
    }
}

#[tokio::test]
async fn another_upstream_takes_over_if_the_proxy_of_one_fails() {
    let sim = sim("b").await;
    let proxy = connect_proxy(Tunnel::Refused("HTTP/1.1 503 Service Unavailable\r\n\r\n")).await;
    let behind = upstream_at("a", &format!("http://{HOST}/v1"), &proxy_line("http", proxy.address));
    let gateway = Gateway::configured(&format!("{behind}{}", upstream_at("b", &sim.base_url(), ""))).await;
    for key in 0..8 {
        let body = format!(r#"{{"model":"m","input":"hi","prompt_cache_key":"k{key}"}}"#);
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", &body)).await;
        assert_eq!(answer.status, 200);
    }
    assert!(!proxy.asked().is_empty());
}

#[tokio::test]
async fn the_connect_timeout_covers_a_proxy_that_does_not_answer() {
    let proxy = connect_proxy(Tunnel::Silent).await;
    let table = upstream_at("a", &format!("http://{HOST}/v1"), &proxy_line("http", proxy.address));
    let gateway = Gateway::configured(&format!("[timeouts]\nconnect = \"200ms\"\n{table}")).await;
    assert_eq!(ask(&gateway).await.status, 502);
    gateway.log_until("no connection was opened within 200 ms").await;
}

#[tokio::test]
async fn the_environment_names_proxies_unless_the_upstream_says_otherwise() {
    let sim = sim("a").await;
    let shared = connect_proxy(Tunnel::To(sim.address())).await;
    let own = connect_proxy(Tunnel::To(sim.address())).await;
    let variable = format!("http://user:{PASSWORD}@{}", shared.address);
    let port = sim.address().port().to_string();
    let url = format!("http://127.0.0.1:{port}/v1");
    for (variables, line, tunnels) in [
        (&[("HTTP_PROXY", variable.as_str())][..], "", (1, 0)),
        (&[("http_proxy", &variable)], "", (1, 0)),
        (&[("ALL_PROXY", &variable)], "", (1, 0)),
        (&[("HTTPS_PROXY", &variable)], "", (0, 0)),
        (&[("HTTP_PROXY", &variable), ("NO_PROXY", "127.0.0.0/8")], "", (0, 0)),
        (&[("HTTP_PROXY", &variable), ("REQUEST_METHOD", "GET")], "", (0, 0)),
        (&[("HTTP_PROXY", &variable)], "proxy = \"direct\"", (0, 0)),
        (
            &[("HTTP_PROXY", &variable), ("NO_PROXY", "*")],
            &format!("proxy = \"http://{}\"", own.address),
            (0, 1),
        ),
    ] {
        let before = (shared.asked().len(), own.asked().len());
        let gateway = Gateway::in_environment(&upstream_at("a", &url, line), variables).await;
        assert_answers(&gateway).await;
        let after = (shared.asked().len() - before.0, own.asked().len() - before.1);
        assert_eq!(after, tunnels, "{variables:?} {line}");
        assert_hidden(&gateway);
    }
}

#[tokio::test]
async fn the_simulated_upstreams_inside_are_called_directly() {
    let proxy = connect_proxy(Tunnel::Refused("HTTP/1.1 403 Forbidden\r\n\r\n")).await;
    let variable = format!("http://{}", proxy.address);
    let gateway = Gateway::bare_in(&[("HTTP_PROXY", &variable), ("ALL_PROXY", &variable)]).await;
    assert_answers(&gateway).await;
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn check_names_the_proxy_of_the_environment_without_its_credentials() {
    let path = write_config(&upstream_at("a", &format!("https://{HOST}/v1"), ""));
    let variable = format!("http://user:{PASSWORD}@proxy.example:3128");
    let output = steadfast_in(&["check", "-c", &path], &[("HTTPS_PROXY", &variable)]).await;
    assert!(output.status.success());
    assert_eq!(
        lossy_text(&output.stderr),
        format!(
            "warning: {path}:3:12: the upstream is reached through the proxy http://proxy.example:3128, because HTTPS_PROXY is set; to reach it directly, set proxy = \"direct\", or NO_PROXY\n"
        )
    );
}
