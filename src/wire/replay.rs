//! Request bodies on their way to an upstream: kept, so that they can be sent again, or passed on as they arrive.

use std::{
    convert::Infallible,
    ops::{Range, RangeInclusive},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{error::Elapsed, timeout},
};

use super::body::{BodyError, Framing, Intake};

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

/// A whole body in memory; its permit goes back when the last [`Replay`] of it is dropped.
pub struct Kept {
    pieces: Box<[Bytes]>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A place in a kept body, and what stands there instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The bytes that are replaced.
    pub at: Range<u64>,
    /// What replaces them.
    pub with: Bytes,
}

impl Splice {
    /// The pieces with the replacement among them: windows on the same memory.
    fn apply(&self, pieces: &[Bytes]) -> Arc<[Bytes]> {
        let before = window(pieces, 0..self.at.start);
        let after = window(pieces, self.at.end..u64::MAX);
        let spliced = before.chain(std::iter::once(self.with.clone())).chain(after);
        spliced.filter(|piece| !piece.is_empty()).collect()
    }

    fn framing(&self, before: Framing) -> Framing {
        match before {
            Framing::Length(length) => {
                let kept = length.saturating_sub(self.at.end.saturating_sub(self.at.start));
                Framing::Length(kept + self.with.len() as u64)
            }
            Framing::None | Framing::Chunked => before,
        }
    }
}

/// What of `pieces` lies in `range`.
fn window(pieces: &[Bytes], range: Range<u64>) -> impl Iterator<Item = Bytes> {
    let mut begin = 0_u64;
    pieces.iter().map(move |piece| {
        let length = piece.len() as u64;
        let within = |offset: u64| usize::try_from(offset.saturating_sub(begin).min(length)).unwrap_or(piece.len());
        let (from, to) = (within(range.start), within(range.end));
        begin += length;
        piece.slice(from.min(to)..to)
    })
}

/// A request body on its way to an upstream, which can be sent again where it was kept.
pub struct Replay {
    source: Source,
    framing: Framing,
    /// What a kept body is sent as, where that is not what came.
    spliced: Option<(Arc<[Bytes]>, Framing)>,
}

enum Source {
    Empty,
    Kept {
        body: Arc<Kept>,
        next: usize,
    },
    Passing {
        intake: Box<Intake>,
        /// Dropped with the body.
        _until_sent: Option<oneshot::Sender<Infallible>>,
    },
    /// What was here has been sent, and cannot be once more.
    PassedOn,
}

impl Replay {
    /// No body.
    pub fn empty(framing: Framing) -> Self {
        Self::of(Source::Empty, framing)
    }

    /// A body that is all here.
    pub fn kept(body: Kept, framing: Framing) -> Self {
        let body = Arc::new(body);
        Self::of(Source::Kept { body, next: 0 }, framing)
    }

    /// A body that is passed on as it arrives, and can be sent only once.
    pub fn passing(intake: Intake, framing: Framing) -> Self {
        let passing = Source::Passing {
            intake: Box::new(intake),
            _until_sent: None,
        };
        Self::of(passing, framing)
    }

    fn of(source: Source, framing: Framing) -> Self {
        Self {
            source,
            framing,
            spliced: None,
        }
    }

    /// Lets a kept body be sent with `splice` in it from now on; or as it came.
    pub fn set_splice(&mut self, splice: Option<Splice>) {
        self.spliced = match (&self.source, splice) {
            (Source::Kept { body, .. }, Some(splice)) => {
                Some((splice.apply(&body.pieces), splice.framing(self.framing)))
            }
            _ => None,
        };
    }

    /// How it is delimited.
    pub(super) fn framing(&self) -> Framing {
        self.spliced.as_ref().map_or(self.framing, |(_, framing)| *framing)
    }

    /// Whether its end is marked by a last chunk.
    fn is_chunked(&self) -> bool {
        self.framing == Framing::Chunked
    }

    /// Whether it can be sent more than once.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self.source, Source::Passing { .. } | Source::PassedOn)
    }

    /// Whether it can be sent (yet, or once more).
    pub fn is_here(&self) -> bool {
        !matches!(self.source, Source::PassedOn)
    }

    /// The body, to be sent now: a view on it where it is kept, or else the only one.
    pub(super) fn share(&mut self) -> Self {
        self.again().unwrap_or_else(|| {
            let passed_on = Self::of(Source::PassedOn, self.framing);
            std::mem::replace(self, passed_on)
        })
    }

    /// A view on the rest of its way, where it is passed on as it arrives.
    pub(super) fn upload(&mut self) -> Option<Upload> {
        let Source::Passing {
            intake,
            _until_sent: until_sent,
        } = &mut self.source
        else {
            return None;
        };
        let (unsent, sent) = oneshot::channel();
        *until_sent = Some(unsent);
        Some(Upload {
            received: intake.counter(),
            sent,
        })
    }

    /// The same body from its beginning, or `None` when it is not kept.
    fn again(&self) -> Option<Self> {
        let source = match &self.source {
            Source::Empty => Source::Empty,
            Source::Kept { body, .. } => Source::Kept {
                body: body.clone(),
                next: 0,
            },
            Source::Passing { .. } | Source::PassedOn => return None,
        };
        Some(Self {
            source,
            framing: self.framing,
            spliced: self.spliced.clone(),
        })
    }
}

