//! The gateway lacks file descriptors or ports. It is not the upstreams' failure.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Channel;
use steadfast::sim::{Act, Point, Rule, Sim};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};

use crate::kit::{
    STREAM, TIMEOUT, WHOLE, client, descriptors,
    gateway::{Gateway, scratch, upstream, upstream_at},
    gateway_with_sim,
    proxy::{Tunnel, connect_proxy, socks_proxy},
    sim_with, sims, tls, until, until_true,
    wire::{self, RawResponse, Wire},
};

/// Opens a connection that the gateway has accepted.
async fn accepted(gateway: &Gateway) -> Wire {
    let mut wire = Wire::open(gateway.address).await;
    wire.send("GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 404);
    wire
}

/// Sends one request of the session `key`.
async fn ask(wire: &mut Wire, key: &str) -> RawResponse {
    let body = format!(r#"{{"model":"gpt-5.2","input":"hi","prompt_cache_key":"{key}"}}"#);
    wire.send(wire::post("/v1/responses", &body)).await;
    wire.answer().await
}

fn assert_overloaded(answer: &RawResponse) {
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "overloaded"),
        "{answer:?}"
    );
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
}

/// Checks that the gateway counts no failure of an upstream.
async fn assert_no_failures(gateway: &Gateway) {
    assert_eq!(gateway.metric("steadfast_failed_attempts_total").await, 0.0);
    assert_eq!(gateway.metric("steadfast_failovers_total").await, 0.0);
    assert!(gateway.states().await.iter().all(|state| state == "ready"));
}

/// Checks that a gateway without descriptors answers with 503, judges no upstream, and serves again afterwards.
async fn assert_shortage_is_no_failure(config: &str) {
    let gateway = Gateway::configured(config).await;
    let mut wire = accepted(&gateway).await;
    descriptors::exhaust(&gateway);
    for number in 0..20 {
        let answer = ask(&mut wire, &format!("session-{number}")).await;
        assert_overloaded(&answer);
        assert!(answer.text().contains("file descriptors"), "{answer:?}");
    }
    wire.send("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_overloaded(&wire.answer().await);
    descriptors::lift(&gateway);
    assert_eq!(ask(&mut wire, "session-1").await.status, 200, "{config}");
    assert_no_failures(&gateway).await;
    let rejected = "steadfast_rejected_requests_total{reason=\"overloaded\"}";
    assert_eq!(gateway.metric(rejected).await, 21.0);
}

/// Two upstreams whose addresses are written like this, each table with these lines.
fn tables(sims: &[Sim], host: &str, lines: &str) -> String {
    let url = |sim: &Sim| sim.base_url().replace("127.0.0.1", host);
    sims.iter()
        .map(|sim| upstream_at(sim.name(), &url(sim), lines))
        .collect()
}

#[tokio::test]
async fn a_dial_without_descriptors_is_answered_with_503_and_ejects_no_account() {
    let sims = sims(2).await;
    assert_shortage_is_no_failure(&tables(&sims, "127.0.0.1", "")).await;
}

#[tokio::test]
async fn a_name_lookup_without_descriptors_is_no_failure_of_the_account() {
    let sims = sims(2).await;
    assert_shortage_is_no_failure(&tables(&sims, "localhost", "")).await;
}

#[tokio::test]
async fn a_dial_through_a_proxy_without_descriptors_is_no_failure_of_the_account() {
    let sims = sims(1).await;
    for (scheme, proxy) in [
        ("http", connect_proxy(Tunnel::To(sims[0].address())).await),
        ("socks5h", socks_proxy(Tunnel::To(sims[0].address())).await),
    ] {
        for host in ["127.0.0.1", "localhost"] {
            let line = format!("proxy = \"{scheme}://user:password@{host}:{}\"", proxy.address.port());
            assert_shortage_is_no_failure(&upstream_at("a", "http://api.example/v1", &line)).await;
        }
    }
}

/// Returns a session whose home is the upstream `home`.
async fn key_with_home(gateway: &Gateway, home: &str) -> String {
    for number in 0.. {
        // The command runs in a process of its own, so the gateway opens no descriptor for it.
        let key = format!("session-{number}");
        if gateway.home(&key).await == home {
            return key;
        }
    }
    unreachable!("one of the sessions has its home there")
}

#[tokio::test]
async fn idle_connections_to_upstreams_are_closed_for_a_dial() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let [at_a, at_b] = [key_with_home(&gateway, "a").await, key_with_home(&gateway, "b").await];
    let mut wire = accepted(&gateway).await;
    for key in [&at_a, &at_b, &at_a] {
        assert_eq!(ask(&mut wire, key).await.status, 200);
    }
    // One connection to each upstream is open. One of them has to go for each further dial.
    let [open_a, open_b] = [sims[0].counts().connections, sims[1].counts().connections];
    assert_eq!((open_a, open_b), (1, 1));
    descriptors::exhaust(&gateway);
    // A dial to `a` from another worker needs a descriptor for its client too.
    for _ in 0..4 {
        let mut other = Wire::open(gateway.address).await;
        assert_eq!(ask(&mut other, &at_a).await.status, 200);
        drop(other);
        assert_eq!(ask(&mut wire, &at_b).await.status, 200);
    }
    descriptors::lift(&gateway);
    assert_no_failures(&gateway).await;
    assert_eq!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"overloaded\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_for_a_dial() {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, connections) = tls::http2_upstream(&identity, |_: http::Request<Bytes>| {
        let (mut sender, body) = Channel::new(1);
        tokio::spawn(async move { sender.send_data(Bytes::from_static(b"data: {}\n\n")).await });
        body
    })
    .await;
    let sims = sims(1).await;
    let lines = format!("ca = {:?}\nhttp2 = true", identity.ca);
    let config = upstream_at("h", &format!("https://{address}/v1"), &lines) + &upstream(&sims[0], "");
    let gateway = Gateway::configured(&config).await;
    let [at_h, at_a] = [key_with_home(&gateway, "h").await, key_with_home(&gateway, "a").await];
    let mut wire = accepted(&gateway).await;
    assert_eq!(ask(&mut wire, &at_h).await.status, 200);
    descriptors::exhaust(&gateway);
    assert_eq!(
        ask(&mut wire, &at_a).await.status,
        200,
        "the idle connection makes room"
    );
    assert_eq!(ask(&mut wire, &at_h).await.status, 200, "and the other one too");
    assert_eq!(*connections.lock(), 2);
    descriptors::lift(&gateway);
    assert_no_failures(&gateway).await;
}

