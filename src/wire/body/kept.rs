//! Request bodies in memory. Such a body can be sent several times, and with one range of its bytes replaced.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

use crate::wire::body::{disposal::drop_in_steps, memory::pool::BodyPermit};

/// Collects the pieces of a body that is kept in memory.
///
/// A piece is a slice of the buffer that it was read into, and it keeps the whole buffer alive. The connections of a
/// thread share a buffer of 64 KiB. Small pieces are therefore copied together. Otherwise they would hold many times
/// the memory that is accounted for them.
///
/// From 4 MiB on, all pieces are copied into blocks that the allocator maps separately. They go
/// back to the system when they are freed. Otherwise the heap of the thread would keep them until it is trimmed, and that
/// locks the heap for tens of milliseconds after a peak.
#[derive(Default)]
pub struct KeptBodyBuilder {
    pieces: Vec<Bytes>,
    /// The block that small pieces are copied into.
    joined: BytesMut,
    /// The total size of all pieces in bytes.
    length: usize,
}

impl KeptBodyBuilder {
    /// The size in bytes from which a piece is kept as it is. A smaller piece is copied.
    const LARGE: usize = 8 << 10;
    /// The size of a new block in bytes. A block is as large as the body so far, within these bounds. So at most half
    /// of the memory stays unused.
    const BLOCK: RangeInclusive<usize> = 256..=64 << 10;

    /// The size in bytes of a body from which the blocks are mapped separately.
    const MAPPED_FROM: usize = 4 << 20;
    /// The size in bytes of a block that is mapped separately.
    pub const MAPPED_BLOCK: usize = 1 << 20;

    /// Adds the next piece.
    pub fn push(&mut self, piece: Bytes) {
        let length = piece.len();
        let large = match self.length < Self::MAPPED_FROM {
            true => Self::LARGE,
            false => Self::MAPPED_BLOCK,
        };
        if length < large {
            self.copy(piece);
        } else {
            self.close_block();
            self.pieces.push(piece);
        }
        self.length += length;
    }

    fn copy(&mut self, mut piece: Bytes) {
        while !piece.is_empty() {
            let mut free = self.joined.capacity() - self.joined.len();
            if free == 0 {
                self.close_block();
                free = match self.length < Self::MAPPED_FROM {
                    true => piece
                        .len()
                        .max(self.length)
                        .clamp(*Self::BLOCK.start(), *Self::BLOCK.end()),
                    false => Self::MAPPED_BLOCK,
                };
                self.joined = BytesMut::with_capacity(free);
            }
            self.joined.extend_from_slice(&piece.split_to(free.min(piece.len())));
        }
    }

    /// Completes the body. It holds `permit`, which accounts for its memory, until it is dropped.
    pub fn finish(mut self, permit: Option<BodyPermit>) -> KeptBody {
        self.close_block();
        KeptBody {
            pieces: std::mem::take(&mut self.pieces).into(),
            length: self.length as u64,
            permit,
        }
    }

    /// Makes a piece of the bytes in the block. The free rest of the block is used for further pieces.
    fn close_block(&mut self) {
        if !self.joined.is_empty() {
            self.pieces.push(self.joined.split().freeze());
        }
    }
}

impl Drop for KeptBodyBuilder {
    fn drop(&mut self) {
        drop_in_steps(std::mem::take(&mut self.pieces), self.length, None);
    }
}

/// A complete body in memory. Its permit is released when the last [`Replay`](crate::wire::Replay) of it is dropped.
pub struct KeptBody {
    pieces: Box<[Bytes]>,
    /// The total size in bytes.
    length: u64,
    /// Accounts for the memory of the body until it is dropped.
    permit: Option<BodyPermit>,
}

impl Drop for KeptBody {
    fn drop(&mut self) {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        drop_in_steps(std::mem::take(&mut self.pieces).into(), length, self.permit.take());
    }
}

impl KeptBody {
    /// The position of the byte at `offset`, or the end of the body when `offset` is its length.
    fn position(&self, offset: u64) -> Option<PiecePosition> {
        let mut within = offset;
        for (piece, bytes) in self.pieces.iter().enumerate() {
            match within.checked_sub(bytes.len() as u64) {
                Some(beyond) => within = beyond,
                None => {
                    let offset = usize::try_from(within).expect("the offset is less than the piece's length");
                    return Some(PiecePosition { piece, offset });
                }
            }
        }
        let end = PiecePosition {
            piece: self.pieces.len(),
            offset: 0,
        };
        (within == 0).then_some(end)
    }

