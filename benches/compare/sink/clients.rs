//! Clients that hold many connections and count what they get.

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

/// All have to stand within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many are opened at once.
const AT_ONCE: usize = 64;

struct Counts {
    /// What all read into, one after the other.
    buffer: RefCell<Box<[u8]>>,
    open: Cell<usize>,
    lost: Cell<usize>,
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

/// Holds `count` connections, idle after one answer each.
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
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    for number in 0..count {
        let key = format!("0199a213-81c0-7800-8aa1-{number:012x}");
        let body = format!(r#"{{"model":"gpt-5.2","stream":true,"input":"Go on.","prompt_cache_key":"{key}"}}"#);
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: {proxy}\r\nauthorization: Bearer sk-test\r\nsession-id: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let (counts, turns) = (counts.clone(), turns.clone());
        spawn_local(async move {
            let _ = one(proxy, request, &turns, &counts).await;
            add(&counts.lost);
        });
    }
    let standing = async {
        while counts.open.get() < count && counts.lost.get() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, standing).await.is_err() || counts.lost.get() > 0 {
        let (open, lost) = (counts.open.get(), counts.lost.get());
        return Err(io::Error::new(
            ErrorKind::ConnectionAborted,
            format!("{open} of {count} stand, {lost} were lost"),
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

/// Returns when the connection is lost.
async fn one(proxy: SocketAddr, request: String, turns: &Semaphore, counts: &Counts) -> io::Result<()> {
    let turn = turns.acquire().await.map_err(|_| ErrorKind::Other)?;
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(1 << 10);
    if stream.read_buf(&mut buffer).await? == 0 || !buffer.starts_with(b"HTTP/1.1 200 ") {
        return Err(ErrorKind::InvalidData.into());
    }
    drop(turn);
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
