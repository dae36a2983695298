//! A client that writes given bytes, in given pieces, and reads one response by its framing.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{PATIENCE, client::Reply};

/// Writes `pieces`, each in a write of its own, and reads one response, whatever becomes of the connection after it.
pub async fn exchange(address: SocketAddr, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Reply {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (mut read, mut write) = stream.split();
    let pieces = pieces.into_iter();
    let sending = async {
        for piece in pieces {
            write.write_all(piece.as_ref()).await.expect("it reads");
        }
    };
    let receiving = receive(&mut read);
    let both = async { tokio::join!(sending, receiving).1 };
    timeout(PATIENCE, both).await.expect("an answer in time")
}

async fn receive(read: &mut (impl tokio::io::AsyncRead + Unpin)) -> Reply {
    let mut seen = Vec::new();
    loop {
        if let Some(reply) = parse(&seen) {
            return reply;
        }
        let count = read.read_buf(&mut seen).await.expect("it writes");
        assert!(count > 0, "it closed after: {}", String::from_utf8_lossy(&seen));
    }
}

/// The response at the start of `seen`, once it is whole.
fn parse(seen: &[u8]) -> Option<Reply> {
    let end = seen.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&seen[..end]).expect("text");
    let (status_line, lines) = head.split_once("\r\n").expect("headers");
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines.split("\r\n") {
        let (name, value) = line.split_once(':').expect("a header");
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
    }
    let rest = &seen[end + 4..];
    let body = match headers.get("content-length") {
        Some(length) => {
            let length = length.to_str().expect("text").parse().expect("a number");
            Bytes::copy_from_slice(rest.get(..length)?)
        }
        None => unchunk(rest)?,
    };
    let status: StatusCode = status.expect("a status");
    Some(Reply { status, headers, body })
}

/// The content of a chunked body without extensions and trailers, once it is whole.
fn unchunk(mut rest: &[u8]) -> Option<Bytes> {
    let mut content = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).expect("text");
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no chunk size: {size}"));
        let from = line + 2;
        content.extend_from_slice(rest.get(from..from + size)?);
        rest = rest.get(from + size + 2..)?;
        if size == 0 {
            return Some(content.into());
        }
    }
}
