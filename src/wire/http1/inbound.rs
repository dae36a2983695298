//! Bytes that have arrived on a connection and that nobody has taken yet.

use std::{
    cell::RefCell,
    io,
    pin::pin,
    task::{Context, Poll, ready},
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
        ROOM.with_borrow_mut(|room| {
            let left = room.capacity();
            let expected = usize::try_from(expected).unwrap_or(usize::MAX);
            if self.own.capacity() == 0 && expected <= left.max(LEAST) {
                if left < LEAST {
                    room.reserve(SHARED);
                }
                let count = ready!(pin!(io.read_buf(room)).poll(cx))?;
                self.append(room.split());
                return Poll::Ready(Ok(count));
            }
            if self.own.capacity() == 0 {
                // A byte more, so that the last read leaves room: that is how tokio knows that nothing is left.
                self.own = BytesMut::with_capacity(expected.min(OWN) + 1);
            }
            let count = ready!(pin!(io.read_buf(&mut self.own)).poll(cx))?;
            let piece = self.own.split();
            self.append(piece);
            Poll::Ready(Ok(count))
        })
    }

    fn append(&mut self, more: BytesMut) {
        if self.pending.is_empty() {
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
