//! One whole request: from the client's bytes in the kernel to the upstream's, and the answer's way back.
//!
//! Client, gateway and upstream are in one thread and one event loop, joined by loopback sockets: what is in the kernel is
//! not counted, and the gateway runs the code that it runs for its users, down to the event loop and the access log. The
//! two ends are one future that takes their turns in order, so that the gateway sees the same reads and wakes each time;
//! its own instructions are left out, save what the event loop does to wake it.

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
    Broken,
    counting::{counts_inside, counts_outside},
    material::{ANSWER, ANSWER_HEAD, CODEX_BODY, CODEX_HEAD, events, gateway},
};

/// So often that what is not done for each request, as giving the log more room, hardly shows in its share.
const TIMES: u32 = 1000;
const TIMES_OF_STREAMS: u32 = 200;
/// Far beyond what anything here takes: no limit is to be reached.
const LONG: Duration = Duration::from_secs(3600);

/// One request, and its answer.
struct Dialogue {
    times: u32,
    request: Vec<u8>,
    /// The request's last bytes, which the upstream waits for.
    request_end: &'static [u8],
    /// What the upstream writes, each once the client has the one before. The last bytes of each reach the client as they are.
    answer: Vec<Vec<u8>>,
}

/// A client and the upstream that answers it.
struct Ends {
    client: TcpStream,
    upstream: TcpStream,
    /// What was read last.
    room: Vec<u8>,
    /// The gateway drains once it is dropped.
    _running: watch::Sender<ShutdownPhase>,
}

/// A `GET` that is proxied, without a body and without a session's key but in a header.
pub fn get() -> Result<u32, Broken> {
    let request = "GET /v1/files HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer sk-test\r\n\
        session-id: 01a206a0-4075-7de0-9744-4102e6786650\r\nuser-agent: OpenAI/Python 3.54.0\r\naccept: */*\r\n\r\n";
    count(&Dialogue {
        times: TIMES,
        request: request.into(),
        request_end: b"\r\n\r\n",
        answer: vec![json_answer()],
    })
}

/// A recorded turn of Codex, answered with JSON.
pub fn post() -> Result<u32, Broken> {
    count(&Dialogue {
        times: TIMES,
        request: codex_request(),
        request_end: CODEX_BODY,
        answer: vec![json_answer()],
    })
}

/// A recorded turn of Codex, answered with a stream, an event at a time.
pub fn stream() -> Result<u32, Broken> {
    let head = ANSWER_HEAD.replace("application/json", "text/event-stream; charset=utf-8");
    let head = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let chunk = |event: &String| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
    let mut answer: Vec<Vec<u8>> = events().iter().map(chunk).collect();
    if let Some(first) = answer.first_mut() {
        first.splice(0..0, head.into_bytes());
    }
    answer.push(b"0\r\n\r\n".to_vec());
    count(&Dialogue {
        times: TIMES_OF_STREAMS,
        request: codex_request(),
        request_end: CODEX_BODY,
        answer,
    })
}

fn codex_request() -> Vec<u8> {
    let head = CODEX_HEAD.trim_end().lines().collect::<Vec<_>>().join("\r\n");
    [head.as_bytes(), b"\r\n\r\n", CODEX_BODY].concat()
}

fn json_answer() -> Vec<u8> {
    format!("{ANSWER_HEAD}content-length: {}\r\n\r\n{ANSWER}", ANSWER.len()).into_bytes()
}

/// Has the dialogue many times over the same connections.
fn count(dialogue: &Dialogue) -> Result<u32, Broken> {
    let _log = app::log_as_served()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut ends = runtime.block_on(Ends::around_a_gateway(dialogue))?;
    runtime.block_on(ends.repeat(dialogue, dialogue.times / 5))?;
    let mut result = Ok(());
    counts_inside(&mut || result = runtime.block_on(uncounted(ends.repeat(dialogue, dialogue.times))));
    result.map(|()| dialogue.times)
}

/// Does not count what `work` does, but what happens while it waits.
async fn uncounted<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let mut poll = std::task::Poll::Pending;
        counts_outside(&mut || poll = work.as_mut().poll(cx));
        poll
    })
    .await
}

impl Ends {
    /// Starts a gateway, and has it dial the upstream with a first request.
    async fn around_a_gateway(dialogue: &Dialogue) -> Result<Self, Broken> {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let gateway = gateway(10, &upstream.local_addr()?.to_string())?;
        let listener = Listener::bind(&Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await?;
        let Address::Tcp(gateway) = *listener.address() else {
            return Err("it listens elsewhere".into());
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

        let mut client = TcpStream::connect(gateway).await?;
        client.set_nodelay(true)?;
        client.write_all(&dialogue.request).await?;
        let (upstream, _) = upstream.accept().await?;
        upstream.set_nodelay(true)?;
        let mut ends = Self {
            client,
            upstream,
            room: Vec::with_capacity(256 << 10),
            _running: running,
        };
        ends.answer(dialogue).await?;
        Ok(ends)
    }

    async fn repeat(&mut self, dialogue: &Dialogue, times: u32) -> Result<(), Broken> {
        for _ in 0..times {
            self.client.write_all(&dialogue.request).await?;
            self.answer(dialogue).await?;
        }
        Ok(())
    }

    /// Takes the request that the client has sent, and answers it.
    async fn answer(&mut self, dialogue: &Dialogue) -> Result<(), Broken> {
        receive(&mut self.upstream, dialogue.request_end, &mut self.room).await?;
        for piece in &dialogue.answer {
            self.upstream.write_all(piece).await?;
            let end = &piece[piece.len().saturating_sub(16)..];
            receive(&mut self.client, end, &mut self.room).await?;
        }
        // What the gateway does after the last byte belongs to this request too.
        for _ in 0..4 {
            yield_now().await;
        }
        Ok(())
    }
}

/// Reads until what has arrived ends as given.
async fn receive(from: &mut TcpStream, end: &[u8], room: &mut Vec<u8>) -> Result<(), Broken> {
    room.clear();
    while !room.ends_with(end) {
        if from.read_buf(room).await? == 0 {
            let seen = String::from_utf8_lossy(&room[..room.len().min(500)]);
            return Err(format!("the gateway closed after: {seen}").into());
        }
    }
    Ok(())
}