#[tokio::test]
async fn under_load_every_answer_is_served_or_overloaded_and_the_gateway_recovers() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    descriptors::set_limit(&gateway, descriptors::lowest_free(&gateway) + 12);
    let address = gateway.address;
    let clients: Vec<_> = (0..24)
        .map(|_| {
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..4 {
                    answers.push(wire::ask(address, wire::post("/v1/responses", STREAM)).await);
                }
                answers
            })
        })
        .collect();
    let mut counts = BTreeMap::new();
    for client in clients {
        for answer in client.await.expect("no panic") {
            if answer.status != 200 {
                assert_overloaded(&answer);
            }
            *counts.entry(answer.status).or_insert(0) += 1;
        }
    }
    assert!(counts.contains_key(&503), "{counts:?}");
    descriptors::lift(&gateway);
    for _ in 0..20 {
        assert_eq!(
            client::send(address, client::post("/v1/responses", WHOLE)).await.status,
            200
        );
    }
    assert_no_failures(&gateway).await;
    assert!(!gateway.log().iter().any(|line| line.contains("panicked")));
}

/// Sends requests to the admin listener, on a new connection each. All must be answered soon.
async fn assert_admin_answers(gateway: &Gateway, what: &str) {
    for path in ["/livez", "/readyz", "/metrics", "/livez", "/readyz", "/metrics"] {
        let begun = Instant::now();
        let reply = timeout(Duration::from_secs(2), client::get(gateway.admin, path)).await;
        let reply = reply.unwrap_or_else(|_| panic!("{what}: {path} has no answer"));
        assert_eq!(reply.status, StatusCode::OK, "{what}: {path}");
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(500), "{what}: {path} after {took:?}");
    }
}

