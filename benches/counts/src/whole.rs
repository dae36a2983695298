//! Workloads with whole requests: from the client's socket to the upstream's socket and back.
//!
//! Client, gateway and upstream run in one thread and one event loop and are connected by loopback sockets. The
//! kernel is not counted. The gateway runs the same code as in production, including the event loop and the access
//! log. Client and upstream are one future with a fixed order of steps, so that the gateway sees the same reads and
//! wakes in each run. The instructions of that future are not counted, except those of the event loop that wake it.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use steadfast::{
    app,
    proxy::Proxy,
    wire::{self, Address, Capacity, Listener, ServeLimits, Service, ShutdownPhase},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::watch,
    task::yield_now,
};

use crate::{
    BenchError,
    counting::{counts_inside, counts_outside},
    material::{CODEX_BODY, CODEX_HEAD, RESPONSE, RESPONSE_HEAD, events, gateway},
};

/// The number of counted requests. It is large, so that work that is not done for each request, such as growing the
/// log's buffer, has a small share.
const TIMES: u32 = 1000;
/// The number of counted streams.
const TIMES_OF_STREAMS: u32 = 200;
/// A time limit that no workload reaches.
const LONG: Duration = Duration::from_secs(3600);

/// A request and its response.
struct Dialogue {
    /// The number of counted repetitions.
    times: u32,
    /// The bytes that the client sends.
    request: Vec<u8>,
    /// The last bytes of the request; the upstream responds after it has received them.
    request_end: &'static [u8],
    /// The writes of the upstream. Each is sent after the client has received the one before. The gateway does not
    /// change the last bytes of a write.
    response: Vec<Vec<u8>>,
}

/// The client and the upstream of a gateway.
struct Endpoints {
    client: TcpStream,
    upstream: TcpStream,
    /// The bytes that were read last.
    buffer: Vec<u8>,
    /// The gateway shuts down when this sender is dropped.
    _running: watch::Sender<ShutdownPhase>,
}

/// A `GET` request with a session key in a header.
pub fn get() -> Result<u32, BenchError> {
    let request = "GET /v1/files HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-test\r\n\
        session-id: 01a206a0-4075-7de0-9744-4102e6786650\r\nuser-agent: OpenAI/Python 3.54.0\r\naccept: */*\r\n\r\n";
    count(&Dialogue {
        times: TIMES,
        request: request.into(),
        request_end: b"\r\n\r\n",
        response: vec![json_response()],
    })
}

/// A recorded turn of Codex with a JSON response.
pub fn post() -> Result<u32, BenchError> {
    count(&Dialogue {
        times: TIMES,
        request: codex_request(),
        request_end: CODEX_BODY,
        response: vec![json_response()],
    })
}

/// A recorded turn of Codex with a streamed response, one event at a time.
pub fn stream() -> Result<u32, BenchError> {
    let head = RESPONSE_HEAD.replace("application/json", "text/event-stream; charset=utf-8");
    let head = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let chunk = |event: &String| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
    let mut response: Vec<Vec<u8>> = events().iter().map(chunk).collect();
    // A stream is held back until its first output, so the first event arrives together with the second.
    let output = response.remove(1);
    let first = &mut response[0];
    first.splice(0..0, head.into_bytes());
    first.extend(output);
    response.push(b"0\r\n\r\n".to_vec());
    count(&Dialogue {
        times: TIMES_OF_STREAMS,
        request: codex_request(),
        request_end: CODEX_BODY,
        response,
    })
}

fn codex_request() -> Vec<u8> {
    let head = CODEX_HEAD.trim_end().lines().collect::<Vec<_>>().join("\r\n");
    [head.as_bytes(), b"\r\n\r\n", CODEX_BODY].concat()
}

fn json_response() -> Vec<u8> {
    format!("{RESPONSE_HEAD}content-length: {}\r\n\r\n{RESPONSE}", RESPONSE.len()).into_bytes()
}

/// Repeats the dialogue over the same connections and counts it.
fn count(dialogue: &Dialogue) -> Result<u32, BenchError> {
    let _log = app::log_as_served()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut ends = runtime.block_on(Endpoints::around_a_gateway(dialogue))?;
    runtime.block_on(ends.repeat(dialogue, dialogue.times / 5))?;
    let mut result = Ok(());
    counts_inside(&mut || result = runtime.block_on(uncounted(ends.repeat(dialogue, dialogue.times))));
    result.map(|()| dialogue.times)
}

/// Runs `work` with counting off. While `work` waits, the gateway runs with counting on.
async fn uncounted<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let mut poll = std::task::Poll::Pending;
        counts_outside(&mut || poll = work.as_mut().poll(cx));
        poll
    })
    .await
}

impl Endpoints {
    /// Starts a gateway and sends a first request, for which the gateway dials the upstream.
    async fn around_a_gateway(dialogue: &Dialogue) -> Result<Self, BenchError> {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let gateway = gateway(10, &upstream.local_addr()?.to_string())?;
        let listener = Listener::bind(&Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await?;
        let Address::Tcp(address) = *listener.address() else {
            return Err("the listener is not bound to TCP".into());
        };
        let service = Service {
            limits: ServeLimits {
                client_header: LONG,
                keep_alive: LONG,
                stall: LONG,
            },
            capacity: Arc::new(Capacity::new(8, gateway.connections.clone())),
            workers: None,
        };
        let (running, shutdown) = watch::channel(ShutdownPhase::Running);
        let proxy = Proxy::new(gateway);
        let handler = move |peer, request| proxy.clone().handle(peer, request);
        tokio::spawn(wire::serve(listener, service, shutdown, handler, |_, _| None));

        let mut client = TcpStream::connect(address).await?;
        client.set_nodelay(true)?;
        client.write_all(&dialogue.request).await?;
        let (upstream, _) = upstream.accept().await?;
        upstream.set_nodelay(true)?;
        let mut ends = Self {
            client,
            upstream,
            buffer: Vec::with_capacity(256 << 10),
            _running: running,
        };
        ends.respond(dialogue).await?;
        Ok(ends)
    }

    async fn repeat(&mut self, dialogue: &Dialogue, times: u32) -> Result<(), BenchError> {
        for _ in 0..times {
            self.client.write_all(&dialogue.request).await?;
            self.respond(dialogue).await?;
        }
        Ok(())
    }

    /// Receives the client's request at the upstream and sends the response to the client.
    async fn respond(&mut self, dialogue: &Dialogue) -> Result<(), BenchError> {
        receive(&mut self.upstream, dialogue.request_end, &mut self.buffer).await?;
        for piece in &dialogue.response {
            self.upstream.write_all(piece).await?;
            let end = &piece[piece.len().saturating_sub(16)..];
            receive(&mut self.client, end, &mut self.buffer).await?;
        }
        // The gateway's work after the last byte is part of this request as well.
        for _ in 0..4 {
            yield_now().await;
        }
        Ok(())
    }
}

/// Reads until the received bytes end with `end`.
async fn receive(from: &mut TcpStream, end: &[u8], buffer: &mut Vec<u8>) -> Result<(), BenchError> {
    buffer.clear();
    while !buffer.ends_with(end) {
        if from.read_buf(buffer).await? == 0 {
            let seen = String::from_utf8_lossy(&buffer[..buffer.len().min(500)]);
            return Err(format!("the gateway closed after: {seen}").into());
        }
    }
    Ok(())
}
