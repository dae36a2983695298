//! Bytes that wait to be written, written together.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Pieces below this size are copied together: that costs less than a place of their own in a gathering write.
const SMALL: usize = 1 << 10;
/// Pieces of one gathering write at most.
const GATHERED: usize = 32;
/// Room for small pieces that a connection keeps, in bytes; what a peer made of more by reading slowly is let go.
const KEPT: usize = 16 << 10;

/// Bytes that wait to be written: pieces as they came, and small ones copied together.
#[derive(Default)]
pub(in crate::wire) struct Outbound {
    /// Written before `joined`.
    pieces: VecDeque<Bytes>,
    joined: BytesMut,
    length: usize,
    /// The transport may still hold what was written, as TLS does.
    is_unflushed: bool,
}

/// How a body is delimited on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum Delimiter {
    /// By a length, or by the end of the connection.
    Outside,
    /// By chunks.
    Chunks,
}

impl Outbound {
    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether enough is here to be written, so that asking for more only costs memory.
    pub fn is_full(&self) -> bool {
        self.length >= 256 << 10 || self.pieces.len() >= GATHERED
    }

    /// Adds bytes by copying them.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Adds what `write` appends.
    pub fn append(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.joined.len();
        write(&mut self.joined);
        self.length += self.joined.len() - before;
    }

    /// Adds one piece of a body.
    pub fn push(&mut self, piece: Bytes, delimiter: Delimiter) {
        if piece.is_empty() {
            // In chunks this would be the end.
            return;
        }
        if delimiter == Delimiter::Chunks {
            let mut line = [0_u8; 18];
            let mut rest = &mut line[..];
            // Sixteen digits and a line end always fit.
            let _ = write!(rest, "{:x}\r\n", piece.len());
            let unused = rest.len();
            let used = line.len() - unused;
            self.copy(line.get(..used).unwrap_or_default());
        }
        if piece.len() < SMALL {
            self.copy(&piece);
        } else {
            if !self.joined.is_empty() {
                self.pieces.push_back(self.joined.split().freeze());
            }
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
        if delimiter == Delimiter::Chunks {
            self.copy(b"\r\n");
        }
    }

    /// Ends the body.
    pub fn end(&mut self, delimiter: Delimiter) {
        if delimiter == Delimiter::Chunks {
            self.copy(b"0\r\n\r\n");
        }
    }

    /// Writes until nothing is left.
    pub fn poll_write<T: AsyncWrite + Unpin>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_once(Pin::new(io), cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_unflushed = true;
            self.consume(written);
            if self.is_empty() && self.joined.try_reclaim(KEPT) {
                self.joined = BytesMut::new();
            }
        }
        if self.is_unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_once<T: AsyncWrite>(&mut self, io: Pin<&mut T>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return io.poll_write(cx, &self.joined);
        }
        let mut slices = [IoSlice::new(&[]); GATHERED];
        let mut count = 0;
        let joined = std::iter::once(&self.joined[..]).filter(|joined| !joined.is_empty());
        for (slice, bytes) in slices
            .iter_mut()
            .zip(self.pieces.iter().map(|piece| &piece[..]).chain(joined))
        {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        io.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn consume(&mut self, mut written: usize) {
        self.length = self.length.saturating_sub(written);
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        self.joined.advance(written.min(self.joined.len()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes a few bytes at a time, and then none for once.
    struct Reluctant {
        taken: Vec<u8>,
        most: usize,
        rests: bool,
    }

    impl AsyncWrite for Reluctant {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.rests = !self.rests;
            if self.rests {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = buf.len().min(self.most);
            self.taken.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn much_room_is_let_go_and_little_is_kept() {
        for (pieces, is_kept) in [(10, true), (200, false)] {
            let mut outbound = Outbound::default();
            for _ in 0..pieces {
                outbound.push(Bytes::from_static(&[b'x'; SMALL - 1]), Delimiter::Outside);
            }
            let length = outbound.length;
            let mut io = Reluctant {
                taken: Vec::new(),
                most: 5_000,
                rests: false,
            };
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while outbound.poll_write(&mut io, &mut cx).is_pending() {}
            assert_eq!(io.taken.len(), length);
            assert_eq!(outbound.joined.try_reclaim(1), is_kept);
        }
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order(sizes in proptest::collection::vec(0_usize..3000, 0..60), most in 1_usize..5000, chunks: bool) {
            let delimiter = if chunks { Delimiter::Chunks } else { Delimiter::Outside };
            let mut outbound = Outbound::default();
            let mut expected = b"head".to_vec();
            outbound.copy(b"head");
            for (number, size) in sizes.into_iter().enumerate() {
                let piece = vec![number as u8; size];
                if chunks && size > 0 {
                    expected.extend(format!("{size:x}\r\n").bytes());
                }
                expected.extend(&piece);
                if chunks && size > 0 {
                    expected.extend(b"\r\n");
                }
                outbound.push(piece.into(), delimiter);
            }
            outbound.end(delimiter);
            if chunks {
                expected.extend(b"0\r\n\r\n");
            }
            prop_assert_eq!(outbound.length, expected.len());
            let mut io = Reluctant { taken: Vec::new(), most, rests: false };
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while outbound.poll_write(&mut io, &mut cx).is_pending() {}
            prop_assert_eq!(io.taken, expected);
            prop_assert!(outbound.is_empty());
        }
    }
}
