//! Upstreams that read requests and respond at once.
//!
//! A request with `x-events-per-second` gets an endless event stream with that rate. Every other request gets a
//! small JSON object.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Write as _},
    net::Ipv4Addr,
    path::Path,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{spawn_local, yield_now},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;

use crate::identity;

const ANSWER: &str = concat!(
    r#"{"id":"resp_01a206a040757de097444102e6786650","object":"response","status":"completed","model":"gpt-5.2","#,
    r#""output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Yes."}]}],"#,
    r#""usage":{"input_tokens":9000,"input_tokens_details":{"cached_tokens":8960},"output_tokens":3,"total_tokens":9003}}"#
);
const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
/// An event. It contains only one opening brace, because the client counts events by their opening braces.
const EVENT: &str = concat!(
    "event: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","delta":" account","sequence_number":1234}"#,
    "\n\n"
);
/// The maximum size of a request head, in bytes.
const HEAD: usize = 16 << 10;
/// The maximum number of body bytes in one read.
const PIECE: usize = 256 << 10;
/// The interval of the clock for paced streams. The streams of one rate are spread over the ticks, so that their
/// events do not arrive in one burst.
const TICK: Duration = Duration::from_millis(1);

/// The open event streams.
#[derive(Default)]
struct Streams {
    /// Streams with a fixed rate.
    paced: Vec<Paced>,
    /// Streams that receive events as fast as possible.
    flooded: Vec<Rc<TcpStream>>,
}

/// A stream with a fixed rate.
struct Paced {
    stream: Rc<TcpStream>,
    /// The number of ticks between two events.
    every: u64,
    /// The tick at which an event is due, modulo `every`.
    due: u64,
}

type Shared = Rc<RefCell<Streams>>;

/// Serves on `count` free ports without TLS and on `count` free ports with TLS.
pub async fn serve(count: usize, folder: &Path) -> io::Result<()> {
    let streams = Shared::default();
    let tls = identity::acceptor(folder)?;
    for (name, tls) in [("ports", None), ("tls", Some(tls))] {
        let mut line = name.to_owned();
        for _ in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            line.push_str(&format!(" {}", listener.local_addr()?.port()));
            spawn_local(accept(listener, tls.clone(), streams.clone()));
        }
        println!("{line}");
    }
    io::stdout().flush()?;
    spawn_local(flood(streams.clone()));
    pace(streams).await
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, streams: Shared) {
    loop {
        match listener.accept().await {
            // An error of a connection is visible to its client, so it is ignored here.
            Ok((stream, _)) => drop(spawn_local(connection(stream, tls.clone(), streams.clone()))),
            Err(_) => tokio::time::sleep(TICK).await,
        }
    }
}

async fn connection(mut stream: TcpStream, tls: Option<TlsAcceptor>, streams: Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(tls) = tls {
        // Event streams are supported only without TLS. With TLS a stream ends after its first event.
        return requests(&mut tls.accept(stream).await?).await.map(drop);
    }
    match requests(&mut stream).await? {
        Some(rate) => hold(stream, rate, &streams).await,
        None => Ok(()),
    }
}

/// Responds to requests until the peer closes the connection or an event stream has begun. Returns the rate of the
/// stream.
async fn requests<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Option<Rate>> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    // The buffer for a body exists only during the read, so that 5,000 idle connections need little memory.
    let mut head = Vec::new();
    loop {
        let Some(end) = read_head(stream, &mut head).await? else {
            return Ok(None);
        };
        let request = Request::parse(&head[..end])?;
        let mut left = (request.length + end).saturating_sub(head.len());
        if left > 0 {
            let mut piece = vec![0; PIECE.min(left)];
            while left > 0 {
                match stream.read(&mut piece).await? {
                    0 => return Ok(None),
                    read => left = left.saturating_sub(read),
                }
            }
        }
        head.clear();
        let Some(rate) = request.rate else {
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
            continue;
        };
        stream.write_all(format!("{STREAM_HEAD}{}", chunk()).as_bytes()).await?;
        stream.flush().await?;
        return Ok(Some(rate));
    }
}

/// Reads until the head is complete. Returns the position of its end, or `None` if the peer has closed the connection.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, head: &mut Vec<u8>) -> io::Result<Option<usize>> {
    head.reserve(HEAD);
    loop {
        if let Some(at) = memchr::memmem::find(head, b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if head.len() >= HEAD {
            return Err(ErrorKind::InvalidData.into());
        }
        if stream.read_buf(head).await? == 0 {
            return Ok(None);
        }
    }
}

/// The rate of an event stream.
enum Rate {
    /// No events after the first.
    Idle,
    /// One event in this number of ticks.
    Every(u64),
    /// As many events as the client reads.
    Flood,
}

/// A parsed request head.
struct Request {
    /// The length of the body in bytes.
    length: usize,
    /// The rate, if the request asks for an event stream.
    rate: Option<Rate>,
}

impl Request {
    fn parse(head: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(head).map_err(|_| ErrorKind::InvalidData)?;
        let mut request = Self { length: 0, rate: None };
        for line in text.split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                request.length = value.parse().map_err(|_| ErrorKind::InvalidData)?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(ErrorKind::Unsupported.into());
            } else if name.eq_ignore_ascii_case("x-events-per-second") {
                request.rate = Some(match value {
                    "0" => Rate::Idle,
                    "max" => Rate::Flood,
                    rate => Rate::Every(1000 / rate.parse::<u64>().map_err(|_| ErrorKind::InvalidData)?.clamp(1, 1000)),
                });
            }
        }
        Ok(request)
    }
}

fn chunk() -> String {
    format!("{:x}\r\n{EVENT}\r\n", EVENT.len())
}

/// Holds a stream until its client closes the connection.
async fn hold(stream: TcpStream, rate: Rate, streams: &Shared) -> io::Result<()> {
    let stream = Rc::new(stream);
    match rate {
        Rate::Idle => {}
        Rate::Flood => streams.borrow_mut().flooded.push(stream.clone()),
        Rate::Every(every) => {
            let mut streams = streams.borrow_mut();
            let due = streams.paced.len() as u64 % every;
            let stream = stream.clone();
            streams.paced.push(Paced { stream, every, due });
        }
    }
    let mut piece = [0; 64];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut piece) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let mut streams = streams.borrow_mut();
    streams.paced.retain(|paced| !Rc::ptr_eq(&paced.stream, &stream));
    streams.flooded.retain(|flooded| !Rc::ptr_eq(flooded, &stream));
    Ok(())
}

/// Writes one event to a stream. If only a part of it could be written, the stream is aborted, so that the client
/// never receives an invalid stream.
fn send(stream: &TcpStream, event: &[u8]) {
    if let Ok(written) = stream.try_write(event)
        && written < event.len()
    {
        let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Both);
    }
}

async fn pace(streams: Shared) -> io::Result<()> {
    let event = chunk();
    let mut timer = interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut now = 0;
    loop {
        timer.tick().await;
        now += 1;
        for paced in &mut streams.borrow_mut().paced {
            if now % paced.every == paced.due {
                send(&paced.stream, event.as_bytes());
            }
        }
    }
}

/// Writes one event to each flooded stream in turn, as fast as the clients read.
async fn flood(streams: Shared) {
    let event = chunk();
    loop {
        let flooded = streams.borrow().flooded.clone();
        if flooded.is_empty() {
            tokio::time::sleep(TICK).await;
        }
        for some in flooded.chunks(64) {
            for stream in some {
                // A full socket is skipped, because its proxy is slower than the upstream.
                send(stream, event.as_bytes());
            }
            yield_now().await;
        }
    }
}
