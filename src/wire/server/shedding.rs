//! Chooses the idle connections that are closed for new clients when the maximum number of connections is open.
//!
//! The client address with the most idle connections gives way first. So a client that opens many connections and sends
//! nothing loses its own, and not the kept connection of a client that has only one. Among the connections of an address,
//! and among addresses with equally many, the order is that of [`IdleKind`], and in it the longest wait comes first.
//! Connections that have waited only for a moment count, but are not closed yet. Meanwhile a client with less than half as
//! many connections does not give way for them.
//! Behind a load balancer all clients have one address, and only the second rule applies. The connections on Unix sockets
//! count as one address, and so does an IPv6 network of 64 bits, which is what one subscriber gets.

use std::{cmp::Reverse, time::Duration};

use tokio::time::Instant;

use crate::wire::server::{activity::ConnectionWait, client_network::ClientNetwork, handle::ConnectionHandle};

/// The time for which a connection must have waited before it is shed. A client that has just connected, or just received
/// a response, often sends its next request at once.
const MIN_WAIT: Duration = Duration::from_millis(50);

/// What an idle connection waits for, in the order in which connections are shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::wire) enum IdleKind {
    /// Another request, or the first one of an HTTP/2 connection.
    NextRequest,
    /// The first byte since the connection was accepted, or the end of its TLS handshake.
    FirstByte,
    /// The rest of a head.
    Head,
}

/// A connection without a request in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct ShedCandidate {
    /// The number of the connection.
    pub id: u64,
    pub network: ClientNetwork,
    pub kind: IdleKind,
    pub waited: Duration,
    /// Whether the connection has waited for long enough to be shed.
    pub may_be_shed: bool,
}

impl ShedCandidate {
    /// Returns the connection with this handle, or `None` if it is not idle.
    pub fn of(id: u64, handle: &ConnectionHandle, now: Instant) -> Option<Self> {
        let (kind, waited, min_wait) = match handle.activity.current_wait(now) {
            ConnectionWait::None => return None,
            ConnectionWait::NextRequest(waited) | ConnectionWait::FirstStream(waited) => {
                (IdleKind::NextRequest, waited, MIN_WAIT)
            }
            ConnectionWait::FirstByte(waited) => (IdleKind::FirstByte, waited, handle.setup_time.max(MIN_WAIT)),
            ConnectionWait::Head(waited) => (IdleKind::Head, waited, MIN_WAIT),
        };
        Some(Self {
            id,
            network: ClientNetwork::from(handle.address),
            kind,
            waited,
            may_be_shed: waited >= min_wait,
        })
    }

    /// The order in which connections with the same precedence of their addresses are shed.
    fn order(&self) -> (IdleKind, Reverse<Duration>, u64) {
        (self.kind, Reverse(self.waited), self.id)
    }
}

