//! Bytes that have arrived on a connection and that nobody has taken yet.

use std::{
    cell::RefCell,
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What the connections of a thread read into, in bytes. Pieces are windows on it; it is used again once they are gone.
const SHARED: usize = 64 << 10;
/// With less room than this left, reading goes on in a fresh one.
const LEAST: usize = 8 << 10;
/// A body that is known to be longer than the shared room gets its own, at most this large.
const OWN: usize = 256 << 10;

thread_local! {
    static ROOM: RefCell<BytesMut> = RefCell::default();
}

/// Bytes that have arrived and are not taken yet, and where the rest of a long body goes.
#[derive(Default)]
pub(in crate::wire) struct Inbound {
    pub pending: Bytes,
    /// What is pending shares its memory with nobody.
    is_apart: bool,
    own: BytesMut,
}

impl Inbound {
    /// Reads what there is, for whoever waits for `expected` more bytes: zero at the end.
    pub fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        expected: u64,
    ) -> Poll<io::Result<usize>> {
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        if expected == 0 || self.own.capacity() <= expected.min(LEAST) {
            self.own = BytesMut::new();
        }
        ROOM.with_borrow_mut(|room| {
            if room.capacity() < SHARED && !room.try_reclaim(SHARED) && room.capacity() < LEAST {
                room.reserve(SHARED);
            }
            let buffer = if self.own.capacity() == 0 && expected <= room.capacity() {
                room
            } else {
                if self.own.capacity() == 0 {
                    // A byte more, so that the last read leaves room: that is how tokio knows that nothing is left.
                    self.own.reserve(expected.min(OWN) + 1);
                }
                &mut self.own
            };
            let Poll::Ready(read) = pin!(io.read_buf(buffer)).poll(cx) else {
                self.set_apart();
                return Poll::Pending;
            };
            let count = read?;
            let more = buffer.split();
            if self.own.capacity() <= 1 {
                // Even the one byte that is left would hold all of it.
                self.own = BytesMut::new();
            }
            self.append(more);
            Poll::Ready(Ok(count))
        })
    }

    /// Copies what is pending, once: its rest may be long in coming, and as a window it would hold all of the shared room.
    fn set_apart(&mut self) {
        if !self.pending.is_empty() && !self.is_apart {
            self.pending = Bytes::copy_from_slice(&self.pending);
            self.is_apart = true;
        }
    }

    /// Adds `more` behind what is pending.
    fn append(&mut self, more: BytesMut) {
        self.is_apart = !self.pending.is_empty();
        if !self.is_apart {
            self.pending = more.freeze();
            return;
        }
        // Only a head that arrives in parts comes here; from its second part on it has a buffer to itself.
        let mut joined = std::mem::take(&mut self.pending)
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        joined.extend_from_slice(&more);
        self.pending = joined.freeze();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(inbound: &mut Inbound, mut source: &[u8], expected: u64) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match inbound.poll_fill(&mut source, &mut cx, expected) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_are_joined_in_order() {
        let mut inbound = Inbound::default();
        for part in ["GET / ", "HTTP/1.1\r\n", "host: it\r\n\r\n"] {
            fill(&mut inbound, part.as_bytes(), 0);
        }
        assert_eq!(inbound.pending, "GET / HTTP/1.1\r\nhost: it\r\n\r\n");
    }

    #[test]
    fn a_part_that_waits_for_the_rest_does_not_hold_the_shared_room() {
        let (_silent, mut near) = tokio::io::duplex(1);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut waiting = Vec::new();
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..100 {
            let mut inbound = Inbound::default();
            fill(&mut inbound, b"GET / HT", 0);
            for _ in 0..2 {
                assert!(inbound.poll_fill(&mut near, &mut cx, 0).is_pending());
            }
            waiting.push(inbound);
            let mut busy = Inbound::default();
            fill(&mut busy, &[b'x'; 60 << 10], 0);
            addresses.insert(busy.pending.as_ptr() as usize);
        }
        assert!(addresses.len() <= 4, "{}", addresses.len());
        for mut inbound in waiting {
            fill(&mut inbound, b"TP/1.1\r\n", 0);
            assert_eq!(inbound.pending, "GET / HTTP/1.1\r\n");
        }
    }

    #[test]
    fn a_long_body_has_room_of_its_own_and_lies_together() {
        let body: Vec<u8> = (0..200_000_u32).map(|byte| byte as u8).collect();
        let mut inbound = Inbound::default();
        let mut pieces: Vec<Bytes> = Vec::new();
        for part in body.chunks(70_000) {
            let left = body.len() - pieces.iter().map(Bytes::len).sum::<usize>();
            fill(&mut inbound, part, left as u64);
            pieces.push(std::mem::take(&mut inbound.pending));
        }
        assert_eq!(pieces.concat(), body);
        let first = pieces[0].as_ptr() as usize;
        assert_eq!(pieces[2].as_ptr() as usize, first + 140_000);
    }

    #[test]
    fn what_follows_a_long_body_is_read_at_once() {
        let mut inbound = Inbound::default();
        for expected in [100_000, 300_000, 512 << 10] {
            let body = vec![b'x'; expected];
            let mut left = expected;
            while left > 0 {
                left -= fill(&mut inbound, &body[..left], left as u64);
                inbound.pending.clear();
            }
            assert_eq!(fill(&mut inbound, b"GET / HTTP/1.1\r\n\r\n", 0), 18);
            inbound.pending.clear();
        }
    }

    #[test]
    fn what_has_been_taken_is_read_into_again() {
        let mut inbound = Inbound::default();
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..100 {
            fill(&mut inbound, &[b'x'; 60 << 10], 0);
            addresses.insert(inbound.pending.as_ptr() as usize);
            inbound.pending.clear();
        }
        assert!(addresses.len() <= 4, "{}", addresses.len());
    }
}
