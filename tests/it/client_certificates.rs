//! Client certificates towards upstreams (mutual TLS).

use std::{fs, sync::Arc};

use rustls::ServerConfig;
use steadfast::{
    sim::{Sim, SimConfig},
    wire,
};

use crate::kit::{
    WHOLE,
    gateway::{Gateway, upstream},
    tls::{self, TestIdentity},
    wire::{ask, post},
};

/// Starts an account that accepts only clients with a certificate of the authority of `client`.
async fn account(server: &TestIdentity, client: &TestIdentity) -> Sim {
    let read = |path| fs::read(path).expect("a file");
    let tls: Arc<ServerConfig> =
        wire::server_config(&read(&server.cert), &read(&server.key), Some(&read(&client.ca))).expect("they fit");
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = SimConfig {
        name: "a".to_owned(),
        ..SimConfig::default()
    };
    let started = Sim::start_tls(([127, 0, 0, 1], 0).into(), config, Arc::new(tls)).await;
    started.expect("a free port")
}

fn table(sim: &Sim, server: &TestIdentity, lines: &str) -> String {
    upstream(sim, &format!("ca = {:?}\n{lines}", server.ca))
}

fn with_certificate(client: &TestIdentity) -> String {
    format!("client_certificate = {:?}\nclient_key = {:?}", client.cert, client.key)
}

async fn status(gateway: &Gateway) -> u16 {
    ask(gateway.address, post("/v1/responses", WHOLE)).await.status
}

#[tokio::test]
async fn an_upstream_that_demands_a_certificate_gets_the_configured_one() {
    let (server, client) = (tls::identity(&["127.0.0.1"], &[]), tls::identity(&["client"], &[]));
    let sim = account(&server, &client).await;
    let without = Gateway::configured(&table(&sim, &server, "")).await;
    assert_eq!(status(&without).await, 502);
    let with = Gateway::configured(&table(&sim, &server, &with_certificate(&client))).await;
    assert_eq!(status(&with).await, 200, "{:?}", with.log());
    // One file may hold both.
    let both = [&client.cert, &client.key].map(|path| fs::read_to_string(path).expect("a file"));
    let path = client.cert.with_file_name("both.pem");
    fs::write(&path, both.concat()).expect("a writable folder");
    let lines = format!("client_certificate = {path:?}");
    let with = Gateway::configured(&table(&sim, &server, &lines)).await;
    assert_eq!(status(&with).await, 200, "{:?}", with.log());
}

#[tokio::test]
async fn a_reload_reads_the_certificate_again_and_opens_new_connections() {
    let (server, client) = (tls::identity(&["127.0.0.1"], &[]), tls::identity(&["client"], &[]));
    let other = tls::identity(&["client"], &[]);
    let sim = account(&server, &client).await;
    let gateway = Gateway::configured(&table(&sim, &server, &with_certificate(&client))).await;
    assert_eq!(status(&gateway).await, 200);
    let (certificate, key) = (fs::read(&client.cert), fs::read(&client.key));
    for (from, to) in [(&other.cert, &client.cert), (&other.key, &client.key)] {
        fs::copy(from, to).expect("a writable folder");
    }
    gateway.signal("HUP").await;
    gateway.log_until("reloaded: a new configuration is in force").await;
    assert_eq!(
        status(&gateway).await,
        502,
        "the upstream does not know this certificate"
    );
    fs::write(&client.cert, certificate.expect("a file")).expect("a writable folder");
    fs::write(&client.key, key.expect("a file")).expect("a writable folder");
    let reload = crate::kit::client::post("/api/reload", "");
    assert_eq!(crate::kit::client::send(gateway.admin, reload).await.status, 200);
    assert_eq!(status(&gateway).await, 200, "{:?}", gateway.log());
}
