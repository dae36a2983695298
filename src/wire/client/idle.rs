//! The idle HTTP/1.1 connections to one upstream.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::wire::{
    client::freshness::{CLOSE_DETECTION, CheckoutPolicy, ConnectionFreshness},
    http1::upstream_connection::UpstreamConnection,
    server::workers,
};

/// The maximum number of idle connections that each worker keeps to one upstream.
const MAX_IDLE: usize = 256;
/// How long an idle connection is kept. Common servers close an idle connection after 75 seconds.
pub(in crate::wire) const MAX_IDLE_TIME: Duration = Duration::from_secs(60);

/// The idle HTTP/1.1 connections to one upstream, a stack for each worker.
///
/// A connection stays with the worker that has opened it, because that worker's event loop drives it. The most recently
/// used connection is taken first, so that unneeded connections grow old and are closed.
pub(in crate::wire) struct IdleConnections {
    /// The stacks, by [`worker_index`](workers::worker_index).
    stacks: Box<[Mutex<Vec<IdleConnection>>]>,
}

struct IdleConnection {
    connection: Box<UpstreamConnection>,
    /// When the last exchange on the connection ended.
    since: Instant,
}

impl IdleConnection {
    fn freshness(&self, now: Instant) -> ConnectionFreshness {
        let is_recent = now.duration_since(self.since) < CLOSE_DETECTION;
        match (is_recent, self.connection.is_reused) {
            (true, true) => ConnectionFreshness::RecentlyUsed,
            (true, false) => ConnectionFreshness::RecentlyOpened,
            (false, _) => ConnectionFreshness::MaybeStale,
        }
    }

    /// Whether the connection can carry another exchange.
    fn is_usable(&self, now: Instant) -> bool {
        let has_time = now.duration_since(self.since) < MAX_IDLE_TIME && now < self.connection.expires;
        has_time && self.connection.is_open()
    }
}

impl IdleConnections {
    /// A pool without connections.
    pub fn new() -> Self {
        Self {
            stacks: (0..workers::worker_count()).map(|_| Mutex::default()).collect(),
        }
    }

    /// The stack of the calling worker.
    fn stack(&self) -> &Mutex<Vec<IdleConnection>> {
        &self.stacks[workers::worker_index()]
    }

    /// Stores a connection after its exchange has ended. The connection is closed if it has expired, or if the worker
    /// already has [`MAX_IDLE`] idle connections.
    pub fn put(&self, connection: Box<UpstreamConnection>) {
        let since = Instant::now();
        if since >= connection.expires {
            return;
        }
        let mut stack = self.stack().lock();
        if stack.len() < MAX_IDLE {
            stack.push(IdleConnection { connection, since });
        }
    }

    /// Takes a connection that is not known to be closed, and that `policy` allows.
    pub fn take(&self, policy: CheckoutPolicy) -> Option<(Box<UpstreamConnection>, ConnectionFreshness)> {
        let mut stack = self.stack().lock();
        let now = Instant::now();
        while let Some(last) = stack.pop() {
            let freshness = last.freshness(now);
            if !policy.allows(freshness) {
                // The connections below this one have been idle for longer.
                stack.push(last);
                return None;
            }
            if last.is_usable(now) {
                let mut connection = last.connection;
                connection.is_reused = true;
                return Some((connection, freshness));
            }
        }
        None
    }

    /// Closes the connections that have been idle for too long or are too old, and drops those that the upstream has
    /// closed.
    pub fn close_expired(&self) {
        for stack in &self.stacks {
            let mut stack = stack.lock();
            let now = Instant::now();
            stack.retain(|idle| idle.is_usable(now));
        }
    }

    /// Adds the times since which the connections have been idle to `times`.
    pub fn list_idle(&self, times: &mut Vec<Instant>) {
        for stack in &self.stacks {
            times.extend(stack.lock().iter().map(|idle| idle.since));
        }
    }