/// A body that is being passed on.
pub(super) struct Upload {
    received: Arc<AtomicU64>,
    sent: oneshot::Receiver<Infallible>,
}

impl Upload {
    /// Waits until the body has been sent or given up.
    ///
    /// # Errors
    /// When nothing of it has been taken for longer than `pause`.
    pub(super) async fn finished(mut self, pause: Duration) -> Result<(), Elapsed> {
        loop {
            let received = self.received.load(Ordering::Relaxed);
            match timeout(pause, &mut self.sent).await {
                Ok(_) => return Ok(()),
                Err(elapsed) if self.received.load(Ordering::Relaxed) == received => return Err(elapsed),
                Err(_) => {}
            }
        }
    }
}

fn pieces<'a>(body: &'a Kept, spliced: Option<&'a (Arc<[Bytes]>, Framing)>) -> &'a [Bytes] {
    spliced.map_or(&body.pieces, |(pieces, _)| pieces)
}

impl Body for Replay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { source, spliced, .. } = &mut *self;
        match source {
            Source::Empty | Source::PassedOn => Poll::Ready(None),
            Source::Kept { body, next } => {
                let piece = pieces(body, spliced.as_ref()).get(*next).cloned();
                *next += 1;
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            Source::Passing { intake, .. } => intake
                .poll_next(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        // An empty chunked body has its last chunk still to come: hyper sends none for a body that is at its end at once.
        match &self.source {
            Source::PassedOn => true,
            Source::Empty => !self.is_chunked(),
            Source::Kept { body, next } => {
                *next >= pieces(body, self.spliced.as_ref()).len() && (*next > 0 || !self.is_chunked())
            }
            Source::Passing { intake, .. } => intake.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing() {
            Framing::None => SizeHint::with_exact(0),
            Framing::Length(length) => SizeHint::with_exact(length),
            Framing::Chunked => SizeHint::default(),
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

    proptest! {
        #[test]
        fn a_splice_replaces_its_range_and_nothing_else(
            cuts in proptest::collection::vec(0..40_usize, 1..12),
            range in (0..300_u64, 0..300_u64),
            with in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let mut keep = Keep::default();
            let mut whole = Vec::new();
            for (number, length) in cuts.into_iter().enumerate() {
                // Some are large enough to stay pieces of their own.
                let piece = vec![number as u8; if number % 3 == 0 { Keep::LARGE + length } else { length }];
                whole.extend_from_slice(&piece);
                keep.push(piece.into());
            }
            let length = whole.len() as u64;
            let (from, to) = (range.0.min(range.1).min(length), range.0.max(range.1).min(length));
            let mut body = Replay::kept(keep.finish(None), Framing::Length(length));
            body.set_splice(Some(Splice { at: from..to, with: with.clone().into() }));
            for mut sent in [body.share(), body.share()] {
                let mut expected = whole.clone();
                expected.splice(from as usize..to as usize, with.clone());
                prop_assert_eq!(sent.framing(), Framing::Length(expected.len() as u64));
                prop_assert_eq!(sent.size_hint().exact(), Some(expected.len() as u64));
                prop_assert_eq!(read_all(&mut sent), expected);
            }
            body.set_splice(None);
            let mut sent = body.share();
            prop_assert_eq!(sent.framing(), Framing::Length(length));
            prop_assert_eq!(read_all(&mut sent), whole);
        }
    }

    fn read_all(body: &mut Replay) -> Vec<u8> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut read = Vec::new();
        while !body.is_end_stream() {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                _ => break,
            }
        }
        read
    }

    #[test]
    fn a_kept_body_starts_over() {
        let mut keep = Keep::default();
        keep.push(Bytes::from_static(b"hello"));
        let mut body = Replay::kept(keep.finish(None), Framing::Length(5));
        let read = |body: &mut Replay| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            match Pin::new(body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
                _ => None,
            }
        };
        assert_eq!(read(&mut body).as_deref(), Some(&b"hello"[..]));
        assert!(body.is_end_stream());
        let mut again = body.again().expect("kept");
        assert_eq!(read(&mut again).as_deref(), Some(&b"hello"[..]));
        assert_eq!(again.size_hint().exact(), Some(5));
    }
}
