//! Response bodies on their way to a caller. A request ends when its response body ends or is dropped.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    policy::Verdict,
    proxy::{
        exchange::{
            late_failure::LateFailureWatch,
            own_body::{OwnBody, OwnBodyKind},
            peek::BodyDelimiter,
        },
        request_end::{RequestEnd, ResponseSummary},
        request_log::Outcome,
        turn::{confirm::OwnerRecorder, limits::FinalUsage},
    },
    scan::{MaskedBody, ResponseReader},
    state::{ClassSession, Lease},
    wire::{BodyError, Relay, ScanWork, poll_budget},
};

#[cfg(test)]
mod tests;

/// The body of a response to a caller.
pub struct ResponseBody(BodyKind);

/// The size in bytes of a piece from which the time of reading it is measured.
const TIMED: usize = 8 << 10;

/// Both kinds are boxed: the response moves through several futures, each of which would be as large as its body.
enum BodyKind {
    Own(Box<OwnBody>),
    Relayed(Box<RelayedBody<Relay>>),
}

/// The body of an upstream's response, read as it passes.
pub(super) struct RelayedBody<B> {
    pub relay: B,
    /// Reads the body as it passes; `None` if the body contains nothing that Steadfast needs.
    pub reader: Option<ResponseReader>,
    /// The number of pieces that the reader has read already and that have not been passed on yet.
    pub pieces_read: usize,
    /// Masks the upstream's credentials; `None` if there is nothing to mask.
    pub mask: Option<MaskedBody>,
    /// How the relay has ended, while the bytes that `mask` has held back are passed on.
    pub ending: Option<Box<BodyEnding>>,
    /// Records the owner of the objects in the response; `None` if it names none.
    pub owner: Option<OwnerRecorder>,
    /// The delimiter of the body. If that is only the end of the connection, the reader finds out whether the body is
    /// complete.
    pub delimiter: BodyDelimiter,
    /// Finds a failure after the first output.
    pub late_failure: LateFailureWatch,
    /// The slot at the upstream, given back with the body.
    pub lease: Option<Lease>,
    /// The session of the request. It avoids the upstream if the body breaks.
    pub session: Option<ClassSession>,
    /// The number of bytes that have been passed on.
    pub bytes_out: u64,
    /// The end of the request. It is taken when the request ends.
    pub end: Option<RequestEnd>,
}

/// How a relay has ended.
pub(super) enum BodyEnding {
    End,
    Failed(BodyError),
}

impl ResponseBody {
    /// A body that Steadfast has made.
    pub(in crate::proxy) fn own(text: Bytes, kind: OwnBodyKind, end: RequestEnd) -> Self {
        Self(BodyKind::Own(Box::new(OwnBody::new(text, kind, end))))
    }

    /// The body of an upstream.
    pub(super) fn relayed(mut body: RelayedBody<Relay>) -> Self {
        if body.is_at_end() {
            body.complete();
        }
        Self(BodyKind::Relayed(Box::new(body)))
    }
}

impl<B> RelayedBody<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.reader.is_some() || self.mask.is_some() {
                ready!(poll_budget(cx));
            }
            let ending = match self.ending.take() {
                Some(ending) => *ending,
                None => match ready!(Pin::new(&mut self.relay).poll_frame(cx)) {
                    Some(Ok(frame)) => match self.pass_on(frame, cx) {
                        Some(frame) => return Poll::Ready(Some(Ok(frame))),
                        None => continue,
                    },
                    Some(Err(error)) => BodyEnding::Failed(error),
                    None => BodyEnding::End,
                },
            };
            let held = self.mask.as_mut().map(MaskedBody::finish).unwrap_or_default();
            if held.is_empty() {
                return Poll::Ready(self.conclude(ending));
            }
            self.ending = Some(Box::new(ending));
            self.bytes_out += held.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
    }

    /// Reads and masks a frame. Returns the part of it that the caller receives now; `None` if all of it is held back.
    fn pass_on(&mut self, frame: Frame<Bytes>, cx: &mut Context<'_>) -> Option<Frame<Bytes>> {
        let frame = match frame.into_data() {
            Ok(data) => {
                self.read(cx, &data);
                let data = self.masked(data)?;
                self.bytes_out += data.len() as u64;
                Frame::data(data)
            }
            Err(other) => other,
        };
        if self.is_at_end() {
            self.complete();
        }
        Some(frame)
    }

    /// Masks the credentials in a piece. Returns `None` if all bytes are held back.
    fn masked(&mut self, piece: Bytes) -> Option<Bytes> {
        let Some(mask) = &mut self.mask else {
            return Some(piece);
        };
        let was_empty = piece.is_empty();
        let masked = mask.mask(piece);
        if mask.held_bytes() == 0 {
            return Some(masked);
        }
        if self.relay.is_end_stream() {
            return Some([masked, mask.finish()].concat().into());
        }
        Some(masked).filter(|masked| was_empty || !masked.is_empty())
    }

    /// Ends the body after all its bytes have been passed on.
    fn conclude(&mut self, ending: BodyEnding) -> Option<Result<Frame<Bytes>, BodyError>> {
        match ending {
            BodyEnding::End if self.must_be_whole() && !self.is_whole() => {
                self.report_broken();
                self.end(Some(Outcome::UpstreamBroken));
                Some(Err(BodyError::Broken(
                    "the connection closed before the end of the body".to_owned(),
                )))
            }
            BodyEnding::End => {
                self.complete();
                None
            }
            BodyEnding::Failed(error) => {
                // A request that still arrives too slowly is no failure of the upstream.
                let is_callers = matches!(error, BodyError::TooSlow { .. } | BodyError::NoMemory(_));
                if !is_callers && !self.ended_with_event() {
                    self.report_broken();
                }
                self.end(Some(match error {
                    // The last event has been passed on, and only the end of the framing is missing.
                    _ if self.ended_with_event() => Outcome::Complete,
                    BodyError::Idle(_) | BodyError::TooSlow { .. } => Outcome::Idle,
                    BodyError::NoMemory(_) => Outcome::Refused,
                    BodyError::Broken(_) | BodyError::TooLarge { .. } => Outcome::UpstreamBroken,
                }));
                Some(Err(error))
            }
        }
    }

    /// Whether the body has ended and is known to be complete.
    fn is_at_end(&self) -> bool {
        self.relay.is_end_stream() && !self.must_be_whole() && self.held_bytes() == 0 && self.ending.is_none()
    }

    /// The number of bytes that have arrived and that are held back.
    fn held_bytes(&self) -> u64 {
        self.mask.as_ref().map_or(0, |mask| mask.held_bytes() as u64)
    }

    fn size_hint(&self) -> SizeHint {
        match self.must_be_whole() {
            // The relay may know the size of the rest, but not whether the body is complete then.
            true => SizeHint::default(),
            false => match (self.relay.size_hint(), self.held_bytes()) {
                (hint, 0) => hint,
                (hint, held) => hint
                    .exact()
                    .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + held)),
            },
        }
    }
}