/// Chooses at most `count` of the `idle` connections. Returns their numbers in the order in which they are to be shed.
///
/// The result is the same as if one connection after the other was taken from the address that has the most connections
/// left. To find it in one pass, each connection gets the number that its address has left when its turn comes.
pub(in crate::wire) fn choose(mut idle: Vec<ShedCandidate>, count: usize) -> Vec<u64> {
    idle.sort_unstable_by_key(|connection| (connection.network, !connection.may_be_shed, connection.order()));
    let mut ranked: Vec<(usize, ShedCandidate)> = Vec::with_capacity(idle.len());
    for same in idle.chunk_by(|one, next| one.network == next.network) {
        let left = (1..=same.len()).rev();
        ranked.extend(left.zip(same.iter().copied()));
    }
    let most = ranked.iter().map(|(left, _)| *left).max().unwrap_or_default();
    ranked.retain(|(left, connection)| connection.may_be_shed && *left >= most / 2);
    ranked.sort_unstable_by_key(|(left, connection)| (Reverse(*left), connection.order()));
    ranked.iter().take(count).map(|(_, connection)| connection.id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes one connection after the other from the address that has the most left and one that may be shed.
    fn choose_slowly(mut idle: Vec<ShedCandidate>, count: usize) -> Vec<u64> {
        let left = |idle: &[ShedCandidate], of: &ShedCandidate| {
            idle.iter().filter(|other| other.network == of.network).count()
        };
        let most = idle.iter().map(|of| left(&idle, of)).max().unwrap_or_default();
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let allowed = idle
                .iter()
                .filter(|one| one.may_be_shed && left(&idle, one) >= most / 2);
            let Some(next) = allowed.min_by_key(|one| (Reverse(left(&idle, one)), one.order())) else {
                break;
            };
            chosen.push(next.id);
            let next = next.id;
            idle.retain(|one| one.id != next);
        }
        chosen
    }

    fn address(number: u8) -> ClientNetwork {
        match number {
            0 => ClientNetwork::Local,
            number => ClientNetwork::Ipv4([10, 0, 0, number]),
        }
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_one_connection_after_the_other(
            of in prop::collection::vec((0..5_u8, 0..3_usize, 0..4_u64, prop::bool::weighted(0.8)), 0..40),
            count in 0..50_usize,
        ) {
            const KINDS: [IdleKind; 3] = [IdleKind::NextRequest, IdleKind::FirstByte, IdleKind::Head];
            let idle: Vec<ShedCandidate> = of.iter().zip(0..).map(|((number, kind, waited, may_be_shed), id)| ShedCandidate {
                id,
                network: address(*number),
                kind: KINDS[*kind],
                waited: Duration::from_secs(*waited),
                may_be_shed: *may_be_shed,
            }).collect();
            prop_assert_eq!(choose(idle.clone(), count), choose_slowly(idle, count));
        }
    }

    #[test]
    fn a_flood_of_silent_connections_does_not_evict_the_connection_of_another_client() {
        let kept = ShedCandidate {
            id: 1000,
            network: address(1),
            kind: IdleKind::NextRequest,
            waited: Duration::from_secs(60),
            may_be_shed: true,
        };
        let flood = (0..100).map(|id| ShedCandidate {
            id,
            network: address(2),
            kind: IdleKind::FirstByte,
            waited: Duration::from_millis(100 + id),
            may_be_shed: true,
        });
        let chosen = choose(flood.clone().chain([kept]).collect(), 50);
        assert_eq!(chosen, (50..100).rev().collect::<Vec<_>>());
        // While the connections of the flood are too young, no other client gives way for them.
        let young = flood.map(|connection| ShedCandidate {
            may_be_shed: false,
            ..connection
        });
        assert!(choose(young.chain([kept]).collect(), 50).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_connections_that_have_waited_long_enough_are_idle() {
        const SECOND: Duration = Duration::from_secs(1);
        let kind = |handle: &ConnectionHandle| {
            ShedCandidate::of(0, handle, Instant::now())
                .filter(|idle| idle.may_be_shed)
                .map(|idle| idle.kind)
        };
        let (plain, _drain) = ConnectionHandle::new(Some([10, 0, 0, 1].into()), Duration::ZERO);
        let (secure, _drain) = ConnectionHandle::new(Some([10, 0, 0, 1].into()), SECOND);
        assert_eq!((kind(&plain), kind(&secure)), (None, None));
        tokio::time::advance(MIN_WAIT).await;
        assert_eq!((kind(&plain), kind(&secure)), (Some(IdleKind::FirstByte), None));
        tokio::time::advance(SECOND).await;
        assert_eq!(kind(&secure), Some(IdleKind::FirstByte));
        plain.activity.record_head_start();
        assert_eq!(kind(&plain), Some(IdleKind::Head));
        plain.activity.record_request_start(http::Version::HTTP_11);
        tokio::time::advance(SECOND).await;
        assert_eq!(kind(&plain), None);
        plain.activity.record_request_end();
        assert_eq!(kind(&plain), None);
        tokio::time::advance(MIN_WAIT).await;
        assert_eq!(kind(&plain), Some(IdleKind::NextRequest));
        plain.activity.record_write_blocked();
        assert_eq!(kind(&plain), None);
    }
}
