//! The size limits that HTTP/1.1 and HTTP/2 share.

/// The maximum size of a message head in bytes, on both sides. Codex sends heads of about 2 KB.
pub(in crate::wire) const MAX_HEAD_BYTES: usize = 64 << 10;
