//! Recorded requests of real clients, sent again byte for byte.

use http::HeaderMap;
use serde_json::Value;
use steadfast::sim::{RequestRecord, Sim};

use crate::kit::{client::Reply, gateway::Gateway, recording, recordings, sim_with, wire};

/// A recorded request, adapted to a gateway.
struct RecordedRequest {
    name: String,
    head: Vec<u8>,
    body: Vec<u8>,
    /// The session key: the value of the first source that is present.
    key: Option<String>,
}

impl RecordedRequest {
    /// Loads the recording `name` and replaces its host, credential and content length.
    fn load(name: &str, gateway: &Gateway) -> Self {
        let head = String::from_utf8(recording(&format!("{name}.head"))).expect("UTF-8 text");
        let (body, json) = if recordings(".body.zst").iter().any(|zst| zst == name) {
            (
                recording(&format!("{name}.body.zst")),
                recording(&format!("{name}.body.json")),
            )
        } else if recordings(".body").iter().any(|body| body == name) {
            let body = recording(&format!("{name}.body"));
            (body.clone(), body)
        } else {
            (Vec::new(), b"{}".to_vec())
        };
        let adapt = |line: &str| match line.split(':').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "host" => format!("host: {}", gateway.address),
            "authorization" => "authorization: Bearer sk-caller-canary".to_owned(),
            "content-length" => format!("content-length: {}", body.len()),
            _ => line.to_owned(),
        };
        let lines: Vec<String> = head.trim_end().split("\r\n").map(adapt).collect();
        let key = key(&serde_json::from_slice(&json).expect("JSON"), &lines);
        Self {
            name: name.to_owned(),
            head: format!("{}\r\n\r\n", lines.join("\r\n")).into(),
            body,
            key,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.head[..], &self.body].concat()
    }

    /// Splits the request: the head and the end of the body into single bytes, the rest into pieces of seven bytes.
    fn small_pieces<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        const TAIL: usize = 3000;
        let tail = bytes.len().saturating_sub(TAIL).max(self.head.len());
        let (head, rest) = bytes.split_at(self.head.len());
        let (middle, tail) = rest.split_at(tail - self.head.len());
        head.chunks(1).chain(middle.chunks(7)).chain(tail.chunks(1)).collect()
    }

    /// Checks that the upstream received all recorded headers except those that end at a proxy.
    fn check_headers(&self, arrived: &HeaderMap) {
        const ENDS_HERE: [&str; 7] = [
            "host",
            "authorization",
            "accept-encoding",
            "connection",
            "chatgpt-account-id",
            "x-codex-turn-state",
            "content-length",
        ];
        let head = std::str::from_utf8(&self.head).expect("UTF-8 text");
        for line in head.trim_end().split("\r\n").skip(1) {
            let (name, value) = line.split_once(": ").expect("a header");
            let name = name.to_ascii_lowercase();
            if !ENDS_HERE.contains(&name.as_str()) {
                assert_eq!(arrived[&name], value, "{}: {name}", self.name);
            }
        }
        assert_eq!(arrived["content-length"], self.body.len().to_string(), "{}", self.name);
        assert_eq!(arrived["authorization"], "Bearer sk-upstream-canary", "{}", self.name);
        for gone in ["accept-encoding", "connection", "x-codex-turn-state"] {
            assert!(!arrived.contains_key(gone), "{}: {gone}", self.name);
        }
    }
}

/// Returns the session key of a request.
fn key(body: &Value, lines: &[String]) -> Option<String> {
    let header = |name: &str| {
        let value = lines
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned)
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    text(&body["prompt_cache_key"])
        .or_else(|| header("session-id"))
        .or_else(|| header("session_id"))
        .or_else(|| text(&body["client_metadata"]["session_id"]))
}

/// Starts accounts that accept state which other accounts issued.
async fn accounts_that_accept_foreign_state() -> Vec<Sim> {
    let mut sims = Vec::new();
    for name in ["a", "b", "c"] {
        sims.push(sim_with(name, |config| config.refuse_foreign = false).await);
    }
    sims
}

/// Returns the recorded requests with this body, with the names of the accounts that received them.
fn arrivals(sims: &[Sim], body: &[u8]) -> Vec<(String, RequestRecord)> {
    let all = sims.iter().flat_map(|sim| {
        sim.requests()
            .into_iter()
            .map(|request| (sim.name().to_owned(), request))
    });
    all.filter(|(_, request)| request.body == body).collect()
}

/// Returns the recorded POST requests.
fn posts(gateway: &Gateway) -> Vec<RecordedRequest> {
    let all = recordings(".head")
        .into_iter()
        .map(|name| RecordedRequest::load(&name, gateway));
    all.filter(|request| !request.body.is_empty()).collect()
}

