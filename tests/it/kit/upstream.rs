//! Upstreams that the test controls byte by byte.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::wire::Wire;

/// Starts an upstream that passes each connection to `serve` in its own task until the test ends. Returns its address.
pub async fn serve_connections<F, R>(serve: F) -> SocketAddr
where
    F: Fn(Wire) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Wire::over(stream)));
        }
    });
    address
}

/// Reads one request with a `content-length` body and returns its head in lower case.
pub async fn request(wire: &mut Wire) -> String {
    let head = wire.head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    wire.take(length.map_or(0, |digits| digits.parse().expect("a length")))
        .await;
    head
}
