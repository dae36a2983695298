//! The bytes that wait to be written to a connection. They are written together.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::wire::cooperation::charge_moved;

/// The size in bytes below which a piece is copied. A copy costs less than an entry of its own in a vectored write.
const SMALL: usize = 1 << 10;
/// The maximum number of pieces in one vectored write.
const MAX_SLICES: usize = 32;
/// The number of waiting bytes from which no more bytes are added before a write.
const FULL: usize = 256 << 10;
/// The maximum capacity in bytes that an empty buffer keeps. A larger capacity, which a slow reader has caused, is
/// freed.
const MAX_KEPT_CAPACITY: usize = 16 << 10;

/// The bytes that wait to be written. Large pieces are kept as slices, and small ones are copied together.
#[derive(Default)]
pub(in crate::wire) struct WriteBuffer {
    /// The pieces that are written first.
    pieces: VecDeque<Bytes>,
    /// The bytes that are written after `pieces`.
    joined: BytesMut,
    /// The number of bytes in `pieces` and `joined`.
    length: usize,
    /// Whether the transport may still hold written bytes, as TLS does.
    is_unflushed: bool,
}

/// How a body is delimited when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum WriteDelimiter {
    /// By `Content-Length` or by the end of the connection: the body is written as it is.
    LengthOrClose,
    /// By chunked coding.
    Chunked,
}

impl WriteBuffer {
    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether there are enough bytes for a write, so that more bytes would only cost memory.
    pub fn is_full(&self) -> bool {
        self.length >= FULL || self.pieces.len() >= MAX_SLICES
    }

    /// Adds a copy of `bytes`.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Adds the bytes that `write` appends.
    pub fn append(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.joined.len();
        write(&mut self.joined);
        self.length += self.joined.len() - before;
    }

    /// Adds a piece of a body, as a chunk of its own if the body is chunked.
    pub fn push(&mut self, piece: Bytes, delimiter: WriteDelimiter) {
        if piece.is_empty() {
            // An empty chunk would end the body.
            return;
        }
        if delimiter == WriteDelimiter::Chunked {
            let mut line = [0_u8; 18];
            let mut rest = &mut line[..];
            write!(rest, "{:x}\r\n", piece.len()).expect("16 digits and a line ending fit in 18 bytes");
            let unused = rest.len();
            let used = line.len() - unused;
            self.copy(&line[..used]);
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
        if delimiter == WriteDelimiter::Chunked {
            self.copy(b"\r\n");
        }
    }

    /// Adds the bytes that mark the end of a body.
    pub fn end_body(&mut self, delimiter: WriteDelimiter) {
        if delimiter == WriteDelimiter::Chunked {
            self.copy(b"0\r\n\r\n");
        }
    }

    /// Writes and flushes until no bytes are left.
    pub fn poll_write<T: AsyncWrite + Unpin>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write_once(Pin::new(io), cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            charge_moved(cx, written);
            self.is_unflushed = true;
            self.consume(written);
            if self.is_empty() && self.joined.try_reclaim(MAX_KEPT_CAPACITY) {
                self.joined = BytesMut::new();
            }
        }
        if self.is_unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_once<T: AsyncWrite>(&mut self, io: Pin<&mut T>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return io.poll_write(cx, &self.joined);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        let joined = std::iter::once(&self.joined[..]).filter(|joined| !joined.is_empty());
        for (slice, bytes) in slices
            .iter_mut()
            .zip(self.pieces.iter().map(|piece| &piece[..]).chain(joined))
        {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
    }

    /// Removes the first `written` bytes.
    fn consume(&mut self, mut written: usize) {
        self.length = self
            .length
            .checked_sub(written)
            .expect("a write takes at most the bytes that it was given");
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        self.joined.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A transport that accepts at most `most` bytes at a time, and is pending on every other call.
    struct SlowWriter {
        taken: Vec<u8>,
        most: usize,
        is_pending: bool,
    }

    impl AsyncWrite for SlowWriter {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.is_pending = !self.is_pending;
            if self.is_pending {
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
    fn a_large_capacity_is_freed_and_a_small_one_is_kept() {
        for (pieces, is_kept) in [(10, true), (200, false)] {
            let mut buffer = WriteBuffer::default();
            for _ in 0..pieces {
                buffer.push(Bytes::from_static(&[b'x'; SMALL - 1]), WriteDelimiter::LengthOrClose);
            }
            let length = buffer.length;
            let mut io = SlowWriter {
                taken: Vec::new(),
                most: 5_000,
                is_pending: false,
            };
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while buffer.poll_write(&mut io, &mut cx).is_pending() {}
            assert_eq!(io.taken.len(), length);
            assert_eq!(buffer.joined.try_reclaim(1), is_kept);
        }
    }

    proptest! {
        #[test]
        fn bytes_are_written_in_order(
            sizes in proptest::collection::vec(0_usize..3000, 0..60),
            most in 1_usize..5000,
            delimiter in prop_oneof![Just(WriteDelimiter::LengthOrClose), Just(WriteDelimiter::Chunked)],
        ) {
            let is_chunked = delimiter == WriteDelimiter::Chunked;
            let mut buffer = WriteBuffer::default();
            let mut expected = b"head".to_vec();
            buffer.copy(b"head");
            for (number, size) in sizes.into_iter().enumerate() {
                let piece = vec![number as u8; size];
                if is_chunked && size > 0 {
                    expected.extend(format!("{size:x}\r\n").bytes());
                }
                expected.extend(&piece);
                if is_chunked && size > 0 {
                    expected.extend(b"\r\n");
                }
                buffer.push(piece.into(), delimiter);
            }
            buffer.end_body(delimiter);
            if is_chunked {
                expected.extend(b"0\r\n\r\n");
            }
            prop_assert_eq!(buffer.length, expected.len());
            let mut io = SlowWriter { taken: Vec::new(), most, is_pending: false };
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while buffer.poll_write(&mut io, &mut cx).is_pending() {}
            prop_assert_eq!(io.taken, expected);
            prop_assert!(buffer.is_empty());
        }
    }
}
