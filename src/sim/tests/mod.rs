//! Tests of the account through real sockets, as its clients use it.

mod api;
mod background;
mod conversations;
mod faults;
mod files;
mod jobs;
mod life;
mod messages;
mod ownership;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Sim, SimConfig, SimCounts};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// A time that is longer than any step of a test. Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(config: SimConfig) -> Sim {
    Sim::start(FREE, SimConfig { record: true, ..config }).await.unwrap()
}

async fn start_named(name: &str) -> Sim {
    start(SimConfig {
        name: name.to_owned(),
        ..SimConfig::default()
    })
    .await
}

struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl TestResponse {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the data of every event. The names must agree with the types.
    fn events(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        let event = |event: &str| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            data
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    fn cached(&self) -> u64 {
        self.json()["usage"]["input_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    }
}

/// Sends one request on a connection of its own. The result is an error if the response is not complete.
async fn send(sim: &Sim, request: Request<Full<Bytes>>) -> hyper::Result<TestResponse> {
    let tcp = TcpStream::connect(sim.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(TestResponse {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(target).header("host", "sim");
    let request = headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Full::new(body.into())).unwrap()
}

async fn get(sim: &Sim, target: &str) -> TestResponse {
    send(sim, request("GET", target, &[], Bytes::new())).await.unwrap()
}

async fn post(sim: &Sim, target: &str, body: &Value) -> TestResponse {
    send(sim, request("POST", target, &[], body.to_string())).await.unwrap()
}

async fn delete(sim: &Sim, target: &str) -> TestResponse {
    send(sim, request("DELETE", target, &[], Bytes::new())).await.unwrap()
}

/// Posts a form with these fields and one file.
async fn post_form(sim: &Sim, target: &str, fields: &[(&str, &str)], file: (&str, &str, &[u8])) -> TestResponse {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    }
    let (name, filename, content) = file;
    body.extend_from_slice(
        format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\r\n").as_bytes(),
    );
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--b0--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=b0")];
    send(sim, request("POST", target, &headers, body)).await.unwrap()
}

/// Uploads a file and returns its id.
async fn upload(sim: &Sim, filename: &str, content: &[u8]) -> String {
    let made = post_form(
        sim,
        "/v1/files",
        &[("purpose", "user_data")],
        ("file", filename, content),
    )
    .await;
    id_of(&made.json())
}

fn id_of(object: &Value) -> String {
    object["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {object}"))
        .to_owned()
}

async fn ask(sim: &Sim, body: &Value) -> TestResponse {
    post(sim, "/v1/responses", body).await
}

fn hello() -> Value {
    json!({"model": "gpt-5.2", "input": "Say hello."})
}

fn hello_stream() -> Value {
    json!({"model": "gpt-5.2", "input": "Say hello.", "stream": true})
}

/// Returns a request as bytes, for a bare socket.
fn raw(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST /v1/responses HTTP/1.1\r\nhost: sim\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads until the connection ends. Returns the bytes and how the connection ended.
async fn read_all(tcp: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut seen = Vec::new();
    let end = timeout(PATIENCE, tcp.read_to_end(&mut seen))
        .await
        .expect("the connection stays open");
    (seen, end.map(drop))
}

/// Reads until `marker` has arrived, and no further than that piece.
async fn read_until(tcp: &mut TcpStream, marker: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    while memchr::memmem::find(&seen, marker.as_bytes()).is_none() {
        let read = timeout(PATIENCE, tcp.read_buf(&mut seen))
            .await
            .expect("nothing more comes")
            .unwrap();
        assert!(read > 0, "ended before {marker:?}: {}", String::from_utf8_lossy(&seen));
    }
    seen
}

async fn dial(sim: &Sim, bytes: &[u8]) -> TcpStream {
    let mut tcp = TcpStream::connect(sim.address()).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    tcp
}

/// Waits until the counters meet the condition.
async fn until(sim: &Sim, met: impl Fn(SimCounts) -> bool) {
    let poll = async {
        while !met(sim.counts()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, poll)
        .await
        .unwrap_or_else(|_| panic!("{:?}", sim.counts()));
}
