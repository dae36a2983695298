//! Bodies in memory, which can be sent more than once, and with one part of them replaced.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

/// Pieces of a body that is being kept.
///
/// A piece is a window on the buffer that it was read into, which lives as long as the piece does: the one that a thread's
/// connections share has 64 KiB. So small pieces are copied together, or they would hold many times the memory that they count for.
#[derive(Default)]
pub struct Keep {
    pieces: Vec<Bytes>,
    /// A block that small pieces are copied into.
    joined: BytesMut,
    length: usize,
}

impl Keep {
    /// Pieces from this size on are worth the buffer that they hold, and are not copied.
    const LARGE: usize = 8 << 10;
    /// A block is as large as what is kept already, within these bounds: at most half of it stays empty.
    const BLOCK: RangeInclusive<usize> = 256..=64 << 10;

    /// Keeps one more piece.
    pub fn push(&mut self, piece: Bytes) {
        let length = piece.len();
        if length < Self::LARGE {
            self.join(piece);
        } else {
            self.close_joined();
            self.pieces.push(piece);
        }
        self.length += length;
    }

    fn join(&mut self, mut piece: Bytes) {
        while !piece.is_empty() {
            let mut room = self.joined.capacity() - self.joined.len();
            if room == 0 {
                self.close_joined();
                room = piece
                    .len()
                    .max(self.length)
                    .clamp(*Self::BLOCK.start(), *Self::BLOCK.end());
                self.joined = BytesMut::with_capacity(room);
            }
            self.joined.extend_from_slice(&piece.split_to(room.min(piece.len())));
        }
    }

    /// The whole, with the permission to hold it in memory.
    pub fn finish(mut self, permit: Option<OwnedSemaphorePermit>) -> Kept {
        self.close_joined();
        Kept {
            pieces: self.pieces.into(),
            length: self.length as u64,
            _permit: permit,
        }
    }

    /// What is left of the block goes on to be filled.
    fn close_joined(&mut self) {
        if !self.joined.is_empty() {
            self.pieces.push(self.joined.split().freeze());
        }
    }
}

/// A whole body in memory; its permit goes back when the last [`Replay`](super::Replay) of it is dropped.
pub struct Kept {
    pieces: Box<[Bytes]>,
    /// In bytes.
    length: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Where the byte at `offset` is, or would follow.
    fn place(&self, offset: u64) -> Option<Place> {
        let mut within = offset;
        for (piece, bytes) in self.pieces.iter().enumerate() {
            match within.checked_sub(bytes.len() as u64) {
                Some(beyond) => within = beyond,
                None => {
                    let offset = usize::try_from(within).ok()?;
                    return Some(Place { piece, offset });
                }
            }
        }
        let end = Place {
            piece: self.pieces.len(),
            offset: 0,
        };
        (within == 0).then_some(end)
    }

    /// What `piece` has before and from `offset` on.
    fn cut(&self, Place { piece, offset }: Place) -> (Bytes, Bytes) {
        let mut before = self.pieces.get(piece).cloned().unwrap_or_default();
        let after = before.split_off(offset.min(before.len()));
        (before, after)
    }
}

/// A byte of a kept body: the number of its piece, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    piece: usize,
    offset: usize,
}

/// Bytes that stand in the place of others.
struct Splice {
    /// The first byte that is replaced.
    from: Place,
    /// The first byte behind them.
    to: Place,
    with: Bytes,
    removed: u64,
}

impl Splice {
    fn length(&self, of_body: u64) -> u64 {
        of_body
            .saturating_sub(self.removed)
            .saturating_add(self.with.len() as u64)
    }
}

/// The body has no such bytes, or is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotThere;

/// A kept body on its way to an upstream.
pub(in crate::wire) struct Reading {
    body: Arc<Kept>,
    /// Shared, as most bodies have none.
    splice: Option<Arc<Splice>>,
    /// The number of the next piece, as the splice cuts them.
    next: usize,
    /// How much has yet to be taken, in bytes.
    left: u64,
}

impl Reading {
    pub fn new(body: Kept) -> Self {
        Self {
            left: body.length,
            body: Arc::new(body),
            splice: None,
            next: 0,
        }
    }

    /// The same from its beginning.
    pub fn again(&self) -> Self {
        Self {
            body: self.body.clone(),
            splice: self.splice.clone(),
            next: 0,
            left: self.length_of(self.body.length),
        }
    }

    /// Begins anew, with `with` in the place of the bytes `at` of the body as it came.
    pub fn splice(&mut self, at: Range<u64>, with: Bytes) -> Result<(), NotThere> {
        let removed = at.end.checked_sub(at.start).ok_or(NotThere)?;
        let (from, to) = self.body.place(at.start).zip(self.body.place(at.end)).ok_or(NotThere)?;
        self.splice = Some(Arc::new(Splice {
            from,
            to,
            with,
            removed,
        }));
        *self = self.again();
        Ok(())
    }

    /// Begins anew, as the body came.
    pub fn restore(&mut self) {
        if self.splice.take().is_some() {
            *self = self.again();
        }
    }

    /// The length of a body that came with `length` bytes.
    pub fn length_of(&self, length: u64) -> u64 {
        self.splice.as_ref().map_or(length, |splice| splice.length(length))
    }