impl<B> RelayedBody<B> {
    /// Whether the end of the body is valid only if the content shows that the body is complete.
    fn must_be_whole(&self) -> bool {
        self.delimiter == BodyDelimiter::ConnectionEnd && self.reader.as_ref().is_some_and(ResponseReader::tells_end)
    }

    fn read(&mut self, cx: &mut Context<'_>, data: &Bytes) {
        if let Some(reader) = &mut self.reader {
            let is_long = data.len() >= TIMED;
            let work = ScanWork::begin(if is_long { self.bytes_out } else { 0 });
            match self.pieces_read {
                0 => reader.feed(data),
                _ => self.pieces_read -= 1,
            }
            work.charge(cx, data.len() as u64);
            if let Some(verdict) = self.late_failure.observe(reader) {
                self.report_late(Some(verdict));
            }
            self.record_owner();
        }
    }

    /// Tells the upstream's health about a failure after the first output, at most once for a body. A failure that the
    /// request has caused says nothing about the upstream.
    fn report_late(&mut self, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict.filter(|verdict| verdict.fails_over())
            && let Some(lease) = &mut self.lease
        {
            lease.report(verdict);
            if verdict == Verdict::Failed {
                self.avoid_upstream();
            }
        }
    }

    /// Tells the upstream's health that the upstream has broken the body.
    fn report_broken(&mut self) {
        let verdict = self.late_failure.end_of_broken_body();
        self.report_late(verdict);
    }

    fn record_owner(&mut self) {
        if let (Some(reader), Some(owner)) = (&mut self.reader, &self.owner) {
            owner.record(reader);
        }
    }

    /// Makes the session avoid the upstream, which has failed after a part of the response may have reached the caller.
    fn avoid_upstream(&self) {
        if let (Some(end), Some(lease), Some(session)) = (&self.end, &self.lease, self.session) {
            end.gateway()
                .runtime
                .brakes
                .record_failure_after_output(session, lease.upstream());
        }
    }

    /// Ends the request after the caller has got the whole body.
    fn complete(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.finish();
        }
        let verdict = self.late_failure.end_of_body(self.reader.as_ref());
        self.report_late(verdict);
        self.end(Some(Outcome::Complete));
    }

    /// Ends the request, unless it has ended. If `outcome` is `None`, the caller has disconnected before the end.
    fn end(&mut self, outcome: Option<Outcome>) {
        let Some(end) = self.end.take() else { return };
        if let (Some(Outcome::Complete), Some(lease)) = (outcome, &self.lease) {
            lease.complete();
        }
        if let Some(reader) = &mut self.reader {
            reader.finish();
        }
        self.record_owner();
        let usage = match (&self.reader, &self.owner) {
            (Some(reader), Some(owner)) => owner.final_usage(reader, self.bytes_out),
            (Some(reader), None) => FinalUsage::of_reader(reader, self.bytes_out),
            (None, _) => FinalUsage::NONE,
        };
        let summary = ResponseSummary {
            bytes_out: self.bytes_out,
            usage,
            lease: self.lease.as_ref(),
        };
        end.end(outcome, summary);
    }

    fn is_whole(&mut self) -> bool {
        self.reader.as_mut().is_some_and(|reader| {
            reader.finish();
            reader.is_whole()
        })
    }

    fn ended_with_event(&self) -> bool {
        self.reader.as_ref().is_some_and(ResponseReader::is_terminal)
    }
}

impl<B> Drop for RelayedBody<B> {
    fn drop(&mut self) {
        let verdict = self.late_failure.end();
        self.report_late(verdict);
        // A client may close the connection after the last event and before the last chunk. It then has the whole
        // response.
        let outcome = self.ended_with_event().then_some(Outcome::Complete);
        self.end(outcome);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            BodyKind::Own(body) => Poll::Ready(body.poll_frame().map(Ok)),
            BodyKind::Relayed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Own(body) => body.rest().is_empty(),
            BodyKind::Relayed(body) => body.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Own(body) => SizeHint::with_exact(body.rest().len() as u64),
            BodyKind::Relayed(body) => body.size_hint(),
        }
    }
}
