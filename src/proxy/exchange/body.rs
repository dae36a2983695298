//! Response bodies on their way to a caller.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::request_log::{Outcome, RequestLog};
use crate::{
    ids::{Namespace, OwnedKey, UpstreamId},
    scan::ResponseReader,
    state::Lease,
    wire::{BodyError, Relay},
};

/// A response body that keeps its request's log: dropped at the end, or when the caller goes.
pub struct Outgoing(Content);

enum Content {
    /// Of our own; without a log where there was no request.
    Text(Bytes, Option<RequestLog>),
    Stream(Box<Stream>, RequestLog),
}

/// An upstream's body, read as it passes.
pub(in crate::proxy) struct Stream {
    pub relay: Relay,
    pub reader: Option<ResponseReader>,
    /// How many of the pieces that are still to pass have been read before.
    pub pieces_read: usize,
    /// Where the response that passes belongs.
    pub learn: Option<Learn>,
    /// The body ends where its connection ends, so that only what it says tells whether it is whole.
    pub must_be_whole: bool,
    /// The place at the upstream, given back with the body.
    pub lease: Option<Lease>,
}

/// Whose response this is.
pub(in crate::proxy) struct Learn {
    pub namespace: Namespace,
    pub upstream: UpstreamId,
    /// The response's id is known.
    pub has_id: bool,
}

impl Outgoing {
    /// A body of our own.
    pub(in crate::proxy) fn text(text: impl Into<Bytes>, log: Option<RequestLog>) -> Self {
        Self(Content::Text(text.into(), log))
    }

    /// An upstream's body.
    pub(in crate::proxy) fn stream(stream: Stream, mut log: RequestLog) -> Self {
        if stream.is_end() {
            log.outcome = Some(Outcome::Complete);
        }
        Self(Content::Stream(Box::new(stream), log))
    }
}

impl Stream {
    fn observe(&mut self, data: &Bytes, log: &RequestLog) {
        if let Some(reader) = &mut self.reader {
            match self.pieces_read {
                0 => reader.feed(data),
                _ => self.pieces_read -= 1,
            }
            self.learn(log);
        }
    }

    fn complete(&mut self, log: &mut RequestLog) {
        log.outcome = Some(Outcome::Complete);
        if let Some(reader) = &mut self.reader {
            reader.finish();
            self.learn(log);
        }
        self.count(log);
    }

    /// Counts what the request has used, as far as is known: once, when nothing more is learnt.
    fn count(&mut self, log: &mut RequestLog) {
        let Some(reader) = self.reader.take() else { return };
        match reader.usage() {
            Some(usage) => log.used(usage, self.lease.as_ref()),
            None if reader.is_stream() => log.used_unknown(),
            None => {}
        }
    }

    /// Remembers whose response this is, and whose the encrypted items in it are, as they become known.
    fn learn(&mut self, log: &RequestLog) {
        let (Some(reader), Some(learn)) = (&mut self.reader, &mut self.learn) else {
            return;
        };
        let gateway = log.gateway();
        let remember = |key| {
            gateway
                .runtime
                .owners
                .confirm(key, None, learn.upstream, gateway.clock.now())
        };
        for content in reader.take_encrypted() {
            remember(OwnedKey::from_encrypted_content(learn.namespace, content));
        }
        if !learn.has_id
            && let Some(id) = reader.response_id()
        {
            remember(OwnedKey::from_response_id(learn.namespace, id));
            learn.has_id = true;
        }
    }

    /// Whether nothing more will come, and what came is all.
    fn is_end(&self) -> bool {
        self.relay.is_end_stream() && !self.must_be_whole
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

    fn poll(&mut self, cx: &mut Context<'_>, log: &mut RequestLog) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.relay).poll_frame(cx));
        let frame = match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    log.bytes_out += data.len() as u64;
                    self.observe(data, log);
                }
                if self.is_end() {
                    self.complete(log);
                }
                Some(Ok(frame))
            }
            None if self.must_be_whole && !self.is_whole() => {
                log.outcome = Some(Outcome::UpstreamBroken);
                Some(Err(BodyError::Broken(
                    "the connection closed before the end".to_owned(),
                )))
            }
            None => {
                self.complete(log);
                None
            }
            Some(Err(error)) => {
                log.outcome = Some(match error {
                    // The last event has passed; only the framing is missing.
                    _ if self.ended_with_event() => Outcome::Complete,
                    BodyError::Idle(_) => Outcome::Idle,
                    BodyError::Broken(_) | BodyError::TooLarge { .. } => Outcome::UpstreamBroken,
                });
                Some(Err(error))
            }
        };
        Poll::Ready(frame)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Content::Text(text, _) if text.is_empty() => Poll::Ready(None),
            Content::Text(text, log) => {
                let text = std::mem::take(text);
                if let Some(log) = log {
                    log.bytes_out += text.len() as u64;
                    log.outcome.get_or_insert(Outcome::Complete);
                }
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Content::Stream(stream, log) => stream.poll(cx, log),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Text(text, _) => text.is_empty(),
            Content::Stream(stream, _) => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Text(text, _) => SizeHint::with_exact(text.len() as u64),
            // How much there is of it may be known by now; whether that is all is not.
            Content::Stream(stream, _) if stream.must_be_whole => SizeHint::default(),
            Content::Stream(stream, _) => stream.relay.size_hint(),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // A client that has read the last event may close before the last chunk: it has everything.
        if let Content::Stream(stream, log) = &mut self.0 {
            if log.outcome.is_none() && stream.ended_with_event() {
                log.outcome = Some(Outcome::Complete);
            }
            stream.count(log);
        }
    }
}
