//! HTTP/2 clients and upstreams that write single frames (RFC 9113 section 4).

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{TIMEOUT, gateway::upstream_at, tls::TestIdentity};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream of bytes in both directions.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One side of an HTTP/2 connection.
pub struct Frames(Box<dyn Io>);

/// How a request on the first stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server responded with this status and body.
    Answered(u16, String),
    /// The server reset the stream or ended the connection.
    Refused,
}

impl Frames {
    /// Opens a connection and sends the preface.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await;
        let mut frames = Self(Box::new(stream.expect("the server accepts connections")));
        frames.0.write_all(PREFACE).await.expect("the peer reads");
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Accepts a connection from a client.
    async fn accept(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Option<Self> {
        let mut frames = Self(Box::new(io));
        let mut preface = [0; PREFACE.len()];
        frames.0.read_exact(&mut preface).await.ok()?;
        assert_eq!(preface, PREFACE);
        frames.send(SETTINGS, 0, 0, &[]).await;
        Some(frames)
    }

    /// Reads the next frame of a stream, or a GOAWAY frame: its type, its flags, its stream and its payload. Settings and
    /// pings are acknowledged, and window updates are skipped. Returns `None` if the connection has ended.
    pub async fn stream_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            let (kind, flags, stream, payload) = self.frame().await?;
            match kind {
                SETTINGS if flags & ACK == 0 => drop(self.send(SETTINGS, ACK, 0, &[]).await),
                PING if flags & ACK == 0 => drop(self.send(PING, ACK, 0, &payload).await),
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Some((kind, flags, stream, payload)),
            }
        }
    }

    /// Reads until a request has arrived completely. Returns its stream, or `None` if the connection has ended.
    pub async fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, _) = self.stream_frame().await?;
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Some(stream);
            }
        }
    }

    /// Resets a stream with this error code.
    pub async fn reset(&mut self, stream: u32, code: u32) -> bool {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await
    }

    /// Sends one frame. Returns `false` if the connection is closed.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        matches!(timeout(TIMEOUT, self.0.write_all(&frame)).await, Ok(Ok(())))
    }

    /// Sends a field block on the first stream, split into as many frames as it needs.
    pub async fn send_fields(&mut self, flags: u8, block: &[u8]) {
        let mut pieces = block.chunks(16 << 10).peekable();
        let (mut kind, mut flags) = (HEADERS, flags);
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.send(kind, flags | end, 1, piece).await;
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// Reads until the first stream has ended.
    pub async fn outcome(&mut self) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        while let Some((kind, flags, stream, payload)) = self.frame().await {
            match (kind, stream) {
                (HEADERS, 1) => status = status_of(&payload),
                (DATA, 1) => body.extend_from_slice(&payload),
                (RST_STREAM, 1) if status == 0 => return Outcome::Refused,
                (GOAWAY, _) if status == 0 => return Outcome::Refused,
                _ => continue,
            }
            if flags & END_STREAM != 0 {
                return Outcome::Answered(status, String::from_utf8_lossy(&body).into_owned());
            }
        }
        Outcome::Refused
    }

    /// Reads a frame: its type, its flags, its stream and its payload. Returns `None` if the connection has ended.
    pub async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        timeout(TIMEOUT, self.0.read_exact(&mut head))
            .await
            .expect("data within the time limit")
            .ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        timeout(TIMEOUT, self.0.read_exact(&mut payload))
            .await
            .expect("data within the time limit")
            .ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }

    /// Reads until the connection has ended.
    pub async fn until_closed(mut self) {
        let mut read = vec![0; 64 << 10];
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            match timeout(TIMEOUT, self.0.read(&mut read))
                .await
                .expect("data within the time limit")
            {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        panic!("the connection was not closed in time");
    }
}

/// Starts an upstream over TLS that passes each of its HTTP/2 connections to `serve` in its own task until the test ends.
/// Returns its `[[upstream]]` table, with the name `name`.
pub async fn serve_frames<F, R>(identity: &TestIdentity, name: &str, serve: F) -> String
where
    F: Fn(Frames) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(identity.config.clone());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await
                    && let Some(frames) = Frames::accept(tls).await
                {
                    serve(frames).await;
                }
            });
        }
    });
    let lines = format!("ca = {:?}\nhttp2 = true", identity.ca);
    upstream_at(name, &format!("https://{address}/v1"), &lines)
}

/// Encodes fields as literals without an index (RFC 7541 section 6.2.2).
pub fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(list: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            write_length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// Encodes an integer with a prefix of seven bits (RFC 7541 section 5.1).
fn write_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// Returns the status at the beginning of a field block: an index of the static table, or a literal of three digits.
pub fn status_of(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // The block may begin with a dynamic table size update.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        place @ 0x88..=0x8e => INDEXED[usize::from(place - 0x88)],
        0x48 | 0x08 | 0x18 if block[1] == 3 => std::str::from_utf8(&block[2..5])
            .expect("digits")
            .parse()
            .expect("a status"),
        0x48 | 0x08 | 0x18 => huffman_digits(&block[2..2 + usize::from(block[1] & 0x7f)]),
        other => panic!("no status: {other:#x}"),
    }
}

/// Decodes three digits in the Huffman code of RFC 7541 appendix B.
fn huffman_digits(coded: &[u8]) -> u16 {
    let bits: String = coded.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = u16::from_str_radix(&bits[at..at + 5], 2).expect("bits");
        if five < 3 {
            (number, at) = (number * 10 + five, at + 5);
        } else {
            let six = u16::from_str_radix(&bits[at..at + 6], 2).expect("bits");
            (number, at) = (number * 10 + six - 0b011001 + 3, at + 6);
        }
    }
    number
}
