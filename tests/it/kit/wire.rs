//! A client below HTTP: it sends exact bytes and reports how a response ends.

use std::{fmt, net::SocketAddr};

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{TIMEOUT, client::Reply};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body ended at the end that its framing defines.
    Whole,
    /// The connection closed before the end of the body.
    Cut,
    /// The connection closed, and the framing defines no other end of the body.
    Closed,
    /// The connection was reset.
    Reset,
}

/// A response as it was received, with its chunks joined.
pub struct RawResponse {
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
    /// How the body ended.
    pub end: End,
}

impl fmt::Debug for RawResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:.2000} ({:?})", self.head, self.text(), self.end)
    }
}

impl RawResponse {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    /// Returns the code of an error response. Fails if the response does not have the shape of an OpenAI error.
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

/// A TCP connection.
pub struct Wire {
    pub stream: TcpStream,
    /// The bytes that have been received and not consumed.
    buffer: Vec<u8>,
    /// How the connection ended, once it has ended.
    closed: Option<End>,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(
            TcpStream::connect(address)
                .await
                .expect("the server accepts connections"),
        )
    }

    /// Wraps an established connection.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            buffer: Vec::new(),
            closed: None,
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(TIMEOUT, self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the peer reads in time")
            .expect("the peer reads");
    }

    /// Reads the head of a message and returns it in lower case. The body follows.
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

    /// Reads one response, or the part of it that was sent.
    pub async fn answer(&mut self) -> RawResponse {
        self.answer_to("GET").await
    }

    /// Reads one response, or `None` if the connection ends before its first byte.
    pub async fn answer_if_any(&mut self) -> Option<RawResponse> {
        if self.buffer.is_empty() && !self.more().await {
            return None;
        }
        Some(self.answer().await)
    }

    /// Reads the response to a request with this method.
    pub async fn answer_to(&mut self, method: &str) -> RawResponse {
        let head = self.head().await;
        let status = head
            .get(9..12)
            .and_then(|digits| digits.parse().ok())
            .expect("a status");
        let (body, end) = self.body(&head, status, method).await;
        RawResponse {
            status,
            head,
            body,
            end,
        }
    }

    /// Reads one whole response without changing the case of its head.
    pub async fn reply(&mut self) -> Reply {
        let written = self.written_head().await;
        let mut lines = written.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
        let status: StatusCode = status.expect("a status");
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(':').expect("a header")) {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.trim().parse().expect("a valid header value"));
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

    /// Reads until `text` has been received, and discards everything up to its end.
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

    /// Reads and discards exactly `count` bytes.
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

    /// Reads until the connection ends.
    pub async fn closing(&mut self) -> End {
        while self.more().await {}
        self.closed.expect("closed")
    }

    /// Waits for the head of another message and discards it. Returns `false` if the connection ends before it.
    pub async fn has_request(&mut self) -> bool {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                self.buffer.drain(..at + 4);
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    /// Returns the bytes that have been received and not consumed.
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

    /// Receives more bytes. Returns `false` if the connection has ended.
    async fn more(&mut self) -> bool {
        if self.closed.is_some() {
            return false;
        }
        self.buffer.reserve(256 << 10);
        match timeout(TIMEOUT, self.stream.read_buf(&mut self.buffer))
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

/// Sends `bytes` on a new connection and reads the response.
pub async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> RawResponse {
    let mut wire = Wire::open(address).await;
    wire.send(bytes).await;
    wire.answer().await
}

/// Sends each of `pieces` in a separate write on a new connection and reads the response.
pub async fn exchange(address: SocketAddr, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Reply {
    let mut wire = Wire::open(address).await;
    for piece in pieces {
        wire.send(piece).await;
    }
    wire.reply().await
}

/// Returns a `POST` request with a JSON body and `content-length`.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Returns the position of `needle` in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

/// The head of a chunked response with `text/event-stream`.
pub const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Returns `data` as one chunk of a chunked body.
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}
