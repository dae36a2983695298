//! The clients: a mixture of requests of all sizes, some of which are refused or aborted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::Result;

/// The client key.
pub const KEY: &str = "sk-steadfast-soak-0123456789abcdefghijklmnopqrstuvw";
/// The number of sessions.
const SESSIONS: usize = 10_000;

/// What the clients have received.
#[derive(Default)]
pub struct Tally {
    pub turns: AtomicU64,
    pub streams: AtomicU64,
    /// Streams that the client has left after their beginning.
    pub aborted: AtomicU64,
    pub wrong_keys: AtomicU64,
    pub bad_bodies: AtomicU64,
    pub lists: AtomicU64,
    /// Answers with another status, or without an end.
    pub unexpected: AtomicU64,
    /// The bytes of all request bodies.
    pub bytes: AtomicU64,
}

impl Tally {
    /// The number of requests that an upstream has answered.
    pub fn served(&self) -> u64 {
        [&self.turns, &self.streams, &self.aborted]
            .map(|count| count.load(Relaxed))
            .iter()
            .sum()
    }

    pub fn describe(&self, duration: Duration) -> String {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let all = self.served() + count(&self.wrong_keys) + count(&self.bad_bodies) + count(&self.lists);
        format!(
            "{all} requests ({:.0}/s) with {} MiB: {} turns, {} streams, {} aborted streams, {} wrong keys, {} bad bodies, {} lists",
            all as f64 / duration.as_secs_f64(),
            count(&self.bytes) >> 20,
            count(&self.turns),
            count(&self.streams),
            count(&self.aborted),
            count(&self.wrong_keys),
            count(&self.bad_bodies),
            count(&self.lists)
        )
    }
}

/// The load of all clients.
pub struct Load {
    address: SocketAddr,
    ends: Instant,
    tally: Arc<Tally>,
    /// Texts of 40 KB and 1 MB.
    texts: [String; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Turn,
    Stream,
    Aborted,
    WrongKey,
    BadBody,
    List,
}

struct Ask {
    kind: Kind,
    body: String,
}

impl Load {
    pub fn new(address: SocketAddr, ends: Instant, tally: Arc<Tally>) -> Self {
        let words = "The function returns early when the buffer is empty. \\\"no\\\"\\n";
        let texts = [40_000, 1_000_000].map(|size| words.repeat(size / words.len()));
        Self {
            address,
            ends,
            tally,
            texts,
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// A random request.
    fn ask(&self) -> Ask {
        let (kind, text) = match fastrand::u8(..100) {
            0..40 => (Kind::Turn, "hi"),
            40..60 => (Kind::Stream, "hi"),
            60..75 => (Kind::Turn, &*self.texts[0]),
            75..80 => (Kind::Stream, &*self.texts[0]),
            80..83 => (Kind::Turn, &*self.texts[1]),
            83..88 => (Kind::Aborted, "hi"),
            88..94 => (Kind::WrongKey, "hi"),
            94..97 => (Kind::BadBody, "hi\\x"),
            _ => (Kind::List, ""),
        };
        let stream = matches!(kind, Kind::Stream | Kind::Aborted);
        let (session, store) = (fastrand::usize(..SESSIONS), fastrand::bool());
        let body = format!(
            r#"{{"model":"gpt-5.2","input":"{text}","stream":{stream},"store":{store},"prompt_cache_key":"soak-{session}"}}"#
        );
        let body = if kind == Kind::List { String::new() } else { body };
        self.tally.bytes.fetch_add(body.len() as u64, Relaxed);
        Ask { kind, body }
    }

    /// Counts the answer to a request of this kind. `end` are its last bytes.
    fn count(&self, kind: Kind, status: u16, end: &[u8]) {
        let tally = &*self.tally;
        let (expected, last, count): (u16, &[u8], &AtomicU64) = match kind {
            Kind::Turn => (200, b"}", &tally.turns),
            Kind::Stream => (200, b"\n\n", &tally.streams),
            Kind::Aborted => (200, b"", &tally.aborted),
            Kind::WrongKey => (401, b"}", &tally.wrong_keys),
            Kind::BadBody => (400, b"}", &tally.bad_bodies),
            Kind::List => (200, b"}", &tally.lists),
        };
        if status == expected && end.ends_with(last) {
            count.fetch_add(1, Relaxed);
        } else {
            eprintln!("unexpected: {status} {}", String::from_utf8_lossy(end));
            tally.unexpected.fetch_add(1, Relaxed);
        }
    }
}

fn key(kind: Kind) -> &'static str {
    match kind {
        Kind::WrongKey => "sk-steadfast-none-0123456789abcdefghijklmnopqrstuvw",
        _ => KEY,
    }
}

/// A client with HTTP/1.1. It opens a new connection after an aborted stream.
pub async fn http1(load: Arc<Load>, number: usize) -> Result<()> {
    fastrand::seed(number as u64);
    let mut connection = None;
    while !load.is_over() {
        let ask = load.ask();
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => TcpStream::connect(load.address).await?,
        };
        let (line, length) = match ask.kind {
            Kind::List => ("GET /v1/models", String::new()),
            _ => ("POST /v1/responses", format!("content-length: {}\r\n", ask.body.len())),
        };
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n",
            key(ask.kind)
        );
        stream.write_all((head + &ask.body).as_bytes()).await?;
        let (status, end, keeps_alive) = read_response(&mut stream, ask.kind == Kind::Aborted).await?;
        load.count(ask.kind, status, &end);
        connection = keeps_alive.then_some(stream);
    }
    Ok(())
}

