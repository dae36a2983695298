//! One answer's body on its way to the client: what delimits it, and how much of it is written at once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, StatusCode, Version, header::CONTENT_LENGTH};
use http_body::Body;
use parking_lot::Mutex;

use crate::wire::{http1::codec::write_buffer::Delimiter, http1::server::connection::Client};

/// Why an answer stopped.
pub(in crate::wire) struct Broken;

/// What of a request its answer depends on.
pub(in crate::wire) struct Asked {
    pub method: Method,
    pub version: Version,
    pub keeps_alive: bool,
}

impl Asked {
    /// Of what was no request.
    pub const UNKNOWN: Self = Self {
        method: Method::GET,
        version: Version::HTTP_11,
        keeps_alive: false,
    };
}

/// One answer's body on its way out.
pub(in crate::wire) struct Sending {
    pub delimiter: Delimiter,
    /// What is left of the length that the head names.
    left: Option<u64>,
    /// The length, where the head does not name it yet.
    pub named_length: Option<u64>,
    pub ends_with_connection: bool,
    /// The client gets no body, whatever there is (RFC 9110 sections 9.3.2 and 15).
    is_mute: bool,
}

impl Sending {
    pub fn new<B: Body>(parts: &http::response::Parts, body: &B, asked: &Asked) -> Self {
        let is_mute =
            asked.method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let named = parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let known = body.size_hint().exact();
        let length = named.or(known).filter(|_| !is_mute);
        let is_open = length.is_none() && !is_mute;
        let is_old = asked.version == Version::HTTP_10;
        Self {
            delimiter: if is_open && !is_old {
                Delimiter::Chunks
            } else {
                Delimiter::Outside
            },
            left: length,
            named_length: known.filter(|_| named.is_none() && !is_mute),
            ends_with_connection: is_open && is_old,
            is_mute,
        }
    }

    pub fn poll<B: Body<Data = Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut Option<B>>,
        client: &Mutex<Client>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let gathered = self.gather(cx, body.as_mut(), client);
            let mut client = client.lock();
            let written = client.poll_write(cx);
            // What was gathered before it broke has left, as far as the client takes it.
            if gathered.is_err() || matches!(written, Poll::Ready(Err(_))) {
                return Poll::Ready(Err(Broken));
            }
            if written.is_ready() && body.is_none() {
                return Poll::Ready(Ok(()));
            }
            let is_waiting = written.is_pending() || matches!(gathered, Ok(Gathered::AllThereIs));
            if is_waiting {
                return match client.poll_gone(cx) {
                    true => Poll::Ready(Err(Broken)),
                    false => Poll::Pending,
                };
            }
        }
    }

    /// Takes as much of the body as there is, up to what is worth one write.
    fn gather<B: Body<Data = Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut Option<B>>,
        client: &Mutex<Client>,
    ) -> Result<Gathered, Broken> {
        while let Some(open) = body.as_mut().as_pin_mut() {
            if client.lock().outbound.is_full() {
                return Ok(Gathered::Enough);
            }
            let frame = if open.is_end_stream() {
                Poll::Ready(None)
            } else {
                open.poll_frame(cx)
            };
            match frame {
                Poll::Pending => return Ok(Gathered::AllThereIs),
                Poll::Ready(None) => {
                    self.end(client)?;
                    // It is over for whoever counts it before the client can send another request.
                    body.set(None);
                }
                Poll::Ready(Some(Err(_))) => return Err(Broken),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        self.push(piece, client)?;
                    }
                }
            }
        }
        Ok(Gathered::Enough)
    }

    fn push(&mut self, piece: Bytes, client: &Mutex<Client>) -> Result<(), Broken> {
        if self.is_mute {
            return Ok(());
        }
        if let Some(left) = &mut self.left {
            // More than was announced would be taken for another answer.
            *left = left.checked_sub(piece.len() as u64).ok_or(Broken)?;
        }
        client.lock().outbound.push(piece, self.delimiter);
        Ok(())
    }

    fn end(&mut self, client: &Mutex<Client>) -> Result<(), Broken> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Broken);
        }
        client.lock().outbound.end(self.delimiter);
        Ok(())
    }
}

enum Gathered {
    AllThereIs,
    Enough,
}