fn check_reply(request: &RecordedRequest, reply: &Reply) {
    assert_eq!(reply.status, 200, "{}: {}", request.name, reply.text());
    let events = reply.text().contains("event: response.completed");
    assert!(
        events || reply.json()["usage"]["input_tokens"].as_u64() > Some(0),
        "{}",
        request.name
    );
}

/// Sends all recorded POST requests concurrently, each split by `cut`. Checks that each arrives unchanged at its home.
async fn assert_reach_their_home(cut: impl for<'a> Fn(&RecordedRequest, &'a [u8]) -> Vec<&'a [u8]>) {
    let sims = accounts_that_accept_foreign_state().await;
    let gateway = Gateway::before(&sims, "").await;
    let requests = posts(&gateway);
    assert_eq!(requests.len(), 16);
    let send = |request: &RecordedRequest| {
        let (bytes, address) = (request.bytes(), gateway.address);
        let pieces: Vec<Vec<u8>> = cut(request, &bytes).into_iter().map(<[u8]>::to_vec).collect();
        tokio::spawn(async move { wire::exchange(address, pieces).await })
    };
    let sent: Vec<_> = requests.iter().map(send).collect();
    let mut keyed = 0;
    for (request, reply) in requests.iter().zip(sent) {
        let reply = reply.await.unwrap_or_else(|error| panic!("{}: {error}", request.name));
        check_reply(request, &reply);
        let arrived = arrivals(&sims, &request.body);
        let [(upstream, arrived)] = &arrived[..] else {
            panic!("{} arrived {} times", request.name, arrived.len())
        };
        request.check_headers(&arrived.headers);
        assert_eq!(reply.routed().0, upstream, "{}", request.name);
        if let Some(key) = &request.key {
            assert_eq!(*upstream, gateway.home(key).await, "{}", request.name);
            keyed += 1;
        }
    }
    assert_eq!(keyed, 14, "two recordings have no key");
}

#[tokio::test]
async fn recordings_in_one_write_route_to_their_home() {
    assert_reach_their_home(|_, bytes| vec![bytes]).await;
}

#[tokio::test]
async fn recordings_byte_by_byte_route_to_their_home() {
    assert_reach_their_home(RecordedRequest::small_pieces).await;
}

#[tokio::test]
async fn recordings_without_a_key_are_routed_by_their_content() {
    let sims = accounts_that_accept_foreign_state().await;
    let gateway = Gateway::before(&sims, "").await;
    let requests = posts(&gateway);
    let keyless: Vec<&RecordedRequest> = requests.iter().filter(|request| request.key.is_none()).collect();
    assert_eq!(keyless.len(), 2);
    for request in keyless {
        let bytes = request.bytes();
        for round in 0..6 {
            let reply = wire::exchange(gateway.address, bytes.chunks(bytes.len() >> round)).await;
            check_reply(request, &reply);
        }
        let mut reached: Vec<String> = arrivals(&sims, &request.body)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(reached.len(), 6);
        reached.dedup();
        assert_eq!(reached.len(), 1, "{} is spread over {reached:?}", request.name);
    }
}

#[tokio::test]
async fn recorded_websocket_upgrades_are_answered_with_426() {
    let sims = accounts_that_accept_foreign_state().await;
    let gateway = Gateway::before(&sims, "").await;
    let names = recordings(".head");
    let upgrades: Vec<&String> = names
        .iter()
        .filter(|name| name.contains("-ws") && !name.contains("sse"))
        .collect();
    assert_eq!(upgrades.len(), 4);
    for name in upgrades {
        let request = RecordedRequest::load(name, &gateway);
        for pieces in [vec![&request.head[..]], request.head.chunks(1).collect()] {
            let reply = wire::exchange(gateway.address, pieces).await;
            assert_eq!(reply.status, 426, "{name}: {}", reply.text());
            assert!(!reply.header("upgrade").is_empty(), "mandatory with 426");
            assert_eq!(reply.json()["error"]["code"], "websocket_unsupported");
        }
    }
    assert!(
        sims.iter().all(|sim| sim.counts().requests == 0),
        "an upgrade reached an upstream"
    );
}

#[tokio::test]
async fn recorded_requests_for_models_are_answered() {
    let sims = accounts_that_accept_foreign_state().await;
    let gateway = Gateway::before(&sims, "").await;
    for (name, list) in [("python-sdk-models", "data"), ("codex0.169-models-chatgpt", "models")] {
        let request = RecordedRequest::load(name, &gateway);
        for pieces in [vec![&request.head[..]], request.head.chunks(1).collect()] {
            let reply = wire::exchange(gateway.address, pieces).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.text());
            assert_eq!(reply.json()[list].as_array().map(Vec::len), Some(4), "{}", reply.text());
        }
    }
}