/// Reads a response; only its head if it is aborted. Returns its status, its last bytes, and whether the connection can be used
/// again.
async fn read_response(stream: &mut TcpStream, is_aborted: bool) -> Result<(u16, Vec<u8>, bool)> {
    let mut text = BytesMut::with_capacity(16 << 10);
    let find = |text: &[u8]| memchr::memmem::find(text, b"\r\n\r\n").map(|at| at + 4);
    let body = loop {
        if let Some(body) = find(&text) {
            break body;
        }
        if stream.read_buf(&mut text).await? == 0 {
            return Err("the gateway closed a connection before its answer".into());
        }
    };
    let head = String::from_utf8_lossy(&text[..body]).to_ascii_lowercase();
    let status = head.get(9..12).ok_or("no status")?.parse()?;
    if is_aborted {
        return Ok((status, Vec::new(), false));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let total = length.map(str::parse::<usize>).transpose()?.map(|length| body + length);
    loop {
        let is_whole = match total {
            Some(total) => text.len() >= total,
            None => text.ends_with(b"\r\n0\r\n\r\n"),
        };
        if is_whole {
            break;
        }
        if stream.read_buf(&mut text).await? == 0 {
            return Ok((status, b"cut".to_vec(), false));
        }
    }
    let end = text.strip_suffix(b"\r\n0\r\n\r\n").unwrap_or(&text);
    let last = end[end.len().saturating_sub(200)..].to_vec();
    Ok((status, last, !head.contains("connection: close")))
}

/// A client with HTTP/2, which sends one request after the other. It drops the stream of an aborted response.
pub async fn http2(load: Arc<Load>, number: usize) -> Result<()> {
    fastrand::seed(1000 + number as u64);
    let io = TokioIo::new(TcpStream::connect(load.address).await?);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    let connection = tokio::spawn(connection);
    while !load.is_over() {
        let ask = load.ask();
        let (method, path) = match ask.kind {
            Kind::List => ("GET", "/v1/models"),
            _ => ("POST", "/v1/responses"),
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://localhost{path}"))
            .header("authorization", format!("Bearer {}", key(ask.kind)))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(ask.body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let end = match ask.kind {
            Kind::Aborted => Bytes::new(),
            _ => response.into_body().collect().await?.to_bytes(),
        };
        load.count(ask.kind, status, &end[end.len().saturating_sub(200)..]);
    }
    drop(sender);
    // The connection ends once its last stream is gone.
    connection.await??;
    Ok(())
}
