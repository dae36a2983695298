//! An upstream that records every byte that it receives.

use std::{fmt, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Records requests and answers each whole request with an empty JSON object.
pub struct Recorder {
    pub address: SocketAddr,
    /// The messages received since the last `take`.
    seen: Mutex<Vec<RecordedMessage>>,
    /// All bytes that have been read, on all connections.
    bytes: Mutex<Vec<u8>>,
}

/// A request as it was received, without the order of its fields and the sizes of its chunks.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordedMessage {
    line: String,
    /// The field lines, sorted.
    fields: Vec<String>,
    pub body: Vec<u8>,
    /// Whether the request was received to its end.
    pub is_whole: bool,
}

/// The `host` line that replaces the real one, because the recorder's port differs in each run.
const HOST: &str = "host: recorder";

impl Recorder {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let recorder = Arc::new(Self {
            address: listener.local_addr().expect("bound"),
            seen: Mutex::default(),
            bytes: Mutex::default(),
        });
        let shared = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        recorder
    }

    /// Returns the messages received since the last call.
    pub fn take(&self) -> Vec<RecordedMessage> {
        std::mem::take(&mut *self.seen.lock())
    }

    /// Returns whether these bytes have been received, in any message.
    pub fn has_read(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find(&self.bytes.lock(), bytes).is_some()
    }

    fn record(&self, mut message: RecordedMessage) {
        let host = format!("host: {}", self.address);
        for field in message.fields.iter_mut().filter(|field| **field == host) {
            *field = HOST.to_owned();
        }
        message.fields.sort_unstable();
        self.seen.lock().push(message);
    }
}

async fn serve(mut stream: TcpStream, recorder: Arc<Recorder>) {
    let mut pending = Vec::new();
    loop {
        if let Some((message, length)) = RecordedMessage::first(&pending) {
            pending.drain(..length);
            recorder.record(message);
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let known = pending.len();
        if stream.read_buf(&mut pending).await.unwrap_or(0) == 0 {
            break;
        }
        recorder.bytes.lock().extend_from_slice(&pending[known..]);
    }
    if !pending.is_empty() {
        recorder.record(RecordedMessage::cut(&pending));
    }
}

impl RecordedMessage {
    /// The message that an upstream with its own API key receives for a request with these fields.
    pub fn expected(line: &str, fields: &[&str], body: Vec<u8>) -> Self {
        let every = [
            HOST,
            "authorization: Bearer sk-upstream-canary",
            "x-request-id: hostile",
        ];
        let mut fields: Vec<String> = fields.iter().chain(&every).map(|&field| field.to_owned()).collect();
        fields.sort_unstable();
        Self {
            line: line.to_owned(),
            fields,
            body,
            is_whole: true,
        }
    }

    /// Returns the message at the beginning of `bytes` and its length, or `None` while it is incomplete.
    fn first(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut message = Self::head(bytes)?;
        let begin = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let rest = &bytes[begin..];
        let length = message
            .fields
            .iter()
            .find_map(|field| field.strip_prefix("content-length: "));
        let end = if message.fields.iter().any(|field| field == "transfer-encoding: chunked") {
            let (body, end) = unchunked(rest)?;
            message.body = body;
            end
        } else {
            let end = length.map_or(0, |digits| digits.parse().expect("a length"));
            message.body = rest.get(..end)?.to_vec();
            end
        };
        message.is_whole = true;
        Some((message, begin + end))
    }

    fn head(bytes: &[u8]) -> Option<Self> {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
        let text = bytes[..end].escape_ascii().to_string();
        let mut lines = text.split("\\r\\n").map(str::to_owned);
        Some(Self {
            line: lines.next()?,
            // The marker of the gateway is random, and on every request.
            fields: lines.filter(|line| !line.starts_with("steadfast-hop: ")).collect(),
            body: Vec::new(),
            is_whole: false,
        })
    }

    /// Returns the received part of a message that ended early.
    fn cut(bytes: &[u8]) -> Self {
        let mut message = Self::head(bytes).expect("the gateway sends a head in one piece");
        let begin = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        message.body = bytes[begin..].to_vec();
        message
    }
}

/// Returns the data and the encoded length of a chunked body without extensions and trailers.
fn unchunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("a plain chunk size");
        let begin = at + line + 2;
        let piece = bytes.get(begin..begin + size + 2)?;
        assert!(piece.ends_with(b"\r\n"), "no trailers");
        body.extend_from_slice(&piece[..size]);
        at = begin + size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

impl fmt::Debug for RecordedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_whole { "" } else { " (cut)" };
        write!(
            f,
            "{} {:?} {:.300}{end}",
            self.line,
            self.fields,
            self.body.escape_ascii().to_string()
        )
    }
}
