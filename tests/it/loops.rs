//! Loops: an upstream that leads back to the gateway, directly or through other gateways.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderValue, Method};
use parking_lot::Mutex;
use serde_json::json;
use steadfast::sim::Act;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::kit::{
    WHOLE,
    client::{self, Reply, post, request},
    commands::{assert_failed, write_config},
    gateway::{Gateway, steadfast, upstream, upstream_at},
    keys::{ALICE, error_code, group, key, with_key},
    sessions::responses_request,
    sim, until_true,
};

/// A load balancer below HTTP: each connection goes to the next of its targets.
struct Balancer {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    connections: Arc<AtomicUsize>,
}

impl Balancer {
    /// Starts a load balancer that has no target yet.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let balancer = Self {
            address: listener.local_addr().expect("bound"),
            targets: Arc::default(),
            connections: Arc::default(),
        };
        let (targets, connections) = (balancer.targets.clone(), balancer.connections.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Relaxed);
                let target = {
                    let targets = targets.lock();
                    targets[number % targets.len()]
                };
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.expect("the gateway listens");
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        balancer
    }

    fn url(&self) -> String {
        url(self.address)
    }

    fn direct(&self, targets: &[SocketAddr]) {
        *self.targets.lock() = targets.to_vec();
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1")
}

/// Starts a gateway whose only upstream is itself, and returns it with the load balancer on the way. The configuration
/// ends with `lines`.
async fn looping(lines: &str) -> (Gateway, Balancer) {
    let balancer = Balancer::start().await;
    let gateway = Gateway::configured(&(upstream_at("self", &balancer.url(), "") + lines)).await;
    balancer.direct(&[gateway.address]);
    (gateway, balancer)
}

