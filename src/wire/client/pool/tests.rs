use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::wire::body::framing::Framing;

const LIMIT: Duration = Duration::from_secs(60);
const OPTIONS: SendOptions = SendOptions {
    head: LIMIT,
    idle: LIMIT,
    is_repeatable: false,
};

async fn pool() -> (Arc<Pool>, TcpListener) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let target = DialTarget {
        authority: address.parse().expect("an authority"),
        tls: None,
    };
    (Pool::new(&target, LIMIT, LIMIT).expect("a pool"), listener)
}

async fn send(pool: &Pool) -> Result<u16, SendError> {
    let mut request = Request::new(Replay::empty(Framing::None));
    *request.uri_mut() = "/".parse().expect("a target");
    let response = pool.send(&mut request, OPTIONS).await?;
    Ok(response.status().as_u16())
}

/// Reads one request, and sends a response with `status` and without a body.
async fn respond(stream: &mut TcpStream, status: u16) {
    let mut read = vec![0; 1 << 10];
    assert!(stream.read(&mut read).await.expect("a request") > 0);
    let response = format!("HTTP/1.1 {status} OK\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(response.as_bytes()).await.expect("written");
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_closed_one_is_replaced() {
    let (pool, listener) = pool().await;
    let upstream = async {
        let (mut first, _) = listener.accept().await.expect("a connection");
        respond(&mut first, 200).await;
        respond(&mut first, 201).await;
        drop(first);
        let (mut second, _) = listener.accept().await.expect("another connection");
        respond(&mut second, 202).await;
    };
    let client = async {
        assert_eq!(pool.idle(), 0);
        for status in 200..203 {
            assert_eq!(send(&pool).await.expect("a response"), status);
            assert_eq!(pool.idle(), 1);
        }
    };
    tokio::join!(upstream, client);
    pool.reap();
    assert!(pool.idle() <= 1);
}

#[tokio::test]
async fn a_request_that_fails_on_a_new_connection_is_not_sent_again() {
    let (pool, listener) = pool().await;
    let upstream = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        drop(stream);
    };
    let (sent, ()) = tokio::join!(send(&pool), upstream);
    assert!(matches!(sent, Err(SendError::Broken(_))));
    drop(listener);
    assert!(matches!(send(&pool).await, Err(SendError::Dial(DialError::Connect(_)))));
}
