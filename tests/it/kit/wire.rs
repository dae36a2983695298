//! A client below HTTP: it sends exactly these bytes, and sees how an answer ends.

use std::{fmt, net::SocketAddr};

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{PATIENCE, client::Reply};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where its framing says.
    Whole,
    /// The connection closed before that.
    Cut,
    /// The connection closed, and nothing else marks the end of the body.
    Closed,
    /// The connection was reset.
    Reset,
}

/// An answer as it stood on the wire, its chunks joined.
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
    pub end: End,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:.2000} ({:?})", self.head, self.text(), self.end)
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    /// The code of an error in OpenAI's shape; fails where the answer has another shape.
    pub fn error_code(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let error = value["error"]
            .as_object()
            .unwrap_or_else(|| panic!("no error: {self:?}"));
        let mut fields: Vec<&str> = error.keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["code", "message", "param", "type"], "{self:?}");
        assert!(
            error["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{self:?}"
        );
        assert!(
            error["type"].is_string() && self.header("x-request-id").is_some(),
            "{self:?}"
        );
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// One connection.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    closed: Option<End>,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("it listens"))
    }

    /// A connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            buffer: Vec::new(),
            closed: None,
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref()))
            .await
            .expect("it reads in time")
            .expect("it reads");
    }

    /// Reads an answer's head, in lower case; what follows is its body.
    pub async fn head(&mut self) -> String {
        self.written_head().await.to_ascii_lowercase()
    }

    async fn written_head(&mut self) -> String {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return String::from_utf8_lossy(&head).into_owned();
            }
            assert!(
                self.more().await,
                "closed before a head: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Reads one whole answer, or as much of it as there is.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Reads the answer to a request with this method.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.head().await;
        let status = head
            .get(9..12)
            .and_then(|digits| digits.parse().ok())
            .expect("a status");
        let (body, end) = self.body(&head, status, method).await;
        Answer {
            status,
            head,
            body,
            end,
        }
    }

    /// Reads one whole answer, its head as it was written.
    pub async fn reply(&mut self) -> Reply {
        let written = self.written_head().await;
        let mut lines = written.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
        let status: StatusCode = status.expect("a status");
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(':').expect("a header")) {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.trim().parse().expect("a value"));
        }
        let (body, end) = self.body(&written.to_ascii_lowercase(), status.as_u16(), "GET").await;
        assert_eq!(end, End::Whole, "{written}");
        Reply {
            status,
            headers,
            body: body.into(),
        }
    }

    async fn body(&mut self, head: &str, status: u16, method: &str) -> (Vec<u8>, End) {
        let value = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        if method == "HEAD" || matches!(status, 100..200 | 204 | 304) {
            (Vec::new(), End::Whole)
        } else if value("transfer-encoding") == Some("chunked") {
            self.chunks().await
        } else if let Some(length) = value("content-length") {
            self.exactly(length.parse().expect("a length")).await
        } else {
            let end = self.closing().await;
            (std::mem::take(&mut self.buffer), end)
        }
    }

    /// Reads until `text` has come; it and what came before it is thrown away.
    pub async fn skip_to(&mut self, text: &str) {
        loop {
            if let Some(at) = find(&self.buffer, text.as_bytes()) {
                self.buffer.drain(..at + text.len());
                return;
            }
            assert!(
                self.more().await,
                "closed before {text:?}: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Reads exactly `count` bytes more and throws them away.
    pub async fn take(&mut self, count: usize) {
        let mut left = count;
        loop {
            let read = left.min(self.buffer.len());
            self.buffer.drain(..read);
            left -= read;
            if left == 0 {
                return;
            }
            assert!(self.more().await, "closed {left} bytes before the end");
        }
    }

    /// Reads to the end of the connection.
    pub async fn closing(&mut self) -> End {
        while self.more().await {}
        self.closed.expect("closed")
    }

    /// What has been read and not been used.
    pub fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    async fn exactly(&mut self, length: usize) -> (Vec<u8>, End) {
        while self.buffer.len() < length {
            if !self.more().await {
                return (std::mem::take(&mut self.buffer), End::Cut);
            }
        }
        (self.buffer.drain(..length).collect(), End::Whole)
    }

    async fn chunks(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            let Some(at) = find(&self.buffer, b"\r\n") else {
                if self.more().await {
                    continue;
                }
                return (body, End::Cut);
            };
            let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
            let size = std::str::from_utf8(&line)
                .ok()
                .and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
            let size = size.expect("a chunk size");
            let (piece, end) = self.exactly(size + 2).await;
            body.extend_from_slice(piece.get(..size.min(piece.len())).expect("in range"));
            if end != End::Whole || size == 0 {
                return (body, end);
            }
        }
    }

    /// Reads some bytes; false once there will be none.
    async fn more(&mut self) -> bool {
        if self.closed.is_some() {
            return false;
        }
        self.buffer.reserve(256 << 10);
        match timeout(PATIENCE, self.stream.read_buf(&mut self.buffer))
            .await
            .expect("bytes in time")
        {
            Ok(0) => self.closed = Some(End::Closed),
            Ok(_) => {}
            Err(_) => self.closed = Some(End::Reset),
        }
        self.closed.is_none()
    }
}

/// Sends `bytes` on a connection of its own and reads the answer.
pub async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::open(address).await;
    wire.send(bytes).await;
    wire.answer().await
}

/// Sends `pieces` on a connection of its own, each in a write of its own, and reads the answer.
pub async fn exchange(address: SocketAddr, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Reply {
    let mut wire = Wire::open(address).await;
    for piece in pieces {
        wire.send(piece).await;
    }
    wire.reply().await
}

/// A `POST` with `content-length`, on a connection that stays open.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The position of `needle` in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

/// The response head of a stream of events, chunked.
pub const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk.
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}