fn assert_loop(reply: &Reply) {
    assert_eq!(error_code(reply), (508, "loop_detected".to_owned()), "{}", reply.text());
    assert_eq!(reply.header("steadfast-hop"), "", "the marker stays between gateways");
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused_with_508_on_its_first_return() {
    let (gateway, balancer) = looping("").await;
    for number in 1..=12 {
        let reply = client::send(gateway.address, post("/v1/responses", WHOLE)).await;
        assert_loop(&reply);
        until_true("each request to have come back once", || {
            gateway.access().len() == 2 * number
        })
        .await;
    }
    assert_eq!(
        balancer.connections(),
        1,
        "the connection to the upstream is used again"
    );
    let log = gateway.log_until("leads back to a gateway").await;
    let lines = log.iter().filter(|line| line.contains("leads back to a gateway"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("\"self\"") && lines[0].contains("ERROR"), "{lines:?}");
}

#[tokio::test]
async fn every_kind_of_request_ends_at_once() {
    let (gateway, balancer) = looping("").await;
    let large = format!(r#"{{"model":"gpt-5.2","input":"{}"}}"#, "x".repeat(300_000));
    for (method, path, body) in [
        (Method::POST, "/v1/responses", &*large),
        (Method::POST, "/v1/chat/completions", r#"{"model":"m","messages":[]}"#),
        (Method::POST, "/v1/files", "{}"),
        (Method::GET, "/v1/responses/resp_1", ""),
        (Method::DELETE, "/v1/files/file-1", ""),
        (Method::GET, "/v1/models?client_version=1", ""),
        (Method::GET, "/v1/unheard-of", ""),
    ] {
        assert_loop(&client::send(gateway.address, request(method, path, body.to_owned())).await);
    }
    assert_loop(&client::get(gateway.address, "/v1/models").await);
    assert!(balancer.connections() <= 3, "{} connections", balancer.connections());
    assert_eq!(gateway.states().await, ["ready"], "the loop concerns the requests");
}

#[tokio::test]
async fn a_loop_is_found_before_the_key_is_checked() {
    let keys = group("red", "") + &key("alice", ALICE, "red", "");
    let (gateway, _balancer) = looping(&keys).await;
    let reply = client::send(gateway.address, with_key(post("/v1/responses", WHOLE), ALICE)).await;
    assert_loop(&reply);
    assert_eq!(gateway.states().await, ["ready"], "no credential was refused");
    let reply = client::send(gateway.address, post("/v1/responses", WHOLE)).await;
    assert_eq!(error_code(&reply), (401, "missing_api_key".to_owned()));
}

#[tokio::test]
async fn another_upstream_serves_what_comes_back() {
    let sim = sim("a").await;
    let (gateway, _balancer) = looping(&upstream(&sim, "")).await;
    for number in 0..20 {
        let session = json!({"input": "hi", "prompt_cache_key": format!("s{number}")});
        let reply = client::send(gateway.address, responses_request(session, &[])).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(sim.requests().len(), 20, "each request has reached the account once");
    let models = client::get(gateway.address, "/v1/models").await;
    assert_eq!(models.status, 200, "{}", models.text());
}

#[tokio::test]
async fn a_known_loop_is_avoided_while_another_upstream_serves() {
    let sim = sim("a").await;
    let (gateway, _balancer) = looping(&upstream(&sim, "")).await;
    for number in 0..20 {
        let session = json!({"input": "hi", "prompt_cache_key": format!("s{number}")});
        let reply = client::send(gateway.address, responses_request(session, &[])).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let came_back = || gateway.access().iter().filter(|line| line["status"] == 508).count();
    until_true("the loop to be met", || came_back() == 1).await;
    // The body of an upload is not kept, so a request that meets the loop ends there.
    let mut refused = 0;
    for _ in 0..20 {
        let mut upload = post("/v1/unheard-of", "x".repeat(500));
        let octets = HeaderValue::from_static("application/octet-stream");
        upload.headers_mut().insert("content-type", octets);
        let reply = client::send(gateway.address, upload).await;
        refused += u32::from(reply.status == http::StatusCode::LOOP_DETECTED);
    }
    assert_eq!(refused, 1, "only the first one that meets the loop");
    // A limit of the account is told as such, although the other upstream is ready.
    sim.script().always(Act::reply(
        http::StatusCode::TOO_MANY_REQUESTS,
        &json!({"error": {"code": "insufficient_quota"}}),
    ));
    for _ in 0..2 {
        let reply = client::send(gateway.address, post("/v1/responses", WHOLE)).await;
        assert_eq!(reply.status, 429, "{}", reply.text());
    }
}

#[tokio::test]
async fn forged_markers_do_not_turn_the_requests_of_others_away_from_an_upstream() {
    let sims = crate::kit::sims(2).await;
    let second = Gateway::before(&sims[..1], "").await;
    let config = upstream_at("second", &url(second.address), "") + &upstream(&sims[1], "");
    let first = Gateway::configured(&config).await;
    client::send(second.address, post("/v1/responses", WHOLE)).await;
    let sent = sims[0].requests()[0].headers.clone();
    let name = sent.keys().find(|name| name.as_str().ends_with("steadfast-hop"));
    let name = name.expect("a marker").clone();
    let turn = |number: u32, hops: &str| {
        let session = json!({"input": "hi", "prompt_cache_key": format!("s{number}")});
        let mut request = responses_request(session, &[]);
        let hops = HeaderValue::from_str(hops).expect("a value");
        request.headers_mut().insert(&name, hops);
        client::send(first.address, request)
    };
    let mut at_second = Vec::new();
    for number in 0..20 {
        if turn(number, "1").await.header("x-steadfast-upstream") == "second" {
            at_second.push(number);
        }
    }
    assert!(at_second.len() >= 2, "{at_second:?}");
    let reply = turn(at_second[0], "1,2,3,4,5,6,7,8").await;
    assert_eq!(
        reply.header("x-steadfast-upstream"),
        "b",
        "the second gateway refuses nine hops"
    );
    let session = json!({"input": "hi", "prompt_cache_key": format!("s{}", at_second[1])});
    let reply = client::send(first.address, responses_request(session, &[])).await;
    assert_eq!(reply.header("x-steadfast-upstream"), "second");
}

#[tokio::test]
async fn a_loop_through_another_gateway_is_found() {
    let balancer = Balancer::start().await;
    let second = Gateway::configured(&upstream_at("first", &balancer.url(), "")).await;
    let first = Gateway::configured(&upstream_at("second", &url(second.address), "")).await;
    balancer.direct(&[first.address]);
    for gateway in [&first, &second] {
        assert_loop(&client::send(gateway.address, post("/v1/responses", WHOLE)).await);
    }
    assert!(balancer.connections() <= 2, "{} connections", balancer.connections());
    // The lists of models are fetched with the markers of the request for them.
    let began = std::time::Instant::now();
    assert_loop(&client::get(first.address, "/v1/models").await);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn two_gateways_in_a_row_are_no_loop() {
    let sim = sim("a").await;
    let second = Gateway::before(std::slice::from_ref(&sim), "").await;
    let first = Gateway::configured(&upstream_at("second", &url(second.address), "")).await;
    let reply = client::send(first.address, post("/v1/responses", WHOLE)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("steadfast-hop"), "");
    let requests = sim.requests();
    let hops: Vec<_> = requests[0].headers.get_all("steadfast-hop").iter().collect();
    assert_eq!(hops.len(), 2, "{hops:?}");
    assert_ne!(hops[0], hops[1]);
    let models = client::get(first.address, "/v1/models").await;
    assert_eq!(models.status, 200, "{}", models.text());
}

#[tokio::test]
async fn a_loop_over_replicas_behind_a_load_balancer_ends() {
    let balancer = Balancer::start().await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Gateway::configured(&upstream_at("balancer", &balancer.url(), "")).await);
    }
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    balancer.direct(&addresses);
    for address in addresses {
        assert_loop(&client::send(address, post("/v1/responses", WHOLE)).await);
    }
    assert!(balancer.connections() <= 12, "{} connections", balancer.connections());
}

#[tokio::test]
async fn a_forged_marker_has_no_effect_on_others() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let with_hops = |hops: &'static str| {
        let mut request = post("/v1/responses", WHOLE);
        request
            .headers_mut()
            .insert("steadfast-hop", HeaderValue::from_static(hops));
        request
    };
    let reply = client::send(gateway.address, with_hops("forged, 0123456789abcdef")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let own = sim.requests()[0]
        .headers
        .get_all("steadfast-hop")
        .iter()
        .next_back()
        .cloned();
    let mut back = post("/v1/responses", WHOLE);
    back.headers_mut().insert("steadfast-hop", own.expect("a marker"));
    assert_loop(&client::send(gateway.address, back).await);
    assert_loop(&client::send(gateway.address, with_hops("1,2,3,4,5,6,7,8,9")).await);
    let reply = client::send(gateway.address, post("/v1/responses", WHOLE)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(sim.requests().len(), 2);
}

#[tokio::test]
async fn an_upstream_that_echoes_the_marker_does_not_show_it_to_callers() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    let echo = Act::reply(http::StatusCode::OK, &json!({"id": "resp_1"})).header(
        "steadfast-hop".parse().expect("a name"),
        HeaderValue::from_static("0123456789abcdef"),
    );
    sim.script().always(echo);
    let reply = client::send(gateway.address, post("/v1/responses", WHOLE)).await;
    assert_eq!((reply.status.as_u16(), reply.header("steadfast-hop")), (200, ""));
}

#[tokio::test]
async fn a_508_without_the_code_of_a_gateway_is_passed_on() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    sim.script().always(Act::reply(
        http::StatusCode::LOOP_DETECTED,
        &json!({"error": {"code": "resource_limit"}}),
    ));
    let reply = client::send(gateway.address, post("/v1/responses", WHOLE)).await;
    assert_eq!(error_code(&reply), (508, "resource_limit".to_owned()));
}

#[tokio::test]
async fn check_and_start_refuse_an_upstream_that_is_the_gateway() {
    let file = |listen: &str, url: &str| format!("[server]\nlisten = \"{listen}\"\n") + &upstream_at("self", url, "");
    for (listen, url) in [
        ("127.0.0.1:18080", "http://127.0.0.1:18080/v1"),
        ("127.0.0.1:18080", "http://localhost:18080/v1"),
        ("[::1]:18080", "http://[::1]:18080/v1"),
        ("127.0.0.1:80", "http://127.0.0.1/v1"),
    ] {
        let path = write_config(&file(listen, url));
        for command in ["check", "serve"] {
            let said = assert_failed(&steadfast(&[command, "-c", &path]).await);
            assert!(
                said.contains(":5:12: base_url leads back to this gateway"),
                "{command}: {said}"
            );
        }
    }
    let path = write_config(&file("127.0.0.1:18080", "http://127.0.0.1:18081/v1"));
    let flags = ["check", "-c", &path, "--admin", "127.0.0.1:18081"];
    let said = assert_failed(&steadfast(&flags).await);
    assert!(said.contains("base_url leads to the admin listener"), "{said}");
    let flags = ["check", "-c", &path, "--listen", "127.0.0.1:18081"];
    let said = assert_failed(&steadfast(&flags).await);
    assert!(said.contains("base_url leads back to this gateway"), "{said}");
    let path = write_config(&file("127.0.0.1:18080", "http://127.0.0.1:18082/v1"));
    assert!(steadfast(&["check", "-c", &path]).await.status.success());
    let proxied = file("127.0.0.1:18080", "http://127.0.0.1:18080/v1") + "proxy = \"http://127.0.0.1:3128\"\n";
    assert!(
        steadfast(&["check", "-c", &write_config(&proxied)])
            .await
            .status
            .success()
    );
    let flags = [
        "--listen",
        "127.0.0.1:18080",
        "--upstream",
        "a=http://localhost:18080/v1,env:STEADFAST_TEST_KEY",
    ];
    let said = assert_failed(&steadfast(&flags).await);
    assert!(
        said.contains("--upstream a: base_url leads back to this gateway"),
        "{said}"
    );
}

#[tokio::test]
async fn a_loop_that_a_reload_makes_is_found() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), "").await;
    // The flags select free ports, so this loop is not seen before a request comes back.
    gateway.write(&upstream_at("self", &url(gateway.address), ""));
    let applied = "steadfast_reloads_total{outcome=\"applied\"}";
    gateway.metric_reaches(applied, 1.0).await;
    assert_loop(&client::send(gateway.address, post("/v1/responses", WHOLE)).await);
    until_true("the request to end", || gateway.access().len() == 2).await;
    assert_eq!(gateway.access().iter().filter(|line| line["status"] == 508).count(), 2);
}
