//! The bytes that have arrived on a connection and have not been taken yet.

use std::{
    cell::RefCell,
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::wire::cooperation::charge_moved;

/// The size in bytes of the buffer that the connections of a thread share. Pieces are slices of it, and it is reused once
/// all of them are dropped.
const SHARED_BUFFER: usize = 64 << 10;
/// The free space in bytes below which a new buffer is allocated for the next read.
const MIN_FREE: usize = 8 << 10;
/// The maximum size in bytes of the buffer of its own that a body gets if it is longer than the shared buffer.
const MAX_OWN_BUFFER: usize = 256 << 10;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::default();
}

/// The bytes that have arrived on a connection and have not been taken yet.
#[derive(Default)]
pub(in crate::wire) struct ReadBuffer {
    /// The bytes that have not been taken yet.
    pub pending: Bytes,
    /// Whether `pending` has a buffer of its own, rather than a slice of the shared one.
    is_detached: bool,
    /// The buffer of a long body.
    own: BytesMut,
}

impl ReadBuffer {
    /// Reads the bytes that have arrived, and returns their number, which is zero if the peer has closed its side.
    /// `expected` is the number of bytes that will certainly come, or zero.
    pub fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        expected: u64,
    ) -> Poll<io::Result<usize>> {
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        if expected == 0 || self.own.capacity() <= expected.min(MIN_FREE) {
            self.own = BytesMut::new();
        }
        SHARED.with_borrow_mut(|shared| {
            let is_too_small = shared.capacity() < SHARED_BUFFER;
            if is_too_small && !shared.try_reclaim(SHARED_BUFFER) && shared.capacity() < MIN_FREE {
                shared.reserve(SHARED_BUFFER);
            }
            let buffer = if self.own.capacity() == 0 && expected <= shared.capacity() {
                shared
            } else {
                if self.own.capacity() == 0 {
                    // The extra byte prevents the last read from filling the buffer. After such a short read, tokio
                    // knows that the socket is empty.
                    self.own.reserve(expected.min(MAX_OWN_BUFFER) + 1);
                }
                &mut self.own
            };
            let Poll::Ready(read) = pin!(io.read_buf(buffer)).poll(cx) else {
                self.detach();
                return Poll::Pending;
            };
            let count = read?;
            charge_moved(cx, count);
            let more = buffer.split();
            if self.own.capacity() <= 1 {
                // The one free byte would keep the whole buffer alive.
                self.own = BytesMut::new();
            }
            self.append(more);
            Poll::Ready(Ok(count))
        })
    }

    /// Copies the pending bytes into a buffer of their own, unless they have one already. The rest of a message may
    /// take long to arrive, and a slice would keep the shared buffer alive until then.
    fn detach(&mut self) {
        if !self.pending.is_empty() && !self.is_detached {
            self.pending = Bytes::copy_from_slice(&self.pending);
            self.is_detached = true;
        }
    }

    /// Adds `more` to the end of the pending bytes.
    fn append(&mut self, more: BytesMut) {
        self.is_detached = !self.pending.is_empty();
        if !self.is_detached {
            self.pending = more.freeze();
            return;
        }
        // Only a head that arrives in parts gets here. From its second part on, it has a buffer of its own.
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

    fn fill(buffer: &mut ReadBuffer, mut source: &[u8], expected: u64) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match buffer.poll_fill(&mut source, &mut cx, expected) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_parts_of_a_head_are_joined_in_order() {
        let mut buffer = ReadBuffer::default();
        for part in ["GET / ", "HTTP/1.1\r\n", "host: it\r\n\r\n"] {
            fill(&mut buffer, part.as_bytes(), 0);
        }
        assert_eq!(buffer.pending, "GET / HTTP/1.1\r\nhost: it\r\n\r\n");
    }

    #[test]
    fn a_part_of_a_head_does_not_keep_the_shared_buffer_alive() {
        let (_silent, mut near) = tokio::io::duplex(1);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut waiting = Vec::new();
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..100 {
            let mut buffer = ReadBuffer::default();
            fill(&mut buffer, b"GET / HT", 0);
            for _ in 0..2 {
                assert!(buffer.poll_fill(&mut near, &mut cx, 0).is_pending());
            }
            waiting.push(buffer);
            let mut busy = ReadBuffer::default();
            fill(&mut busy, &[b'x'; 60 << 10], 0);
            addresses.insert(busy.pending.as_ptr() as usize);
        }
        assert!(addresses.len() <= 4, "{}", addresses.len());
        for mut buffer in waiting {
            fill(&mut buffer, b"TP/1.1\r\n", 0);
            assert_eq!(buffer.pending, "GET / HTTP/1.1\r\n");
        }
    }

    #[test]
    fn a_long_body_is_read_into_one_buffer_of_its_own() {
        let body: Vec<u8> = (0..200_000_u32).map(|byte| byte as u8).collect();
        let mut buffer = ReadBuffer::default();
        let mut pieces: Vec<Bytes> = Vec::new();
        for part in body.chunks(70_000) {
            let left = body.len() - pieces.iter().map(Bytes::len).sum::<usize>();
            fill(&mut buffer, part, left as u64);
            pieces.push(std::mem::take(&mut buffer.pending));
        }
        assert_eq!(pieces.concat(), body);
        let first = pieces[0].as_ptr() as usize;
        assert_eq!(pieces[2].as_ptr() as usize, first + 140_000);
    }

    #[test]
    fn the_request_after_a_long_body_is_read_at_once() {
        let mut buffer = ReadBuffer::default();
        for expected in [100_000, 300_000, 512 << 10] {
            let body = vec![b'x'; expected];
            let mut left = expected;
            while left > 0 {
                left -= fill(&mut buffer, &body[..left], left as u64);
                buffer.pending.clear();
            }
            assert_eq!(fill(&mut buffer, b"GET / HTTP/1.1\r\n\r\n", 0), 18);
            buffer.pending.clear();
        }
    }

    #[test]
    fn the_shared_buffer_is_reused() {
        let mut buffer = ReadBuffer::default();
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..100 {
            fill(&mut buffer, &[b'x'; 60 << 10], 0);
            addresses.insert(buffer.pending.as_ptr() as usize);
            buffer.pending.clear();
        }
        assert!(addresses.len() <= 4, "{}", addresses.len());
    }
}
