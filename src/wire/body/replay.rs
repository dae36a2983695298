//! Request bodies on their way to an upstream: kept, so that they can be sent again, or passed on as they arrive.

use std::{
    convert::Infallible,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{error::Elapsed, timeout},
};

use crate::wire::{
    body::kept::{Kept, NotThere, Reading},
    body::relay::{BodyError, Framing, Intake},
};

/// A request body on its way to an upstream, which can be sent again where it was kept.
pub struct Replay {
    source: Source,
    framing: Framing,
}

enum Source {
    Empty,
    Kept(Reading),
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
        Self {
            source: Source::Empty,
            framing,
        }
    }

    /// A body that is all here.
    pub fn kept(body: Kept, framing: Framing) -> Self {
        Self {
            source: Source::Kept(Reading::new(body)),
            framing,
        }
    }

    /// A body that is passed on as it arrives, and can be sent only once.
    pub fn passing(intake: Intake, framing: Framing) -> Self {
        Self {
            source: Source::Passing {
                intake: Box::new(intake),
                _until_sent: None,
            },
            framing,
        }
    }

    /// Sends `with` in the place of the bytes `at` of the body as it came, which nothing else replaces then: from the next
    /// time on that it is sent, until it is [restored](Self::restore). A body that is delimited by its length has the new
    /// one; nothing is copied.
    ///
    /// # Errors
    /// Where the body is not kept, or has no such bytes: it is sent as it was to be before.
    pub fn splice(&mut self, at: Range<u64>, with: Bytes) -> Result<(), NotThere> {
        match &mut self.source {
            Source::Kept(reading) => reading.splice(at, with),
            Source::Empty | Source::Passing { .. } | Source::PassedOn => Err(NotThere),
        }
    }

    /// Sends the body as it came, from the next time on.
    pub fn restore(&mut self) {
        if let Source::Kept(reading) = &mut self.source {
            reading.restore();
        }
    }

    /// How it is delimited.
    pub(in crate::wire) fn framing(&self) -> Framing {
        match (&self.source, self.framing) {
            (Source::Kept(reading), Framing::Length(length)) => Framing::Length(reading.length_of(length)),
            (_, framing) => framing,
        }
    }

    /// Whether its end is marked by a last chunk.
    fn is_chunked(&self) -> bool {
        self.framing == Framing::Chunked
    }

    /// Whether it can be sent more than once.
    pub(in crate::wire) fn is_repeatable(&self) -> bool {
        !matches!(self.source, Source::Passing { .. } | Source::PassedOn)
    }

    /// Whether it can be sent (yet, or once more).
    pub fn is_here(&self) -> bool {
        !matches!(self.source, Source::PassedOn)
    }

    /// The body, to be sent now: a view on it where it is kept, or else the only one.
    pub(in crate::wire) fn share(&mut self) -> Self {
        self.again().unwrap_or_else(|| {
            let passed_on = Self {
                source: Source::PassedOn,
                framing: self.framing,
            };
            std::mem::replace(self, passed_on)
        })
    }

    /// A view on the rest of its way, where it is passed on as it arrives.
    pub(in crate::wire) fn upload(&mut self) -> Option<Upload> {
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
            Source::Kept(reading) => Source::Kept(reading.again()),
            Source::Passing { .. } | Source::PassedOn => return None,
        };
        Some(Self {
            source,
            framing: self.framing,
        })
    }
}

/// A body that is being passed on.
pub(in crate::wire) struct Upload {
    received: Arc<AtomicU64>,
    sent: oneshot::Receiver<Infallible>,
}

impl Upload {
    /// Waits until the body has been sent or given up.
    ///
    /// # Errors
    /// When nothing of it has been taken for longer than `pause`.
    pub(in crate::wire) async fn finished(mut self, pause: Duration) -> Result<(), Elapsed> {
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

impl Body for Replay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Empty | Source::PassedOn => Poll::Ready(None),
            Source::Kept(reading) => Poll::Ready(reading.next().map(|piece| Ok(Frame::data(piece)))),
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
            Source::Kept(reading) => reading.left() == 0 && (reading.has_begun() || !self.is_chunked()),
            Source::Passing { intake, .. } => intake.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, self.framing) {
            (_, Framing::None) => SizeHint::with_exact(0),
            (Source::Kept(reading), Framing::Length(_)) => SizeHint::with_exact(reading.left()),
            (_, Framing::Length(length)) => SizeHint::with_exact(length),
            (_, Framing::Chunked) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::kept::Keep;

    fn kept(text: &'static [u8], framing: Framing) -> Replay {
        let mut keep = Keep::default();
        keep.push(Bytes::from_static(text));
        Replay::kept(keep.finish(None), framing)
    }

    fn read(body: &mut Replay) -> Option<Bytes> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    fn read_all(body: &mut Replay) -> Vec<u8> {
        let mut all = Vec::new();
        while !body.is_end_stream() {
            all.extend(read(body).unwrap_or_default());
        }
        assert_eq!(read(body), None);
        all
    }

    #[test]
    fn a_kept_body_starts_over() {
        let mut body = kept(b"hello", Framing::Length(5));
        assert_eq!(read(&mut body).as_deref(), Some(&b"hello"[..]));
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        let mut again = body.again().expect("kept");
        assert_eq!(again.size_hint().exact(), Some(5));
        assert_eq!(read(&mut again).as_deref(), Some(&b"hello"[..]));
    }

    #[test]
    fn each_sending_has_its_own_splice() {
        let sent = |body: &mut Replay| {
            let mut shared = body.share();
            let (framing, hint) = (shared.framing(), shared.size_hint().exact());
            (read_all(&mut shared), framing, hint)
        };
        let mut body = kept(b"hello", Framing::Length(5));
        let as_it_came = (b"hello".to_vec(), Framing::Length(5), Some(5));
        assert_eq!(sent(&mut body), as_it_came);
        body.splice(1..4, Bytes::from_static(b"ipp")).expect("there");
        let spliced = (b"hippo".to_vec(), Framing::Length(5), Some(5));
        assert_eq!(sent(&mut body), spliced);
        assert_eq!(sent(&mut body), spliced, "once more to the same");
        body.splice(4..5, Bytes::from_static(b" no")).expect("there");
        assert_eq!(sent(&mut body), (b"hell no".to_vec(), Framing::Length(7), Some(7)));
        assert_eq!(body.splice(0..6, Bytes::new()), Err(NotThere));
        body.splice(0..5, Bytes::new()).expect("there");
        assert_eq!(sent(&mut body), (Vec::new(), Framing::Length(0), Some(0)));
        body.restore();
        assert_eq!(sent(&mut body), as_it_came);
    }

    #[test]
    fn a_chunked_body_stays_chunked() {
        for with in ["", "ippo, h"] {
            let mut body = kept(b"hello", Framing::Chunked);
            body.splice(0..5, Bytes::from_static(with.as_bytes())).expect("there");
            let mut shared = body.share();
            assert_eq!((shared.framing(), shared.size_hint().exact()), (Framing::Chunked, None));
            assert!(!shared.is_end_stream(), "its last chunk is still to come");
            assert_eq!(read_all(&mut shared), with.as_bytes());
        }
    }

    #[test]
    fn what_is_not_kept_cannot_be_spliced() {
        assert_eq!(Replay::empty(Framing::None).splice(0..0, Bytes::new()), Err(NotThere));
        let mut passed_on = Replay {
            source: Source::PassedOn,
            framing: Framing::Length(5),
        };
        assert_eq!(passed_on.splice(0..1, Bytes::new()), Err(NotThere));
        assert_eq!(passed_on.framing(), Framing::Length(5));
    }
}