    /// How much has yet to be taken, in bytes.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether it has been asked for a piece.
    pub fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// The next piece.
    pub fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = self.piece(self.next);
            self.next += 1;
            match piece {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    self.left = self.left.saturating_sub(piece.len() as u64);
                    return Some(piece);
                }
                None => return None,
            }
        }
    }

    /// A splice makes three pieces of those that it cuts: what stands before it, itself, and what stands behind it.
    fn piece(&self, number: usize) -> Option<Bytes> {
        let pieces = &self.body.pieces;
        let Some(splice) = &self.splice else {
            return pieces.get(number).cloned();
        };
        match number.checked_sub(splice.from.piece) {
            None => pieces.get(number).cloned(),
            Some(0) => Some(self.body.cut(splice.from).0),
            Some(1) => Some(splice.with.clone()),
            Some(2) => Some(self.body.cut(splice.to).1),
            Some(beyond) => pieces.get(splice.to.piece + beyond - 2).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_pieces_are_joined_in_order() {
        let mut keep = Keep::default();
        let large = Bytes::from(vec![b'x'; Keep::LARGE]);
        for piece in [
            Bytes::from_static(b"a"),
            Bytes::from_static(b"b"),
            large.clone(),
            Bytes::from_static(b"c"),
        ] {
            keep.push(piece);
        }
        let kept = keep.finish(None);
        assert_eq!(kept.pieces.len(), 3);
        assert_eq!(&kept.pieces[0][..], b"ab");
        // Large pieces are the very bytes that came, not a copy.
        assert_eq!(kept.pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(&kept.pieces[2][..], b"c");
    }

    #[test]
    fn small_pieces_hold_no_more_memory_than_they_count_for() {
        let mut keep = Keep::default();
        let mut whole = Vec::new();
        for number in 0..3000_u32 {
            // A window on a buffer that is read into once.
            let mut buffer = BytesMut::with_capacity(8 << 10);
            buffer.extend_from_slice(&number.to_le_bytes().repeat(1 + number as usize % 1000));
            let mut buffer = buffer.freeze();
            let piece = buffer.split_to(buffer.len() / 2);
            whole.extend_from_slice(&piece);
            keep.push(piece);
            assert!(buffer.is_unique(), "piece {number} holds its buffer");
            let room = keep.joined.capacity();
            assert!(room <= whole.len().max(256), "{room} for {}", whole.len());
        }
        let kept = keep.finish(None);
        assert_eq!(kept.pieces.concat(), whole);
        assert!(kept.pieces.len() < 20 + whole.len() / (32 << 10));
    }

    fn kept(pieces: &[Vec<u8>]) -> Kept {
        let pieces: Box<[Bytes]> = pieces.iter().cloned().map(Bytes::from).collect();
        Kept {
            length: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces,
            _permit: None,
        }
    }

    /// What is left of `reading`, and that it says how much that is at any time.
    fn drain(reading: &mut Reading) -> Vec<u8> {
        let mut taken = Vec::new();
        let whole = reading.left();
        while let Some(piece) = reading.next() {
            assert!(!piece.is_empty());
            taken.extend_from_slice(&piece);
            assert_eq!(reading.left(), whole - taken.len() as u64);
        }
        assert_eq!(reading.left(), 0);
        assert!(reading.next().is_none());
        taken
    }

    #[test]
    fn nothing_is_copied_by_a_splice() {
        let body = kept(&[b"{\"model\":\"gp".to_vec(), b"t-5\",\"input\":1}".to_vec()]);
        let address = body.pieces[1].as_ptr();
        let mut reading = Reading::new(body);
        reading.splice(9..16, Bytes::from_static(b"\"my\"")).expect("there");
        assert_eq!(reading.next().as_deref(), Some(&b"{\"model\":"[..]));
        assert_eq!(reading.next().as_deref(), Some(&b"\"my\""[..]));
        let last = reading.next().expect("the rest");
        assert_eq!(last, &b",\"input\":1}"[..]);
        assert_eq!(last.as_ptr(), address.wrapping_add(4));
        assert!(reading.next().is_none());
    }

    #[test]
    fn no_splice_is_made_of_bytes_that_are_not_there() {
        let mut reading = Reading::new(kept(&[b"abc".to_vec(), b"de".to_vec()]));
        for (start, end) in [(0, 6), (6, 6), (6, 7), (3, 2), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let spliced = reading.splice(start..end, Bytes::from_static(b"x"));
            assert_eq!(spliced, Err(NotThere), "{start}..{end}");
        }
        assert_eq!(drain(&mut reading), b"abcde");
        assert_eq!(Reading::new(kept(&[])).splice(0..0, Bytes::new()), Ok(()));
    }

    proptest! {
        #[test]
        fn a_splice_is_that_of_a_vector(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..6),
            splices in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..6)), 1..4),
            taken in 0_usize..8,
        ) {
            let whole = pieces.concat();
            let mut reading = Reading::new(kept(&pieces));
            for (one, other, with) in splices {
                let (one, other) = (one.index(whole.len() + 1), other.index(whole.len() + 1));
                let at = one.min(other)..one.max(other);
                let mut expected = whole.clone();
                expected.splice(at.clone(), with.iter().copied());
                // However much of it has been taken before.
                for _ in 0..taken {
                    let _ = reading.next();
                }
                prop_assert_eq!(reading.splice(at.start as u64..at.end as u64, with.into()), Ok(()));
                prop_assert_eq!(reading.length_of(whole.len() as u64), expected.len() as u64);
                prop_assert_eq!(drain(&mut reading.again()), &expected[..]);
                prop_assert_eq!(drain(&mut reading), &expected[..]);
            }
            reading.restore();
            prop_assert_eq!(drain(&mut reading), &whole[..]);
            reading.restore();
            prop_assert_eq!(drain(&mut reading.again()), whole);
        }
    }
}