    /// The parts of the piece at `position` before that position and from it on. Both are empty at the end of the body.
    fn split_piece(&self, PiecePosition { piece, offset }: PiecePosition) -> (Bytes, Bytes) {
        match self.pieces.get(piece) {
            None => (Bytes::new(), Bytes::new()),
            Some(bytes) => (bytes.slice(..offset), bytes.slice(offset..)),
        }
    }
}

/// A byte of a kept body: the index of its piece, and its offset in that piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PiecePosition {
    /// The index of the piece.
    piece: usize,
    /// The offset in the piece, in bytes.
    offset: usize,
}

/// A range of bytes that is replaced when the body is sent.
struct Splice {
    /// The first byte that is replaced.
    from: PiecePosition,
    /// The first byte after the replaced range.
    to: PiecePosition,
    /// The bytes that are sent instead.
    with: Bytes,
    /// The size of the replaced range in bytes.
    removed: u64,
}

/// The error for a range that cannot be replaced: the body does not have these bytes, or it is not kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceError;

/// Reads a kept body from its beginning to its end, with the bytes of its splice replaced.
pub(in crate::wire) struct KeptBodyReader {
    body: Arc<KeptBody>,
    /// The replaced range. It is shared rather than stored inline, because most bodies have none.
    splice: Option<Arc<Splice>>,
    /// The number of the next piece, counted after the splice has cut the pieces.
    next: usize,
    /// The number of bytes that have not been read yet.
    left: u64,
}

impl KeptBodyReader {
    /// A reader of the unchanged `body`, at its beginning.
    pub fn new(body: KeptBody) -> Self {
        Self {
            left: body.length,
            body: Arc::new(body),
            splice: None,
            next: 0,
        }
    }

    /// Another reader of the same body with the same splice, at its beginning.
    pub fn restarted(&self) -> Self {
        Self {
            body: self.body.clone(),
            splice: self.splice.clone(),
            next: 0,
            left: self.length(),
        }
    }

    /// Restarts the reader with the bytes `at` of the original body replaced by `with`.
    pub fn splice(&mut self, at: Range<u64>, with: Bytes) -> Result<(), SpliceError> {
        let removed = at.end.checked_sub(at.start).ok_or(SpliceError)?;
        let ends = self.body.position(at.start).zip(self.body.position(at.end));
        let (from, to) = ends.ok_or(SpliceError)?;
        self.splice = Some(Arc::new(Splice {
            from,
            to,
            with,
            removed,
        }));
        *self = self.restarted();
        Ok(())
    }

    /// Removes the splice and, if there was one, restarts the reader.
    pub fn restore(&mut self) {
        if self.splice.take().is_some() {
            *self = self.restarted();
        }
    }

    /// The total size in bytes of the body that is sent, with the splice applied.
    pub fn length(&self) -> u64 {
        match &self.splice {
            None => self.body.length,
            Some(splice) => self.body.length - splice.removed + splice.with.len() as u64,
        }
    }

    /// The number of bytes that have not been read yet.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// Whether a piece has been asked for since the reader was started.
    pub fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// The next piece that is not empty, or `None` at the end.
    pub fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = self.piece(self.next);
            self.next += 1;
            match piece {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    self.left -= piece.len() as u64;
                    return Some(piece);
                }
                None => return None,
            }
        }
    }

    /// The piece with this number. A splice turns the pieces that it touches into three: the bytes before it, its
    /// replacement, and the bytes after it.
    fn piece(&self, number: usize) -> Option<Bytes> {
        let pieces = &self.body.pieces;
        let Some(splice) = &self.splice else {
            return pieces.get(number).cloned();
        };
        match number.checked_sub(splice.from.piece) {
            None => pieces.get(number).cloned(),
            Some(0) => Some(self.body.split_piece(splice.from).0),
            Some(1) => Some(splice.with.clone()),
            Some(2) => Some(self.body.split_piece(splice.to).1),
            Some(beyond) => pieces.get(splice.to.piece + beyond - 2).cloned(),
        }
    }
}

#[cfg(test)]
mod tests;