#[tokio::test]
async fn the_admin_side_answers_while_clients_and_upstreams_use_all_descriptors() {
    let sims = sims(2).await;
    for sim in &sims {
        let stall = Rule::new(Act::stall(Point::Events(2)));
        sim.script().add(stall.path("/v1/responses"));
    }
    // The limit is the one of the start, and then one that another process lowers.
    let config: String = sims.iter().map(|sim| upstream(sim, "")).collect();
    for start in [64, 4_096] {
        let gateway = Gateway::with_descriptors(&config, (start, start), &[]).await;
        let mut limit = start;
        if start > 64 {
            limit = descriptors::lowest_free(&gateway) + 20;
            descriptors::set_limit(&gateway, limit);
        }
        let mut streams = Vec::new();
        for _ in 0..60 {
            let mut wire = Wire::open(gateway.address).await;
            wire.send(wire::post("/v1/responses", STREAM)).await;
            streams.push(wire);
        }
        // Some dials and lookups have just failed, and their descriptors may be free for a moment.
        until_true("the descriptors to be in use", || {
            gateway.descriptors() as u64 + 2 >= limit
        })
        .await;
        assert_admin_answers(&gateway, "streams").await;
        // Silent connections to the admin side use what is left. They give way to probes.
        let mut silent = Vec::new();
        for _ in 0..16 {
            silent.push(Wire::open(gateway.admin).await);
        }
        assert_admin_answers(&gateway, "silent connections").await;
        drop(silent);
        assert_admin_answers(&gateway, "after the silent connections").await;
        drop(streams);
        until("a request to be served", || async {
            let reply = client::get(gateway.address, "/v1/models").await;
            (reply.status == StatusCode::OK).then_some(())
        })
        .await;
        assert_no_failures(&gateway).await;
    }
}

#[tokio::test]
async fn dials_do_not_take_the_descriptors_that_are_kept_for_the_admin_side() {
    // Streams take long enough for descriptors to be missing all the time.
    let slow = sim_with("a", |config| config.pace = Duration::from_millis(20)).await;
    let config = upstream(&slow, "");
    let gateway = Gateway::with_descriptors(&config, (64, 64), &[]).await;
    descriptors::set_limit(&gateway, descriptors::lowest_free(&gateway) + 30);
    let address = gateway.address;
    let clients: Vec<_> = (0..24)
        .map(|_| {
            tokio::spawn(async move {
                let mut wire = Wire::open(address).await;
                for _ in 0..12 {
                    let request = wire::post("/v1/responses", STREAM);
                    // A connection that is idle for a moment may give way to another client.
                    let is_sent = wire.stream.write_all(request.as_bytes()).await.is_ok();
                    match if is_sent { wire.answer_if_any().await } else { None } {
                        Some(answer) if answer.status == 200 => {}
                        Some(answer) => assert_overloaded(&answer),
                        None => wire = Wire::open(address).await,
                    }
                }
            })
        })
        .collect();
    let mut probes = 0;
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_admin_answers(&gateway, "load").await;
        probes += 1;
    }
    assert!(probes > 0);
    for client in clients {
        client.await.expect("no panic");
    }
    let overloaded = "steadfast_rejected_requests_total{reason=\"overloaded\"}";
    assert!(gateway.metric(overloaded).await > 0.0, "descriptors were missing");
    assert_no_failures(&gateway).await;
}

#[tokio::test]
async fn idle_clients_give_way_to_new_ones_when_no_descriptors_are_left() {
    let (_sim, gateway) = gateway_with_sim("").await;
    descriptors::set_limit(&gateway, descriptors::lowest_free(&gateway) + 8);
    let mut idle = Vec::new();
    for _ in 0..30 {
        let begun = Instant::now();
        idle.push(accepted(&gateway).await);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    descriptors::lift(&gateway);
    // The process may close a few descriptors of its own meanwhile.
    let shed = gateway.metric("steadfast_client_connections_shed_total").await;
    assert!(shed >= 10.0, "{shed} were shed");
    assert_no_failures(&gateway).await;
}

#[tokio::test]
async fn the_soft_limit_is_raised_and_the_log_says_what_follows() {
    for (hard, clients, level) in [(600, 200, "WARN"), (4_000, 1_333, "INFO")] {
        let sims = sims(1).await;
        let gateway = Gateway::with_descriptors(&upstream(&sims[0], ""), (100, hard), &[]).await;
        let log = gateway.log_until("the limit on file descriptors").await;
        let lines: Vec<serde_json::Value> = log
            .iter()
            .filter(|line| line.contains("the limit on file descriptors"))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 1, "{log:?}");
        let line = &lines[0];
        let fields = line.get("fields").unwrap_or(line);
        assert_eq!(
            (&fields["descriptors"], &fields["max_clients"]),
            (&hard.into(), &clients.into()),
            "{line}"
        );
        assert_eq!(line["level"], level, "{line}");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).expect("the process runs");
        let open = limits.lines().find(|line| line.starts_with("Max open files"));
        let words: Vec<&str> = open.expect("a limit").split_whitespace().collect();
        assert_eq!(words[3..5], [hard.to_string(), hard.to_string()]);
    }
}

