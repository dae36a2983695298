//! Clients that hold many connections and count the events that they receive.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind, Write as _},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::spawn_local,
    time::{sleep, timeout},
};

/// The time limit for opening all connections.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of connections that are opened concurrently.
const AT_ONCE: usize = 64;

struct Counts {
    /// The read buffer that all connections share.
    buffer: RefCell<Box<[u8]>>,
    /// The number of connections that have been opened.
    open: Cell<usize>,
    /// The number of connections that have ended.
    lost: Cell<usize>,
    /// The number of events received on all connections.
    events: Cell<u64>,
}

fn add(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

/// Holds `count` event streams and counts their events for `time`.
pub async fn streams(proxy: SocketAddr, count: usize, rate: String, time: Duration) -> io::Result<()> {
    hold(
        proxy,
        count,
        format!("accept: text/event-stream\r\nx-events-per-second: {rate}\r\n"),
        time,
    )
    .await
}

/// Holds `count` connections that are idle after one response each.
pub async fn connections(proxy: SocketAddr, count: usize, time: Duration) -> io::Result<()> {
    hold(proxy, count, String::new(), time).await
}

async fn hold(proxy: SocketAddr, count: usize, headers: String, time: Duration) -> io::Result<()> {
    let counts = Rc::new(Counts {
        buffer: RefCell::new(vec![0; 64 << 10].into()),
        open: Cell::default(),
        lost: Cell::default(),
        events: Cell::default(),
    });
    let permits = Rc::new(Semaphore::new(AT_ONCE));
    for number in 0..count {
        let key = format!("0199a213-81c0-7800-8aa1-{number:012x}");
        let body = format!(r#"{{"model":"gpt-5.2","stream":true,"input":"Go on.","prompt_cache_key":"{key}"}}"#);
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: {proxy}\r\nauthorization: Bearer sk-test\r\nsession-id: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let (counts, permits) = (counts.clone(), permits.clone());
        spawn_local(async move {
            let _ = hold_one(proxy, request, &permits, &counts).await;
            add(&counts.lost);
        });
    }
    let all_open = async {
        while counts.open.get() < count && counts.lost.get() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(OPEN_TIMEOUT, all_open).await.is_err() || counts.lost.get() > 0 {
        let (open, lost) = (counts.open.get(), counts.lost.get());
        return Err(io::Error::new(
            ErrorKind::ConnectionAborted,
            format!("{open} of {count} connections were opened, {lost} were lost"),
        ));
    }
    println!("open {count}");
    io::stdout().flush()?;
    let (started, before) = (Instant::now(), counts.events.get());
    sleep(time).await;
    println!(
        r#"{{"events":{},"seconds":{},"lost":{}}}"#,
        counts.events.get() - before,
        started.elapsed().as_secs_f64(),
        counts.lost.get()
    );
    io::stdout().flush()
}

/// Opens one connection and counts its events. Returns when the connection ends.
async fn hold_one(proxy: SocketAddr, request: String, permits: &Semaphore, counts: &Counts) -> io::Result<()> {
    let permit = permits.acquire().await.map_err(|_| ErrorKind::Other)?;
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(1 << 10);
    if stream.read_buf(&mut buffer).await? == 0 || !buffer.starts_with(b"HTTP/1.1 200 ") {
        return Err(ErrorKind::InvalidData.into());
    }
    drop(permit);
    add(&counts.open);
    loop {
        stream.readable().await?;
        let mut buffer = counts.buffer.borrow_mut();
        match stream.try_read(&mut buffer[..]) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                let events = memchr::memchr_iter(b'{', &buffer[..read]).count();
                counts.events.set(counts.events.get() + events as u64);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
