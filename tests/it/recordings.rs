//! What real clients sent, sent again byte for byte.

use http::HeaderMap;
use serde_json::Value;
use steadfast::sim::{RequestRecord, Sim};

use crate::kit::{client::Reply, gateway::Gateway, recording, recordings, sim_with, wire};

/// A recorded request, as it is sent to a gateway.
struct Request {
    name: String,
    head: Vec<u8>,
    body: Vec<u8>,
    /// The session key, as the first of the places where clients put it names it.
    key: Option<String>,
}

impl Request {
    /// The recording `name`, with the address and the body's length of this run.
    fn load(name: &str, gateway: &Gateway) -> Self {
        let head = String::from_utf8(recording(&format!("{name}.head"))).expect("text");
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

    /// The head byte by byte, the end of the body too, and what is between in pieces of seven.
    fn crumbs<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        const TAIL: usize = 3000;
        let tail = bytes.len().saturating_sub(TAIL).max(self.head.len());
        let (head, rest) = bytes.split_at(self.head.len());
        let (middle, tail) = rest.split_at(tail - self.head.len());
        head.chunks(1).chain(middle.chunks(7)).chain(tail.chunks(1)).collect()
    }

    /// Checks that the upstream got all headers as they were recorded but for those that end at a proxy.
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
        let head = std::str::from_utf8(&self.head).expect("text");
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

/// Accounts that do not mind what the recorded ones issued.
async fn strangers() -> Vec<Sim> {
    let mut sims = Vec::new();
    for name in ["a", "b", "c"] {
        sims.push(sim_with(name, |config| config.refuse_foreign = false).await);
    }
    sims
}

/// What reached any account with this body.
fn arrivals(sims: &[Sim], body: &[u8]) -> Vec<(String, RequestRecord)> {
    let all = sims.iter().flat_map(|sim| {
        sim.requests()
            .into_iter()
            .map(|request| (sim.name().to_owned(), request))
    });
    all.filter(|(_, request)| request.body == body).collect()
}

/// The recordings that are POSTs.
fn posts(gateway: &Gateway) -> Vec<Request> {
    let all = recordings(".head")
        .into_iter()
        .map(|name| Request::load(&name, gateway));
    all.filter(|request| !request.body.is_empty()).collect()
}

fn check_reply(request: &Request, reply: &Reply) {
    assert_eq!(reply.status, 200, "{}: {}", request.name, reply.text());
    let events = reply.text().contains("event: response.completed");
    assert!(
        events || reply.json()["usage"]["input_tokens"].as_u64() > Some(0),
        "{}",
        request.name
    );
}

/// Sends every recorded POST, cut by `cut`, all at once, and checks where each arrived, and that it arrived as sent.
async fn reach_their_home(cut: impl for<'a> Fn(&Request, &'a [u8]) -> Vec<&'a [u8]>) {
    let sims = strangers().await;
    let gateway = Gateway::before(&sims, "").await;
    let requests = posts(&gateway);
    assert_eq!(requests.len(), 16);
    let send = |request: &Request| {
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
async fn recordings_in_one_write_go_where_route_says() {
    reach_their_home(|_, bytes| vec![bytes]).await;
}

#[tokio::test]
async fn recordings_byte_by_byte_go_where_route_says() {
    reach_their_home(Request::crumbs).await;
}

#[tokio::test]
async fn recordings_without_a_key_stick_by_their_content() {
    let sims = strangers().await;
    let gateway = Gateway::before(&sims, "").await;
    let requests = posts(&gateway);
    let keyless: Vec<&Request> = requests.iter().filter(|request| request.key.is_none()).collect();
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
async fn recorded_websocket_upgrades_are_told_to_fall_back() {
    let sims = strangers().await;
    let gateway = Gateway::before(&sims, "").await;
    let names = recordings(".head");
    let upgrades: Vec<&String> = names
        .iter()
        .filter(|name| name.contains("-ws") && !name.contains("sse"))
        .collect();
    assert_eq!(upgrades.len(), 4);
    for name in upgrades {
        let request = Request::load(name, &gateway);
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
async fn recorded_questions_for_models_are_answered() {
    let sims = strangers().await;
    let gateway = Gateway::before(&sims, "").await;
    for (name, list) in [("python-sdk-models", "data"), ("codex0.169-models-chatgpt", "models")] {
        let request = Request::load(name, &gateway);
        for pieces in [vec![&request.head[..]], request.head.chunks(1).collect()] {
            let reply = wire::exchange(gateway.address, pieces).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.text());
            assert_eq!(reply.json()[list].as_array().map(Vec::len), Some(4), "{}", reply.text());
        }
    }
}