/// A gateway in a network namespace of its own, which is reached by a Unix socket.
struct IsolatedGateway {
    socket: std::path::PathBuf,
    _child: Child,
}

impl IsolatedGateway {
    /// Starts a gateway whose upstream is at `host` and accepts connections there, in a network whose only local ports are
    /// in use. `None` if this machine allows no such network.
    async fn start(host: &str) -> Option<Self> {
        const NETWORK: &str = "ip link set lo up && echo '40000 40001' > /proc/sys/net/ipv4/ip_local_port_range \
             && echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6";
        // 9C40 is 40000, and 0A is the state of a listening socket (proc(5)).
        const UPSTREAM_LISTENS: &str = "until grep -q ':9C40 00000000:0000 0A' /proc/net/tcp; do sleep 0.05; done";
        let isolated = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--net", "sh", "-c", script]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            command
        };
        if !isolated(NETWORK).status().await.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this machine allows no network namespaces");
            return None;
        }
        let folder = scratch();
        let (file, socket) = (folder.join("steadfast.toml"), folder.join("public.sock"));
        let table = upstream_at("a", &format!("http://{host}:40000/v1"), "");
        let server = format!("[server]\nlisten = \"unix:{}\"\n", socket.display());
        std::fs::write(&file, server + "[admin]\nlisten = \"127.0.0.1:40001\"\n" + &table).expect("a writable folder");
        let binary = env!("CARGO_BIN_EXE_steadfast");
        // The listeners of the upstream and of the admin side use both ports. The gateway takes the place of the shell, which
        // is killed with the test, and the upstream ends with it.
        let script = format!(
            "{NETWORK} && {{ setpriv --pdeathsig KILL {binary} sim --listen 127.0.0.1:40000 & {UPSTREAM_LISTENS}; \
             exec {binary} serve -c {}; }}",
            file.display()
        );
        let mut command = isolated(&script);
        command.env("STEADFAST_TEST_KEY", "sk-upstream-canary");
        let child = command.spawn().expect("the program starts");
        until("the gateway to listen", || async {
            UnixStream::connect(&socket).await.ok()
        })
        .await;
        Some(Self { socket, _child: child })
    }

    /// Sends one request and returns the whole answer as text.
    async fn ask(&self) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.expect("the gateway listens");
        let request = wire::post("/v1/responses", WHOLE).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the gateway reads");
        let mut answer = String::new();
        let read = tokio::time::timeout(TIMEOUT, stream.read_to_string(&mut answer)).await;
        read.expect("an answer in time").expect("text");
        answer
    }
}

#[tokio::test]
async fn a_shortage_of_ports_is_answered_with_503_and_an_unreachable_address_is_not_one() {
    for host in ["127.0.0.1", "localhost"] {
        let Some(gateway) = IsolatedGateway::start(host).await else {
            return;
        };
        for _ in 0..20 {
            let answer = gateway.ask().await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{host}: {answer}");
            assert!(
                answer.contains("\"overloaded\"") && answer.contains("local ports"),
                "{host}: {answer}"
            );
        }
    }
    // This machine has no address from which an IPv6 address could be reached, which the system reports like a lack of ports.
    let Some(gateway) = IsolatedGateway::start("[::1]").await else {
        return;
    };
    let answer = gateway.ask().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("\"upstream_unreachable\""),
        "{answer}"
    );
}
