//! A request body on its way to an upstream: kept in memory, so that it can be sent again, or passed on as it arrives.

use std::{
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

use crate::wire::body::{
    framing::{BodyError, Framing},
    intake::Intake,
    kept::{KeptBody, KeptBodyReader, SpliceError},
};

/// A request body on its way to an upstream. A body that is kept in memory can be sent again.
pub struct Replay {
    source: ReplaySource,
    framing: Framing,
}

enum ReplaySource {
    /// The request has no body.
    Empty,
    /// The body is in memory.
    Kept(KeptBodyReader),
    /// The body is passed on as it arrives.
    Passing {
        intake: Box<Intake>,
        /// Tells the [`UploadProgress`] that the upload is over: by the error that ended it, or by being dropped together
        /// with the body.
        until_sent: Option<oneshot::Sender<BodyError>>,
    },
    /// The body has been passed on, and cannot be sent again.
    PassedOn,
}

impl Replay {
    /// A request without a body.
    pub fn empty(framing: Framing) -> Self {
        Self {
            source: ReplaySource::Empty,
            framing,
        }
    }

    /// A body that is complete in memory.
    pub fn kept(body: KeptBody, framing: Framing) -> Self {
        Self {
            source: ReplaySource::Kept(KeptBodyReader::new(body)),
            framing,
        }
    }

    /// A body that is passed on as it arrives, and can be sent only once.
    pub fn passing(intake: Intake, framing: Framing) -> Self {
        Self {
            source: ReplaySource::Passing {
                intake: Box::new(intake),
                until_sent: None,
            },
            framing,
        }
    }

    /// Replaces the bytes `at` of the original body by `with` in every later sending, until the body is
    /// [restored](Self::restore). An earlier replacement is undone. A body that is delimited by its length gets the new
    /// length. Nothing is copied.
    ///
    /// # Errors
    /// If the body is not kept in memory, or does not have these bytes. In that case the body stays unchanged.
    pub fn splice(&mut self, at: Range<u64>, with: Bytes) -> Result<(), SpliceError> {
        match &mut self.source {
            ReplaySource::Kept(reader) => reader.splice(at, with),
            ReplaySource::Empty | ReplaySource::Passing { .. } | ReplaySource::PassedOn => Err(SpliceError),
        }
    }

    /// Undoes [`splice`](Self::splice): from now on the original body is sent.
    pub fn restore(&mut self) {
        if let ReplaySource::Kept(reader) = &mut self.source {
            reader.restore();
        }
    }

    /// How the body is delimited when it is sent.
    pub(in crate::wire) fn framing(&self) -> Framing {
        match (&self.source, self.framing) {
            (ReplaySource::Kept(reader), Framing::Length(_)) => Framing::Length(reader.length()),
            (_, framing) => framing,
        }
    }

    fn is_chunked(&self) -> bool {
        self.framing == Framing::Chunked
    }

    /// Whether the body can be sent more than once.
    pub(in crate::wire) fn is_repeatable(&self) -> bool {
        !matches!(self.source, ReplaySource::Passing { .. } | ReplaySource::PassedOn)
    }

    /// Whether the body can still be sent, for the first time or again.
    pub fn is_sendable(&self) -> bool {
        !matches!(self.source, ReplaySource::PassedOn)
    }

    /// Takes the body to be sent now. A body in memory is shared and stays available. Any other body is moved out.
    pub(in crate::wire) fn share(&mut self) -> Self {
        self.restarted().unwrap_or_else(|| {
            let passed_on = Self {
                source: ReplaySource::PassedOn,
                framing: self.framing,
            };
            std::mem::replace(self, passed_on)
        })
    }

    /// Observes the upload of a body that is passed on as it arrives; `None` for any other body.
    pub(in crate::wire) fn track_upload(&mut self) -> Option<UploadProgress> {
        let ReplaySource::Passing { intake, until_sent } = &mut self.source else {
            return None;
        };
        let (unsent, sent) = oneshot::channel();
        *until_sent = Some(unsent);
        Some(UploadProgress {
            received: intake.counter(),
            sent,
        })
    }

    /// The same body from its beginning, or `None` when it is not kept in memory.
    fn restarted(&self) -> Option<Self> {
        let source = match &self.source {
            ReplaySource::Empty => ReplaySource::Empty,
            ReplaySource::Kept(reader) => ReplaySource::Kept(reader.restarted()),
            ReplaySource::Passing { .. } | ReplaySource::PassedOn => return None,
        };
        Some(Self {
            source,
            framing: self.framing,
        })
    }
}

/// The progress of a body that is passed on as it arrives, seen from outside the body.
pub(in crate::wire) struct UploadProgress {
    /// The number of bytes of the body that have been received so far.
    received: Arc<AtomicU64>,
    /// Completes when the body has been sent or dropped, or with the error that ended it.
    sent: oneshot::Receiver<BodyError>,
}

impl UploadProgress {
    /// Waits until the body has been sent or dropped. Returns the error that ended it, if there was one: hyper does not pass
    /// it on.
    ///
    /// # Errors
    /// If no byte of the body has been taken for longer than `pause`.
    pub async fn wait_until_sent(mut self, pause: Duration) -> Result<Option<BodyError>, Elapsed> {
        loop {
            let received = self.received.load(Ordering::Relaxed);
            match timeout(pause, &mut self.sent).await {
                Ok(ended) => return Ok(ended.ok()),
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
            ReplaySource::Empty | ReplaySource::PassedOn => Poll::Ready(None),
            ReplaySource::Kept(reader) => Poll::Ready(reader.next().map(|piece| Ok(Frame::data(piece)))),
            ReplaySource::Passing { intake, until_sent } => {
                let piece = std::task::ready!(intake.poll_next(cx));
                if let Some(Err(error)) = &piece
                    && let Some(until_sent) = until_sent.take()
                {
                    // The request may have been given up meanwhile.
                    let _ = until_sent.send(error.clone());
                }
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // An empty chunked body is not yet at its end: hyper would send no last chunk for a body that begins at its end.
        match &self.source {
            ReplaySource::PassedOn => true,
            ReplaySource::Empty => !self.is_chunked(),
            ReplaySource::Kept(reader) => reader.remaining() == 0 && (reader.has_begun() || !self.is_chunked()),
            ReplaySource::Passing { intake, .. } => intake.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, self.framing) {
            (_, Framing::None) => SizeHint::with_exact(0),
            (ReplaySource::Kept(reader), Framing::Length(_)) => SizeHint::with_exact(reader.remaining()),
            (_, Framing::Length(length)) => SizeHint::with_exact(length),
            (_, Framing::Chunked) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::kept::KeptBodyBuilder;

    fn kept(text: &'static [u8], framing: Framing) -> Replay {
        let mut builder = KeptBodyBuilder::default();
        builder.push(Bytes::from_static(text));
        Replay::kept(builder.finish(None), framing)
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
    fn a_kept_body_can_be_sent_again() {
        let mut body = kept(b"hello", Framing::Length(5));
        assert_eq!(read(&mut body).as_deref(), Some(&b"hello"[..]));
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        let mut again = body.restarted().expect("kept");
        assert_eq!(again.size_hint().exact(), Some(5));
        assert_eq!(read(&mut again).as_deref(), Some(&b"hello"[..]));
    }

    #[test]
    fn a_splice_holds_until_it_is_replaced_or_restored() {
        let sent = |body: &mut Replay| {
            let mut shared = body.share();
            let (framing, hint) = (shared.framing(), shared.size_hint().exact());
            (read_all(&mut shared), framing, hint)
        };
        let mut body = kept(b"hello", Framing::Length(5));
        let as_it_came = (b"hello".to_vec(), Framing::Length(5), Some(5));
        assert_eq!(sent(&mut body), as_it_came);
        body.splice(1..4, Bytes::from_static(b"ipp")).expect("the range exists");
        let spliced = (b"hippo".to_vec(), Framing::Length(5), Some(5));
        assert_eq!(sent(&mut body), spliced);
        assert_eq!(sent(&mut body), spliced, "sent again");
        body.splice(4..5, Bytes::from_static(b" no")).expect("the range exists");
        assert_eq!(sent(&mut body), (b"hell no".to_vec(), Framing::Length(7), Some(7)));
        assert_eq!(body.splice(0..6, Bytes::new()), Err(SpliceError));
        body.splice(0..5, Bytes::new()).expect("the range exists");
        assert_eq!(sent(&mut body), (Vec::new(), Framing::Length(0), Some(0)));
        body.restore();
        assert_eq!(sent(&mut body), as_it_came);
    }

    #[test]
    fn a_spliced_chunked_body_stays_chunked() {
        for with in ["", "ippo, h"] {
            let mut body = kept(b"hello", Framing::Chunked);
            body.splice(0..5, Bytes::from_static(with.as_bytes()))
                .expect("the range exists");
            let mut shared = body.share();
            assert_eq!((shared.framing(), shared.size_hint().exact()), (Framing::Chunked, None));
            assert!(!shared.is_end_stream(), "the last chunk is still to be sent");
            assert_eq!(read_all(&mut shared), with.as_bytes());
        }
    }

    #[test]
    fn only_a_kept_body_can_be_spliced() {
        assert_eq!(
            Replay::empty(Framing::None).splice(0..0, Bytes::new()),
            Err(SpliceError)
        );
        let mut passed_on = Replay {
            source: ReplaySource::PassedOn,
            framing: Framing::Length(5),
        };
        assert_eq!(passed_on.splice(0..1, Bytes::new()), Err(SpliceError));
        assert_eq!(passed_on.framing(), Framing::Length(5));
    }
}
