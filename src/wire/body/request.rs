//! The body of a request, whichever version of HTTP carries it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use hyper::body::{Body as _, Incoming};

use crate::wire::{
    body::relay::{BodyError, Framing, poll_stream},
    http1::server::connection::ClientBody,
    timers::alarm::Alarm,
};

/// The body of a request, as it arrives.
pub struct RequestBody {
    source: Source,
    framing: Framing,
}

enum Source {
    /// There is none, or nothing more of it.
    End,
    /// From a connection of HTTP/1.1.
    Connection(ClientBody),
    /// From a stream of HTTP/2. In a box, as it is the larger one and comes less often.
    Stream(Box<(Incoming, Alarm)>),
}

impl RequestBody {
    pub(in crate::wire) fn of_connection(body: Option<ClientBody>, framing: Framing) -> Self {
        let source = body.map_or(Source::End, Source::Connection);
        Self { source, framing }
    }

    /// A body that came with these `headers`. Its length has been checked against what comes by whoever reads the stream.
    pub(in crate::wire) fn of_stream(body: Incoming, headers: &HeaderMap) -> Self {
        let length = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let (source, framing) = if body.is_end_stream() {
            (Source::End, Framing::None)
        } else {
            let framing = length().map_or(Framing::Chunked, Framing::Length);
            (Source::Stream(Box::new((body, Alarm::default()))), framing)
        };
        Self { source, framing }
    }

    /// How it is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether all of it has been read.
    pub(in crate::wire) fn is_end(&self) -> bool {
        matches!(self.source, Source::End)
    }

    /// The next piece, or `None` at the end; the client may pause for `limit`.
    pub(in crate::wire) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let (piece, is_end) = match &mut self.source {
            Source::End => return Poll::Ready(None),
            Source::Connection(body) => {
                let piece = std::task::ready!(body.poll_data(cx, limit));
                (piece, body.is_end())
            }
            Source::Stream(stream) => {
                let (incoming, alarm) = &mut **stream;
                let piece = std::task::ready!(poll_stream(incoming, alarm, cx, limit));
                (piece, incoming.is_end_stream())
            }
        };
        if is_end || piece.is_none() {
            self.source = Source::End;
        }
        Poll::Ready(piece)
    }
}
