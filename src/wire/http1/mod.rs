//! HTTP/1.1 on both sides (RFC 9112), polled by the one task that serves the client.
//!
//! A request crosses no task boundary and no channel: the task that reads it from its client writes it to the upstream,
//! and relays the response. Bytes are read into a buffer that the thread's connections share, passed on by reference
//! count and written together; a connection that waits for a request holds nothing of what was read, and little of what
//! was written.

pub(super) mod codec;
pub(super) mod exchange;
pub(super) mod server;

use codec::head_reader as head;

/// The head that `bytes` begin with, and how its body is delimited; `None` where there is none that can be read.
pub fn read_head(bytes: &[u8]) -> Option<(http::Request<()>, super::body::relay::Framing)> {
    let head = head::request(&mut bytes::Bytes::copy_from_slice(bytes)).ok()??;
    Some((head.request, head.framing))
}

/// A head may be this large, in bytes; Codex sends about 2 KB.
pub(super) const MAX_HEAD: usize = 64 << 10;