    /// Closes the connections that have been idle since `until` or for longer. Returns their number.
    pub fn close_idle_since(&self, until: Instant) -> usize {
        let close = |stack: &Mutex<Vec<IdleConnection>>| {
            let mut stack = stack.lock();
            let before = stack.len();
            stack.retain(|idle| idle.since > until);
            before - stack.len()
        };
        self.stacks.iter().map(close).sum()
    }

    /// The number of idle connections at this moment.
    pub fn len(&self) -> usize {
        self.stacks.iter().map(|stack| stack.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::UnixStream};

    use super::*;
    use crate::wire::{client::socket::UpstreamSocket, transport::Transport};

    const AGE: Duration = Duration::from_secs(600);

    fn connection() -> (Box<UpstreamConnection>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let socket = UpstreamSocket::new(Transport::Unix(near), MAX_IDLE_TIME);
        (UpstreamConnection::new(socket, Instant::now() + AGE), far)
    }

    fn freshness(taken: Option<(Box<UpstreamConnection>, ConnectionFreshness)>) -> Option<ConnectionFreshness> {
        taken.map(|(_, freshness)| freshness)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_recently_used_only_after_its_second_request() {
        let idle = IdleConnections::new();
        let (first, _far) = connection();
        idle.put(first);
        assert!(idle.take(CheckoutPolicy::RecentlyUsedOnly).is_none());
        let (first, freshness_of_first) = idle.take(CheckoutPolicy::AnyOpen).expect("it is open");
        assert_eq!(freshness_of_first, ConnectionFreshness::RecentlyOpened);
        idle.put(first);
        let taken = idle.take(CheckoutPolicy::RecentlyUsedOnly);
        assert_eq!(freshness(taken), Some(ConnectionFreshness::RecentlyUsed));
        assert_eq!(idle.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ages_and_is_closed_at_last() {
        let idle = IdleConnections::new();
        let (mut first, _far) = connection();
        first.is_reused = true;
        idle.put(first);
        tokio::time::advance(CLOSE_DETECTION).await;
        assert!(idle.take(CheckoutPolicy::RecentlyUsedOnly).is_none());
        idle.close_expired();
        assert_eq!(idle.len(), 1);
        tokio::time::advance(MAX_IDLE_TIME).await;
        idle.close_expired();
        assert_eq!(idle.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_used_after_its_age() {
        let idle = IdleConnections::new();
        // It is in use all the time, so it is never idle for long.
        let (mut connection, mut far) = connection();
        for _ in 0..20 {
            tokio::time::advance(AGE / 20 - Duration::from_millis(1)).await;
            idle.put(connection);
            (connection, _) = idle.take(CheckoutPolicy::AnyOpen).expect("it is young enough");
        }
        // It may still be idle when it expires.
        idle.put(connection);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(idle.take(CheckoutPolicy::AnyOpen).is_none());
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0, "the connection is closed");
        // It may expire during an exchange, which ends.
        let (connection, mut far) = self::connection();
        tokio::time::advance(AGE).await;
        idle.put(connection);
        assert_eq!(idle.len(), 0);
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0, "the connection is closed");
        // The check closes a connection that no request takes.
        let (connection, _far) = self::connection();
        tokio::time::advance(AGE - Duration::from_secs(1)).await;
        idle.put(connection);
        tokio::time::advance(Duration::from_secs(1)).await;
        idle.close_expired();
        assert_eq!(idle.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connections_that_have_been_idle_for_longer_are_closed() {
        let idle = IdleConnections::new();
        let (first, mut far) = connection();
        idle.put(first);
        let until = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let (second, _far) = connection();
        idle.put(second);
        let mut times = Vec::new();
        idle.list_idle(&mut times);
        assert_eq!(times, [until, until + Duration::from_secs(1)]);
        assert_eq!((idle.close_idle_since(until), idle.len()), (1, 1));
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0, "the connection is closed");
        assert_eq!(idle.close_idle_since(until), 0);
    }

    #[tokio::test]
    async fn a_worker_keeps_a_limited_number() {
        let idle = IdleConnections::new();
        for _ in 0..MAX_IDLE + 3 {
            let (connection, _far) = connection();
            idle.put(connection);
        }
        assert_eq!(idle.len(), MAX_IDLE);
    }
}
